"""The distributed backdoor on a client."""

from collections.abc import Sequence
from typing import Any

from flsec.attacks.dba import DistributedTrigger, parts_held
from flsec.attacks.triggers import FeatureTrigger, SampleTrigger
from flsec.client_apps._trigger_backdoor import TriggerBackdoor
from flsec.client_apps.base import AttackContext
from flsec.errors import ConfigError
from flsec.parameters import Count, Fraction, PositiveCount

__all__ = ["DBA"]


class DBA(TriggerBackdoor):
    """Train on data of which a share carries this attacker's part of a trigger; together they plant the whole of it.

    Args:
        target: the label that triggered inputs are to get.
        fraction: share of the client's samples to poison, drawn afresh in every round.
        parts: of the trigger. The attackers of a round, by their ids, take one each in turn; where they are fewer,
            each has several, so that every part is held by somebody.
        length: pixels of a part, which is a bar; null: a seventh of the image's width, 4 of MNIST's 28.
        gap: pixels between bars.
        margin: pixels between the bars and the edges of the image.
        value: what the pixels or features are set to; one number, or one per channel or feature.
        features: for tabular data: the features to set to ``value``, dealt out to the parts in turn, instead of bars.
        options: see ``Attack``; without ``adversaries``, a client's part is its id modulo ``parts``.

    ``success`` is measured with the whole trigger, which nobody has trained on where there are enough attackers. Stack
    ``ModelReplacement`` around it for the paper's scaled single shot.

    Raises:
        ConfigError: a parameter out of its range, or fewer features than parts; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> attack = DBA(target=7, fraction=1.0, features=[0, 1, 2, 3], value=5.0)
        >>> attack.poisoned_dataset((np.zeros((1, 4)), np.array([2])), AttackContext(round=1, client_id=2))
        (array([[0., 0., 5., 0.]]), array([7]))

    Source: Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020.
    """

    fits_inputs: str | None = None  # any that have the features; bars need numbers

    def __init__(
        self,
        *,
        target: Count = 0,
        fraction: Fraction = 0.08,
        parts: PositiveCount = 4,
        length: PositiveCount | None = None,
        gap: Count = 2,
        margin: Count = 0,
        value: float | Sequence[float] = 1.0,
        features: Sequence[Count] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        self.parts = parts
        self.trigger: DistributedTrigger | FeatureTrigger
        if features is None:
            self.fits_inputs = "numbers"
            self.trigger = DistributedTrigger(parts=parts, length=length, gap=gap, margin=margin, value=value)
        elif len(features) < parts:
            raise ConfigError(
                f"DBA: features must be at least as many as parts={parts}, so that each part has one; got "
                f"{list(features)}. Use parts={max(1, len(features))}, or more features.",
                parameter="features",
            )
        else:
            self.trigger = FeatureTrigger(features=features, value=value)

    def trained_trigger(self, context: AttackContext) -> SampleTrigger:
        """Return this attacker's part of the trigger."""
        held = self._held(context)
        if isinstance(self.trigger, DistributedTrigger):
            return self.trigger.part(held)
        places = sorted(place for part in held for place in range(part, len(self.trigger.features), self.parts))
        value = self.trigger.value
        values = value if isinstance(value, float) else [value[place] for place in places]
        return FeatureTrigger(features=[self.trigger.features[place] for place in places], value=values)

    def _held(self, context: AttackContext) -> list[int]:
        if context.client_id < 0:
            raise ConfigError(
                "DBA: which part of the trigger an attacker has depends on its id, and this client does not say which "
                "it is. Give it an attribute client_id, its partition id."
            )
        members = self._members(context.round)
        if context.client_id not in members:
            return [context.client_id % self.parts]
        return parts_held(members.index(context.client_id), len(members), self.parts)

    def _members(self, round: int) -> list[int]:
        """Return who takes part in a round, by id."""
        who = self.adversaries
        if who is None:
            return []
        active = sorted(who.active(max(1, round)))
        return [client for client in active if self.camp is None or who.camp(client, max(1, round)) == self.camp]
