"""Minimum-diameter averaging."""

import bisect
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from flsec.aggregation._gram import Array, check_updates, squared_distances
from flsec.aggregation._subsets import ball_around, central_row, check_minority, mean_of_rows
from flsec.parameters import Count

__all__ = ["minimum_diameter_averaging"]

EXACT_UP_TO = 12  # f; the search takes some 1.5^f steps a threshold, whatever n is, and at most 2^f where subsets tie


def minimum_diameter_averaging(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return the mean of those n - f updates whose largest pairwise distance is the smallest.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.

    Returns:
        (d,), with the dtype and device of ``updates``. Of several subsets of the smallest diameter, which are common
        (two far rows set it, others can be exchanged), the one with the least sum of squared distances within it.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 1.

    Exact up to f = 12, for any n: a subset of diameter t exists where f rows cover all pairs farther apart than t, and
    such covers are found by branch and bound. Beyond, greedy: the smallest ball of n - f rows that is centred at a row,
    whose diameter is at most twice the smallest.

    Invariant to row order; equivariant to shift, scale and rotation. A hostile row in the subset is no farther from the
    honest rows in it than two honest rows are from each other (twice that where greedy). Rows that hold NaN or
    infinity never enter the mean while there are at most f of them. Two passes over memory.

    Example:
        >>> minimum_diameter_averaging(torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]]), num_byzantine=1)
        tensor([0.1500])

    Source: El Mhamdi, Guerraoui and Rouault, "Distributed Momentum for Byzantine-resilient Stochastic Gradient
        Descent", ICLR 2021 (MDA), after Rousseeuw, "Multivariate Estimation with High Breakdown Point", 1985.
    """
    check_minority("minimum_diameter_averaging", check_updates(updates, "minimum_diameter_averaging"), num_byzantine)
    return mean_of_rows(updates, smallest_diameter(squared_distances(updates), num_byzantine)[0])


def smallest_diameter(distances: Tensor, num_byzantine: int) -> tuple[Tensor, bool]:
    """Return the sorted numbers of the n - f rows of smallest diameter, and whether that is exact.

    Who calls it has checked that n is enough, or knows that it is not: one row is taken at least.

    Args:
        distances: (n, n) squared distances; not modified.
        num_byzantine: f.
    """
    n = distances.shape[0]
    count = max(1, n - num_byzantine)
    if num_byzantine > EXACT_UP_TO:
        return ball_around(distances, central_row(distances, count), count), False
    matrix = distances.cpu().numpy()
    levels = np.unique(matrix)

    def subsets(level: float) -> Iterator[int]:
        return _without_conflicts(_bits(matrix > level), (1 << n) - 1, n - count)

    least = bisect.bisect_left(levels, True, key=lambda level: any(True for _ in subsets(level)))
    candidates = (_closest(matrix, staying, count) for staying in subsets(levels[least]))
    best = min(candidates, key=lambda rows: float(matrix[np.ix_(rows, rows)].sum()))
    return torch.from_numpy(best).to(distances.device), True


def _bits(matrix: Array) -> list[int]:
    """Return each row of a boolean matrix as an integer whose bit j is entry j."""
    return [int.from_bytes(row.tobytes(), "little") for row in np.packbits(matrix, axis=1, bitorder="little")]


def _without_conflicts(conflicts: list[int], staying: int, budget: int) -> Iterator[int]:
    """Yield the largest sets within ``staying`` that hold no conflict and lack at most ``budget`` of it, as bits.

    Of the row in most conflicts, either it goes or all in conflict with it.
    """
    degrees = [(other & staying).bit_count() if staying >> i & 1 else 0 for i, other in enumerate(conflicts)]
    most = max(degrees)
    if most == 0:
        yield staying
    elif sum(degrees) <= 2 * budget * most:  # else too many conflicts for so few rows
        row = degrees.index(most)
        yield from _without_conflicts(conflicts, staying & ~(1 << row), budget - 1)
        if most <= budget:
            yield from _without_conflicts(conflicts, staying & ~conflicts[row], budget - most)


def _closest(matrix: Array, staying: int, count: int) -> Array:
    """Return the sorted ``count`` rows of a set of bits that have the least sum of distances within it."""
    rows = np.array([i for i in range(len(matrix)) if staying >> i & 1])
    sums = matrix[np.ix_(rows, rows)].sum(axis=1)
    return np.sort(rows[sums.argsort(kind="stable")[:count]])
