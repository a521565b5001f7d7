"""The coordinate-wise median as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.median import median
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["Median"]


class Median(RobustStrategy):
    """Aggregate by the median of each coordinate.

    Args:
        strategy: the strategy to protect.
        options: see ``RobustStrategy``; the median itself is always unweighted.

    Robust while fewer than half of the replies are hostile. O(n d log n) time, O(n d) memory.

    Source: Yin et al., ICML 2018, Definition 1.
    """

    def __init__(self, strategy: FlowerStrategy, **options: Any) -> None:
        super().__init__(strategy, **options)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the coordinate-wise median of the updates."""
        return median(cohort.updates)
