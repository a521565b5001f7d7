"""Divide and conquer (DnC)."""

import math

import torch
from torch import Tensor

from flsec.aggregation._directions import usable_products, widest_direction
from flsec.aggregation._gram import check_updates, is_whole, robust_gram, row_norms
from flsec.aggregation._subsets import check_minority, mean_of_rows
from flsec.errors import ConfigError
from flsec.parameters import Count, Positive, PositiveCount
from flsec.randomness import generator

__all__ = ["divide_and_conquer"]


def divide_and_conquer(
    updates: Tensor,
    num_byzantine: Count,
    num_iterations: PositiveCount = 1,
    subsample: PositiveCount = 10_000,
    filter_fraction: Positive = 1.0,
    seed: int = 0,
    round: Count = 1,
) -> Tensor:
    """Return the mean of the updates that are never among those farthest along the direction of largest variance.

    Each iteration draws coordinates, finds the top right singular vector v of the centred rows in these coordinates,
    and drops the c f rows of the largest scores <u_i - mean, v>^2. Rows that no iteration drops are averaged.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.
        num_iterations: how often coordinates are drawn.
        subsample: how many are drawn; where d is not more, all are taken and one iteration does.
        filter_fraction: c, in units of f: ceil(c f) rows are dropped in an iteration, fewer than n.
        seed: seed of the run. Who knows it knows the coordinates.
        round: the server's round. The coordinates depend on seed, round and d alone, not on what was drawn before.

    Returns:
        (d,), with the dtype and device of ``updates``. Of equal scores the last rows are dropped.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n < 2 f + 1, ceil(c f) >= n, or a setting is out of its
            range.

    Where every row is dropped by some iteration, which the paper leaves open, those dropped least often are averaged.

    Invariant to row order (ties aside); equivariant to shift and scale, and to rotation where all coordinates are
    taken. Rows that hold NaN or infinity never enter. f rows of any size along one line are dropped with c = 1; one
    iteration looks along one direction only, so that rows far out in several can cover for each other.

    Example:
        >>> divide_and_conquer(torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]]), num_byzantine=1)
        tensor([0.1500])

    Source: Shejwalkar and Houmansadr, "Manipulating the Byzantine", NDSS 2021, Sec. VI, Algorithm 2.
    """
    n = check_updates(updates, "divide_and_conquer")
    check_minority("divide_and_conquer", n, num_byzantine)
    if not all(is_whole(count) and count >= 1 for count in (num_iterations, subsample)):
        raise ConfigError(
            "divide_and_conquer needs a whole num_iterations >= 1 and subsample >= 1; got "
            f"num_iterations={num_iterations}, subsample={subsample}. 1 and 10000 are a common start."
        )
    if not 0 < filter_fraction < math.inf or num_dropped(num_byzantine, filter_fraction) >= n:
        raise ConfigError(
            "divide_and_conquer needs filter_fraction > 0 and n > filter_fraction * num_byzantine; got filter_fraction="
            f"{filter_fraction}, num_byzantine={num_byzantine}, n={n}. 1.0 drops num_byzantine rows."
        )
    dropped = num_dropped(num_byzantine, filter_fraction)
    return mean_of_rows(updates, rows_kept(updates, dropped, num_iterations, subsample, seed, round))


def num_dropped(num_byzantine: int, filter_fraction: float) -> int:
    """Return ceil(c f), how many rows an iteration drops."""
    return math.ceil(filter_fraction * num_byzantine - 1e-9)  # 1.1 * 10 is 11.000000000000002


def rows_kept(updates: Tensor, dropped: int, num_iterations: int, subsample: int, seed: int, round: int) -> Tensor:
    """Return the sorted numbers of the finite rows that are dropped least often; all where none is finite.

    Args:
        updates: (n, d).
        dropped: how many rows an iteration drops, fewer than n.
        num_iterations: as for ``divide_and_conquer``.
        subsample: as for ``divide_and_conquer``.
        seed: as for ``divide_and_conquer``.
        round: as for ``divide_and_conquer``.
    """
    n, d = updates.shape
    finite = row_norms(updates).isfinite().cpu()
    if not bool(finite.any()):
        return torch.arange(n, device=updates.device)
    source = generator(seed, round, purpose="divide_and_conquer")
    times_dropped = torch.zeros(n, dtype=torch.int64)
    for _ in range(num_iterations if d > subsample else 1):
        columns = torch.randperm(d, generator=source)[:subsample].sort().values.to(updates.device)
        scores = _scores(updates.detach()[:, columns], finite)
        times_dropped[scores.argsort(stable=True)[n - dropped :]] += 1
    least = times_dropped[finite].min()
    return (finite & (times_dropped == least)).nonzero().flatten().to(updates.device)


def _scores(sample: Tensor, finite: Tensor) -> Tensor:
    """Return the (n,) scores of rows in some coordinates, in units of the largest; infinite where not ``finite``."""
    present, known = usable_products(robust_gram(sample)[0])
    counted = present & finite
    if not bool(counted.any()):
        return torch.full(counted.shape, torch.inf, dtype=torch.float64)
    _, along = widest_direction(known, counted.double())
    return torch.where(counted, along.square(), torch.inf)
