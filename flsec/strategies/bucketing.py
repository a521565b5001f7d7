"""Bucketing as a Flower strategy."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from flsec import _numbers
from flsec.aggregation.bucketing import bucket_means, dealt
from flsec.parameters import PositiveCount
from flsec.strategies._flower import mean_of
from flsec.strategies._metrics import averageable
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["Bucketing"]


class Bucketing(RobustStrategy):
    """Deal the clients out at random and hand on the mean update of each bucket, for the rule inside.

    Args:
        strategy: the rule that goes over the buckets, such as ``Krum(...)`` or ``Median(...)``.
        bucket_size: s, how many clients share a bucket; the last bucket may hold fewer.
        seed: seed of the run. A round's buckets depend on it, on the round's number and on how many replied. An
            attacker who knows it knows who shares a bucket.
        options: see ``RobustStrategy``; with ``weighting="examples"`` a bucket is the mean weighted by them.

    Raises:
        ConfigError: ``bucket_size`` is not at least 1, or a rule inside goes by client id, such as ``FoolsGold``.
            Others: see ``RobustStrategy``.

    Hands on (ceil(n / s), d) means of a round's (n, d) updates. The rule inside sees ceil(n / s) rows, of which as many
    as f are hostile: its f stays what it is, and it needs as many rows as ever, so that Krum with f = 1, which needs 5,
    needs 9 clients with s = 2. One that is told a share counts buckets. A bucket is no client: it claims its clients'
    examples together, verdicts inside speak of all clients in it, and the note ``buckets`` says which these are. Rules
    that go by client id cannot stand inside.

    Not a defense by itself. O(n d) time; O(n d / s) memory for the means, nothing kept between rounds.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.strategies import Median
        >>> strategy = Bucketing(Median(FedAvg()), bucket_size=2)
        >>> play_rounds(strategy, [[1.0], [1.0], [1.0], [1.0], [1.0], [900.0]])
        tensor([1.])
        >>> sorted(map(len, strategy.last_report.verdicts[0].notes["buckets"]))
        [2, 2, 2]

    Source: Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
    """

    merges_clients: ClassVar[bool] = True

    def __init__(
        self, strategy: FlowerStrategy, *, bucket_size: PositiveCount = 2, seed: int = 0, **options: Any
    ) -> None:
        super().__init__(strategy, **options)
        self.bucket_size = bucket_size
        self.seed = seed

    @property
    def judges_clients(self) -> bool:
        """A bucket is no verdict on a client."""
        return False

    def most_kept(self, num_clients: int) -> int:
        """Return ceil(n / s)."""
        return -(-num_clients // self.bucket_size)

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Replace the clients by buckets."""
        buckets = dealt(len(cohort), self.bucket_size, self.seed, cohort.round)
        counts = self.weights(cohort)
        weights = torch.ones(len(cohort), dtype=torch.float64) if counts is None else counts
        merged = _merged(cohort, buckets).replace(updates=bucket_means(cohort.updates, buckets, weights), modified=True)
        self.report(buckets=[list(group) for group in merged.members])
        return merged


def _merged(cohort: Cohort, buckets: Sequence[Sequence[int]]) -> Cohort:
    """Return a cohort of buckets but for the updates; each in the name of its first client."""
    metrics = averageable(cohort.metrics).rows
    first = [rows[0] for rows in buckets]
    return cohort.replace(
        num_examples=torch.stack([cohort.num_examples[rows].sum() for rows in buckets]),
        client_ids=tuple(cohort.client_ids[i] for i in first),
        metrics=tuple(mean_of([metrics[i] for i in rows], [1.0] * len(rows)) for rows in buckets),
        buffers=tuple(_middle([cohort.buffers[i] for i in rows]) for rows in buckets) if cohort.buffers else (),
        sources=tuple(cohort.sources[i] for i in first),
        members=tuple(tuple(sorted(j for i in rows for j in cohort.members[i])) for rows in buckets),
    )


def _middle(buffers: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """Return the element-wise median of each array beside the updates: nobody sets a counter alone."""
    return tuple(_numbers.middle(list(arrays)) for arrays in zip(*buffers, strict=True))
