"""Residual-based reweighting as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.residual_reweighting import reweight
from flsec.parameters import Fraction, Positive
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["ResidualReweighting"]


class ResidualReweighting(RobustStrategy):
    """Weight clients by how well their values fit a robust line through all clients' values, coordinate by coordinate.

    Args:
        strategy: the strategy to protect.
        confidence_interval: lambda, the width of the interval in which a residual raises no doubt.
        threshold: confidence below which a value is replaced by the line's.
        options: see ``RobustStrategy``; the rule itself weights clients by residuals alone.

    Raises:
        ConfigError: ``confidence_interval`` is not positive, ``threshold`` is not in [0, 1], or a first round asks
            fewer than 3 clients. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs 3 usable replies a round; robust while fewer than half of them are
    hostile. O(n^2 log(n) d) time, much slower than the median; O(n d) memory, nothing kept between rounds, nothing on
    the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = ResidualReweighting(FedAvg())
        >>> play_rounds(strategy, [[1.0], [1.1], [1.2], [1.3], [900.0]]).round(decimals=1)
        tensor([1.2000])

    Source: Fu et al., "Attack-Resistant Federated Learning with Residual-based Reweighting", 2019, Sec. 3; the
    formulas are in ``flsec.aggregation.residual_reweighting``.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        confidence_interval: Positive = 2.0,
        threshold: Fraction = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.confidence_interval = confidence_interval
        self.threshold = threshold

    def clients_needed(self, num_byzantine: int) -> int:
        """Return 3: two values always lie on a line."""
        return 3

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the reweighted mean of the corrected updates."""
        weights, corrected = reweight(cohort.updates, self.confidence_interval, self.threshold)
        self.report(weights=weights)
        return weighted_sum(corrected, weights)
