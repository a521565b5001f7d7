"""The distance between two clouds of points, each seen as a Gaussian."""

import torch
from torch import Tensor

__all__ = ["frechet_distance", "moments"]


def moments(points: Tensor) -> Tensor:
    """Return the mean of [1, p][1, p]^T over points p (n, d), as (d + 1, d + 1) in float64: mean and second moments.

    Such means add: that of two sets is the mean of both, weighted by their sizes.
    """
    points = points.double()
    extended = torch.cat([points.new_ones(len(points), 1), points], dim=1)
    return extended.T @ extended / len(points)


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Return |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of Gaussians with such ``moments``; NaN if one is not finite.

    Args:
        first: (d + 1, d + 1), as ``moments`` returns.
        second: likewise.

    Example:
        >>> points = torch.tensor([[0.0, 0.0], [2.0, 0.0]])
        >>> frechet_distance(moments(points), moments(points + 3.0))
        18.0

    Source: Dowson and Landau, "The Frechet distance between multivariate normal distributions", 1982.
    """
    if not (first.isfinite().all() and second.isfinite().all()):
        return float("nan")
    (mean1, covariance1), (mean2, covariance2) = _gaussian(first.cpu()), _gaussian(second.cpu())
    values, vectors = torch.linalg.eigh(covariance1)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    # C1 C2 has the eigenvalues of C1^(1/2) C2 C1^(1/2), which is symmetric
    cross = torch.linalg.eigvalsh(root @ covariance2 @ root).clamp(min=0).sqrt().sum()
    return float((mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * cross)


def _gaussian(moment: Tensor) -> tuple[Tensor, Tensor]:
    mean = moment[0, 1:]
    return mean, moment[1:, 1:] - torch.outer(mean, mean)
