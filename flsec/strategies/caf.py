"""The covariance-bound agnostic filter as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.caf import filter_weights
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["CAF"]


class CAF(RobustStrategy):
    """Aggregate by a weighted mean that filters the direction of largest variance (covariance-bound agnostic filter).

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n >= 2 f + 1 usable replies a round. O(n^2 d + n^4) time, O(n d)
    memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(CAF(FedAvg(), num_byzantine=1), [[1.0], [2.0], [3.0], [900.0]]).round(decimals=1)
        tensor([2.])

    Source: Allouah, Guerraoui and Stephan, ICML 2025, Algorithm 2.
    """

    def __init__(self, strategy: FlowerStrategy, *, num_byzantine: Count, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the filtered mean of the updates."""
        weights = filter_weights(cohort.gram(), self.faults(cohort))
        self.report(weights=weights)
        return weighted_sum(cohort.updates, weights)
