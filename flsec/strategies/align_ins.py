"""AlignIns as a Flower strategy."""

from typing import Any, Literal

import torch
from torch import Tensor

from flsec.aggregation._gram import weighted_sum
from flsec.aggregation.align_ins import align_ins_filter
from flsec.parameters import OpenFraction, Positive
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import Threshold

__all__ = ["AlignIns"]


class AlignIns(RobustStrategy):
    """Keep the updates that lie to the model, and whose largest entries have signs, as most do; clip them.

    Args:
        strategy: the strategy to protect.
        direction_radius: lambda_c, how many standard deviations the cosine of update and global model may lie from the
            median. Smaller is stricter.
        sign_radius: lambda_s, the same for the share of the update's largest entries that have the principal sign.
        share: of an update's entries that count as its largest.
        bound: what kept updates are clipped to: the median norm of those ``"kept"``, as the paper has it, which hostile
            ones set if they are half of those; or the ``"smaller"`` of that and the median norm of all.
        options: see ``RobustStrategy``; with ``weighting="examples"`` the clipped updates are averaged by its weights.

    Raises:
        ConfigError: a radius is not positive, ``share`` is not in (0, 1), or ``bound`` is none of its values. Others:
            see ``RobustStrategy``.

    Keeps (m, d) of a round's (n, d) updates and makes one (d,) of them. Against backdoors by fewer than half of the
    clients. By radii of 1, the paper's, honest clients are dropped as well, attack or not: about a third of values that
    are spread like a bell lie farther out, by either measure. Nobody kept: the previous model stays. The verdict's
    scores are the larger of the two z-scores; its notes are ``max_norm``, the bound, and ``directions`` and ``signs``,
    both measures of the participants.

    O(n d) time, O(n d) memory for the rows kept, nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = AlignIns(FedAvg())
        >>> play_rounds(strategy, [[1.0, 0.9], [0.9, 1.0], [1.1, 1.0], [1.0, 1.1], [-1.0, -1.0]]).round(decimals=1)
        tensor([1., 1.])
        >>> strategy.last_report.verdicts[0].dropped
        (4,)

    Source: Xu, Zhang and Hu, "Detecting Backdoor Attacks in Federated Learning via Direction Alignment Inspection",
        CVPR 2025.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        direction_radius: Positive = 1.0,
        sign_radius: Positive = 1.0,
        share: OpenFraction = 0.3,
        bound: Literal["smaller", "kept"] = "smaller",
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.direction_radius = direction_radius
        self.sign_radius = sign_radius
        self.share = share
        self.bound = bound
        self._shares = torch.empty(0)  # of the rows kept, from one stage to the next

    @property
    def accuses_clients(self) -> bool:
        """Never: by radii of 1 honest clients are dropped in most rounds."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop the rows of unusual alignment."""
        found, directions, signs = align_ins_filter(
            cohort.updates, cohort.global_parameters, self.direction_radius, self.sign_radius, self.share, self.bound
        )
        self.report(
            scores=found.scores,
            # by two different radii no one score decides
            threshold=Threshold(at_most=self.sign_radius) if self.sign_radius == self.direction_radius else None,
            max_norm=found.max_norm,
            directions=directions.tolist(),
            signs=signs.tolist(),
        )
        self._shares = found.shares(self.weights(cohort))[found.kept]
        return cohort.keep(found.kept)

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the mean of the clipped rows."""
        return weighted_sum(cohort.updates, self._shares)
