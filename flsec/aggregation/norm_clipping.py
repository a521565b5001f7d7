import math

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, row_norms, scaled_rows
from flsec.errors import ConfigError
from flsec.parameters import Positive

__all__ = ["norm_clipping"]


@torch.no_grad()
def norm_clipping(updates: Tensor, max_norm: Positive) -> Tensor:
    """Return every row scaled down to an L2 norm of at most ``max_norm``; shorter rows are unchanged.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        max_norm: L > 0, in parameter units. SparseFed tries 1, 3, 5 and 10.

    Returns:
        (n, d): row_i * min(1, L / |row_i|), with the dtype and device of ``updates``. A row that holds NaN or infinity
        stays not finite and touches no other row.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or ``max_norm`` is not a positive finite number.

    Equivariant to row order and rotation; not to shift: clip updates, never raw weights.

    Example:
        >>> norm_clipping(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), max_norm=1.0)
        tensor([[0.6000, 0.8000],
                [0.3000, 0.4000]])

    Source: Sun et al., "Can You Really Backdoor Federated Learning?", 2019, Sec. 4 (norm thresholding).
    """
    check_updates(updates, "norm_clipping")
    if not 0 < max_norm < math.inf:
        raise ConfigError(f"norm_clipping needs 0 < max_norm < inf; got max_norm={max_norm}. 5.0 is a common start.")
    return shortened_rows(updates, row_norms(updates), max_norm)


def shortened_rows(updates: Tensor, norms: Tensor, bound: float) -> Tensor:
    """Return the rows of (n, d) updates scaled down to L2 norms of at most ``bound`` >= 0, given their (n,) norms."""
    factors = torch.where(norms > bound, bound / norms, 1.0)  # a row with NaN stays one
    return scaled_rows(updates, factors)
