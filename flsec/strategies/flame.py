"""FLAME as a Flower strategy."""

from typing import Any, Literal

import torch
from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.flame import flame_filter, with_noise
from flsec.parameters import NonNegative
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["Flame"]


class Flame(RobustStrategy):
    """Keep the densest majority of directions, clip it to the median norm, and add noise of a size that follows it.

    Args:
        strategy: the strategy to protect.
        noise: lambda, the standard deviation of the noise on each coordinate of the aggregate, in units of the median
            norm of the round's updates. The paper takes 0.001 for images and texts, 0.01 for intrusion detection.
        compare: what directions are of: ``"updates"``, or the clients' ``"models"``, as the paper's algorithm is
            written; those all point the same way where steps are small.
        seed: seed of the noise. A round's noise depends on it and on the round's number, but for its size.
        options: see ``RobustStrategy``; with ``weighting="examples"`` the clipped updates are averaged by its weights.

    Raises:
        ConfigError: ``noise`` is negative, or ``compare`` is none of its values. Others: see ``RobustStrategy``.

    Keeps (m, d) of a round's (n, d) updates and makes one (d,) of them. Against backdoors by fewer than half of the
    clients. It keeps the smallest group of more than half of the replies that single linkage joins, and so often hardly
    more than half: many honest clients are dropped, also where nobody attacks. Of fewer than 3 replies all are kept.
    The noise is too small for a privacy guarantee. The verdict's scores are mean cosine distances to those who are
    kept, ``max_norm`` the median norm.

    O(n^2 d) time, O(n d) memory for the rows kept, nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = Flame(FedAvg(), noise=0.0)
        >>> play_rounds(strategy, [[1.0, 0.0], [1.0, 0.1], [2.0, 0.0], [-9.0, 1.0]]).round(decimals=1)
        tensor([1.2000, 0.0000])
        >>> strategy.last_report.kept
        (0, 1, 2)

    Source: Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        noise: NonNegative = 0.001,
        compare: Literal["updates", "models"] = "updates",
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.noise = noise
        self.compare = compare
        self.seed = seed
        self._shares, self._std = torch.empty(0), 0.0  # of the rows kept, from one stage to the next

    @property
    def accuses_clients(self) -> bool:
        """Never: up to half of the clients are dropped in every round, whoever they are."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the rows outside the majority."""
        found = flame_filter(cohort.updates, cohort.global_parameters if self.compare == "models" else None)
        self.report(scores=found.scores, max_norm=found.max_norm)
        self._shares, self._std = found.shares(self.weights(cohort))[found.kept], self.noise * found.max_norm
        return cohort.keep(found.kept)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the noisy mean of the clipped rows."""
        return with_noise(weighted_sum(cohort.updates, self._shares), self._std, self.seed, cohort.round)
