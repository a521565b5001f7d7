"""Consecutive values of every sorted column, and their mean: around the median, or without both ends."""

import torch
from torch import Tensor

from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._threads import each_block

__all__ = ["mean_of_windows"]


def mean_of_windows(updates: Tensor, rows: Tensor, num_dropped: int, *, centred: bool) -> Tensor:
    """Return, per coordinate, the mean of all but ``num_dropped`` values of some rows, without copying those rows all.

    Args:
        updates: (n, d), floating point. Not modified.
        rows: (m,) row numbers.
        num_dropped: at most m - 1.
        centred: True: the values closest to the rows' median are kept, of two equally close the lower. False: as many
            are dropped on each side; then ``num_dropped`` is even.

    Returns:
        (d,), with the dtype and device of ``updates``.
    """
    updates = updates.detach()
    result = torch.empty(updates.shape[1], dtype=updates.dtype, device=updates.device)
    source, device = where_blocks_are(updates)
    chosen = rows.to(source.device)

    def work(columns: slice) -> float:
        values = _sorted_columns(source[:, columns].index_select(0, chosen).to(device))
        result[columns] = _window_means(values, num_dropped, centred)
        return 0.0

    each_block(work, len(rows), updates.shape[1], device)
    return result


def _sorted_columns(block: Tensor) -> Tensor:
    """Return (b, m): the values of each column of an (m, b) block in ascending order."""
    values = block.T.contiguous().to(torch.promote_types(block.dtype, torch.float32))
    if values.is_cuda:
        return values.sort(dim=1).values
    values.numpy().sort(axis=1)  # in place; numpy's vectorised sort is some 10 times faster here than torch's
    return values


def _window_means(values: Tensor, num_dropped: int, centred: bool) -> Tensor:
    """Return the (b,) mean of m - num_dropped consecutive sorted values of each row.

    Args:
        values: (b, m), ascending.
        num_dropped: at most m - 1.
        centred: True: the values closest to the median. They are consecutive, and moving the window up by one is right
            as long as the value that enters is closer than the one that leaves. False: as many dropped on each side.
    """
    m = values.shape[1]
    beta = m - num_dropped
    if not centred:
        start = torch.full((values.shape[0], 1), num_dropped // 2, device=values.device)
    else:
        middle = values[:, (m - 1) // 2 : m // 2 + 1].to(torch.float64).mean(dim=1, keepdim=True)
        leaves = middle - values[:, :num_dropped]
        enters = values[:, beta:] - middle
        start = (leaves > enters).sum(dim=1, keepdim=True)
    position = torch.arange(m, device=values.device)
    inside = (position >= start) & (position < start + beta)
    # not by differences of prefix sums: one value of 1e12 would take the digits of all others
    return torch.where(inside, values, 0).sum(dim=1, dtype=torch.float64) / beta
