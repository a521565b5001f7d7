from typing import Literal, get_args

import torch
from torch import Tensor

from flsec.aggregation._gram import check_byzantine, check_updates, is_whole, squared_distances
from flsec.aggregation._windows import mean_of_windows
from flsec.aggregation.krum import picked_one_by_one
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["bulyan", "bulyan_second_phase", "bulyan_selection"]

SecondPhase = Literal["mean", "trimmed_mean"]


def bulyan(
    updates: Tensor, num_byzantine: Count, second_phase: SecondPhase = "mean", *, unsafe: bool = False
) -> Tensor:
    """Return, per coordinate, the mean of the values around the median of the rows that iterated Krum selects.

    First phase: theta = n - 2 f rows by ``bulyan_selection``. Second phase: in each coordinate of these rows the mean
    of the beta = theta - 2 f values closest to their median, so that a row that Krum let pass because it is far off in
    one coordinate only cannot use that coordinate.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 4 f + 3.
        second_phase: ``"mean"``: as above. Of two values equally far from the median, the lower one is taken.
            ``"trimmed_mean"``: the f lowest and f highest of the selected values are dropped instead (SparseFed's
            appendix).
        unsafe: compute also where n is too small for the guarantee: theta is max(1, n - 2 f) and beta
            max(1, theta - 2 f), and min(f, (theta - 1) // 2) values are trimmed. Hostile rows can then decide.

    Returns:
        (d,), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n < 4 f + 3 and not ``unsafe``, or the second phase is
            unknown.

    Equivariant to shift and scale, not to rotation. Invariant to row order, ties aside, which are certain for f = 1 and
    f = 2: see ``bulyan_selection``. Rows that hold NaN or infinity never enter while there are at most f of them.

    Example:
        >>> bulyan(torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5], [9.0]]), num_byzantine=1)
        tensor([0.2000])

    Source: El Mhamdi et al., ICML 2018, Sec. 4; ``"trimmed_mean"``: Panda et al. (SparseFed), AISTATS 2022, appendix.
    """
    _check_phase(second_phase)
    selected = bulyan_selection(updates, num_byzantine, unsafe=unsafe)
    return second_phase_of_rows(updates, selected, num_byzantine, second_phase)


def bulyan_selection(updates: Tensor, num_byzantine: Count, *, unsafe: bool = False) -> Tensor:
    """Return the sorted indices of the theta = n - 2 f rows that Krum picks one after the other.

    Each pick leaves the set, and the next one is Krum's choice among the m rows that remain: the smallest sum of
    squared distances to the m - f - 2 nearest of them, the first row of equal ones. Where m - f - 2 < 1 (the last pick
    for f = 1), the paper says nothing: here the nearest row alone counts. With one neighbour the two closest rows
    always tie, so that for f = 1 and f = 2 the last picks depend on row order.

    Args:
        updates: (n, d), floating point. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 4 f + 3.
        unsafe: as for ``bulyan``; at least one row is picked.

    Returns:
        (theta,) int64.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 4 f + 3 and not ``unsafe``.

    Example:
        >>> bulyan_selection(torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.4], [0.5], [9.0]]), num_byzantine=1)
        tensor([0, 1, 2, 3, 4])

    Source: El Mhamdi et al., ICML 2018, Sec. 4.
    """
    check_byzantine("bulyan", check_updates(updates, "bulyan"), num_byzantine, factor=4, unsafe=unsafe)
    return selection_from_distances(squared_distances(updates), num_byzantine)


def bulyan_second_phase(
    updates: Tensor, num_byzantine: Count, second_phase: SecondPhase = "mean", *, unsafe: bool = False
) -> Tensor:
    """Return what ``bulyan`` makes of the theta rows that ``bulyan_selection`` picked.

    Args:
        updates: (theta, d), floating point: the selected rows only. Not modified.
        num_byzantine: f, as for the selection; theta > 2 f.
        second_phase: as for ``bulyan``.
        unsafe: as for ``bulyan``; at least one value of a coordinate counts.

    Returns:
        (d,), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, theta <= 2 f and not ``unsafe``, or the second phase is
            unknown.

    Example:
        >>> bulyan_second_phase(torch.tensor([[0.0], [0.1], [0.2], [0.4], [9.0]]), num_byzantine=1)
        tensor([0.1000])

    Source: El Mhamdi et al., ICML 2018, Sec. 4.
    """
    _check_phase(second_phase)
    theta = check_updates(updates, "bulyan_second_phase")
    if not is_whole(num_byzantine) or num_byzantine < 0 or (2 * num_byzantine >= theta and not unsafe):
        raise ConfigError(
            f"bulyan_second_phase needs a whole num_byzantine >= 0 and more than 2 * num_byzantine rows; got "
            f"num_byzantine={num_byzantine}, {theta} rows. Pass the n - 2 * num_byzantine rows of bulyan_selection."
        )
    return second_phase_of_rows(updates, torch.arange(theta, device=updates.device), num_byzantine, second_phase)


def selection_from_distances(distances: Tensor, num_byzantine: int) -> Tensor:
    """Return Bulyan's sorted selection from an (n, n) matrix of squared distances, which is not modified.

    Who calls it has checked that n is enough, or knows that it is not: one row is picked at least.
    """
    return picked_one_by_one(distances, num_byzantine, max(1, len(distances) - 2 * num_byzantine))


def _check_phase(second_phase: str) -> None:
    if second_phase not in get_args(SecondPhase):
        raise ConfigError(
            f"bulyan needs second_phase 'mean' or 'trimmed_mean'; got {second_phase!r}. Take 'mean', the paper's."
        )


def second_phase_of_rows(updates: Tensor, selected: Tensor, num_byzantine: int, second_phase: SecondPhase) -> Tensor:
    """Return ``bulyan_second_phase`` of some rows of a matrix, without copying them all.

    Who calls it has checked that there are enough rows, or knows that there are not: one value counts at least.
    """
    centred, theta = second_phase == "mean", len(selected)
    most = theta - 1 if centred else 2 * ((theta - 1) // 2)  # as many are trimmed on each side
    return mean_of_windows(updates, selected, min(2 * num_byzantine, most), centred=centred)
