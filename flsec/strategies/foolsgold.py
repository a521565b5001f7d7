"""FoolsGold as a Flower strategy."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.foolsgold import foolsgold_weights
from flsec.parameters import Positive, PositiveCount
from flsec.strategies._features import Features, remember_updates
from flsec.strategies._memory import MAX_VECTORS, forget_longest_unseen
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["FoolsGold"]


class FoolsGold(RobustStrategy):
    """Weight clients down whose updates, summed over all rounds, point the same way as another client's.

    Args:
        strategy: the strategy to protect.
        features: what similarity is measured on. ``"output_layer"``: the last weight matrix and its bias, which the
            paper finds the most telling; ``"all"``: the whole update.
        confidence: kappa, how sharply sybils and honest clients are parted.
        max_clients: how many clients' sums are remembered; those that were not seen for the longest time are forgotten
            first. None: all, without end. Set it above the number of clients that take part in the run.
        options: see ``RobustStrategy``; with ``weighting="examples"`` its weights multiply FoolsGold's.

    Raises:
        ConfigError: ``features`` is none of its values, ``confidence`` is not positive, or ``max_clients`` is not at
            least 1. Others: see ``RobustStrategy``.

    Weights a round's (n, d) updates by (n,) numbers. Against sybils, however many, that pursue one goal. Honest clients
    must differ: with IID data they look like sybils too. A single attacker is not noticed, and neither is size: put
    ``NormClipping`` outside. Clients of weight 0 are dropped; if all are copies of each other, the previous model is
    kept.

    The verdict's note ``forgotten`` counts the clients whose sums a round pushed out. One that comes back is compared
    by what it sends from then on, as in its first round. An attacker gains a clean record by staying away until
    ``max_clients`` others were seen, which a new client id gives at once; one with that many ids can also have honest
    clients forgotten, whose sums then tell less. Nothing here stops attackers who have a new id in each round: they are
    compared by single updates.

    Compares the clients of one round: O(n^2 k) time. Memory: k float32 values, k the number of features, for each
    client remembered, not one vector a round: at most 4 k ``max_clients`` bytes. Nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = FoolsGold(FedAvg(), features="all")
        >>> play_rounds(strategy, [[1.0, 0.0], [0.0, 1.0], [-9.0, -9.0], [-9.0, -9.0]])  # the last two are sybils
        tensor([0.5000, 0.5000])
        >>> strategy.last_report.kept
        (0, 1)

    Source: Fung et al., RAID 2020, Algorithm 1. The weights are normalised to sum 1, which the paper leaves open.
    """

    state_names: ClassVar[tuple[str, ...]] = ("histories",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        features: Features = "output_layer",
        confidence: Positive = 1.0,
        max_clients: PositiveCount | None = MAX_VECTORS,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.features: Features = features
        self.confidence = confidence
        self.max_clients = max_clients
        self.histories: dict[int, Tensor] = {}  # by client id: the sum of its updates; who was away longest is first
        self._shares = torch.empty(0)  # of the rows kept, from one stage to the next

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Add the updates to the histories and drop the rows of weight 0."""
        weights = foolsgold_weights(remember_updates(self.histories, cohort, self.features), self.confidence)
        forgotten = forget_longest_unseen(self.histories, cohort.client_ids, self.max_clients)
        trust = self.weights(cohort)
        if trust is not None and bool(weights.any()):
            weights = weights * trust / (weights @ trust)
        self.report(weights=weights, **forgotten)
        self._shares = weights[weights > 0]
        return cohort.keep(weights > 0)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the weighted sum of the rows kept."""
        return weighted_sum(cohort.updates, self._shares)
