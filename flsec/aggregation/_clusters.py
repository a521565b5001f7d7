"""How many clusters points have, and which: k-means and the gap statistic, whatever the order of the points.

k-means starts from the centres of Ward's clusters, not from random points, so that the order of the points and the
signs of their coordinates do not matter.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["gap_clusters"]

Points = NDArray[np.float64]
Labels = NDArray[np.int64]

_LEAST_VARIATION = 1e-24  # of points in a box of size 1; its logarithm is taken
_DIGITS = 12  # of coordinates in that box that tell points apart


def gap_clusters(points: Points, largest: int, num_references: int, rng: np.random.Generator) -> Labels:
    """Return the labels of k-means with the number of clusters that the gap statistic finds.

    V_k is the sum of squared distances to the k centres, and V*_k the same of as many points drawn evenly from a box of
    the points' width; Gap(k) = mean log V*_k - log V_k. k is the smallest with Gap(k) >= Gap(k + 1) - s_(k + 1), where
    s_k is the standard deviation of log V*_k times sqrt(1 + 1 / B).

    Args:
        points: (m, p), m at least 2, finite.
        largest: the most clusters to look for; at most m - 1 are looked for.
        num_references: B, how many times points are drawn.
        rng: where from.

    Returns:
        (m,): cluster numbers; 0 for all where all points are the same.
    """
    widths = np.ptp(points, axis=0)
    if not widths.max() > 0:
        return np.zeros(len(points), np.int64)
    scale = widths.max()
    points, widths = (points - points.mean(axis=0)) / scale, widths / scale
    counts = range(1, min(largest, len(points) - 1) + 2)
    references = [(rng.random(points.shape) - 0.5) * widths for _ in range(num_references)]
    drawn = np.array([[_k_means(sample, k)[1] for k in counts] for sample in references])
    deviation = drawn.std(axis=0) * math.sqrt(1 + 1 / num_references)
    labels, gap = np.zeros(len(points), np.int64), -math.inf
    for position, k in enumerate(counts):
        found, variation = _k_means(points, k)
        new = float(drawn[:, position].mean()) - variation
        if gap >= new - deviation[position]:
            break
        if k < counts[-1]:
            labels, gap = found, new
    return labels


def _k_means(points: Points, k: int) -> tuple[Labels, float]:
    """Return the labels of k clusters, and the logarithm of the sum of squared distances to their centres."""
    from sklearn.cluster import AgglomerativeClustering, KMeans  # takes a second, and few runs use it

    k = min(k, len(np.unique(points.round(_DIGITS), axis=0)))
    if k == 1:
        labels = np.zeros(len(points), np.int64)
    else:
        ward = AgglomerativeClustering(n_clusters=k).fit(points).labels_
        centres = np.stack([points[ward == label].mean(axis=0) for label in range(k)])
        labels = KMeans(n_clusters=k, init=centres, n_init=1).fit(points).labels_.astype(np.int64)
    variation = sum(float(np.square(points[labels == c] - points[labels == c].mean(axis=0)).sum()) for c in set(labels))
    return labels, math.log(max(variation, _LEAST_VARIATION))
