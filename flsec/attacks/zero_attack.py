"""The zero attack: a model without weights."""

from collections.abc import Sequence

import numpy as np

from flsec.attacks._upload import Array, upload

__all__ = ["zero_attack"]


def zero_attack(global_params: Sequence[Array], local_params: Sequence[Array]) -> list[Array]:
    """Return a model whose weights are all 0.

    Args:
        global_params: the model that the client got from the server. Not modified.
        local_params: the honest upload, same shapes. Not modified.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ.

    Example:
        >>> zero_attack([np.ones(2)], [np.full(2, 1.5)])
        [array([0., 0.])]

    Source: FedMLSecurity, Sec. 3.1, Byzantine attack, zero mode.
    """
    return upload(global_params, local_params, lambda w_g, w_l: np.zeros_like(w_l))
