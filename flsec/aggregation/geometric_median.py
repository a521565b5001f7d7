import math
from typing import Literal

import torch
from torch import Tensor

from flsec.aggregation._gram import (
    check_updates,
    check_weights,
    expand_squares,
    is_whole,
    robust_gram,
    weighted_median,
    weighted_sum,
)
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, Positive, PositiveCount

__all__ = ["geometric_median", "geometric_median_weights"]

Start = Literal["mean", "medoid"]

_FAR = 1e3  # mean distance to the central row, in scales, above which inner products lose the mean's digits


def geometric_median(
    updates: Tensor,
    weights: Tensor | None = None,
    smoothing: Positive = 1e-6,
    max_iterations: PositiveCount = 1000,
    tolerance: NonNegative = 1e-10,
) -> Tensor:
    """Return the point with the smallest weighted sum of Euclidean distances to the rows.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        weights: (n,) at least 0, normalised here. None means equal weights, which no client can write itself.
        smoothing: nu, in units of the data's scale, which is the (weighted) median distance of the rows to a central
            row. Closer than nu * scale to a row, a parabola replaces the distance, so that an iterate may meet a row.
            The objective is off by at most half of that.
        max_iterations: most Weiszfeld steps; each costs O(n^2).
        tolerance: stop when a step is shorter than tolerance * scale.

    Returns:
        (d,), with the dtype and device of ``updates``. Rows that together hold more than half of the weight and are
        identical are the result.

    Raises:
        ConfigError: ``updates`` is no floating matrix, the weights cannot be normalised, or a setting is out of range.

    Invariant to row order; equivariant to shift, scale and rotation. Hostile rows of any size, with a share e < 1/2
    of the weight, leave it within 2 (1 - e) / (1 - 2 e) r of a point that all other rows lie within r of, but for the
    smoothing. Rows that hold NaN or infinity count as absent. Two passes over memory, whatever the number of steps.

    Example:
        >>> geometric_median(torch.tensor([[4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [5.0, 4.0], [1e9, 1e9]]))
        tensor([4., 4.])

    Source: Pillutla et al., IEEE TSP 2022, Algorithm 2 (smoothed Weiszfeld on whole vectors, fixed weights), there with
        an absolute nu; here run to a tolerance, and started at the weighted mean or, where far outliers make that a
        worse start, at a central point.
    """
    return weighted_sum(updates, geometric_median_weights(updates, weights, smoothing, max_iterations, tolerance))


def geometric_median_weights(
    updates: Tensor,
    weights: Tensor | None = None,
    smoothing: Positive = 1e-6,
    max_iterations: PositiveCount = 1000,
    tolerance: NonNegative = 1e-10,
) -> Tensor:
    """Return the convex weights of the rows whose weighted sum is ``geometric_median``.

    Args:
        updates: (n, d), floating point. Not modified.
        weights: (n,) at least 0, normalised here. None means equal weights.
        smoothing: as for ``geometric_median``.
        max_iterations: as for ``geometric_median``.
        tolerance: as for ``geometric_median``.

    Returns:
        (n,) float64, at least 0, sum 1: how much each client counted.

    Raises:
        ConfigError: as ``geometric_median``.

    Example:
        >>> geometric_median_weights(torch.tensor([[4.0, 4.0], [4.0, 4.0], [4.0, 4.0], [5.0, 4.0], [1e9, 1e9]]))
        tensor([0.3333, 0.3333, 0.3333, 0.0000, 0.0000], dtype=torch.float64)

    Source: Pillutla et al., IEEE TSP 2022, Algorithm 2.
    """
    check_updates(updates, "geometric_median")
    fixed = check_weights(weights, updates, "geometric_median")
    check_budget("geometric_median", smoothing, max_iterations, tolerance)
    products, _ = robust_gram(updates, fixed)
    return weiszfeld(products, fixed, smoothing, max_iterations, tolerance)


def check_budget(rule: str, smoothing: float, max_iterations: int, tolerance: float) -> None:
    """Raise ``ConfigError`` unless smoothing > 0, max_iterations >= 1 and tolerance >= 0, all finite."""
    if not 0 < smoothing < math.inf:
        raise ConfigError(f"{rule} needs 0 < smoothing < inf; got smoothing={smoothing}. The default is 1e-6.")
    if not is_whole(max_iterations) or max_iterations < 1:
        raise ConfigError(
            f"{rule} needs a whole max_iterations >= 1; got max_iterations={max_iterations}. The default will do."
        )
    if not 0 <= tolerance < math.inf:
        raise ConfigError(f"{rule} needs 0 <= tolerance < inf; got tolerance={tolerance}. 0 uses up max_iterations.")


def weiszfeld(
    products: Tensor,
    fixed: Tensor,
    smoothing: float,
    max_iterations: int,
    tolerance: float,
    start_from: Start | None = None,
) -> Tensor:
    """Return the row weights of smoothed Weiszfeld, iterated in n dimensions.

    The iterate v is sum_j w_j u_j with sum_j w_j = 1, so that distances |u_i - v| follow from w and the Gram matrix
    about any point. About a central row of the majority, the digits that tell honest rows apart survive any outlier.

    Args:
        products: (n, n), the rows' ``robust_gram``.
        fixed: (n,) alpha, sums to 1.
        smoothing: nu over the scale, see ``geometric_median``.
        max_iterations: most steps.
        tolerance: shortest step over the scale.
        start_from: where just max_iterations steps begin, see ``rfa``. None: the result may be a row, and the start is
            the mean or, where far outliers drag that away, a central point: the way back would take many steps.
    """
    device, products = fixed.device, products.cpu()
    present = products.diagonal().isfinite()
    alpha = fixed.cpu() * present
    if not bool(alpha.any()):
        return fixed  # nothing but NaN and infinity
    alpha = alpha / alpha.sum()
    from_reference = torch.where(present, products.diagonal().clamp(min=0).sqrt(), torch.inf)
    products = torch.where(present[:, None] & present[None, :], products, 0)

    scale = float(weighted_median(from_reference[None], alpha))
    if scale == 0:  # half of the weight sits on the reference: no other point is better
        share = alpha * (from_reference == 0)
        return (share / share.sum()).to(device)
    nu = smoothing * scale
    begin = alpha
    if start_from != "mean":
        distances = expand_squares(products).sqrt_()
        row = _medoid(products, distances, alpha)
        if start_from == "medoid":
            halves = weighted_median(distances, alpha / alpha.max())  # equal weights are 1, and half of them is exact
            medians = torch.where(alpha > 0, halves, torch.inf)
            begin = _reweighted(alpha, distances[row], max(nu, float(medians.min())))
        elif (only := _if_median(row, products, distances, alpha, nu)) is not None:
            return only.to(device)
        else:
            begin = _mean_or_central(products, alpha, from_reference, scale)
    return _iterate(products, alpha, begin, nu, max_iterations, tolerance * scale).to(device)


def _medoid(products: Tensor, distances: Tensor, alpha: Tensor) -> int:
    """Return the row of positive weight with the smallest weighted sum of distances to the rows.

    What a sum exceeds the reference's by is summed, as (a^2 - b^2) / (a + b) for distances a and b: of the sums
    themselves, an outlier of 1e30 would leave no digit that tells honest rows apart.
    """
    squares = products.diagonal()
    from_reference = squares.clamp(min=0).sqrt()
    total = distances + from_reference
    excess = torch.where(total > 0, (squares[:, None] - 2 * products) / total, 0) @ alpha
    return int(torch.where(alpha > 0, excess, torch.inf).argmin())


def _mean_or_central(products: Tensor, alpha: Tensor, from_reference: Tensor, scale: float) -> Tensor:
    """Return the weights of the mean or of a point near the central row, whichever has the lower objective."""
    central = _reweighted(alpha, from_reference, scale)
    present = alpha > 0
    if float(alpha[present] @ from_reference[present]) > _FAR * scale:
        return central
    return min((alpha, central), key=lambda weights: float(alpha @ _distances(products, weights)))


def _if_median(best: int, products: Tensor, distances: Tensor, alpha: Tensor, nu: float) -> Tensor | None:
    """Return the weights of the medoid (with its copies) if it is the geometric median, or None if no row is.

    It is when the other rows' unit pulls sum to no more than its own weight (Kuhn's condition). Weiszfeld steps would
    approach it ever more slowly.
    """
    here = distances[best] <= nu
    pulls = torch.where(here, 0, alpha / distances[best])
    pulls[best] = -pulls.sum()  # sum_j pulls_j u_j = sum of alpha_j times the unit vector from the row to u_j
    own = alpha * here
    return own / own.sum() if float(pulls @ products @ pulls) <= float(own.sum()) ** 2 else None


def _iterate(products: Tensor, alpha: Tensor, start: Tensor, nu: float, max_iterations: int, shortest: float) -> Tensor:
    weights = start
    for _ in range(max_iterations):
        new = _reweighted(alpha, _distances(products, weights), nu)
        step = new - weights
        weights = new
        if float(step @ (products @ step)) <= shortest**2:
            break
    return weights


def _reweighted(alpha: Tensor, distances: Tensor, nu: float) -> Tensor:
    """Return one step's weights: alpha_i (never the ones of the step before) over max(nu, distance), normalised."""
    raw = alpha / distances.clamp(min=nu)
    return raw / raw.sum()


def _distances(products: Tensor, weights: Tensor) -> Tensor:
    """Return |u_i - v| for v = sum_j weights[j] u_j, from the rows' Gram matrix about any point; sum of weights 1."""
    projected = products @ weights
    return (products.diagonal() - 2 * projected + weights @ projected).clamp_(min=0).sqrt_()
