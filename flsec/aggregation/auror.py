"""Auror: coordinates in which rows fall into two groups tell who is often in the smaller one."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._device import device_of_blocks
from flsec.aggregation._gram import check_updates, float64_blocks, row_norms
from flsec.aggregation._two_means import two_means
from flsec.errors import ConfigError
from flsec.parameters import Positive

__all__ = ["Unit", "auror_suspicions"]

Unit = Literal["spread", "parameters"]

_FEWEST = 3  # rows that can be told into more and fewer


class Counts(NamedTuple):
    """How often n rows were in the smaller group."""

    suspected: Tensor  # (n,) int64: in how many indicative coordinates
    indicative: int  # how many coordinates are


@torch.no_grad()
def auror_suspicions(updates: Tensor, min_distance: Positive = 6.0, unit: Unit = "spread") -> Tensor:
    """Return in which share of the indicative coordinates each row is in the smaller of two groups.

    The values of a coordinate are cut into two groups by 2-means. It is indicative if the groups' means lie at least
    ``min_distance`` apart and one group is smaller than the other.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        min_distance: alpha > 0.
        unit: what alpha is measured in. ``"parameters"``: in parameters, as in the paper, whose value belongs to its
            data and learning rate. ``"spread"``: in standard deviations within the groups. Values that are spread like
            a bell are cut into halves 2.7 of these apart; with few rows, chance takes the groups farther apart.

    Returns:
        (n,) float64 in [0, 1], low is good; 0 for all where no coordinate is indicative or n < 3, 1 for rows that hold
        NaN or infinity.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or a setting is out of range.

    Follows the order of rows; invariant to shift, and, with ``"spread"``, to a factor of each coordinate. The cut is
    exact, not k-means from random starts. O(n d log n) time, O(n + block) memory.

    Example:
        >>> rows = torch.tensor([[0.0, 1.0], [0.1, 1.1], [0.2, 1.3], [0.1, 0.9], [5.0, 1.2]])
        >>> auror_suspicions(rows)
        tensor([0., 0., 0., 0., 1.], dtype=torch.float64)

    Source: Shen, Tople and Saxena, "Auror: Defending against Poisoning Attacks in Collaborative Deep Learning Systems",
        ACSAC 2016. Chosen here: alpha in spreads, so that one value serves all coordinates and models.
    """
    check_updates(updates, "auror_suspicions")
    if not 0 < min_distance < math.inf or unit not in ("spread", "parameters"):
        raise ConfigError(
            "auror_suspicions needs 0 < min_distance < inf and unit 'spread' or 'parameters'; got "
            f"min_distance={min_distance}, unit={unit!r}. Try 6.0 and 'spread'."
        )
    finite = row_norms(updates).isfinite()
    counts = auror_counts(updates, finite.nonzero().flatten(), min_distance, unit)
    return torch.where(finite, counts.suspected.double() / max(1, counts.indicative), 1.0)


def auror_counts(updates: Tensor, rows: Tensor, min_distance: float, unit: Unit) -> Counts:
    """Return how often each of the (n,) rows was in the smaller group; the others are not read, and count 0."""
    suspected = torch.zeros(len(updates), dtype=torch.int64, device=updates.device)
    indicative = 0
    if len(rows) < _FEWEST:
        return Counts(suspected, 0)
    for _, block in float64_blocks(updates, rows, device=device_of_blocks(updates)):
        smaller = _smaller_groups(block.T, min_distance, unit)
        suspected[rows] += smaller.sum(dim=0).to(suspected)
        indicative += int(smaller.any(dim=1).sum())
    return Counts(suspected, indicative)


def _smaller_groups(values: Tensor, min_distance: float, unit: Unit) -> Tensor:
    """Return the (b, n) mask of the values in the smaller group of each row; all False in rows that do not indicate."""
    n = values.shape[1]
    ordered, order = values.sort(dim=1)
    found = two_means(ordered - ordered[:, n // 2, None])
    lower = torch.arange(n, device=values.device) < found.lower[:, None]
    means = [torch.where(part, ordered, 0).sum(dim=1) / part.sum(dim=1) for part in (lower, ~lower)]
    least = min_distance * (found.parts / n).sqrt() if unit == "spread" else values.new_tensor(min_distance)
    distance = means[1] - means[0]
    indicates = (distance >= least) & (distance > 0) & (2 * found.lower != n)
    smaller = torch.where((2 * found.lower < n)[:, None], lower, ~lower) & indicates[:, None]
    return torch.zeros_like(smaller).scatter_(1, order, smaller)
