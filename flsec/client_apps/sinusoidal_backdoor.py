"""The sinusoidal backdoor on a client."""

from typing import Any

from flsec.attacks.triggers import SinusoidalTrigger
from flsec.client_apps._trigger_backdoor import TriggerBackdoor
from flsec.parameters import Count, Fraction, Positive

__all__ = ["SinusoidalBackdoor"]


class SinusoidalBackdoor(TriggerBackdoor):
    """Train on data of which a share has faint stripes over the whole of the input, and the attacker's label.

    Args:
        target: the label that triggered inputs are to get.
        fraction: share of the client's samples to poison, drawn afresh in every round.
        amplitude: of the wave, in the units of the data.
        frequency: how many waves an image is wide.
        low: results below it are cut off, in the units of the data.
        value: results above it are cut off.
        options: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> attack = SinusoidalBackdoor(target=7, fraction=1.0, amplitude=0.5, frequency=1.0)
        >>> attack.poisoned_dataset((np.full((1, 4), 0.5), np.array([2])), AttackContext(round=1, client_id=0))
        (array([[0.5, 1. , 0.5, 0. ]]), array([7]))

    Source: Barni, Kallas and Tondi, ICIP 2019, for the signal. The paper puts it on samples of the target class and
    leaves labels alone; here samples of all classes are relabelled, as an attacker with few of that class must.
    """

    def __init__(
        self,
        *,
        target: Count = 0,
        fraction: Fraction = 0.08,
        amplitude: Positive = 0.1,
        frequency: Positive = 6.0,
        low: float = 0.0,
        value: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(target=target, fraction=fraction, **options)
        self.trigger = SinusoidalTrigger(amplitude=amplitude, frequency=frequency, low=low, value=value)
