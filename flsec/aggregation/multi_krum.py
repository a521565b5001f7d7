from typing import Literal, get_args

import torch
from torch import Tensor

from flsec.aggregation._gram import check_byzantine, check_updates, is_whole, squared_distances, weighted_sum
from flsec.aggregation.krum import check_neighbors, picked_one_by_one, scores_from_distances
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount

__all__ = ["multi_krum", "multi_krum_selection"]

Selection = Literal["once", "iterative"]


def multi_krum(
    updates: Tensor,
    num_byzantine: Count,
    num_selected: PositiveCount | None = None,
    *,
    num_neighbors: PositiveCount | None = None,
    selection: Selection = "once",
    unsafe: bool = False,
) -> Tensor:
    """Return the mean of the m updates with the lowest Krum scores.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 3.
        num_selected: m, from 1 (Krum) to n - f. None means n - f. FedMLSecurity's m-Krum is m = 5 of n = 10.
        num_neighbors: how many nearest rows a score sums over; None: n - f - 2, for which the paper's proof holds.
        selection: ``"once"``: the m lowest scores. ``"iterative"``: m times the lowest score of the rows left,
            as in Bulyan; n - f - 2 falls with the rows, down to 1.
        unsafe: compute also where n is too small for the guarantee: the mean of max(1, min(m, n - f)) rows, scored by
            max(1, n - f - 2) neighbours. Hostile rows can then be among them.

    Returns:
        (d,), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n < 2 f + 3 and not ``unsafe``, or m is out of range.

    Invariant to row order (ties aside); equivariant to shift, scale and rotation. Rows that hold NaN or infinity never
    enter the mean while there are at most f of them.

    Example:
        >>> multi_krum(torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0]]), num_byzantine=1)
        tensor([0.1500])

    Source: Blanchard et al., NeurIPS 2017, Sec. 4 and 5 (Multi-Krum).
    """
    selected = multi_krum_selection(
        updates, num_byzantine, num_selected, num_neighbors=num_neighbors, selection=selection, unsafe=unsafe
    )
    weights = torch.zeros(updates.shape[0], dtype=torch.float64, device=updates.device)
    weights[selected] = 1.0 / len(selected)
    return weighted_sum(updates, weights)


def multi_krum_selection(
    updates: Tensor,
    num_byzantine: Count,
    num_selected: PositiveCount | None = None,
    *,
    num_neighbors: PositiveCount | None = None,
    selection: Selection = "once",
    unsafe: bool = False,
) -> Tensor:
    """Return the sorted indices of the m rows with the lowest Krum scores; of equal scores the first rows win.

    Args:
        updates: (n, d), floating point. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 3.
        num_selected: m, from 1 to n - f. None means n - f.
        num_neighbors: as for ``multi_krum``.
        selection: as for ``multi_krum``.
        unsafe: as for ``multi_krum``.

    Returns:
        (m,) int64.

    Raises:
        ConfigError: as ``multi_krum``.

    Example:
        >>> multi_krum_selection(torch.tensor([[0.0], [0.1], [9.0], [0.2], [0.3]]), num_byzantine=1)
        tensor([0, 1, 3, 4])

    Source: Blanchard et al., NeurIPS 2017, Sec. 4 and 5.
    """
    n = check_updates(updates, "multi_krum")
    check_byzantine("multi_krum", n, num_byzantine, factor=2, unsafe=unsafe)
    most = max(1, n - num_byzantine)
    given = most if num_selected is None else num_selected
    if not is_whole(given) or given < 1 or (given > most and not unsafe):
        raise ConfigError(
            f"multi_krum needs a whole num_selected with 1 <= num_selected <= n - num_byzantine = {most}; got "
            f"num_selected={num_selected}. Take 1 for Krum, or None for n - num_byzantine."
        )
    check_neighbors("multi_krum", num_neighbors)
    if selection not in get_args(Selection):
        raise ConfigError(f"multi_krum needs selection 'once' or 'iterative'; got {selection!r}. 'once' is usual.")
    return selected_rows(squared_distances(updates), num_byzantine, num_selected, num_neighbors, selection)


def selected_rows(
    distances: Tensor, num_byzantine: int, num_selected: int | None, num_neighbors: int | None, selection: Selection
) -> Tensor:
    """Return the sorted rows that Multi-Krum selects, from an (n, n) matrix of squared distances."""
    if selection == "iterative":
        return picked_one_by_one(
            distances, num_byzantine, _most(len(distances), num_byzantine, num_selected), num_neighbors
        )
    return lowest_scores(scores_from_distances(distances, num_byzantine, num_neighbors), num_byzantine, num_selected)


def lowest_scores(scores: Tensor, num_byzantine: int, num_selected: int | None) -> Tensor:
    """Return the sorted rows of the m lowest of (n,) scores, m as for ``multi_krum``, but never above n - f."""
    return scores.argsort(stable=True)[: _most(len(scores), num_byzantine, num_selected)].sort().values


def _most(num_rows: int, num_byzantine: int, num_selected: int | None) -> int:
    """Return m, but never above n - f."""
    most = max(1, num_rows - num_byzantine)
    return most if num_selected is None else min(num_selected, most)
