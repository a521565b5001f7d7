"""SparseFed as a Flower strategy."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._clipped_mean import clipped_mean
from flsec.aggregation.adaptive_clipping import adaptive_max_norm
from flsec.aggregation.sparsefed import (
    Coordinates,
    Momentum,
    SparseFedState,
    Variant,
    num_coordinates,
    sparsefed_step,
)
from flsec.parameters import Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.training import Training

__all__ = ["SparseFed"]


class SparseFed(RobustStrategy):
    """Clip each update, average, and let only the k largest coordinates of what has piled up reach the model.

    Args:
        strategy: the strategy to protect; it is given theta + lambda Delta as one update. Momentum is SparseFed's own,
            so plain FedAvg belongs here.
        k: coordinates changed a round: a number, or a share of all (``0.001``). ``flsec.aggregation.choose_k`` picks
            one on a device; the paper takes 1000 to 50,000 of 6.6 million.
        max_norm: L, the bound on each update's L2 norm, in parameter units, at the clients' full learning rate. The
            paper's L = 5 is per unit of learning rate: with rates up to 0.2 it is 1.0 here.
        momentum: rho.
        variant: which of three printed algorithms, see ``flsec.aggregation.sparsefed_step``: ``"released"`` made the
            paper's tables.
        server_learning_rate: lambda, for clients that do not apply the learning rate themselves; Flower's do.
        adaptive_clipping: let the bound follow the clients' learning rate, see
            ``flsec.aggregation.adaptive_max_norm``. Without ``training`` it stays constant.
        training: how clients train; a simulation supplies it.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``k`` is neither a count of at least 1 nor a share in (0, 1], ``max_norm`` or
            ``server_learning_rate`` is not positive, ``momentum`` is not in [0, 1), or ``variant`` is none of its
            values. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Without clipping the defense is void: who sends large entries fills the
    top-k. Keeps momentum and error feedback, 2 d numbers whatever the number of clients, nothing per client, nothing on
    the client. O(n d) time, O(d) extra memory. The verdict says how many updates were clipped, the bound, k, the L2
    norm of the error feedback, and the round's sparsity gap |Delta - u|_1, from which
    ``flsec.metrics.certified_radius_of_run`` computes the radius.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = SparseFed(FedAvg(), k=1, max_norm=5.0, momentum=0.0)
        >>> play_rounds(strategy, [[3.0, 4.0], [300.0, 400.0]])  # the larger coordinate
        tensor([0., 4.])
        >>> play_rounds(strategy, [[0.0, 0.0], [0.0, 0.0]])  # what was held back comes later
        tensor([3., 0.])

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithms 1 and 5, App. B.1.4 and B.2; the released program.
    """

    state_names: ClassVar[tuple[str, ...]] = ("momentum_buffer", "error_feedback")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        k: Coordinates,
        max_norm: Positive = 5.0,
        momentum: Momentum = 0.9,
        variant: Variant = "released",
        server_learning_rate: Positive = 1.0,
        adaptive_clipping: bool = True,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.k = k
        self.max_norm = max_norm
        self.momentum = momentum
        self.variant: Variant = variant
        self.server_learning_rate = server_learning_rate
        self.adaptive_clipping = adaptive_clipping
        self.training = training
        self.num_rounds = num_rounds
        self.momentum_buffer: Tensor | None = None
        self.error_feedback: Tensor | None = None

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return lambda Delta, and keep the new state."""
        training = self.training if self.adaptive_clipping else None
        bound = adaptive_max_norm(self.max_norm, cohort.round, training, self.num_rounds)
        clipped = clipped_mean(cohort.updates, bound, self.weights(cohort))
        zeros = torch.zeros_like(clipped.mean)
        state = SparseFedState(
            zeros if self.momentum_buffer is None else self.momentum_buffer,
            zeros if self.error_feedback is None else self.error_feedback,
        )
        delta, state = sparsefed_step(state, clipped.mean, k=self.k, momentum=self.momentum, variant=self.variant)
        self.momentum_buffer, self.error_feedback = state.momentum, state.error
        self.report(
            scores=clipped.norms,
            clipped=clipped.clipped,
            max_norm=bound,
            k=num_coordinates(self.k, len(delta)),
            error_norm=float(state.error.double().norm()),
            sparsity_gap=float((delta - clipped.mean).abs().sum(dtype=torch.float64)),
        )
        return self.server_learning_rate * delta
