"""Multi-metrics as a Flower strategy."""

from typing import Any

from flsec.aggregation.multi_metrics import lowest_share, multi_metrics_scores
from flsec.parameters import OpenFraction
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["MultiMetrics"]


class MultiMetrics(RobustStrategy):
    """Keep the share of the clients whose sizes and directions are the most usual, by three measures at once.

    Args:
        strategy: the strategy to protect.
        fraction: p, the share of a round's clients that is kept, rounded down, but one at least.
        options: see ``RobustStrategy``.

    Most honest clients are dropped as well, by design: 1 - p of all, whether somebody attacks or not. Hostile updates
    of a usual size and a usual angle to the global model pass. The verdict's scores are the whitened deviations.
    O(n d + n^2) time, nothing kept between rounds, nothing on the client.

    Source: Huang et al., "Multi-metrics Adaptively Identifies Backdoors in Federated Learning", ICCV 2023.
    """

    def __init__(self, strategy: FlowerStrategy, *, fraction: OpenFraction = 0.3, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.fraction = fraction

    @property
    def accuses_clients(self) -> bool:
        """Never: most clients are dropped in every round, whoever they are."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the rows of the lowest scores."""
        scores = multi_metrics_scores(cohort.updates, cohort.global_parameters)
        kept = lowest_share(scores, self.fraction)
        self.report(scores=scores, threshold=Threshold.of_kept(scores[kept], highest=True))
        return cohort.keep(kept)
