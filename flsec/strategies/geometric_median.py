"""The geometric median as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation._gram import check_weights, robust_gram, weighted_sum
from flsec.aggregation.geometric_median import Start, weiszfeld
from flsec.parameters import Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["GeometricMedian"]


class GeometricMedian(RobustStrategy):
    """Aggregate by the point of least summed distance to the updates, computed to tolerance.

    Args:
        strategy: the strategy to protect.
        smoothing: see ``flsec.aggregation.geometric_median``.
        max_iterations: bound on the Weiszfeld steps.
        tolerance: see ``flsec.aggregation.geometric_median``.
        options: see ``RobustStrategy``; ``weighting="examples"`` weights the distances.

    Raises:
        ConfigError: ``smoothing`` or ``tolerance`` is not positive, or ``max_iterations`` is not at least 1. Others:
            see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Robust while less than half of the weight is hostile. O(n^2 d) time, O(n
    d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(GeometricMedian(FedAvg()), [[0.0, 0.0], [4.0, 0.0], [2.0, 2.0], [2.0, -2.0], [90.0, 0.0]])
        tensor([3.1547, 0.0000])

    Source: Pillutla et al., IEEE TSP 2022, Sec. III (smoothed Weiszfeld algorithm).
    """

    start_from: Start | None = None  # RFA's

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        smoothing: Positive = 1e-6,
        max_iterations: PositiveCount = 1000,
        tolerance: Positive = 1e-10,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.smoothing = smoothing
        self.max_iterations = max_iterations
        self.tolerance = tolerance

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the weighted sum of the updates that Weiszfeld's steps lead to."""
        given = self.weights(cohort)
        fixed = check_weights(given, cohort.updates, type(self).__name__)
        products = cohort.gram() if given is None else robust_gram(cohort.updates, fixed)[0]
        weights = weiszfeld(products, fixed, self.smoothing, self.max_iterations, self.tolerance, self.start_from)
        self.report(weights=weights)
        return weighted_sum(cohort.updates, weights)
