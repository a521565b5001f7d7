"""Bucketing: the updates are shuffled and averaged in small groups, before any rule sees them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flsec.aggregation._gram import check_updates, is_whole, weighted_sum
from flsec.errors import ConfigError
from flsec.parameters import Count, PositiveCount
from flsec.randomness import generator

__all__ = ["bucketing"]


def bucketing(updates: Tensor, bucket_size: PositiveCount, seed: int = 0, round: Count = 1) -> Tensor:
    """Return the means of ``bucket_size`` rows each, dealt out at random; the last bucket may hold fewer.

    Means differ less than rows, which robust rules need where clients' data differ. Up to f buckets are hostile, of
    ceil(n / s) instead of n: the rule after it tolerates a smaller share of hostile clients.

    Args:
        updates: (n, d), floating point. Row i is client i's local minus global parameters. Not modified.
        bucket_size: s, from 1, which only shuffles, to about n / (2 f) for a rule that withstands nearly half of its
            rows; 2 is common.
        seed: seed of the run. An attacker who knows it knows who shares a bucket.
        round: the server's round. The buckets depend on seed, round, n and s alone.

    Returns:
        (ceil(n / s), d), with the dtype and device of ``updates``. A row that holds NaN or infinity spoils its own
        bucket and no other.

    Raises:
        ConfigError: ``updates`` is no floating matrix, or ``bucket_size`` is no whole number from 1.

    Equivariant to shift, scale and rotation; another order of rows gives other buckets, as another seed does. A last
    bucket of fewer rows is divided by their number, where the paper's formula divides by s and so shrinks it. O(n d)
    time, one pass.

    Example:
        >>> bucketing(torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0]]), bucket_size=2)
        tensor([[0.5000],
                [2.5000],
                [4.0000]])

    Source: Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
    """
    n = check_updates(updates, "bucketing")
    if not is_whole(bucket_size) or bucket_size < 1:
        raise ConfigError(
            f"bucketing needs a whole bucket_size >= 1; got bucket_size={bucket_size}. 2 is a common start."
        )
    equal = torch.ones(n, dtype=torch.float64)
    return bucket_means(updates, dealt(n, bucket_size, seed, round), equal)


def dealt(n: int, bucket_size: int, seed: int, round: int) -> list[list[int]]:
    """Return the row numbers of each bucket, ascending within it."""
    order = torch.randperm(n, generator=generator(seed, round, purpose="bucketing")).tolist()
    return [sorted(order[start : start + bucket_size]) for start in range(0, n, bucket_size)]


def bucket_means(updates: Tensor, buckets: Sequence[Sequence[int]], weights: Tensor) -> Tensor:
    """Return the (m, d) weighted mean of each bucket's rows, with (n,) float64 weights; equal ones where all are 0."""
    means = []
    for rows in buckets:
        shares = torch.zeros_like(weights)
        shares[rows] = weights[rows] if bool(weights[rows].any()) else 1.0
        means.append(weighted_sum(updates, shares / shares.sum()))
    return torch.stack(means)
