"""ClippedClustering: the larger of two clusters of directions, clipped to the usual norm of the run."""

import torch
from torch import Tensor

from flsec.aggregation._filters import (
    Filtered,
    clipping_factors,
    cosine_distances,
    largest_cluster,
    median_norm,
    on_finite_rows,
)
from flsec.aggregation._gram import check_updates, gram
from flsec.errors import ConfigError

__all__ = ["clipped_clustering"]

_FEWEST = 3  # rows that can be told into more and fewer


@torch.no_grad()
def clipped_clustering(updates: Tensor, history: Tensor | None = None) -> Tensor:
    """Return the mean of the larger of two clusters of rows, each clipped to the median of all norms so far.

    The clusters are those of agglomerative clustering by average linkage of the cosine distances 1 - cos(u_i, u_j),
    which clipping leaves as they are.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        history: (m,) norms of the rows of earlier rounds; the median is of these and this round's. None: none.

    Returns:
        (d,), with the dtype and device of ``updates``; zero if no row is finite.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or ``history`` no vector of finite numbers at least 0.

    Invariant to row order; without a history equivariant to scale; not to shift. The result is never longer than the
    median norm. Rows that hold NaN or infinity count as absent, also in the median; a zero row has the distance 1 to
    all others. Fewer than 3 rows, and rows that all point the same way, are all kept. O(n^2 d) time, O(n^2) memory.

    Example:
        >>> clipped_clustering(torch.tensor([[3.0, 4.0], [3.0, 4.0], [6.0, 8.0], [-30.0, 0.0]]))
        tensor([3.5000, 4.6667])

    Source: Li, Ngai and Voigt, "An Experimental Study of Byzantine-Robust Aggregation Schemes in Federated Learning",
        IEEE Transactions on Big Data 2024, Sec. IV-H. Left open there, chosen here: of equally large
        clusters that of the smaller mean norm counts.
    """
    check_updates(updates, "clipped_clustering")
    if history is not None and (
        not isinstance(history, Tensor) or history.ndim != 1 or not bool(((history >= 0) & history.isfinite()).all())
    ):
        raise ConfigError(
            "clipped_clustering needs history as a vector of finite norms >= 0; got "
            f"{history if isinstance(history, Tensor) else type(history).__name__!r:.80}. Pass None in the first round."
        )
    return clipped_clustering_filter(updates, history).mean(updates)


def clipped_clustering_filter(updates: Tensor, history: Tensor | None) -> Filtered:
    """Return the larger cluster; the scores are mean cosine distances to the rows of the larger cluster."""
    products = gram(updates, center=False)
    norms = products.diagonal().sqrt()
    finite = norms.isfinite()
    distances = cosine_distances(products[finite][:, finite])
    larger = _larger_cluster(distances, norms[finite])
    scores = distances[:, larger].mean(dim=1) if len(larger) else distances.new_empty(0)
    max_norm = median_norm(norms if history is None else torch.cat([history.to(norms), norms]))
    kept, scores = on_finite_rows(finite, larger), on_finite_rows(finite, scores)
    return Filtered(kept, clipping_factors(norms, max_norm), scores, norms, max_norm)


def _larger_cluster(distances: Tensor, norms: Tensor) -> Tensor:
    n = len(norms)
    if n < _FEWEST or bool((distances == 0).all()):
        return torch.ones(n, dtype=torch.bool, device=norms.device)
    from sklearn.cluster import AgglomerativeClustering  # takes a second, and few runs use it

    clustering = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage="average")
    labels = torch.from_numpy(clustering.fit(distances.cpu().numpy()).labels_)
    return largest_cluster(labels.to(norms.device), norms)
