"""ClippedClustering as a Flower strategy."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.clipped_clustering import clipped_clustering_filter
from flsec.parameters import PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["ClippedClustering"]

_UNUSED = -1.0  # a place of the history that no norm has filled yet


class ClippedClustering(RobustStrategy):
    """Keep the larger of two clusters of directions, clipped to the median norm of the rounds so far.

    Args:
        strategy: the strategy to protect.
        num_norms: how many of the last norms the median is taken of; the paper takes all, without end. A round of more
            clients counts in full.
        options: see ``RobustStrategy``; with ``weighting="examples"`` the clipped updates are averaged by its weights.

    Raises:
        ConfigError: ``num_norms`` is not at least 1. Others: see ``RobustStrategy``.

    Keeps (m, d) of a round's (n, d) updates and makes one (d,) of them. Against a minority whose directions differ from
    the others'. One of two clusters is always dropped, so that honest clients are dropped where nobody attacks, mostly
    few; fewer than 3 replies, and replies that all point the same way, are all kept. Because each norm counts once for
    each round, attackers who are many in early rounds set the bound for long. The verdict's scores are mean cosine
    distances to the larger cluster, ``max_norm`` the bound.

    O(n^2 d) time, O(n d) memory for the rows kept; ``num_norms`` numbers are kept between rounds. Nothing on the
    client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = ClippedClustering(FedAvg())
        >>> play_rounds(strategy, [[1.0, 0.0], [1.0, 0.1], [2.0, 0.0], [-9.0, 1.0]]).round(decimals=2)
        tensor([1.1700, 0.0300])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: Li, Ngai and Voigt, "An Experimental Study of Byzantine-Robust Aggregation Schemes in Federated Learning",
        IEEE Transactions on Big Data 2024, Sec. IV-H.
    """

    state_names: ClassVar[tuple[str, ...]] = ("norms",)

    def __init__(self, strategy: FlowerStrategy, *, num_norms: PositiveCount = 1000, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.num_norms = num_norms
        self.norms = torch.full((num_norms,), _UNUSED, dtype=torch.float64)  # of all clients, the latest last
        self._shares = torch.empty(0)  # of the rows kept, from one stage to the next

    @property
    def accuses_clients(self) -> bool:
        """Never: the smaller of two clusters is dropped in every round."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the smaller cluster, and remember the norms of all."""
        found = clipped_clustering_filter(cohort.updates, self.norms[self.norms != _UNUSED])
        self.norms = torch.cat([self.norms, found.norms])[-self.num_norms :]
        self.report(scores=found.scores, max_norm=found.max_norm)
        self._shares = found.shares(self.weights(cohort))[found.kept]
        return cohort.keep(found.kept)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the mean of the clipped rows."""
        return weighted_sum(cohort.updates, self._shares)
