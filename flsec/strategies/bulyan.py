"""Bulyan as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.bulyan import SecondPhase, second_phase_of_rows, selection_from_distances
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["Bulyan"]


class Bulyan(RobustStrategy):
    """Select n - 2 f replies by repeated Krum, then average per coordinate those closest to the median.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        second_phase: ``"mean"`` averages the n - 4 f values closest to the median (the paper);
            ``"trimmed_mean"`` trims f on each side (SparseFed's appendix).
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``second_phase`` is none of its values, or a first round asks fewer
            than 4 f + 3 clients. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs n >= 4 f + 3 usable replies a round. O(n^2 d) time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(Bulyan(FedAvg(), num_byzantine=1), [[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [900.0]])
        tensor([3.])

    Source: El Mhamdi et al., ICML 2018, Sec. 4.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        second_phase: SecondPhase = "mean",
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine
        self.second_phase: SecondPhase = second_phase
        self._faults = num_byzantine  # f of the current round, from one stage to the next

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 4 f + 3."""
        return 4 * num_byzantine + 3

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the n - 2 f rows that Krum picks from the shrinking set."""
        self._faults = self.faults(cohort)
        return cohort.keep(selection_from_distances(cohort.squared_distances(), self._faults))

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Aggregate the selected rows per coordinate."""
        matrix, rows = cohort.parts()
        return second_phase_of_rows(matrix, rows, self._faults, self.second_phase)
