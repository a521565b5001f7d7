"""FLAME: the majority of directions, clipped to the median norm, with noise of a size that follows it."""

import math

import torch
from torch import Tensor

from flsec.aggregation._filters import Filtered, clipping_factors, cosine_distances, median_norm, on_finite_rows
from flsec.aggregation._gram import check_updates, float64_blocks, gram
from flsec.errors import ConfigError
from flsec.parameters import Count, NonNegative
from flsec.randomness import generator

__all__ = ["flame"]

_FEWEST = 3  # rows of which more than half are fewer than all


@torch.no_grad()
def flame(
    updates: Tensor,
    noise: NonNegative = 0.001,
    seed: int = 0,
    round: Count = 1,
    model: Tensor | None = None,
) -> Tensor:
    """Return the mean of the rows in the densest majority, each clipped to the median norm, plus Gaussian noise.

    HDBSCAN clusters the cosine distances with clusters of at least n // 2 + 1 rows, of which there is at most one. It
    is then the smallest group of more than half of the rows that single linkage joins.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        noise: lambda >= 0, the standard deviation of the noise on each coordinate in units of the median norm S of all
            rows. The paper takes 0.001 for images and texts, 0.01 for intrusion detection.
        seed: seed of the run.
        round: the server's round. The noise depends on seed, round and d alone, but for its size.
        model: (d,), the global parameters: distances are then those of the clients' models. None: of the updates.

    Returns:
        (d,): mean over the rows kept of u_i min(1, S / |u_i|), + N(0, (lambda S)^2), with the dtype and device of
        ``updates``; zero if no row is finite.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or a setting is out of range.

    Invariant to row order; without ``model`` equivariant to scale; not to shift. The mean is never longer than S. Rows
    that hold NaN or infinity count as absent, also in S; a zero row has the distance 1 to all others. Of fewer than 3
    rows all are kept. O(n^2 d) time, O(n^2) memory.

    Example:
        >>> flame(torch.tensor([[3.0, 4.0], [3.0, 4.0], [6.0, 8.0], [-30.0, 0.0]]), noise=0.0)
        tensor([3.5000, 4.6667])

    Source: Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022. Its
        distances are of the clients' models, which in rounds of small steps all point the same way; most versions
        compare updates, as the default here does.
    """
    check_updates(updates, "flame")
    if not 0 <= noise < math.inf:
        raise ConfigError(f"flame needs 0 <= noise < inf; got noise={noise}. 0.001 is the paper's for images.")
    if model is not None and (not isinstance(model, Tensor) or model.shape != updates.shape[1:]):
        got = tuple(model.shape) if isinstance(model, Tensor) else type(model).__name__
        raise ConfigError(f"flame needs model as a tensor of shape ({updates.shape[1]},); got {got}. Or leave it out.")
    found = flame_filter(updates, model)
    return with_noise(found.mean(updates), noise * found.max_norm, seed, round)


def flame_filter(updates: Tensor, model: Tensor | None) -> Filtered:
    """Return who is admitted; the scores are mean cosine distances to those who are."""
    products = gram(updates, center=False)
    norms = products.diagonal().sqrt()
    finite = norms.isfinite()
    if model is not None:
        products = products_of_models(updates, model, products)
    distances = cosine_distances(products[finite][:, finite])
    admitted = _majority(distances, norms[finite])
    scores = distances[:, admitted].mean(dim=1) if len(admitted) else distances.new_empty(0)
    max_norm = median_norm(norms)
    kept, scores = on_finite_rows(finite, admitted), on_finite_rows(finite, scores)
    return Filtered(kept, clipping_factors(norms, max_norm), scores, norms, max_norm)


def products_of_models(updates: Tensor, model: Tensor, products: Tensor) -> Tensor:
    """Return the (n, n) inner products of w + u_i from those of u_i."""
    along, own = torch.zeros_like(products[0]), 0.0
    for columns, block in float64_blocks(updates):
        part = model[columns].to(block)
        along, own = along + block @ part, own + float(part @ part)
    return products + along[:, None] + along[None, :] + own


def with_noise(mean: Tensor, std: float, seed: int, round: int) -> Tensor:
    """Return the mean with noise, the same on every device and for every dtype."""
    if std == 0:
        return mean
    normal = torch.randn(mean.shape[0], generator=generator(seed, round, purpose="flame"), dtype=torch.float64)
    return mean + (std * normal).to(mean)


def _majority(distances: Tensor, norms: Tensor) -> Tensor:
    n = len(norms)
    if n < _FEWEST:
        return torch.ones(n, dtype=torch.bool, device=norms.device)
    from sklearn.cluster import HDBSCAN  # takes a second, and few runs use it

    clustering = HDBSCAN(
        min_cluster_size=n // 2 + 1, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
    )
    labels = torch.from_numpy(clustering.fit(distances.cpu().numpy()).labels_).to(norms.device)
    return labels >= 0
