"""Multi-Krum as a Flower strategy."""

from typing import Any

from flsec.aggregation.krum import scores_from_distances
from flsec.aggregation.multi_krum import Selection, selected_rows
from flsec.parameters import Count, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["MultiKrum"]


class MultiKrum(RobustStrategy):
    """Keep the m replies of the lowest Krum scores.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        num_selected: m, how many replies to keep; n - f if left out. FedMLSecurity's m-Krum is m = 5 of 10.
        num_neighbors: how many nearest replies a score sums over; None: n - f - 2, for which the paper's proof holds.
            FedInv's numbers for Multi-Krum come out with 6 of its 20 clients.
        selection: ``"once"``: the m lowest scores; ``"iterative"``: the lowest of those that are left, m times. The
            scores that are reported are those of all replies.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, ``num_selected`` or ``num_neighbors`` is not at least 1, or a first
            round asks fewer than 2 f + 3 or f + m clients. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Needs n >= 2 f + 3 and n >= f + m usable replies a round. O(n^2 d)
    time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = MultiKrum(FedAvg(), num_byzantine=1, num_selected=3)
        >>> play_rounds(strategy, [[0.0], [0.1], [0.15], [0.2], [9.0]])
        tensor([0.1500])
        >>> strategy.last_report.kept
        (1, 2, 3)

    Source: Blanchard et al., NeurIPS 2017, Sec. 4.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        num_byzantine: Count,
        num_selected: PositiveCount | None = None,
        num_neighbors: PositiveCount | None = None,
        selection: Selection = "once",
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine
        self.num_selected = num_selected
        self.num_neighbors = num_neighbors
        self.selection: Selection = selection

    def clients_needed(self, num_byzantine: int) -> int:
        """Return the larger of 2 f + 3 and f + m."""
        return max(2 * num_byzantine + 3, num_byzantine + (self.num_selected or 1))

    def most_kept(self, num_clients: int) -> int:
        """Return m."""
        return max(1, self.num_selected or num_clients - self.num_byzantine)

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the m rows of the lowest scores."""
        faults = self.faults(cohort)
        distances = cohort.squared_distances()
        kept = selected_rows(distances, faults, self.num_selected, self.num_neighbors, self.selection)
        scores = scores_from_distances(distances, faults, self.num_neighbors)
        # picked one by one, rows are compared with those that were left
        threshold = Threshold.of_kept(scores[kept], highest=True) if self.selection == "once" else None
        self.report(scores=scores, threshold=threshold)
        return cohort.keep(kept)
