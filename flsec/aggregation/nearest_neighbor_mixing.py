"""Nearest-neighbour mixing: each update becomes a mean of those around it, before any rule sees it."""

import torch
from torch import Tensor

from flsec.aggregation._gram import check_minority, check_updates, mixed_rows, squared_distances
from flsec.parameters import Count

__all__ = ["nearest_neighbor_mixing"]


def nearest_neighbor_mixing(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return for each row the mean of its n - f nearest rows, itself included.

    It brings honest rows together, which robust rules need where clients' data differ; a hostile row becomes a mean of
    mostly honest ones. A rule such as Krum or the median goes over the result.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1.

    Returns:
        (n, d), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 1.

    Equivariant to row order (ties aside), shift, scale and rotation. Of rows equally near, the first is taken. A row
    that holds NaN or infinity comes out as NaN, and is mixed into no other while there are at most f of them. A hostile
    row far away is mixed into honest ones only where there are more than f. One Gram matrix and one product of
    matrices: O(n^2 d) time, two passes over the updates; O(n d) memory for the result.

    Example:
        >>> nearest_neighbor_mixing(torch.tensor([[0.0], [0.1], [0.2], [9.0]]), num_byzantine=1)
        tensor([[0.1000],
                [0.1000],
                [0.1000],
                [3.1000]])

    Source: Allouah et al., "Fixing by Mixing", AISTATS 2023 (NNM).
    """
    check_minority("nearest_neighbor_mixing", check_updates(updates, "nearest_neighbor_mixing"), num_byzantine)
    return mixed_rows(updates, mixing_weights(squared_distances(updates), num_byzantine))


def mixing_weights(distances: Tensor, num_byzantine: int) -> Tensor:
    """Return the (n, n) weights of the rows in each mean, from an (n, n) matrix of squared distances.

    Who calls it has checked that n is enough, or knows that it is not: one row counts at least. The weights are NaN
    where a row is infinitely far from some of those that it would be mixed with.
    """
    n = distances.shape[0]
    count = min(n, max(1, n - num_byzantine))
    nearest = distances.clone().fill_diagonal_(-1.0)  # itself first, also among copies
    near, rows = (part[:, :count] for part in nearest.sort(dim=1, stable=True))
    weights = torch.zeros_like(distances).scatter_(1, rows, 1.0 / count)
    return weights.masked_fill_(near.isinf().any(dim=1, keepdim=True), torch.nan)
