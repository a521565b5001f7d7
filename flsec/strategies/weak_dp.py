"""Weak differential privacy as a Flower strategy."""

from typing import Any

from torch import Tensor

from flsec.aggregation.weak_dp import weak_dp
from flsec.parameters import NonNegative, Positive
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["WeakDP"]


class WeakDP(RobustStrategy):
    """Clip each update to a largest L2 norm, average, and add Gaussian noise to the average.

    Args:
        strategy: the strategy to protect.
        max_norm: L, the bound on each update's L2 norm, in parameter units.
        std: sigma, the standard deviation of the noise on each coordinate of the aggregate, in parameter units;
            not divided by the number of clients.
        seed: seed of the noise. A round's noise depends on it and on the round's number alone.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``max_norm`` is not positive, or ``std`` is negative. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). A defense against backdoors, with far too little noise for a privacy
    guarantee; each hostile client still moves the model by up to L / n. O(n d) time, O(d) extra memory, nothing kept
    between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(WeakDP(FedAvg(), max_norm=5.0, std=0.0), [[3.0, 4.0], [300.0, 400.0]])
        tensor([3., 4.])
        >>> play_rounds(WeakDP(FedAvg(), max_norm=5.0, std=0.1), [[3.0, 4.0], [300.0, 400.0]]).round(decimals=3)
        tensor([3.1650, 4.0010])

    Source: Sun et al., "Can You Really Backdoor Federated Learning?", 2019, Sec. 4.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        max_norm: Positive = 5.0,
        std: NonNegative = 0.025,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.max_norm = max_norm
        self.std = std
        self.seed = seed

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the noisy mean of the clipped updates."""
        return weak_dp(
            cohort.updates,
            max_norm=self.max_norm,
            std=self.std,
            seed=self.seed,
            round=cohort.round,
            weights=self.weights(cohort),
        )
