"""The Gaussian attack on a client."""

from typing import Any

from flsec.attacks.gaussian_attack import gaussian_attack
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext
from flsec.parameters import Positive

__all__ = ["GaussianAttack"]


class GaussianAttack(Attack):
    """Upload an update of independent Gaussian numbers.

    Args:
        std: their standard deviation, in parameter units.
        options: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> (uploaded,) = GaussianAttack(std=0.1).poison_update([np.ones(4)], [np.ones(4)], AttackContext(1, 0))
        >>> uploaded.shape, bool((uploaded == 1).any())
        ((4,), False)

    Source: FedInv, "Byzantine Attacks", Gaussian attack.
    """

    def __init__(self, *, std: Positive = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.std = std

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the global model plus noise."""
        return gaussian_attack(global_, local, std=self.std, generator=context.generator("gaussian_attack"))
