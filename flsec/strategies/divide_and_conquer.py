"""Divide and conquer as a Flower strategy."""

from typing import Any

from flsec.aggregation.divide_and_conquer import num_dropped, rows_kept
from flsec.parameters import Count, Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["DivideAndConquer"]


class DivideAndConquer(RobustStrategy):
    """Drop the replies that lie farthest along the direction in which updates vary most (DnC).

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        num_iterations: how often coordinates are drawn; who is dropped once is out.
        subsample: how many coordinates are drawn.
        filter_fraction: c; ceil(c f) replies are dropped in each iteration.
        seed: seed of the coordinates, which depend on it and on the round's number alone.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``num_iterations`` or ``subsample`` is not at least 1,
            ``filter_fraction`` is not positive, or a first round asks fewer than 2 f + 1, or no more than c f, clients.
            Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Needs n >= 2 f + 1 and n > c f usable replies a round. O(n d + n^2 s)
    time for s coordinates, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = DivideAndConquer(FedAvg(), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: Shejwalkar and Houmansadr, NDSS 2021, Algorithm 2.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        num_iterations: PositiveCount = 1,
        subsample: PositiveCount = 10_000,
        filter_fraction: Positive = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine
        self.num_iterations = num_iterations
        self.subsample = subsample
        self.filter_fraction = filter_fraction
        self.seed = seed

    def clients_needed(self, num_byzantine: int) -> int:
        """Return the larger of 2 f + 1 and ceil(c f) + 1."""
        return max(2 * num_byzantine, num_dropped(num_byzantine, self.filter_fraction)) + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the rows that no iteration drops."""
        most = len(cohort) - 1  # more only where ``unsafe`` allows it
        dropped = min(num_dropped(self.faults(cohort), self.filter_fraction), most)
        rows = rows_kept(cohort.updates, dropped, self.num_iterations, self.subsample, self.seed, cohort.round)
        return cohort.keep(rows)
