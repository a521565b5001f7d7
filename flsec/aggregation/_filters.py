"""What filters have in common: who is kept, the clipped mean of these, cosine distances, clusters, and z-scores."""

from typing import NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._gram import weighted_sum

__all__ = [
    "Filtered",
    "clipping_factors",
    "cosine_distances",
    "largest_cluster",
    "magnitude_of_rank",
    "median_norm",
    "median_z_scores",
    "on_finite_rows",
]

_SAME = 1e-12  # cosine distances below this are those of float32 rounding
_FEWEST = 3  # values of which one can be unusual
_NO_SPREAD = 1e-6  # of the largest value: a standard deviation below it is that of rounding


class Filtered(NamedTuple):
    """What a filter decided about n rows."""

    kept: Tensor  # (n,) bool
    factors: Tensor  # (n,) float64 in [0, 1]: what a kept row is multiplied by before the mean
    scores: Tensor  # (n,) float64; not a number where there is none
    norms: Tensor  # (n,) float64, before clipping
    max_norm: float  # the norm that kept rows are clipped to

    def shares(self, trust: Tensor | None = None) -> Tensor:
        """Return the (n,) float64 weights of the rows in the clipped mean; 0 for all where nobody is kept.

        Args:
            trust: (n,) weights at least 0 before clipping; equal weights where it is None, or 0 for all that are kept.
        """
        weights = self.kept.double() if trust is None or not bool((trust * self.kept).any()) else trust * self.kept
        return torch.where(self.kept, self.factors * weights / weights.sum().clamp(min=1e-300), 0)

    def mean(self, updates: Tensor) -> Tensor:
        """Return the (d,) mean of the rows kept, after clipping; zero where nobody is kept."""
        return weighted_sum(updates, self.shares())


def median_norm(norms: Tensor) -> float:
    """Return the median of the finite norms, the mean of the two in the middle; 0 of none."""
    finite = norms[norms.isfinite()]
    return float(finite.quantile(0.5)) if len(finite) else 0.0


def clipping_factors(norms: Tensor, max_norm: float) -> Tensor:
    """Return min(1, L / |u_i|); 1 for a zero row, whatever L."""
    return torch.where(norms > max_norm, max_norm / norms, 1.0)


def cosine_distances(products: Tensor) -> Tensor:
    """Return the (n, n) distances 1 - cos of finite rows from their inner products.

    A zero row has the distance 1 to all others. Rows that point the same way but for rounding have the distance 0.
    """
    squares = products.diagonal()
    scales = torch.where(squares > 0, squares, torch.inf).rsqrt()
    distances = (1 - products * scales[:, None] * scales[None, :]).clamp_(0, 2).fill_diagonal_(0)
    return torch.where(distances < _SAME, 0, distances)


def median_z_scores(values: Tensor) -> Tensor:
    """Return |x - median| over the standard deviation (of all, not of a sample).

    0 for all where nothing varies, and of fewer than 3: two values are always one deviation from their median.

    Args:
        values: (n,) float64, finite.
    """
    if len(values) < _FEWEST:
        return torch.zeros_like(values)
    spread = values.std(correction=0)
    if not bool(spread > _NO_SPREAD * values.abs().max()):
        return torch.zeros_like(values)
    return (values - values.quantile(0.5)).abs() / spread


def magnitude_of_rank(row: Tensor, rank: int) -> Tensor:
    """Return the magnitude that ``rank`` entries of a (d,) row reach or exceed: its largest for rank 1."""
    return row.abs().kthvalue(len(row) - rank + 1).values


def largest_cluster(labels: Tensor, norms: Tensor) -> Tensor:
    """Return the (n,) mask of the largest cluster; of equally large ones, that of the smaller mean norm.

    Rows that do harm need size, and so the order of the rows does not decide.

    Args:
        labels: (n,) integers.
        norms: (n,) finite.
    """
    distinct: Tensor = labels.unique()  # type: ignore[no-untyped-call]
    masks: list[Tensor] = [labels == label for label in distinct]
    return max(masks, key=lambda mask: (int(mask.sum()), -float(norms[mask].mean())))


def on_finite_rows(finite: Tensor, values: Tensor) -> Tensor:
    """Return the (n,) values of all rows from those of the finite ones; False or NaN for the others."""
    nothing = False if values.dtype == torch.bool else torch.nan
    everywhere = torch.full(finite.shape, nothing, dtype=values.dtype, device=values.device)
    everywhere[finite] = values
    return everywhere
