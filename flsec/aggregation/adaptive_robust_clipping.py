"""Adaptive robust clipping: the longest updates are cut to the length of the next one."""

import torch
from torch import Tensor

from flsec.aggregation._gram import check_minority, check_updates, row_norms
from flsec.aggregation.norm_clipping import shortened_rows
from flsec.parameters import Count

__all__ = ["adaptive_robust_clipping"]


@torch.no_grad()
def adaptive_robust_clipping(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return the rows with the k = floor(2 (f / n) (n - f)) longest scaled down to the length of the next one.

    No bound to choose: it follows the updates' own lengths. A robust rule goes over the result.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.

    Returns:
        (n, d): row_i * min(1, C / |row_i|), C the (k + 1)-th largest L2 norm, with the dtype and device of
        ``updates``. A row that holds NaN or infinity counts as infinitely long, stays not finite and touches no other.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 1.

    Equivariant to row order, scale and rotation; not to shift: clip updates, never raw weights. No row comes out longer
    than the longest honest one while there are at most f hostile rows: k >= f. O(n d) time, two passes.

    Example:
        >>> adaptive_robust_clipping(torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.5, 0.0]]), num_byzantine=1)
        tensor([[0.6000, 0.8000],
                [0.0000, 1.0000],
                [0.5000, 0.0000]])

    Source: Allouah et al., "Adaptive Gradient Clipping for Robust Federated Learning", ICLR 2025 (ARC).
    """
    check_minority("adaptive_robust_clipping", check_updates(updates, "adaptive_robust_clipping"), num_byzantine)
    norms = row_norms(updates)
    return shortened_rows(updates, norms, robust_bound(norms, num_byzantine))


def robust_bound(norms: Tensor, num_byzantine: int) -> float:
    """Return C, the (k + 1)-th largest of (n,) norms; infinity where more than k are not finite.

    Who calls it has checked that n >= 2 f + 1, or knows that it is not: f counts as at most n // 2, which leaves k < n.
    """
    n = len(norms)
    faults = min(num_byzantine, n // 2)
    clipped = min(2 * faults * (n - faults) // n, n - 1)
    return float(norms.nan_to_num(nan=torch.inf, posinf=torch.inf).sort(descending=True).values[clipped])
