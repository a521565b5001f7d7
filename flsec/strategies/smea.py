"""Smallest-maximum-eigenvalue averaging as a Flower strategy."""

from typing import Any

from flsec.aggregation.smea import least_spread
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["SMEA"]


class SMEA(RobustStrategy):
    """Keep the n - f replies whose variance along their widest direction is the smallest.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n - f, d) of a round's (n, d) updates. Needs n >= 2 f + 1 usable replies a round. Exact while the number
    of subsets times (n - f)^3 is at most 10^8 (f = 5 of 20), beyond that greedy, see ``flsec.aggregation.smea``; each
    verdict's note ``exact`` says which. O(n^2 d) time beside the search, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = SMEA(FedAvg(), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: Allouah et al., ICML 2023.
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the n - f rows of the smallest largest eigenvalue."""
        rows, exact = least_spread(cohort.gram(), self.faults(cohort))
        self.report(exact=exact)
        return cohort.keep(rows)
