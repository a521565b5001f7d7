"""Clipping and zeroing by quantiles that are estimated on the way, as a Flower strategy."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._gram import row_norms, scaled_rows
from flsec.aggregation.adaptive_quantile_clipping import next_quantile_estimate
from flsec.parameters import NonNegative, OpenFraction, Positive
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["AdaptiveQuantileClipping"]

_TENFOLD = math.log(10.0)


class AdaptiveQuantileClipping(RobustStrategy):
    """Scale updates down to a quantile of their L2 norms that is estimated from round to round: no bound to guess.

    Args:
        strategy: the strategy to protect, or a rule that goes over the clipped updates.
        quantile: gamma, which share of the updates is to stay as it is.
        learning_rate: eta, how fast the bound moves: by a factor of at most exp(eta) a round.
        initial_norm: the first round's bound, in parameter units.
        zeroing: before clipping, put zero in the place of an update with an entry beyond ``zeroing_multiplier`` times
            the estimated quantile of the largest entries plus ``zeroing_increment``.
        zeroing_quantile: which quantile of the updates' largest absolute entries is estimated for it.
        zeroing_multiplier: see ``zeroing``.
        zeroing_increment: see ``zeroing``, in parameter units: smaller entries are never too large.
        zeroing_learning_rate: how fast that estimate moves; the default is ln 10.
        initial_entry: that estimate in the first round, in parameter units.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: a quantile is not in (0, 1), or a rate, ``zeroing_multiplier`` or a first estimate is not positive.
            Others: see ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). A round is clipped by the estimate that it finds; then the estimate moves, by
    counts alone: a hostile norm of 1e30 moves it as one just above does, and f hostile clients of n change its
    logarithm by at most eta f / n a round. A share of them above 1 - gamma lets it grow without end: above 20 % for
    clipping with these defaults, and above 2 % for zeroing, which is against broken clients more than against
    attackers. A zeroed update counts as a client of no update, as in TensorFlow Federated. No noise: this is no
    differential privacy.

    The notes say the round's bounds ``max_norm`` and ``max_entry``, how many were ``clipped``, and who was ``zeroed``.
    O(n d) time and memory; two numbers are kept between rounds.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = AdaptiveQuantileClipping(FedAvg(), initial_norm=1.0)
        >>> play_rounds(strategy, [[0.5], [900.0]])  # the second counts as 1
        tensor([0.7500])
        >>> round(strategy.norm_estimate, 3)  # half were below it, 80 % should be
        1.062

    Source: Andrew et al., "Differentially Private Learning with Adaptive Clipping", NeurIPS 2021; zeroing and all
    defaults are those of TensorFlow Federated's robust aggregator.
    """

    state_names: ClassVar[tuple[str, ...]] = ("norm_estimate", "entry_estimate")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        quantile: OpenFraction = 0.8,
        learning_rate: Positive = 0.2,
        initial_norm: Positive = 1.0,
        zeroing: bool = False,
        zeroing_quantile: OpenFraction = 0.98,
        zeroing_multiplier: Positive = 2.0,
        zeroing_increment: NonNegative = 1.0,
        zeroing_learning_rate: Positive = _TENFOLD,
        initial_entry: Positive = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.quantile = quantile
        self.learning_rate = learning_rate
        self.zeroing = zeroing
        self.zeroing_quantile = zeroing_quantile
        self.zeroing_multiplier = zeroing_multiplier
        self.zeroing_increment = zeroing_increment
        self.zeroing_learning_rate = zeroing_learning_rate
        self.norm_estimate = float(initial_norm)
        self.entry_estimate = float(initial_entry)

    @property
    def judges_clients(self) -> bool:
        """Clipping is no verdict on a client."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Zero and clip the rows, then move the estimates; what exceeds no bound is handed on as it is."""
        zeroed = self._zeroed(cohort)
        bound, lengths = self.norm_estimate, row_norms(cohort.updates)
        norms = lengths.masked_fill(zeroed, 0.0)
        factors = torch.where(norms > bound, bound / norms, 1.0).masked_fill_(zeroed, 0.0)
        self.norm_estimate = next_quantile_estimate(bound, norms, self.quantile, self.learning_rate)
        self.report(scores=lengths, max_norm=bound, clipped=int((norms > bound).sum()))
        return cohort.with_updates(scaled_rows(cohort.updates, factors)) if bool((factors < 1).any()) else cohort

    def _zeroed(self, cohort: Cohort) -> Tensor:
        """Return which rows are to be zero, (n,), and move the estimate of their largest entries."""
        if not self.zeroing:
            return torch.zeros(len(cohort), dtype=torch.bool)
        entries: Tensor = torch.linalg.vector_norm(cohort.updates, torch.inf, dim=1)
        bound = self.zeroing_multiplier * self.entry_estimate + self.zeroing_increment
        self.entry_estimate = next_quantile_estimate(
            self.entry_estimate, entries, self.zeroing_quantile, self.zeroing_learning_rate
        )
        zeroed: Tensor = entries > bound
        rows = zeroed.nonzero().flatten().tolist()
        self.report(max_entry=bound, zeroed=[i for row in rows for i in cohort.members[row]])
        return zeroed
