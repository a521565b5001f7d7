"""Residual-based reweighting: how far each client's values lie from a robust line through all clients' values."""

import math

import torch
from torch import Tensor

from flsec.aggregation._columns import mean_of_ranks
from flsec.aggregation._device import where_blocks_are
from flsec.aggregation._gram import check_updates, column_blocks, weighted_sum
from flsec.errors import ConfigError
from flsec.parameters import Fraction, Positive

__all__ = ["residual_reweighting", "residual_weights"]

_LARGE = 1e300  # stands for NaN and infinity: ranks at the end, and differences of two stay finite
_ROUNDING = 1e-12  # residuals below this share of the line's values are rounding errors


def residual_reweighting(updates: Tensor, confidence_interval: Positive = 2.0, threshold: Fraction = 0.1) -> Tensor:
    """Return the mean of the corrected rows, weighted by how well each client's values fit a robust line.

    For each coordinate, y_(0) <= ... <= y_(n-1) are the clients' values and x = 0, ..., n - 1 their ranks.

    1. Repeated median line: beta_1 = med_i med_(j != i) (y_(j) - y_(i)) / (j - i),
       beta_0 = med(y) - beta_1 (n - 1) / 2.
    2. Residuals r_k = y_(k) - beta_0 - beta_1 k, in units of tau = 1.4826 (1 + 5 / (n - 1)) med |r|, where the smallest
       |r| is left out of the median: e_k = r_k / tau.
    3. Confidence c_k = s_k / e_k Psi(e_k / s_k) = min(1, Z s_k / |e_k|), where Psi clips to [-Z, Z],
       Z = lambda sqrt(2 / n), s_k = sqrt(1 - h_k), and h_k = 1 / n + 12 (k - (n - 1) / 2)^2 / (n (n^2 - 1)) is the
       leverage of rank k.
    4. Where c_k < ``threshold``, the value is replaced by the line's: beta_0 + beta_1 k.
    5. Client weight W_i = sum over coordinates of c_i times the standard deviation (ddof = 1) of that coordinate's n
       confidences, so that coordinates where all agree say nothing; then (W_i / max W)^2, normalised to sum 1.

    Args:
        updates: (n, d), floating point, n >= 3. Row i is client i's local minus global parameters. Not modified.
        confidence_interval: lambda > 0, the width Z of the interval in which a residual raises no doubt.
        threshold: confidence below which a value is replaced by the line's, in [0, 1].

    Returns:
        (d,), with the dtype and device of ``updates``.

    Raises:
        ConfigError: ``updates`` is no floating matrix with 3 rows or more, or a setting is out of range.

    Invariant to row order (equal values are ranked by row); equivariant to shift and scale. While fewer than half of
    the rows are hostile the result stays near the honest values: huge values, NaN and infinity have confidence 0.
    O(n^2 log(n) d) time, O(n d) extra memory.

    Example:
        >>> residual_reweighting(torch.tensor([[1.0], [2.0], [3.0], [4.5], [1e9]]))
        tensor([2.6250])

    Source: Fu et al., "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019, Sec. 3, with the
        authors' code where the text is silent: one step of reweighting, the square in 5, the median in 2. Their
        tau + 1e-7 is left out: it would trust everybody where updates are small.
    """
    weights, corrected = reweight(updates, confidence_interval, threshold)
    return weighted_sum(corrected, weights)


def residual_weights(updates: Tensor, confidence_interval: Positive = 2.0, threshold: Fraction = 0.1) -> Tensor:
    """Return the client weights of ``residual_reweighting``.

    Args:
        updates: as for ``residual_reweighting``.
        confidence_interval: as for ``residual_reweighting``.
        threshold: as for ``residual_reweighting``; the weights do not depend on it.

    Returns:
        (n,) float64, at least 0, sum 1; equal where no coordinate tells the clients apart.

    Raises:
        ConfigError: as ``residual_reweighting``.

    Example:
        >>> residual_weights(torch.tensor([[1.0], [1.1], [0.9], [1.2], [9.0]])).round(decimals=2)
        tensor([0.2500, 0.2500, 0.2500, 0.2500, 0.0000], dtype=torch.float64)

    Source: Fu et al., 2019, Sec. 3.
    """
    return reweight(updates, confidence_interval, threshold)[0]


@torch.no_grad()
def reweight(updates: Tensor, confidence_interval: float, threshold: float) -> tuple[Tensor, Tensor]:
    """Return (n,) weights and the (n, d) rows with extreme values replaced by the line's."""
    n = check_updates(updates, "residual_reweighting")
    if n < 3:
        raise ConfigError(
            f"residual_reweighting needs n >= 3: two values always lie on a line; got n={n}. Sample more clients."
        )
    if not 0 < confidence_interval < math.inf or not 0 <= threshold <= 1:
        raise ConfigError(
            "residual_reweighting needs 0 < confidence_interval < inf and 0 <= threshold <= 1; got "
            f"confidence_interval={confidence_interval}, threshold={threshold}. The defaults are 2.0 and 0.1."
        )
    corrected = torch.empty_like(updates)
    source, device = where_blocks_are(updates)
    totals = torch.zeros(n, dtype=torch.float64, device=device)
    for columns in column_blocks(n * n, updates.shape[1], device):
        values = source[:, columns].to(device, torch.float64)
        values = values.nan_to_num(_LARGE, _LARGE, -_LARGE).clamp_(-_LARGE, _LARGE)
        confidence, line = _fit(values, confidence_interval)
        totals += (confidence * confidence.std(dim=0)).sum(dim=1)
        corrected[:, columns] = torch.where(confidence >= threshold, values, line).to(updates.dtype)
    totals = totals.to(updates.device)
    if not bool(totals.any()):
        return torch.full_like(totals, 1 / n), corrected
    weights = (totals / totals.max()).square()
    return weights / weights.sum(), corrected


def _fit(values: Tensor, confidence_interval: float) -> tuple[Tensor, Tensor]:
    """Return the (n, w) confidences and values on the line of a block of columns, in the order of its rows."""
    n, _ = values.shape
    ordered, order = values.sort(dim=0, stable=True)
    ranks = torch.arange(n, dtype=torch.float64, device=values.device)[:, None]
    middle = (n - 1) / 2
    slope = _repeated_median_slope(ordered)
    intercept = _median(ordered) - slope * middle
    line = intercept + slope * ranks
    residuals = (ordered - line).abs()
    spread = mean_of_ranks(residuals, 1 + (n - 2) // 2, 2 + (n - 1) // 2)  # the median without the smallest
    tau = 1.4826 * (1 + 5 / (n - 1)) * spread
    tau = torch.maximum(tau, _ROUNDING * (intercept.abs() + n * slope.abs()))
    leverage = 1 / n + 12 * (ranks - middle).square() / (n * (n * n - 1))
    bound = confidence_interval * math.sqrt(2 / n) * (1 - leverage).sqrt() * tau
    confidence = torch.where(residuals > bound, bound / residuals, 1)
    return torch.empty_like(values).scatter_(0, order, confidence), torch.empty_like(values).scatter_(0, order, line)


def _repeated_median_slope(ordered: Tensor) -> Tensor:
    """Return the (w,) medians over i of the medians over j != i of the slopes between the ranks i and j."""
    n, width = ordered.shape
    ranks = torch.arange(n, dtype=ordered.dtype, device=ordered.device)
    steps = (ranks[:, None] - ranks[None, :]).fill_diagonal_(1)
    slopes = (ordered[:, None] - ordered[None, :]) / steps[:, :, None]
    slopes.diagonal().fill_(torch.inf)  # ranked last and left out
    inner = mean_of_ranks(slopes.reshape(n, n * width), (n - 2) // 2, (n - 1) // 2 + 1)
    return _median(inner.reshape(n, width))


def _median(values: Tensor) -> Tensor:
    n = values.shape[0]
    return mean_of_ranks(values, (n - 1) // 2, n // 2 + 1)
