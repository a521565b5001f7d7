"""The robust learning rate as a Flower strategy."""

import math
from typing import Any

from torch import Tensor

from flsec.aggregation._gram import check_weights, weighted_sum
from flsec.aggregation.robust_learning_rate import robust_learning_rate
from flsec.parameters import NonNegative
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["RobustLearningRate"]


class RobustLearningRate(RobustStrategy):
    """Average, and step backwards on the coordinates where too few clients agree on the sign.

    Args:
        strategy: the strategy to protect.
        threshold: theta, in votes: a coordinate with |sum of the signs of the updates| below it is negated. More than
            the number of hostile clients, and less than the number of honest ones.
        options: see ``RobustStrategy``; ``weighting="examples"`` weights the mean, never the vote.

    Raises:
        ConfigError: ``threshold`` is negative, or a first round asks fewer than theta clients. Others: see
            ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs theta usable replies a round: with fewer, every coordinate would be
    negated. Against backdoors, not against large values: put ``NormClipping`` outside. O(n d) time, O(d) extra memory,
    nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = RobustLearningRate(FedAvg(), threshold=3)
        >>> play_rounds(strategy, [[1.0, 2.0], [1.0, 2.0], [1.0, -1.0]])  # 3 votes, and 1
        tensor([ 1., -1.])

    Source: Ozdayi et al., AAAI 2021, section "Robust Learning Rate".
    """

    def __init__(self, strategy: FlowerStrategy, *, threshold: NonNegative, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.threshold = threshold

    def clients_needed(self, num_byzantine: int) -> int:
        """Return the threshold, rounded up: with fewer votes every coordinate would be negated."""
        return max(1, math.ceil(self.threshold))

    def needed_now(self, cohort: Cohort) -> int:
        """Return this round's threshold, rounded up."""
        return 1 if self.unsafe else max(1, math.ceil(self.votes_needed(cohort)))

    def votes_needed(self, cohort: Cohort) -> float:
        """Return theta less the clients that were quarantined for what they sent.

        With q hostile votes gone, f - q < theta - q hostile ones are still too few to reach it, and n - f honest ones
        still enough.
        """
        return max(0.0, self.threshold - cohort.num_rejected)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the mean update, negated where the vote fails."""
        weights = self.weights(cohort)
        aggregate = robust_learning_rate(cohort.updates, self.votes_needed(cohort), weights)
        mean = weighted_sum(cohort.updates, check_weights(weights, cohort.updates, "robust_learning_rate"))
        self.report(flipped=int((aggregate.sign() * mean.sign() < 0).sum()))
        return aggregate
