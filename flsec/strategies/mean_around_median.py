"""The mean around the median as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation._windows import mean_of_windows
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["MeanAroundMedian"]


class MeanAroundMedian(RobustStrategy):
    """Aggregate by the mean of each coordinate's n - f values nearest to its median (MeaMed).

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n >= 2 f + 1 usable replies a round. O(n d log n) time, O(n d)
    memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(MeanAroundMedian(FedAvg(), num_byzantine=1), [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.])

    Source: Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", 2018.
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the mean around the median of the updates."""
        matrix, rows = cohort.parts()
        most = len(cohort) - 1  # more only where ``unsafe`` allows it
        return mean_of_windows(matrix, rows, min(self.faults(cohort), most), centred=True)
