"""SLSGD: a moving average of the global model and the trimmed mean of the clients' models."""

from typing import Annotated

from annotated_types import Gt, Le
from torch import Tensor

from flsec.aggregation.trimmed_mean import trimmed_mean
from flsec.errors import ConfigError
from flsec.parameters import Count

__all__ = ["slsgd"]


def slsgd(
    updates: Tensor, alpha: Annotated[float, Gt(0), Le(1)], num_trimmed: Count, *, unsafe: bool = False
) -> Tensor:
    """Return alpha times the trimmed mean of the updates.

    The trimmed mean follows a shift, so that this is the paper's step on models: w + alpha TrMean_b(u_1, ..., u_n) =
    (1 - alpha) w + alpha TrMean_b(w + u_1, ..., w + u_n).

    Args:
        updates: (n, d), float32 or float64. Row i is client i's local minus global parameters. Not modified.
        alpha: weight of the clients' models in the moving average, 0 < alpha <= 1. 1 is the trimmed mean.
        num_trimmed: b, values dropped per side and coordinate. 0 is the paper's option I, without robustness.
        unsafe: as for ``trimmed_mean``.

    Returns:
        (d,), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``alpha`` is outside (0, 1]; else as ``trimmed_mean``.

    Invariant to row order; equivariant to scale, and not to shift. While at most b rows are hostile, every coordinate
    stays between alpha times the smallest and alpha times the largest honest value. Cost as ``trimmed_mean``.

    Example:
        >>> import torch
        >>> slsgd(torch.tensor([[-1e30], [1.0], [2.0], [6.0], [float("nan")]]), alpha=0.5, num_trimmed=1)
        tensor([1.5000])

    Source: Xie, Koyejo and Gupta, ECML PKDD 2019, Algorithm 1; option II where b > 0.
    """
    if not 0 < alpha <= 1:
        raise ConfigError(f"slsgd needs 0 < alpha <= 1; got alpha={alpha!r}. 1.0 is the trimmed mean itself.")
    return trimmed_mean(updates, num_trimmed, unsafe=unsafe).mul_(alpha)
