"""What the attacks on the uploaded model share."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flsec.errors import ConfigError

Array = NDArray[Any]


def upload(
    global_params: Sequence[Array], local_params: Sequence[Array], formula: Callable[[Array, Array], Any]
) -> list[Array]:
    """Return formula(global, local) for each pair of floating or complex arrays, and a copy of every other local one.

    The result has the shapes and dtypes of ``local_params``, which is what an honest client would send; the global
    model's dtype may differ (a server optimizer can widen it).
    """
    shapes = [[np.shape(array) for array in arrays] for arrays in (global_params, local_params)]
    if shapes[0] != shapes[1]:
        raise ConfigError(
            f"an attack on the uploaded model needs global and local parameters of the same shapes; got {shapes[0]} "
            f"and {shapes[1]}. Pass what the server sent and what the honest client would send back."
        )
    return [
        np.array(formula(w_g, w_l) if w_l.dtype.kind in "fc" else w_l, dtype=w_l.dtype)
        for w_g, w_l in zip(global_params, local_params, strict=True)
    ]
