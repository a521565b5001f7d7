import torch
from torch import Tensor

from flsec.aggregation._gram import check_byzantine, check_updates, is_whole, squared_distances
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount

__all__ = ["krum", "krum_scores"]


def krum(
    updates: Tensor, num_byzantine: Count, *, num_neighbors: PositiveCount | None = None, unsafe: bool = False
) -> Tensor:
    """Return the update closest to its n - f - 2 nearest neighbours.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 3.
        num_neighbors: how many nearest rows count, at most the n - 1 others; None: n - f - 2, for which the paper's
            proof holds. With fewer, a small group of rows that agree scores well.
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
    winner = int(krum_scores(updates, num_byzantine, num_neighbors=num_neighbors, unsafe=unsafe).argmin())
    return updates[winner].detach().clone()


def krum_scores(
    updates: Tensor, num_byzantine: Count, *, num_neighbors: PositiveCount | None = None, unsafe: bool = False
) -> Tensor:
    """Return each row's Krum score: the sum of squared distances to its n - f - 2 nearest other rows.

    Args:
        updates: (n, d), floating point. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 3.
        num_neighbors: how many nearest rows count, at most the n - 1 others; None: n - f - 2, for which the paper's
            proof holds. With fewer, a small group of rows that agree scores well.
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
    check_neighbors("krum", num_neighbors)
    return scores_from_distances(squared_distances(updates), num_byzantine, num_neighbors)


def check_neighbors(rule: str, num_neighbors: int | None) -> None:
    """Raise ``ConfigError`` unless that many neighbours can be counted."""
    if num_neighbors is not None and (not is_whole(num_neighbors) or num_neighbors < 1):
        raise ConfigError(f"{rule} needs a whole num_neighbors of at least 1; got {num_neighbors}. None: n - f - 2.")


def scores_from_distances(distances: Tensor, num_byzantine: int, num_neighbors: int | None = None) -> Tensor:
    """Return the (n,) Krum scores from an (n, n) matrix of squared distances, which is not modified.

    Who calls it has checked that n is enough, or knows that it is not: one neighbour counts at least, where there is
    one.
    """
    n = distances.shape[0]
    others = distances.clone().fill_diagonal_(torch.inf)
    counted = neighbors_counted(n, num_byzantine, num_neighbors)
    return others.topk(counted, dim=1, largest=False).values.sum(dim=1)


def neighbors_counted(num_rows: int, num_byzantine: int, num_neighbors: int | None) -> int:
    """Return how many other rows a score sums over: n - f - 2 or as asked for, one at least, where there is one."""
    wanted = max(1, num_rows - num_byzantine - 2) if num_neighbors is None else num_neighbors
    return min(num_rows - 1, wanted)


def picked_one_by_one(distances: Tensor, num_byzantine: int, count: int, num_neighbors: int | None = None) -> Tensor:
    """Return the sorted rows that Krum picks when it is asked ``count`` times, each time of the rows that are left.

    Every row's distances are sorted once; a pick deletes one entry from each row and the order stays. Small tensors:
    done on the CPU. ``distances`` is as for ``scores_from_distances``.
    """
    n = distances.shape[0]
    others = distances.cpu().clone().fill_diagonal_(torch.inf)  # a row is last in its own list, and never counted
    near, who = others.sort(dim=1)  # (m, m): sorted distances to the rows that remain, and their indices
    remaining = torch.arange(n)
    picks = []
    for _ in range(count):
        m = len(remaining)
        pick = int(near[:, : neighbors_counted(m, num_byzantine, num_neighbors)].sum(dim=1).argmin())
        picks.append(int(remaining[pick]))
        stays = torch.cat([torch.arange(pick), torch.arange(pick + 1, m)])
        near, who, remaining = near[stays], who[stays], remaining[stays]
        kept = who != picks[-1]
        near, who = near[kept].view(m - 1, m - 1), who[kept].view(m - 1, m - 1)
    return torch.tensor(sorted(picks)).to(distances.device)
