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

    Raises:
        ConfigError: ``fraction`` is not in (0, 1). Others: see ``RobustStrategy``.

    Hands on (max(1, floor(p n)), d) of a round's (n, d) updates. Most honest clients are dropped as well, by design: 1
    - p of all, whether somebody attacks or not. Hostile updates of a usual size and a usual angle to the global model
    pass. The verdict's scores are the whitened deviations. O(n d + n^2) time, nothing kept between rounds, nothing on
    the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = MultiMetrics(FedAvg(), fraction=0.5)
        >>> play_rounds(strategy, [[1.0, 1.0], [1.0, 1.1], [1.1, 1.0], [-9.0, 5.0]])
        tensor([1.0500, 1.0500])
        >>> strategy.last_report.kept
        (1, 2)

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
