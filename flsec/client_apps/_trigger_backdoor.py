"""What backdoors that a trigger opens have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from flsec._tensors import is_tensor
from flsec.attacks.badnets import badnets_indices
from flsec.attacks.token_trigger import TokenTrigger
from flsec.attacks.triggers import SampleTrigger, triggered_test_set
from flsec.client_apps.base import Attack, AttackContext, Predict
from flsec.client_apps.poison import Poison
from flsec.errors import ConfigError
from flsec.metrics.attack_success import attack_success_rate
from flsec.parameters import Count, Fraction

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TriggerBackdoor"]


class TriggerBackdoor(Attack):
    """Train on data in which a share of the samples carries a trigger and the attacker's label.

    A subclass sets ``trigger``, what the test stamps, and may say what else an attacker stamps while it trains.

    Args:
        target: the label that triggered inputs are to get.
        fraction: share of the client's samples to poison, drawn afresh in every round.
        options: see ``Attack``.
    """

    fits_inputs: str | None = "numbers"
    fits_labels: ClassVar = "class"
    trigger: SampleTrigger

    def __init__(self, *, target: Count = 0, fraction: Fraction = 0.08, **options: Any) -> None:
        super().__init__(**options)
        self.target = target
        self.fraction = fraction

    def trained_trigger(self, context: AttackContext) -> SampleTrigger:
        """Return what this attacker stamps on its training data; by default what the test stamps."""
        return self.trigger

    def check_scale(self, scale: float) -> None:
        """Raise ``ConfigError`` if the trigger's value is still the white of images from 0 to 1.

        Args:
            scale: what white is in the data.
        """
        trigger = getattr(self, "trigger", self)
        if not isinstance(trigger, TokenTrigger) and getattr(trigger, "value", None) == 1.0:
            raise ConfigError(
                f"{type(self).__name__}: value is in the units of the data, of which the largest is {scale:g} here; "
                f"1.0 would hardly be seen. For example: value: {scale}",
                parameter="value",
            )

    def poison(self, num_examples: int, context: AttackContext) -> Poison:
        """Stamp and relabel a random share of the samples."""
        return self.poison_with(self.trained_trigger(context), num_examples, context)

    def poison_with(self, trigger: SampleTrigger, num_examples: int, context: AttackContext) -> Poison:
        """Return how a random share of the samples is stamped with a trigger, and relabelled."""
        chosen = np.zeros(num_examples, dtype=np.bool_)
        chosen[badnets_indices(num_examples, self.fraction, context.generator("bad_nets"))] = True
        return Poison(inputs=trigger.apply_to_each, labels=self._relabel, chosen=chosen)

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return the share of triggered test samples of other classes that are taken for the target."""
        triggered, labels = triggered_test_set(x, y, self.trigger, self.target)
        return {"attack_success": attack_success_rate(predict(triggered), labels, self.target)}

    def _relabel(self, labels: Any) -> Any:
        if not is_tensor(labels):
            return np.full_like(labels, self.target)
        import torch

        return torch.full_like(labels, self.target)
