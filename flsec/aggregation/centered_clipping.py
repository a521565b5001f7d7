import math

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, is_whole, rounded_gram, row_norms, weighted_sum
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount

__all__ = ["centered_clipping"]


@torch.no_grad()
def centered_clipping(updates: Tensor, center: Tensor, radius: Positive, num_iterations: PositiveCount = 1) -> Tensor:
    """Return v after steps v <- v + mean_i of clip(u_i - v) to norm ``radius``, starting at ``center``.

    One hostile row moves the result by at most radius / n per step, whatever it holds.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        center: (d,), finite: the rule's result of the round before, zeros in the first. Not modified.
        radius: tau > 0, in parameter units.
        num_iterations: number of steps, at least 1; the paper uses 1.

    Returns:
        (d,), with the dtype and device of ``updates``; the next round's ``center``.

    Raises:
        ConfigError: ``updates`` is no floating matrix, ``center`` is no finite vector of length d, or a setting is out
            of range.

    Invariant to row order; equivariant to shift and rotation of updates and center together. A row that holds
    NaN or infinity counts as one equal to v: it adds nothing, and the mean still divides by n. The steps run on n
    coefficients over u_i - center: two passes over memory, whatever their number.

    Example:
        >>> updates = torch.tensor([[1.0], [1.2], [0.8], [1e6]])
        >>> centered_clipping(updates, center=torch.zeros(1), radius=2.0)
        tensor([1.2500])

    Source: Karimireddy et al., ICML 2021, Algorithm 2 (AggClip).
    """
    check_updates(updates, "centered_clipping")
    _check(updates, center, radius, num_iterations)
    center = center.to(updates.device)
    if num_iterations == 1:  # v = center: norms are enough
        coefficients = _shares(row_norms(updates, center), radius)
    else:
        coefficients = _iterate(rounded_gram(updates, center), radius, num_iterations)
    stays = (1 - coefficients.sum()) * center
    return weighted_sum(updates, coefficients).add_(stays.to(updates.dtype))


def _iterate(products: Tensor, radius: float, num_iterations: int) -> Tensor:
    """Return coefficients a of v = center + sum_j a_j (u_j - center); ``products`` is the Gram matrix about center."""
    squares = products.diagonal()
    products = products.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)  # such rows keep coefficient 0
    coefficients = torch.zeros_like(squares)
    for _ in range(num_iterations):
        projected = products @ coefficients
        distances = (squares - 2 * projected + coefficients @ projected).clamp_(min=0).sqrt_()
        shares = _shares(distances, radius)
        coefficients = (1 - shares.sum()) * coefficients + shares
    return coefficients


def _shares(distances: Tensor, radius: float) -> Tensor:
    """Return each u_i - v's share in a step: min(1, radius / distance) / n, or 0 where the distance is not finite."""
    factors = (radius / distances).clamp_(max=1.0)
    return torch.where(distances.isfinite(), factors, 0) / len(distances)


def _check(updates: Tensor, center: Tensor, radius: float, num_iterations: int) -> None:
    d = updates.shape[1]
    if not isinstance(center, Tensor) or center.shape != (d,) or not bool(center.isfinite().all()):
        raise ConfigError(
            f"centered_clipping needs center as a finite tensor of shape ({d},); got "
            f"{tuple(center.shape) if isinstance(center, Tensor) else center!r}. Start with zeros."
        )
    if not 0 < radius < math.inf:
        raise ConfigError(f"centered_clipping needs 0 < radius < inf; got radius={radius}. Try a typical update norm.")
    if not is_whole(num_iterations) or num_iterations < 1:
        raise ConfigError(
            f"centered_clipping needs a whole num_iterations >= 1; got {num_iterations}. The paper uses 1."
        )
