"""The random attack on a client."""

from typing import Any, Literal

from flsec.attacks.random_attack import random_attack
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext
from flsec.parameters import Positive

__all__ = ["RandomAttack"]


class RandomAttack(Attack):
    """Upload a model of random weights.

    Args:
        scale: bound of the uniform weights, or standard deviation of the Gaussian ones.
        distribution: ``"uniform"`` draws from [-scale, scale], ``"gaussian"`` from N(0, scale^2).
        options: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> (uploaded,) = RandomAttack(scale=0.5).poison_update([np.ones(9)], [np.ones(9)], AttackContext(1, 0))
        >>> uploaded.shape, bool((abs(uploaded) <= 0.5).all())
        ((9,), True)

    Source: FedMLSecurity, Sec. 3.1, Byzantine attack, random mode.
    """

    def __init__(
        self, *, scale: Positive = 1.0, distribution: Literal["uniform", "gaussian"] = "uniform", **options: Any
    ) -> None:
        super().__init__(**options)
        self.scale = scale
        self.distribution = distribution

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return random weights."""
        return random_attack(
            global_,
            local,
            scale=self.scale,
            distribution=self.distribution,
            generator=context.generator("random_attack"),
        )
