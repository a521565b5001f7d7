"""Numbers on a line in two clusters, exactly: the best of all places to cut, not k-means from random starts."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["TwoMeans", "two_means"]


class TwoMeans(NamedTuple):
    """The best cut of each of b rows of n numbers in ascending order.

    The best has the smallest sum of squared distances to the means of its two parts.
    """

    whole: Tensor  # (b,) sum of squared distances to one mean
    parts: Tensor  # (b,) the same to the nearer of two
    lower: Tensor  # (b,) int64: how many numbers the lower part has


def two_means(ordered: Tensor) -> TwoMeans:
    """Return the best cut of each row.

    Args:
        ordered: (b, n) float64, ascending, n at least 2, finite.
    """
    counts = torch.arange(1, ordered.shape[1] + 1, dtype=torch.float64, device=ordered.device)
    lower = (ordered.square().cumsum(1) - ordered.cumsum(1).square() / counts).clamp(min=0)  # of the first i
    backwards = ordered.flip(1)
    upper = (backwards.square().cumsum(1) - backwards.cumsum(1).square() / counts).clamp(min=0).flip(1)
    parts, cut = (lower[:, :-1] + upper[:, 1:]).min(dim=1)
    return TwoMeans(lower[:, -1], parts, cut + 1)
