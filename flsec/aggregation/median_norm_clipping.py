"""Clipping to the median length of the updates."""

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, row_norms
from flsec.aggregation.norm_clipping import shortened_rows

__all__ = ["median_norm_clipping"]


@torch.no_grad()
def median_norm_clipping(updates: Tensor) -> Tensor:
    """Return every row scaled down to at most the median of the rows' L2 norms; shorter rows are unchanged.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.

    Returns:
        (n, d): row_i * min(1, C / |row_i|), C the median norm, of an even n the mean of the two in the middle; with
        the dtype and device of ``updates``. A row that holds NaN or infinity counts as infinitely long, stays not
        finite and touches no other.

    Raises:
        ConfigError: ``updates`` is no floating matrix.

    Equivariant to row order, scale and rotation; not to shift: clip updates, never raw weights. While fewer than half
    of the rows are hostile, none comes out longer than the longest honest one. O(n d) time, two passes.

    Example:
        >>> median_norm_clipping(torch.tensor([[30.0, 40.0], [0.0, 1.0], [0.5, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000],
                [0.5000, 0.0000]])

    Source: Nguyen et al., FLAME, USENIX Security 2022 (adaptive clipping), where it bounds the admitted updates;
    here it is clipping alone.
    """
    check_updates(updates, "median_norm_clipping")
    norms = row_norms(updates)
    return shortened_rows(updates, norms, median_norm(norms))


def median_norm(norms: Tensor) -> float:
    """Return the median of (n,) norms, of an even n the mean of the two in the middle; NaN counts as infinity."""
    ordered, n = norms.nan_to_num(nan=torch.inf, posinf=torch.inf).sort().values, len(norms)
    return float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2
