"""The defense that knows the truth: an upper bound for simulations."""

from collections.abc import Collection
from typing import Any

from flwr.serverapp import Grid

from flsec.attacks.adversaries import Adversaries
from flsec.strategies._truth import check_known
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["OracleSGD"]


class OracleSGD(RobustStrategy):
    """Drop exactly the attackers. For experiments only: no real server knows who they are.

    Args:
        strategy: the strategy to protect.
        adversaries: the truth about who attacks when, by client id. Clients that it does not know are refused before
            they train, such as Flower's nodes where it counts partitions.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``adversaries`` is no ``Adversaries``, or does not know the clients that a round asks. Others: see
            ``RobustStrategy``.

    Hands on the honest (m, d) of a round's (n, d) updates. Works with any number of replies, as long as one is honest.
    No cost, nothing kept between rounds.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.attacks import Adversaries
        >>> strategy = OracleSGD(FedAvg(), adversaries=Adversaries(num_clients=3, ids=[2]))
        >>> play_rounds(strategy, [[1.0], [2.0], [900.0]])
        tensor([1.5000])

    Source: DiverseFL, Sec. IV (OracleSGD).
    """

    def __init__(self, strategy: FlowerStrategy, *, adversaries: Adversaries, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.adversaries = adversaries

    @property
    def knows_clients(self) -> bool:
        """Always: it looks up who attacks."""
        return True

    def check_clients(self, client_ids: Collection[int], grid: Grid | None) -> None:
        """Refuse clients of whom nobody knows whether they attack; see ``Stages``."""
        check_known(type(self).__name__, self.adversaries, client_ids)

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Keep the clients that do not attack in this round."""
        hostile = self.adversaries.active(cohort.round)
        return cohort.keep([i for i, client_id in enumerate(cohort.client_ids) if client_id not in hostile])
