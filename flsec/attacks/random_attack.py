"""The random attack: a model of random weights."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from flsec.attacks._upload import Array, upload
from flsec.parameters import Positive, check_parameters

__all__ = ["random_attack"]


def random_attack(
    global_params: Sequence[Array],
    local_params: Sequence[Array],
    *,
    scale: Positive = 1.0,
    distribution: Literal["uniform", "gaussian"] = "uniform",
    generator: np.random.Generator,
) -> list[Array]:
    """Return a model of independent random weights; ``gaussian_attack`` draws the update instead.

    Args:
        global_params: the model that the client got from the server. Not modified.
        local_params: the honest upload, same shapes. Not modified.
        scale: weights are uniform on [-scale, scale], or Gaussian with mean 0 and standard deviation ``scale``.
        distribution: which of the two.
        generator: source of randomness.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ, or a parameter is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> [w] = random_attack([np.zeros(1000)], [np.ones(1000)], scale=0.5, generator=rng)
        >>> bool(abs(w).max() <= 0.5)
        True

    Source: FedMLSecurity, Sec. 3.1, Byzantine attack, random mode; the paper does not name a distribution.
    """
    check_parameters(random_attack, {"scale": scale, "distribution": distribution}, name="random_attack")

    def draw(w_g: Array, w_l: Array) -> Any:
        if distribution == "uniform":
            return generator.uniform(-scale, scale, size=w_l.shape)
        return generator.normal(0.0, scale, size=w_l.shape)

    return upload(global_params, local_params, draw)
