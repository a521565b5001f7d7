"""FedGreed: clients are added to the mean in the order of their own losses, as long as the mean's loss falls."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, row_norms
from flsec.aggregation._subsets import mean_of_rows

__all__ = ["fed_greed"]


class Greedy(NamedTuple):
    """Who is in the mean, and what each row's own loss is."""

    selected: Tensor  # (k,) int64, ascending; empty where no row has a finite loss
    losses: Tensor  # (n,) float64; infinite where it is not finite


def fed_greed(updates: Tensor, loss: Callable[[Tensor], float]) -> Tensor:
    """Return the mean of the rows of lowest loss, as many as lower the loss of their mean.

    Rows are sorted by the loss after each alone. The mean of the first j is tried for j = 1, 2, ... until its loss
    rises; the mean of the lowest loss so far is the result.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        loss: maps an update (d,), a row or a mean in float64, to the loss of the global model after it, on data of the
            server.

    Returns:
        (d,), with the dtype and device of ``updates``. Zero where no row has a finite loss: the model is kept.

    Raises:
        ConfigError: ``updates`` is no floating matrix.

    Invariant to row order (ties aside). Needs no honest majority and is told no number of hostile rows: with one honest
    row of the lowest loss, the result's loss is no higher than that row's. Where all rows are worse than the global
    model, the least bad is taken. Rows that hold NaN or infinity, or whose loss is not finite, are never taken. n + k
    evaluations, k the rows tried; O(n d) time, O(d) memory.

    Example:
        >>> def loss(update):
        ...     return float((update - 1.0).square().sum())
        >>> fed_greed(torch.tensor([[0.7], [1.2], [0.5], [-9.0]]), loss)
        tensor([0.9500])

    Source: Kritharakis, Makris, Jakovetic and Tserpes, "FedGreed: A Byzantine-Robust Loss-Based Aggregation Method for
        Federated Learning", arXiv:2508.18060, 2025, and the authors' program.
    """
    check_updates(updates, "fed_greed")
    selected = greedy_selection(updates, loss).selected
    return mean_of_rows(updates, selected) if len(selected) else torch.zeros_like(updates[0])


@torch.no_grad()
def greedy_selection(updates: Tensor, loss: Callable[[Tensor], float]) -> Greedy:
    """Return the rows of the best mean."""
    losses = torch.full((len(updates),), torch.inf, dtype=torch.float64, device=updates.device)
    for row in row_norms(updates).isfinite().nonzero().flatten().cpu().tolist():
        losses[row] = float(loss(updates[row].detach()))
    losses = losses.nan_to_num(nan=torch.inf, posinf=torch.inf, neginf=torch.inf)
    order = losses.argsort(stable=True)
    order = order[losses[order].isfinite()]
    best, least, before = order[:0], torch.inf, torch.inf
    total = torch.zeros_like(updates[0], dtype=torch.float64)
    for count, row in enumerate(order.cpu().tolist(), start=1):
        total += updates[row]
        now = float(losses[row]) if count == 1 else float(loss(total / count))
        if not now <= before:
            break
        if now < least:
            best, least = order[:count], now
        before = now
    return Greedy(best.sort().values, losses)
