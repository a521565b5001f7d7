"""Centered clipping as a Flower strategy."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation.centered_clipping import centered_clipping
from flsec.parameters import Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["CenteredClipping"]


class CenteredClipping(RobustStrategy):
    """Average the updates after clipping their distances from the previous round's aggregate.

    Args:
        strategy: the strategy to protect.
        radius: tau, the largest distance from the centre, in parameter units.
        num_iterations: clipping steps a round.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``radius`` is not positive, or ``num_iterations`` is not at least 1. Others: see
            ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). The centre is zero in the first round and is kept between rounds. O(n^2
    d) time, O(n d) memory.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> play_rounds(CenteredClipping(FedAvg(), radius=1.0), [[0.2], [0.4], [0.3], [900.0]])  # counts as 1
        tensor([0.4750])

    Source: Karimireddy et al., ICML 2021, Sec. 4. The paper's worker momentum is an option of the client.
    """

    compares_clients: ClassVar[bool] = False
    state_names: ClassVar[tuple[str, ...]] = ("center",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        radius: Positive,
        num_iterations: PositiveCount = 1,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.radius = radius
        self.num_iterations = num_iterations
        self.center: Tensor | None = None

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the new centre."""
        center = self.center
        if center is None:
            center = torch.zeros_like(cohort.global_parameters)
        self.center = centered_clipping(cohort.updates, center, radius=self.radius, num_iterations=self.num_iterations)
        return self.center
