"""RFLBAT as a Flower strategy."""

from typing import Annotated, Any

from annotated_types import Gt

from flsec.aggregation.rflbat import rflbat_filter
from flsec.parameters import PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["RFLBAT"]


class RFLBAT(RobustStrategy):
    """Keep the cluster of clients, in the plane of the two widest directions, whose updates are least alike in angle.

    Args:
        strategy: the strategy to protect.
        first_factor: epsilon_1; before clustering, clients are dropped whose sum of distances to the others is larger
            than so many times the median of these sums.
        second_factor: epsilon_2, the same within the cluster.
        num_components: how many principal components updates are compared by.
        max_clusters: the most clusters that the gap statistic may find.
        num_references: how many times it draws points to compare with.
        seed: seed of these.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: a factor is not more than 1, or ``num_components``, ``max_clusters`` or ``num_references`` is not
            at least 1. Others: see ``RobustStrategy``.

    Hands on (m, d) of a round's (n, d) updates. Against backdoors that several clients have in common. It asks for no
    honest majority, and so gives none a right: honest clients of like data that are a cluster of their own are dropped,
    and clients whose updates are opposite and tiny can be the cluster that is chosen. Where attackers lie apart, the
    gap statistic often finds several clusters among the honest clients too, of which one is kept: 4 to 7 of 16 in a
    test with 4 attackers. Attackers on both sides of the honest clients hide each other from it, and updates are not
    clipped: ``MedianNormClipping(RFLBAT(...))`` bounds what they can do. Of fewer than 3 replies all are kept. The
    verdict's scores are sums of distances over their median.

    O(n^2 d) time, O(n^2) memory, nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = RFLBAT(FedAvg())
        >>> _ = play_rounds(strategy, [[1.0, 0.1], [0.9, -0.1], [1.1, 0.0], [1.0, 0.2], [90.0, 90.0]])
        >>> strategy.last_report.verdicts[0].dropped
        (4,)

    Source: Wang, Zhai, Zhan and Xia, "RFLBAT: A Robust Federated Learning Algorithm against Backdoor Attack",
        arXiv:2201.03772, 2022.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        first_factor: Annotated[float, Gt(1)] = 10.0,
        second_factor: Annotated[float, Gt(1)] = 4.0,
        num_components: PositiveCount = 2,
        max_clusters: PositiveCount = 9,
        num_references: PositiveCount = 5,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.first_factor = first_factor
        self.second_factor = second_factor
        self.num_components = num_components
        self.max_clusters = max_clusters
        self.num_references = num_references
        self.seed = seed

    @property
    def accuses_clients(self) -> bool:
        """Never: of several clusters it keeps one."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the cluster."""
        kept, scores = rflbat_filter(
            cohort.updates,
            self.first_factor,
            self.second_factor,
            self.num_components,
            self.max_clusters,
            self.num_references,
            self.seed,
            cohort.round,
        )
        self.report(scores=scores)
        return cohort.keep(kept)
