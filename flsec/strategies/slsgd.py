"""SLSGD as a Flower strategy."""

from typing import Annotated, Any

from annotated_types import Gt, Le
from torch import Tensor

from flsec.aggregation.slsgd import slsgd
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["SLSGD"]


class SLSGD(RobustStrategy):
    """Move the global model a part of the way to the trimmed mean of the clients' models.

    Args:
        strategy: the strategy to protect.
        alpha: weight of the clients' models: w <- (1 - alpha) w + alpha TrMean_b.
        num_trimmed: b, how many values to drop on each side of each coordinate, by value and not by number of examples.
        options: see ``RobustStrategy``; the trimmed mean itself is always unweighted.

    Raises:
        ConfigError: ``alpha`` is not in (0, 1], ``num_trimmed`` is negative, or a first round asks no more than 2 b
            clients. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n > 2 b usable replies a round, at most b of them hostile. O(n d
    log n) time, O(n d) memory, nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(SLSGD(FedAvg(), alpha=0.5, num_trimmed=1), [[1.0], [2.0], [3.0], [900.0]])
        tensor([1.2500])

    Source: Xie, Koyejo and Gupta, ECML PKDD 2019, Algorithm 1.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        alpha: Annotated[float, Gt(0), Le(1)],
        num_trimmed: Count,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.alpha = alpha
        self.num_trimmed = num_trimmed

    def num_tolerated(self, num_clients: int) -> int:
        """Return how many values are dropped on each side."""
        return self.num_trimmed

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 b + 1."""
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return alpha times the trimmed mean of the updates."""
        most = (len(cohort) - 1) // 2  # more only where ``unsafe`` allows it
        return slsgd(cohort.updates, self.alpha, min(self.faults(cohort), most))
