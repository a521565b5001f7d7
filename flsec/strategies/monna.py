"""MoNNA's rule as a Flower strategy."""

from typing import Any

from flsec.aggregation._subsets import ball_around, central_row
from flsec.parameters import Count
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["MoNNA"]


class MoNNA(RobustStrategy):
    """Keep the n - f replies nearest to a pivot, which is one of them.

    Args:
        strategy: the strategy to protect.
        num_byzantine: f, an upper bound on the hostile clients among a round's replies.
        trusted_client: Flower's node id of a client that is trusted, such as the operator's own: the pivot of the
            rounds in which it takes part. In others, and if left out, the pivot is the reply whose n - f nearest
            replies lie in the smallest ball around it.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``num_byzantine`` is negative, or a first round asks fewer than 2 f + 1 clients. Others: see
            ``RobustStrategy``.

    Hands on (n - f, d) of a round's (n, d) updates. Needs n >= 2 f + 1 usable replies a round. The verdict's note
    ``pivot`` is the pivot's id, its scores are squared distances to it. O(n^2 d) time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = MoNNA(FedAvg(), num_byzantine=1, trusted_client=0)
        >>> play_rounds(strategy, [[1.0], [2.0], [3.0], [900.0]])
        tensor([2.])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: Farhadkhani et al., ICML 2023, where every worker is its own pivot. The default pivot is ours.
    """

    def __init__(
        self, strategy: FlowerStrategy, *, num_byzantine: Count, trusted_client: int | None = None, **options: Any
    ) -> None:
        super().__init__(strategy, **options)
        self.num_byzantine = num_byzantine
        self.trusted_client = trusted_client

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 2 f + 1."""
        return 2 * num_byzantine + 1

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the n - f rows nearest to the pivot."""
        distances = cohort.squared_distances()
        count = max(1, len(cohort) - self.faults(cohort))
        if self.trusted_client in cohort.client_ids:
            pivot = cohort.client_ids.index(self.trusted_client)
        else:
            pivot = central_row(distances, count)
        kept = ball_around(distances, pivot, count)
        threshold = Threshold.of_kept(distances[pivot][kept], highest=True)
        self.report(scores=distances[pivot], threshold=threshold, pivot=cohort.client_ids[pivot])
        return cohort.keep(kept)
