"""Worker momentum, kept on the server, as a Flower strategy."""

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from flsec.aggregation.worker_momentum import worker_momentum
from flsec.parameters import PositiveCount
from flsec.strategies._memory import MAX_VECTORS, forget_longest_unseen
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["WorkerMomentum"]


class WorkerMomentum(RobustStrategy):
    """Replace each client's update by a running mean of its updates, for the rule inside.

    Args:
        strategy: the rule that goes over the momenta, such as ``Krum(...)`` or ``CenteredClipping(...)``.
        beta: the share that the past keeps: m_i becomes beta m_i + (1 - beta) u_i.
        max_clients: how many clients' momenta are remembered; those that were not seen for the longest time are
            forgotten first. None: all, without end. Set it above the number of clients that take part in the run.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``beta`` is not in [0, 1), or ``max_clients`` is not at least 1. Others: see ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). A client's first update is its first momentum: as long as the others', where a
    start from zero would be shorter and would show who is new. Where each round samples other clients, a momentum is as
    old as the client's last round: it is not moved meanwhile, and points to where the model was then. Take a smaller
    ``beta`` the rarer a client's turn.

    Not a defense by itself: it takes out the noise between rounds behind which attackers hide, and what an attacker
    once sent stays in its momentum for some 1 / (1 - beta) rounds. A quarantined update leaves the client's momentum as
    it is. The note ``forgotten`` counts the clients whose momenta a round pushed out; they begin anew, as does whoever
    comes with a new id.

    O(n d) time. Memory: d float32 values for each client remembered, at most 4 d ``max_clients`` bytes. Nothing on the
    client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.strategies import Median
        >>> strategy = WorkerMomentum(Median(FedAvg()), beta=0.5)
        >>> play_rounds(strategy, [[[1.0], [2.0], [3.0]], [[0.0], [0.0], [0.0]]])  # 2, then half of it
        tensor([3.])

    Source: Karimireddy et al., "Learning from History for Byzantine Robust Optimization", ICML 2021 (worker
    momentum), kept on the server.
    """

    state_names: ClassVar[tuple[str, ...]] = ("by_client",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        beta: Annotated[float, Ge(0), Lt(1)] = 0.9,
        max_clients: PositiveCount | None = MAX_VECTORS,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.beta = beta
        self.max_clients = max_clients
        self.by_client: dict[int, Tensor] = {}  # the momenta; who was away longest is first

    @property
    def judges_clients(self) -> bool:
        """Momentum is no verdict on a client."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Move the momenta of the clients that are here, and put them in the place of the updates."""
        pairs = zip(cohort.client_ids, cohort.updates, strict=True)
        before = torch.stack([self.by_client.get(client_id, update) for client_id, update in pairs])
        momenta = worker_momentum(cohort.updates, before, self.beta)
        for client_id, momentum in zip(cohort.client_ids, momenta, strict=True):
            self.by_client[client_id] = momentum.clone()
        self.report(**forget_longest_unseen(self.by_client, cohort.client_ids, self.max_clients))
        return cohort.with_updates(momenta)
