"""FoolsGold as a Flower strategy."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.foolsgold import foolsgold_weights
from flsec.parameters import Positive
from flsec.strategies._features import Features, remember_updates
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
        options: see ``RobustStrategy``; with ``weighting="examples"`` its weights multiply FoolsGold's.

    Against sybils, however many, that pursue one goal. Honest clients must differ: with IID data they look like
    sybils too. A single attacker is not noticed, and neither is size: put ``NormClipping`` outside. Clients of weight 0
    are dropped; if all are copies of each other, the previous model is kept.

    Compares the clients of one round: O(n^2 k) time. Keeps k float32 values for each client ever seen, where k is the
    number of features, not one vector a round. Nothing on the client.

    Source: Fung et al., RAID 2020, Algorithm 1. The weights are normalised to sum 1, which the paper leaves open.
    """

    state_names: ClassVar[tuple[str, ...]] = ("histories",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        features: Features = "output_layer",
        confidence: Positive = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.features: Features = features
        self.confidence = confidence
        self.histories: dict[int, Tensor] = {}  # by client id: the sum of its updates
        self._shares = torch.empty(0)  # of the rows kept, from one stage to the next

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Add the updates to the histories and drop the rows of weight 0."""
        weights = foolsgold_weights(remember_updates(self.histories, cohort, self.features), self.confidence)
        trust = self.weights(cohort)
        if trust is not None and bool(weights.any()):
            weights = weights * trust / (weights @ trust)
        self.report(weights=weights)
        self._shares = weights[weights > 0]
        return cohort.keep(weights > 0)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the weighted sum of the rows kept."""
        return weighted_sum(cohort.updates, self._shares)
