"""Comparative gradient elimination as a Flower strategy."""

from typing import Any

from flsec.aggregation._gram import row_norms
from flsec.aggregation.comparative_gradient_elimination import shortest
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["ComparativeGradientElimination"]


class ComparativeGradientElimination(RobustStrategy):
    """Drop the f longest updates (CGE).

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n - f, d) of a round's (n, d) updates. Needs n >= 2 f + 1 usable replies a round. The kept replies are
    averaged; the paper's sum is the same with a server learning rate of n - f. O(n d) time and memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = ComparativeGradientElimination(FedAvg(), num_byzantine=1)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [-900.0]])
        tensor([2.])

    Source: Gupta, Liu and Vaidya, 2020.
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the n - f rows of the smallest norms."""
        norms = row_norms(cohort.updates)
        kept = shortest(norms, max(1, len(cohort) - self.faults(cohort)))
        self.report(scores=norms, threshold=Threshold.of_kept(norms[kept], highest=True))
        return cohort.keep(kept)
