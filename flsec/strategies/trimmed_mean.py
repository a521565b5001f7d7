"""The coordinate-wise trimmed mean as a Flower strategy."""

from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import Tensor

from flsec.aggregation.trimmed_mean import trimmed_mean
from flsec.errors import ConfigError
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["TrimmedMean"]


class TrimmedMean(RobustStrategy):
    """Aggregate by the mean of each coordinate without its largest and smallest values.

    Args:
        strategy: the strategy to protect.
        num_trimmed: how many values to drop on each side.
        beta: the share to drop on each side, floor(beta n), instead of ``num_trimmed``.
        options: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n > 2 ``num_trimmed`` usable replies a round. O(n d log n) time,
    O(n d) memory.

    Raises:
        ConfigError: both or neither of ``num_trimmed`` and ``beta`` are given, ``num_trimmed`` is negative, ``beta`` is
            not in [0, 0.5), or a first round asks no more than 2 ``num_trimmed`` clients. Others: see
            ``RobustStrategy``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(TrimmedMean(FedAvg(), num_trimmed=1), [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.5000])

    Source: Yin et al., ICML 2018, Definition 2. The sum is divided by the number of values kept.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_trimmed: Count | None = None,
        beta: Annotated[float, Ge(0), Lt(0.5)] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if (num_trimmed is None) == (beta is None):
            raise ConfigError("TrimmedMean takes either num_trimmed (such as 2) or beta (such as 0.1).")
        self.num_trimmed = num_trimmed
        self.beta = beta

    def num_tolerated(self, num_clients: int) -> int:
        """Return how many values are dropped on each side."""
        if self.num_trimmed is not None:
            return self.num_trimmed
        assert self.beta is not None
        return int(self.beta * num_clients + 1e-9)  # 0.1 * 30 is 2.9999999999999996

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 ``num_trimmed`` + 1."""
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the trimmed mean of the updates."""
        most = (len(cohort) - 1) // 2  # more only where ``unsafe`` allows it
        return trimmed_mean(cohort.updates, min(self.faults(cohort), most))
