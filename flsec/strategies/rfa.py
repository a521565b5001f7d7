"""Robust federated aggregation (RFA) as a Flower strategy."""

from typing import Any

from flsec.aggregation.geometric_median import Start
from flsec.parameters import Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy
from flsec.strategies.geometric_median import GeometricMedian

__all__ = ["RFA"]


class RFA(GeometricMedian):
    """Aggregate by a few steps towards the geometric median, as many as the paper spends on communication.

    Args:
        strategy: the strategy to protect.
        smoothing: the paper's nu, relative to the spread of the updates.
        max_iterations: the paper's communication budget.
        tolerance: stop early when a step is shorter than this share of the updates' scale.
        start_from: where the steps begin: ``"medoid"``, near the most central update, which bounds what outliers of any
            size can do; or ``"mean"``, the paper's, which four steps do not lead back from huge ones.
        options: see ``RobustStrategy``; ``weighting="examples"`` weights the distances as the paper does.

    Raises:
        ConfigError: ``smoothing`` or ``tolerance`` is not positive, ``max_iterations`` is not at least 1, or
            ``start_from`` is neither ``"medoid"`` nor ``"mean"``. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Robust while less than half of the weight is hostile;
    ``flsec.aggregation.rfa`` states the bound. See ``GeometricMedian`` for the exact rule at the same cost. O(n^2 d)
    time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(RFA(FedAvg()), [[1.0], [2.0], [3.0], [4.0], [900.0]]).round(decimals=1)
        tensor([3.])

    Source: Pillutla et al., IEEE TSP 2022, Algorithm 2; there the start is the mean, as its server sees no single
    update.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        smoothing: Positive = 1e-6,
        max_iterations: PositiveCount = 4,
        tolerance: Positive = 1e-6,
        start_from: Start = "medoid",
        **options: Any,
    ) -> None:
        super().__init__(strategy, smoothing=smoothing, max_iterations=max_iterations, tolerance=tolerance, **options)
        self.start_from = start_from
