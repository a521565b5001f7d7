"""LASA: rows without their small entries are judged layer by layer, by size and by the balance of their signs."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from flsec.aggregation._device import device_of_blocks
from flsec.aggregation._filters import (
    clipping_factors,
    magnitude_of_rank,
    median_norm,
    median_z_scores,
    on_finite_rows,
)
from flsec.aggregation._gram import check_updates, float64_blocks, is_whole, row_norms
from flsec.errors import ConfigError
from flsec.parameters import Count, Fraction, Positive

__all__ = ["lasa"]


class Layers(NamedTuple):
    """What was decided about n rows in each of l layers."""

    kept: Tensor  # (n, l) bool
    factors: Tensor  # (n,) float64: what a row is multiplied by
    least: Tensor  # (n,) with the dtype of the updates: entries of smaller magnitude are set to zero
    max_norm: float  # the median norm


@torch.no_grad()
def lasa(
    updates: Tensor,
    layers: Sequence[Count],
    magnitude_radius: Positive = 2.0,
    direction_radius: Positive = 1.0,
    sparsity: Fraction = 0.3,
) -> Tensor:
    """Return, layer by layer, the mean of the rows that are of usual size and direction there.

    Rows are clipped to the median norm, and lose the share ``sparsity`` of their entries that is smallest in magnitude.
    In each layer two numbers describe what is left of a row: its norm, and its positive direction purity, the share of
    positive ones among its entries that are not zero. A row counts in a layer if both are at most so many standard
    deviations from their medians.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        layers: how many entries each layer has, in order; d in all. ``[d]``: one layer.
        magnitude_radius: lambda_n > 0, the largest distance of the norm from the median, in standard deviations.
        direction_radius: lambda_s > 0, the same of the positive direction purity.
        sparsity: share of a row's entries that are set to zero, at most; where entries are equally large more are left.

    Returns:
        (d,), with the dtype and device of ``updates``; zero in a layer where no row counts.

    Raises:
        ConfigError: ``updates`` is no floating matrix, ``layers`` are not d in all, or a setting is out of range.

    Invariant to row order; equivariant to a positive scale; not to shift. The result of a single layer is never longer
    than the median norm. Rows that hold NaN or infinity count as absent; a row without entries in a layer has the
    purity 1/2 there. Where a number is the same for all rows, all pass, as do fewer than 3 rows. O(n d) time, O(d)
    memory.

    Example:
        >>> rows = torch.tensor([[3.0, 4.0], [4.0, 3.0], [3.0, 4.0], [-30.0, -40.0]])
        >>> lasa(rows, layers=[2], sparsity=0.0)
        tensor([3.3333, 3.6667])

    Source: Xu, Zhang and Hu, "Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified Model
        Aggregation", WACV 2025, and the authors' program, in which each array is a layer, and only arrays of two and
        four dimensions lose entries: here all do. There a single row without entries in a layer makes the purity of
        all no number, and a layer in which no row counts takes the mean of all rows, the hostile ones too.
    """
    check_updates(updates, "lasa")
    _check(updates, layers, magnitude_radius, direction_radius, sparsity)
    return mean_of_layers(updates, layers, lasa_layers(updates, layers, magnitude_radius, direction_radius, sparsity))


def _check(
    updates: Tensor, layers: Sequence[int], magnitude_radius: float, direction_radius: float, sparsity: float
) -> None:
    d = updates.shape[1]
    if not all(is_whole(size) and size >= 0 for size in layers) or sum(layers) != d:
        raise ConfigError(f"lasa needs layers as whole numbers that are {d} in all; got {list(layers)!r:.80}.")
    if not (0 < magnitude_radius < math.inf and 0 < direction_radius < math.inf and 0 <= sparsity < 1):
        raise ConfigError(
            "lasa needs 0 < magnitude_radius < inf, 0 < direction_radius < inf and 0 <= sparsity < 1; got "
            f"magnitude_radius={magnitude_radius}, direction_radius={direction_radius}, sparsity={sparsity}. "
            "Try 2.0, 1.0 and 0.3."
        )


def lasa_layers(
    updates: Tensor, layers: Sequence[int], magnitude_radius: float, direction_radius: float, sparsity: float
) -> Layers:
    """Return which rows count in which layer."""
    norms = row_norms(updates)
    finite = norms.isfinite()
    max_norm = median_norm(norms)
    factors = clipping_factors(norms, max_norm)
    count = max(1, updates.shape[1] - math.floor(sparsity * updates.shape[1]))
    least = torch.zeros_like(updates[:, 0])
    sizes = torch.zeros(len(updates), len(layers), dtype=torch.float64, device=updates.device)
    purities = torch.zeros_like(sizes)
    for row in finite.nonzero().flatten().cpu().tolist():
        least[row] = magnitude_of_rank(updates[row], count)
        left = torch.where(updates[row].abs() >= least[row], updates[row], 0)
        sizes[row], purities[row] = _describe(torch.split(left, list(layers)))
    sizes *= factors[:, None]
    within = [
        (median_z_scores(sizes[finite, k]) <= magnitude_radius)
        & (median_z_scores(purities[finite, k]) <= direction_radius)
        for k in range(len(layers))
    ]
    kept = torch.stack([on_finite_rows(finite, column) for column in within], dim=1)
    return Layers(kept, factors, least, max_norm)


def _describe(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the (l,) norms and positive direction purities of a row's layers."""
    norms = torch.stack([torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts])
    positive = torch.stack([(part > 0).sum() for part in parts]).double()
    negative = torch.stack([(part < 0).sum() for part in parts]).double()
    return norms, 0.5 * (1 + (positive - negative) / (positive + negative).clamp(min=1))


def mean_of_layers(updates: Tensor, layers: Sequence[int], found: Layers, trust: Tensor | None = None) -> Tensor:
    """Return the (d,) mean, layer by layer, of what is left of the rows that count there.

    Args:
        updates: (n, d).
        layers: their sizes.
        found: what ``lasa_layers`` decided.
        trust: (n,) weights at least 0; equal weights where it is None, or 0 for all that count in a layer.
    """
    weights = found.kept.double()
    if trust is not None:
        trusted = weights * trust[:, None]
        weights = torch.where(trusted.any(dim=0), trusted, weights)
    weights = weights / weights.sum(dim=0).clamp(min=1e-300) * found.factors.nan_to_num()[:, None]
    rows = found.kept.any(dim=1).nonzero().flatten()
    mean = torch.zeros_like(updates[0])
    if not len(rows):
        return mean
    device = device_of_blocks(updates) or updates.device
    numbers, sizes = torch.arange(len(layers)).to(device), torch.tensor(list(layers)).to(device)
    layer_of = numbers.repeat_interleave(sizes)
    weights, least = weights[rows].to(device), found.least[rows, None].to(device, torch.float64)
    for columns, block in float64_blocks(updates, rows, device=device):
        left = torch.where(block.abs() >= least, block, 0)
        mean[columns] = (weights[:, layer_of[columns]] * left).sum(dim=0).to(mean)
    return mean
