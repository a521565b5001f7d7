"""The coordinate-wise median as a Flower strategy."""

from torch import Tensor

from flsec.aggregation.median import median
from flsec.strategies.base import RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["Median"]


class Median(RobustStrategy):
    """Aggregate by the median of each coordinate.

    Args:
        strategy: the strategy to protect.
        weighting: see ``RobustStrategy``; the median itself is always unweighted.
        max_weight_ratio: see ``RobustStrategy``.
        max_num_examples: see ``RobustStrategy``.
        device: see ``RobustStrategy``.

    Robust while fewer than half of the replies are hostile. O(n d log n) time, O(n d) memory.

    Source: Yin et al., ICML 2018, Definition 1.
    """

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the coordinate-wise median of the updates."""
        return median(cohort.updates)
