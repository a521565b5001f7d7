"""The geometric median of means as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.median_of_means import check_groups, weights_of_groups
from flsec.parameters import Count, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["MedianOfMeans"]


class MedianOfMeans(RobustStrategy):
    """Aggregate by the geometric median of the means of k groups of replies.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        num_groups: k, more than 2 f; as many as there are replies where those are fewer. 3 f + 1 if left out.
        options: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n >= 2 f + 1 usable replies a round. Groups are runs of clients in
    the order of their ids. O(n^2 d) time, O(n d) memory.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``num_groups`` is not more than 2 f, or a first round asks fewer
            than 2 f + 1 clients. Others: see ``RobustStrategy``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = MedianOfMeans(FedAvg(), num_byzantine=1, num_groups=3)
        >>> play_rounds(strategy, [[1.0], [1.0], [2.0], [2.0], [3.0], [900.0]])  # of 1, 2 and 451.5
        tensor([2.])

    Source: Chen, Su and Xu, POMACS 2017.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        num_groups: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        check_groups("MedianOfMeans", num_groups, num_byzantine)
        self.num_byzantine = num_byzantine
        self.num_groups = num_groups

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the geometric median of the groups' means."""
        weights = weights_of_groups(cohort.gram(), self.faults(cohort), self.num_groups)
        self.report(weights=weights)
        return weighted_sum(cohort.updates, weights)
