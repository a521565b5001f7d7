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

    Raises:
        ConfigError: only those of ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Robust while fewer than half of the replies are hostile. O(n d log n)
    time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(Median(FedAvg()), [[1.0, 2.0], [1.5, 2.5], [900.0, -900.0]])
        tensor([1.5000, 2.0000])

    Source: Yin et al., ICML 2018, Definition 1.
    """

    def __init__(self, strategy: FlowerStrategy, **options: Any) -> None:
        super().__init__(strategy, **options)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the coordinate-wise median of the updates."""
        return median(cohort.updates)
