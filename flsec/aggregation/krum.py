import torch
from torch import Tensor

from flsec.aggregation._gram import check_byzantine, check_updates, squared_distances
from flsec.parameters import Count

__all__ = ["krum", "krum_scores"]


def krum(updates: Tensor, num_byzantine: Count, *, unsafe: bool = False) -> Tensor:
    """Return the update closest to its n - f - 2 nearest neighbours.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 3.
        unsafe: compute also where n is too small for the guarantee, with max(1, n - f - 2) neighbours; as Flower's own
            Krum does with n = 3, f = 1. Hostile rows can then win.

    Returns:
        (d,): a copy of one row, with the dtype and device of ``updates``. Of equal scores the first row wins, as
        the paper says.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 3 and not ``unsafe``.

    Invariant to row order (ties aside); equivariant to shift, scale and rotation. Rows that hold NaN or infinity are
    never returned while there are at most f of them. O(n^2 d) time, O(n^2) extra memory.

    Example:
        >>> krum(torch.tensor([[0.0], [0.1], [0.15], [0.2], [9.0]]), num_byzantine=1)
        tensor([0.1500])

    Source: Blanchard et al., NeurIPS 2017, Sec. 4; the score sums squared L2 distances.
    """
    winner = int(krum_scores(updates, num_byzantine, unsafe=unsafe).argmin())
    return updates[winner].detach().clone()


def krum_scores(updates: Tensor, num_byzantine: Count, *, unsafe: bool = False) -> Tensor:
    """Return each row's Krum score: the sum of squared distances to its n - f - 2 nearest other rows.

    Args:
        updates: (n, d), floating point. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 3.
        unsafe: compute also where n is too small for the guarantee, with max(1, n - f - 2) neighbours; as Flower's own
            Krum does with n = 3, f = 1. Hostile rows can then win.

    Returns:
        (n,) float64, low is good. Rows that hold NaN or infinity score infinity.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 3 and not ``unsafe``.

    Example:
        >>> krum_scores(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), num_byzantine=0)
        tensor([ 5.,  2.,  5., 25.], dtype=torch.float64)

    Source: Blanchard et al., NeurIPS 2017, Sec. 4.
    """
    check_byzantine("krum", check_updates(updates, "krum"), num_byzantine, factor=2, unsafe=unsafe)
    return scores_from_distances(squared_distances(updates), num_byzantine)


def scores_from_distances(distances: Tensor, num_byzantine: int) -> Tensor:
    """Return the (n,) Krum scores from an (n, n) matrix of squared distances, which is not modified.

    Who calls it has checked that n is enough, or knows that it is not: one neighbour counts at least, where there is
    one.
    """
    n = distances.shape[0]
    neighbours = min(n - 1, max(1, n - num_byzantine - 2))
    others = distances.clone().fill_diagonal_(torch.inf)
    return others.topk(neighbours, dim=1, largest=False).values.sum(dim=1)
