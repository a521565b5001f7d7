"""The covariance-bound agnostic filter (CAF)."""

import torch
from torch import Tensor

from flsec.aggregation._directions import usable_products, widest_direction
from flsec.aggregation._gram import check_updates, robust_gram, weighted_sum
from flsec.aggregation._subsets import check_minority
from flsec.parameters import Count

__all__ = ["caf"]


def caf(updates: Tensor, num_byzantine: Count) -> Tensor:
    """Return a weighted mean of the updates that filters what spreads them most.

    Weights start at 1. Each step finds the direction v of largest variance about the weighted mean, and multiplies the
    weight of row i by 1 - t_i / max t for t_i = <u_i - mean, v>^2, so that the farthest row along v leaves. It ends
    when the weights' sum is n - 2 f or less; the mean of the step with the smallest largest variance is the result. The
    honest rows' variance need not be known.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        num_byzantine: f, an upper bound on the number of hostile rows; n >= 2 f + 1. 0 gives the plain mean.

    Returns:
        (d,), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, f < 0, or n < 2 f + 1.

    The largest t is taken over rows that still have weight: over all rows, one row far out that has left already would
    keep the others' weights from ever changing.

    Invariant to row order; equivariant to shift, scale and rotation. Rows that hold NaN or infinity have weight 0.
    Two passes over memory, and at most n eigenvectors of an (n, n) matrix.

    Example:
        >>> caf(torch.tensor([[0.0], [0.1], [0.1], [0.2], [9.0]]), num_byzantine=1)
        tensor([0.1004])

    Source: Allouah, Guerraoui and Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants", ICML
        2025, Algorithm 2; after Diakonikolas et al., ICML 2017.
    """
    check_minority("caf", check_updates(updates, "caf"), num_byzantine)
    return weighted_sum(updates, filter_weights(robust_gram(updates)[0], num_byzantine))


def filter_weights(products: Tensor, num_byzantine: int) -> Tensor:
    """Return the (n,) float64 weights of CAF's mean, at least 0 and with sum 1, from the rows' ``robust_gram``."""
    present, known = usable_products(products)
    if not bool(present.any()):
        return torch.full_like(products[0], 1 / len(products))
    weights = best = present.double()
    least, enough = torch.inf, max(0, len(products) - 2 * num_byzantine)  # 0 where f is too large for n
    while float(weights.sum()) > enough:
        variance, along = widest_direction(known, weights)
        if variance < least:
            best, least = weights, variance
        if variance == 0:
            break
        weights = weights * (1 - along.square()).clamp(min=0)
    return (best / best.sum()).to(products.device)
