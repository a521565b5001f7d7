"""RFLBAT: clusters of rows in the plane of their two widest directions; the one least alike in angle is kept."""

import math
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt
from torch import Tensor

from flsec.aggregation._clusters import gap_clusters
from flsec.aggregation._directions import usable_products
from flsec.aggregation._filters import cosine_distances
from flsec.aggregation._gram import check_updates, gram
from flsec.aggregation._subsets import mean_of_rows
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["rflbat"]

_FEWEST = 3  # rows that can be told into more and fewer
_SAME = 1e-9  # distances below this share of the whole are those of rounding


@torch.no_grad()
def rflbat(
    updates: Tensor,
    first_factor: Annotated[float, Gt(1)] = 10.0,
    second_factor: Annotated[float, Gt(1)] = 4.0,
    num_components: PositiveCount = 2,
    max_clusters: PositiveCount = 9,
    num_references: PositiveCount = 5,
    seed: int = 0,
    round: Count = 1,
) -> Tensor:
    """Return the mean of the rows that three filters leave.

    All look at rows by their first principal components. The first and the last drop the rows whose sum of distances to
    the others is larger than so many times the median of these sums. Between them k-means clusters the rows, with the
    number of clusters that the gap statistic finds, and one cluster is kept: that with the smallest median of the rows'
    mean cosines to the rows of their cluster, themselves included. Who has one backdoor in common is more alike in
    angle than those whose data differ.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        first_factor: epsilon_1 > 1, of the first filter.
        second_factor: epsilon_2 > 1, of the last.
        num_components: how many principal components.
        max_clusters: the most clusters to look for.
        num_references: how many times the gap statistic draws points to compare with.
        seed: seed of the run, for these.
        round: the server's round; what is drawn depends on seed, round and the number of rows alone.

    Returns:
        (d,), with the dtype and device of ``updates``; zero if no row is finite.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or a setting is out of range.

    Invariant to row order; equivariant to scale; not to shift, because cosines are. Rows that hold NaN or infinity
    count as absent. Of fewer than 3 rows all are kept. A cluster of one row is never chosen while there are larger
    ones. Not robust by itself: rows are not clipped, and the gap statistic, which stops at the first number of clusters
    that the next does not improve on, takes rows on both sides of the others for one cluster with them. Rows that are
    opposite to each other and so small that they are a cluster of their own are less alike than honest ones: two
    clients can have themselves chosen by that, though with updates of hardly any size. One Gram matrix: O(n^2 d) time,
    O(n^2) memory.

    Example:
        >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.9], [-9.0, -9.0], [-9.1, -9.0]])
        >>> rflbat(rows)
        tensor([0.6250, 0.7250])

    Source: Wang, Zhai, Zhan and Xia, "RFLBAT: A Robust Federated Learning Algorithm against Backdoor Attack",
        arXiv:2201.03772, 2022, with the factors and the gap statistic of public programs of it. k-means starts from
        Ward's clusters, not from random points, so that the order of rows does not matter.
    """
    check_updates(updates, "rflbat")
    check_factors(first_factor, second_factor)
    kept = rflbat_filter(
        updates, first_factor, second_factor, num_components, max_clusters, num_references, seed, round
    )[0]
    return mean_of_rows(updates, kept.nonzero().flatten()) if bool(kept.any()) else torch.zeros_like(updates[0])


def check_factors(first_factor: float, second_factor: float) -> None:
    """Raise ``ConfigError`` unless both are finite and above 1."""
    if not (1 < first_factor < math.inf and 1 < second_factor < math.inf):
        raise ConfigError(
            "rflbat needs 1 < first_factor < inf and 1 < second_factor < inf; got "
            f"first_factor={first_factor}, second_factor={second_factor}. Programs of it take 10.0 and 4.0."
        )


def rflbat_filter(
    updates: Tensor,
    first_factor: float,
    second_factor: float,
    num_components: int,
    max_clusters: int,
    num_references: int,
    seed: int,
    round: int,
) -> tuple[Tensor, Tensor]:
    """Return the (n,) mask of the rows kept, and each row's sum of distances to the others over the median sum."""
    present, products = usable_products(gram(updates, center=False))
    rows = present.nonzero().flatten()
    scores = torch.full(present.shape, torch.nan, dtype=torch.float64)
    if len(rows) < _FEWEST:
        return present.to(updates.device), scores
    products = products[rows][:, rows]
    points = principal_components(products, num_components)
    smallest = _SAME * float(torch.cdist(points, points).max()) * len(rows)
    sums, near = _usual(points, first_factor, smallest)
    scores[rows] = sums / sums.quantile(0.5).clamp(min=1e-300)
    rng = numpy_generator(seed, round, purpose="rflbat")
    near = near[_least_alike(points[near], products[near][:, near], max_clusters, num_references, rng)]
    near = near[_usual(points[near], second_factor, smallest)[1]]
    kept = torch.zeros_like(present)
    kept[rows[near]] = True
    return kept.to(updates.device), scores


def principal_components(products: Tensor, count: int) -> Tensor:
    """Return the (n, count) places of rows along the directions in which they vary most, from their inner products."""
    means = products.mean(dim=0)
    centred = products - means[:, None] - means[None, :] + means.mean()
    variances, vectors = torch.linalg.eigh(centred)
    widest = slice(max(0, len(variances) - count), None)
    places: Tensor = vectors[:, widest] * variances[widest].clamp(min=0).sqrt()
    return places


def _usual(points: Tensor, factor: float, smallest: float) -> tuple[Tensor, Tensor]:
    """Return the sums of distances, and the numbers of the points whose sum is not far above the median."""
    sums = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
    return sums, (sums <= max(factor * float(sums.quantile(0.5)), smallest)).nonzero().flatten()


def _least_alike(
    points: Tensor, products: Tensor, max_clusters: int, num_references: int, rng: np.random.Generator
) -> Tensor:
    """Return the numbers of the points in the cluster of the lowest median of mean cosines."""
    if len(points) < _FEWEST:
        return torch.arange(len(points))
    labels = torch.from_numpy(gap_clusters(points.numpy(), max_clusters, num_references, rng))
    cosines = 1 - cosine_distances(products)

    def order(members: Tensor) -> tuple[bool, float, int, float]:
        alike = float(cosines[members][:, members].mean(dim=1).quantile(0.5))
        return len(members) == 1, alike, -len(members), float(products.diagonal()[members].mean())

    clusters: list[Tensor] = [(labels == label).nonzero().flatten() for label in sorted(set(labels.tolist()))]
    return min(clusters, key=order)
