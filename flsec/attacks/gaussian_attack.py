"""The Gaussian attack: noise in place of the update."""

from collections.abc import Sequence

import numpy as np

from flsec.attacks._upload import Array, upload
from flsec.parameters import Positive, check_parameters

__all__ = ["gaussian_attack"]


def gaussian_attack(
    global_params: Sequence[Array],
    local_params: Sequence[Array],
    *,
    std: Positive = 1.0,
    generator: np.random.Generator,
) -> list[Array]:
    """Return w_g + N(0, std^2): the update is noise and owes nothing to the client's data.

    Args:
        global_params: w_g, the model that the client got from the server. Not modified.
        local_params: the honest upload, same shapes. Not modified.
        std: standard deviation of each coordinate of the update.
        generator: source of randomness.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ, or ``std`` is not positive.

    Example:
        >>> [w] = gaussian_attack([np.full(9999, 5.0)], [np.zeros(9999)], generator=np.random.default_rng(0))
        >>> round(float(w.mean())), round(float(w.std()))
        (5, 1)

    Source: FedInv, "Evaluated Poisoning Attacks": updates from the unit-variance Gaussian distribution.
    """
    check_parameters(gaussian_attack, {"std": std}, name="gaussian_attack")
    return upload(global_params, local_params, lambda w_g, w_l: w_g + generator.normal(0.0, std, size=w_g.shape))
