from collections.abc import Callable

import torch
from torch import Tensor

from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._gram import check_updates, check_weights, column_blocks, is_whole, row_norms, weighted_sum
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["removal_rejection", "removal_scores", "removal_selection"]

_GROUP = 16  # means without one client that are held at a time


def removal_rejection(
    updates: Tensor, objective: Callable[[Tensor], float], num_byzantine: Count, weights: Tensor | None = None
) -> Tensor:
    """Return the mean of the updates that are left when the f harmful ones are dropped.

    Harmful are those without whom the mean of all is best: with an error rate as ``objective`` this is error rate
    based rejection (ERR), with a loss it is loss function based rejection (LFR).

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        objective: maps an aggregate, (d,) float64, to the error rate or loss of the global model after it.
        num_byzantine: f, how many rows to drop; less than n.
        weights: (n,), weights of the mean, at least 0 and not all 0, of any scale; None: equal.

    Returns:
        (d,), with the dtype and device of ``updates``. Zero where no row is left.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, n <= f, or ``weights`` do not fit.

    Invariant to row order (ties aside). The clients are removed one at a time from all the others, as in the paper, so
    hostile rows that cancel each other out hide each other. Rows that hold NaN or infinity are dropped first, also
    beyond f.

    Example:
        >>> def loss(update):
        ...     return float((update - 1.0).square().sum())
        >>> removal_rejection(torch.tensor([[0.5], [0.7], [-1.0], [0.9]]), loss, num_byzantine=1)
        tensor([0.7000])

    Source: Fang et al., USENIX Security 2020, Sec. 5 (error rate and loss function based rejection); the aggregation
    rule that measures the impact is the mean.
    """
    kept = torch.zeros(updates.shape[0], dtype=torch.float64, device=updates.device)
    kept[removal_selection(updates, objective, num_byzantine, weights)] = 1.0
    kept *= check_weights(weights, updates, "removal_rejection")
    return weighted_sum(updates, kept / kept.sum() if bool(kept.any()) else kept)


def removal_selection(
    updates: Tensor, objective: Callable[[Tensor], float], num_byzantine: Count, weights: Tensor | None = None
) -> Tensor:
    """Return the sorted indices of the rows that are left when the f harmful ones are dropped.

    Args:
        updates: (n, d), floating point. Not modified.
        objective: maps an aggregate (d,) to an error rate or loss.
        num_byzantine: f, how many rows to drop; less than n.
        weights: (n,), weights of the mean; None: equal.

    Returns:
        (n - f,) int64, or fewer if more than f rows are not finite.

    Raises:
        ConfigError: as ``removal_rejection``.

    Example:
        >>> u = torch.tensor([[1.0], [1.2], [9.0], [0.8]])
        >>> removal_selection(u, lambda aggregate: float((aggregate - 1).abs()), num_byzantine=1)
        tensor([0, 1, 3])

    Source: Fang et al., USENIX Security 2020, Sec. 5. Of equal scores (error rates on a hundred examples tie often) the
    longest updates are dropped first, which is our reading.
    """
    return harmless(removal_scores(updates, objective, weights), updates, num_byzantine)


@torch.no_grad()
def removal_scores(updates: Tensor, objective: Callable[[Tensor], float], weights: Tensor | None = None) -> Tensor:
    """Return the objective of the mean of all rows but each one: low means that the row does harm.

    The paper's impact of a row is the objective of the mean of all rows minus this.

    Args:
        updates: (n, d), floating point. Not modified.
        objective: maps an aggregate (d,) to an error rate or loss.
        weights: (n,), weights of the mean; None: equal.

    Returns:
        (n,) float64. Infinite where the mean without the row still has no finite objective; minus infinity for a row
        that holds NaN or infinity, which is left out of all means.

    Raises:
        ConfigError: as ``removal_rejection``.

    n evaluations; O(n^2 d) time in matrix products, O(d) memory.

    Example:
        >>> removal_scores(torch.tensor([[1.0], [2.0], [6.0]]), objective=float)
        tensor([4.0000, 3.5000, 1.5000], dtype=torch.float64)

    Source: Fang et al., USENIX Security 2020, Sec. 5.
    """
    check_updates(updates, "removal_rejection")
    shares = check_weights(weights, updates, "removal_rejection")
    finite = row_norms(updates).isfinite().nonzero().squeeze(1)
    rows = updates if len(finite) == updates.shape[0] else updates[finite]
    others = shares[finite].repeat(len(finite), 1).fill_diagonal_(0)
    totals = others.sum(dim=1, keepdim=True)
    others = torch.where(totals > 0, others / totals, 0)  # nobody else counts: the model stays as it is
    scores = torch.full_like(shares, -torch.inf)
    for start in range(0, len(finite), _GROUP):
        group = slice(start, start + _GROUP)
        for i, aggregate in zip(finite[group], _mixtures(rows, others[group]), strict=True):
            scores[i] = float(objective(aggregate))
    return scores.nan_to_num_(nan=torch.inf, posinf=torch.inf, neginf=-torch.inf)


def _mixtures(rows: Tensor, weights: Tensor) -> Tensor:
    """Return ``weights @ rows`` in float64, since one row may matter little; a zero weight hides any finite row."""
    mixed = weights.new_empty(weights.shape[0], rows.shape[1])
    source, device = where_blocks_are(rows)
    weights = weights.to(device)
    for columns in column_blocks(rows.shape[0] + weights.shape[0], rows.shape[1], device):
        mixed[:, columns] = weights @ source[:, columns].to(device, torch.float64)
    return mixed


def harmless(scores: Tensor, updates: Tensor, num_byzantine: int) -> Tensor:
    """Return the sorted indices that are left when the f lowest scores, and of equal ones the longest rows, go."""
    n = scores.shape[0]
    if not is_whole(num_byzantine) or not 0 <= num_byzantine < n:
        raise ConfigError(
            f"removal_rejection needs a whole num_byzantine with 0 <= num_byzantine < n; got num_byzantine="
            f"{num_byzantine}, n={n}. Sample more clients per round or lower num_byzantine."
        )
    norms = row_norms(updates)
    longest_first = norms.nan_to_num(nan=torch.inf).argsort(descending=True, stable=True)
    order = longest_first[scores[longest_first].argsort(stable=True)][num_byzantine:]
    return order[norms[order].isfinite()].sort().values
