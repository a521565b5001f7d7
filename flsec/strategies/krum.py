"""Krum as a Flower strategy."""

from typing import Any

from flsec.aggregation.krum import scores_from_distances
from flsec.parameters import Count, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["Krum"]


class Krum(RobustStrategy):
    """Keep only the reply that is closest to its n - f - 2 nearest neighbours.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        num_neighbors: how many nearest replies a score sums over; None: n - f - 2, for which the paper's proof holds.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``num_neighbors`` is not at least 1, or a first round asks fewer
            than 2 f + 3 clients. Others: see ``RobustStrategy``.

    Hands on (1, d) of a round's (n, d) updates. Needs n >= 2 f + 3 usable replies a round. O(n^2 d) time, O(n d)
    memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = Krum(FedAvg(), num_byzantine=1)
        >>> play_rounds(strategy, [[0.0], [0.1], [0.15], [0.2], [9.0]])
        tensor([0.1500])
        >>> strategy.last_report.kept
        (2,)

    Source: Blanchard et al., NeurIPS 2017, Sec. 4.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        num_neighbors: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine
        self.num_neighbors = num_neighbors

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 3."""
        return 2 * num_byzantine + 3

    def most_kept(self, num_clients: int) -> int:
        """Return 1."""
        return 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop all rows but the one of the lowest score."""
        scores = scores_from_distances(cohort.squared_distances(), self.faults(cohort), self.num_neighbors)
        self.report(scores=scores, threshold=Threshold.of_kept(scores.min()[None], highest=True))
        return cohort.keep([int(scores.argmin())])
