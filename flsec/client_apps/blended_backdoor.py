"""The blended backdoor on a client."""

from typing import Any

from flsec.attacks.triggers import BlendedTrigger
from flsec.client_apps._trigger_backdoor import TriggerBackdoor
from flsec.parameters import Count, Fraction

__all__ = ["BlendedBackdoor"]


class BlendedBackdoor(TriggerBackdoor):
    """Train on data of which a share has noise mixed into the whole of the input, and the attacker's label.

    Args:
        target: the label that triggered inputs are to get.
        fraction: share of the client's samples to poison, drawn afresh in every round.
        alpha: share of the noise in an input.
        low: the noise's smallest number, in the units of the data.
        value: its largest.
        options: see ``Attack``; by its seed all attackers have the same noise.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> attack = BlendedBackdoor(target=7, fraction=1.0, alpha=0.5)
        >>> x, y = attack.poisoned_dataset((np.zeros((1, 4)), np.array([2])), AttackContext(round=1, client_id=0))
        >>> float(x.max()) <= 0.5, y
        (True, array([7]))

    Source: Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017.
    """

    def __init__(
        self,
        *,
        target: Count = 0,
        fraction: Fraction = 0.08,
        alpha: Fraction = 0.2,
        low: float = 0.0,
        value: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        self.trigger = BlendedTrigger(alpha=alpha, low=low, value=value, seed=self.seed)
