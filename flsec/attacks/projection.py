"""Projection of an upload onto a ball around the global model."""

from collections.abc import Sequence

import numpy as np

from flsec.attacks._upload import Array, upload
from flsec.parameters import Positive, check_parameters

__all__ = ["project_upload"]


def project_upload(global_params: Sequence[Array], local_params: Sequence[Array], *, max_norm: Positive) -> list[Array]:
    """Return the model closest to the local one whose update has an L2 norm of at most L: w_g + CLIP(w_l - w_g).

    An attacker who knows the server's clipping bound does this, so that clipping finds nothing to cut.

    Args:
        global_params: w_g, the model that the client got from the server. Not modified.
        local_params: w_l, same shapes. Not modified.
        max_norm: L, over all floating arrays together.

    Returns:
        New arrays with the shapes and dtypes of ``local_params``; those that are not floating are copied from there.

    Raises:
        ConfigError: the shapes differ, or ``max_norm`` is not positive.

    Example:
        >>> project_upload([np.array([1.0, 1.0])], [np.array([7.0, 9.0])], max_norm=5.0)
        [array([4., 5.])]

    Source: Wang et al., "Attack of the Tails", NeurIPS 2020, Sec. 3 (PGD); Sun et al., "Can You Really Backdoor
    Federated Learning?", 2019 (norm-constrained attack).
    """
    check_parameters(project_upload, {"max_norm": max_norm}, name="project_upload")
    squares = [
        np.square(np.abs(_wide(w_l) - w_g)).sum()
        for w_g, w_l in zip(global_params, local_params, strict=False)
        if w_l.dtype.kind in "fc" and np.shape(w_g) == w_l.shape  # other shapes are refused below
    ]
    norm = float(np.sqrt(sum(squares)))
    factor = max_norm / norm if norm > max_norm else 1.0
    return upload(global_params, local_params, lambda w_g, w_l: w_g + factor * (_wide(w_l) - w_g))


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
