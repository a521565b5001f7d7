"""Multi-metrics: what is unusual in size and direction by three measures at once, whitened."""

import math

import torch
from torch import Tensor

from flsec.aggregation._device import device_of_blocks
from flsec.aggregation._filters import on_finite_rows
from flsec.aggregation._gram import check_updates, float64_blocks
from flsec.errors import ConfigError

__all__ = ["multi_metrics_scores"]

_RELATIVE_RANK = 1e-10  # variances below this share of the largest count as zero


@torch.no_grad()
def multi_metrics_scores(updates: Tensor, model: Tensor | None = None) -> Tensor:
    """Return how unusual each row is by Manhattan norm, Euclidean norm and cosine to the global model together.

    With m_i = (|u_i|_1, |u_i|_2, cos(w + u_i, w)), x_i holds the three sums over j of |m_i - m_j|. The score is
    sqrt(x_i^T C^-1 x_i), C the covariance of the x_i: each measure counts by how much it varies, without what the
    others say already.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        model: (d,), w, the global parameters. None or zero: norms only.

    Returns:
        (n,) float64, low is good; infinite for rows that hold NaN or infinity. 0 for all where nothing varies.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or ``model`` has another size.

    Follows the order of rows; invariant to a common scale of updates and model. O(n d + n^2) time, O(n) memory.

    Example:
        >>> multi_metrics_scores(torch.eye(3))
        tensor([0., 0., 0.], dtype=torch.float64)

    Source: Huang et al., "Multi-metrics Adaptively Identifies Backdoors in Federated Learning", ICCV 2023. A
        singular C is inverted on its range, which the paper leaves open.
    """
    check_updates(updates, "multi_metrics_scores")
    if model is not None and (not isinstance(model, Tensor) or model.shape != updates.shape[1:]):
        got = tuple(model.shape) if isinstance(model, Tensor) else type(model).__name__
        raise ConfigError(f"multi_metrics_scores needs model of shape ({updates.shape[1]},); got {got}. Or None.")
    measures = _measures(updates, torch.zeros_like(updates[0]) if model is None else model)
    finite = measures.isfinite().all(dim=1)
    if not bool(finite.any()):
        return torch.full_like(measures[:, 0], torch.inf)
    known = measures[finite]
    apart = torch.stack([(column[:, None] - column[None, :]).abs().sum(dim=1) for column in known.T], dim=1)
    apart = apart / apart.mean(dim=0).clamp(min=1e-300)  # whitening undoes any scale
    spread = apart - apart.mean(dim=0)
    inverse = torch.linalg.pinv(spread.T @ spread / max(1, len(known) - 1), rtol=_RELATIVE_RANK, hermitian=True)
    scores = ((apart @ inverse) * apart).sum(dim=1).clamp(min=0).sqrt()
    return on_finite_rows(finite, scores).nan_to_num(nan=torch.inf)


def _measures(updates: Tensor, model: Tensor) -> Tensor:
    """Return the (n, 3) Manhattan norms, Euclidean norms and cosines of the models with the global one."""
    device = device_of_blocks(updates) or updates.device
    sums = torch.zeros(4, updates.shape[0], dtype=torch.float64, device=device)
    own = 0.0
    for columns, block in float64_blocks(updates, device=device):
        part = model[columns].to(block)
        sums[0] += block.abs().sum(dim=1)
        sums[1] += block.square().sum(dim=1)
        block += part
        sums[2] += block @ part
        sums[3] += block.square().sum(dim=1)
        own += float(part @ part)
    norms = (sums[3] * own).sqrt()
    cosines = sums[2] / torch.where(norms > 0, norms, 1)
    return torch.stack([sums[0], sums[1].sqrt(), cosines], dim=1).to(updates.device)


def lowest_share(scores: Tensor, fraction: float) -> Tensor:
    """Return the (n,) mask of the floor(p n) lowest finite scores, one at least."""
    finite = scores.isfinite()
    kept = torch.zeros_like(finite)
    kept[scores.argsort(stable=True)[: max(1, math.floor(fraction * int(finite.sum())))]] = True
    return kept & finite
