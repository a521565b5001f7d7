"""MoNNA's rule: the mean of a pivot's nearest neighbours."""

from torch import Tensor

from flsec.aggregation._gram import check_updates, is_whole, squared_distances
from flsec.aggregation._subsets import ball_around, central_row, check_minority, mean_of_rows
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["monna"]


def monna(updates: Tensor, num_byzantine: Count, pivot: Count | None = None) -> Tensor:
    """Return the mean of the n - f updates nearest to a pivot, which is one of them.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.
        pivot: number of a row that is trusted: the paper's aggregator is a worker, and takes its own (ByzFL's default
            is row 0). None, because a server can trust none: the row whose n - f nearest rows lie in the smallest ball
            around it.

    Returns:
        (d,), with the dtype and device of ``updates``. Of equally near rows the first is taken.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n < 2 f + 1, or there is no row ``pivot``.

    Invariant to row order with ``pivot=None`` (ties aside); equivariant to shift, scale and rotation. If two honest
    rows are at most D apart, every row in the mean is within D of the pivot, and with ``pivot=None`` within 2 D of an
    honest row, whatever f hostile rows hold; a hostile row as ``pivot`` takes the mean wherever it likes. Rows that
    hold NaN or infinity never enter while there are at most f of them and none is the pivot. Two passes over memory.

    Example:
        >>> import torch
        >>> monna(torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]]), num_byzantine=1)
        tensor([0.1500])

    Source: Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead", ICML 2023
        (nearest-neighbour averaging). ``pivot=None`` is ours.
    """
    n = check_updates(updates, "monna")
    check_minority("monna", n, num_byzantine)
    if pivot is not None and (not is_whole(pivot) or not 0 <= pivot < n):
        raise ConfigError(f"monna needs a whole 0 <= pivot < n; got pivot={pivot}, n={n}. None trusts no row.")
    distances, count = squared_distances(updates), n - num_byzantine
    centre = central_row(distances, count) if pivot is None else int(pivot)
    return mean_of_rows(updates, ball_around(distances, centre, count))
