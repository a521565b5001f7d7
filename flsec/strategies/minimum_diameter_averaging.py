"""Minimum-diameter averaging as a Flower strategy."""

from typing import Any

from flsec.aggregation.minimum_diameter_averaging import smallest_diameter
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["MinimumDiameterAveraging"]


class MinimumDiameterAveraging(RobustStrategy):
    """Keep the n - f replies whose largest pairwise distance is the smallest (MDA).

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n - f, d) of a round's (n, d) updates. Needs n >= 2 f + 1 usable replies a round. Exact up to f = 12,
    beyond that greedy, see ``flsec.aggregation.minimum_diameter_averaging``; each verdict's note ``exact`` says which.
    O(n^2 d) time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = MinimumDiameterAveraging(FedAvg(), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: El Mhamdi, Guerraoui and Rouault, ICLR 2021.
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the n - f rows of the smallest diameter."""
        rows, exact = smallest_diameter(cohort.squared_distances(), self.faults(cohort))
        self.report(exact=exact)
        return cohort.keep(rows)
