"""The noisy median as a Flower strategy."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from flsec.aggregation.median import median
from flsec.aggregation.noisy_median import STD
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.training import Training

__all__ = ["NoisyMedian"]


class NoisyMedian(RobustStrategy):
    """Have clients add Gaussian noise to what they upload, and aggregate by the median of each coordinate.

    Args:
        strategy: the strategy to protect.
        std: sigma, the standard deviation of the noise on each parameter.
        std_of: ``"update"``: sigma is in parameter units. ``"gradient"``: it is that of noise on a gradient, as in the
            papers, whose clients upload gradients, and is multiplied by the clients' learning rate of the round.
            DiverseFL has 100 for softmax regression with rates of 0.001 and below, and 0.01 for networks.
        training: how clients train, for ``"gradient"``; a simulation supplies it.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``std`` is negative, or ``std_of="gradient"`` without ``training``. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs ``flsec.client_apps.noisy_client`` around the clients; without it,
    this is the plain median. Robust while fewer than half of the replies are hostile. The noise costs accuracy: the
    median of n noisy values still has a standard deviation of about 1.25 sigma / sqrt(n). O(n d log n) time, O(n d)
    memory, nothing kept between rounds.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = NoisyMedian(FedAvg(), std=0.01)
        >>> play_rounds(strategy, [[1.0], [2.0], [900.0]])
        tensor([2.])
        >>> strategy.client_config(server_round=1)  # what the clients are told
        {'noisy-median-std': 0.01}

    Source: X. Chen et al., "Distributed Training with Heterogeneous Data: Bridging Median- and Mean-Based Algorithms",
    2019; DiverseFL, Sec. II-C and IV.
    """

    client_half: ClassVar[str | None] = "flsec.client_apps.noisy_client:NoisyClient"

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        std: NonNegative,
        std_of: Literal["update", "gradient"] = "update",
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if std_of == "gradient" and training is None:
            raise ConfigError(
                "NoisyMedian: std_of 'gradient' multiplies std by the clients' learning rate, and there is no "
                "training. Pass training=Training(...), or give std of the update.",
                parameter="std_of",
            )
        self.std = std
        self.std_of = std_of
        self.training = training
        self.num_rounds = num_rounds

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return the standard deviation in parameter units."""
        if self.std_of == "update":
            return {STD: float(self.std)}
        assert self.training is not None
        return {STD: self.std * self.training.learning_rate_at(server_round, self.num_rounds)}

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the coordinate-wise median of the noisy updates."""
        return median(cohort.updates)
