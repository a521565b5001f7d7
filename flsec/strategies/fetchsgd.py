"""FetchSGD as a Flower strategy."""

import functools
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from flsec.aggregation._clipped_mean import clipped_mean
from flsec.aggregation.adaptive_clipping import adaptive_max_norm
from flsec.aggregation.count_sketch import CountSketch
from flsec.aggregation.fetchsgd import FetchSGDState, SketchVariant, fetchsgd_init, fetchsgd_step
from flsec.aggregation.sparsefed import Coordinates, Momentum, num_coordinates
from flsec.parameters import Count, Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.training import Training

__all__ = ["FetchSGD"]


class FetchSGD(RobustStrategy):
    """Average in a count sketch, and let only the k largest coordinates read from it reach the model.

    SparseFed with momentum and error feedback in a sketch. Flower's clients send whole models all the same: the
    sketch's effect on robustness is here, its saving of bandwidth is not.

    Args:
        strategy: the strategy to protect; it is given theta + lambda Delta as one update. Momentum is FetchSGD's own,
            so plain FedAvg belongs here.
        k: coordinates changed a round: a number, or a share of all (``0.001``).
        rows: of the sketch.
        columns: of the sketch: a number, or a share of the number of parameters. The paper takes 0.05 to 0.5.
        max_norm: L, the bound on each update's L2 norm, in parameter units, at the clients' full learning rate; null:
            no clipping, as in FetchSGD; SparseFed adds it, and without it the sketch is no defense.
        momentum: rho.
        variant: ``"released"`` or ``"paper"``, see ``flsec.aggregation.fetchsgd_step``.
        server_learning_rate: lambda, for clients that do not apply the learning rate themselves; Flower's do.
        adaptive_clipping: let the bound follow the clients' learning rate, see
            ``flsec.aggregation.adaptive_max_norm``. Without ``training`` it stays constant.
        training: how clients train; a simulation supplies it.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        seed: of the hash functions.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``k`` or ``columns`` is neither a count of at least 1 nor a share in (0, 1], ``rows`` is not at
            least 1, ``max_norm`` or ``server_learning_rate`` is not positive, ``momentum`` is not in [0, 1), or
            ``variant`` is none of its values. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Keeps two sketches, 2 rows columns numbers whatever the number of
    clients, nothing per client, nothing on the client. O((n + rows) d) time, O(d) extra memory. The verdict says how
    many updates were clipped, k, the L2 norm of the error sketch over sqrt(rows), which estimates that of the error
    feedback, and the round's sparsity gap |Delta - u|_1.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = FetchSGD(FedAvg(), k=1, columns=20, momentum=0.0)
        >>> play_rounds(strategy, [[3.0, 4.0], [5.0, 6.0]])  # the larger coordinate
        tensor([0., 5.])
        >>> play_rounds(strategy, [[0.0, 0.0], [0.0, 0.0]])  # what was held back comes later
        tensor([4., 0.])

    Source: Rothchild et al., FetchSGD, ICML 2020, Algorithm 1; Panda et al., SparseFed, AISTATS 2022, App. B.1.4,
    Algorithm 10.
    """

    state_names: ClassVar[tuple[str, ...]] = ("momentum_sketch", "error_sketch")

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        k: Coordinates,
        rows: PositiveCount = 5,
        columns: Coordinates = 0.1,
        max_norm: Positive | None = None,
        momentum: Momentum = 0.9,
        variant: SketchVariant = "released",
        server_learning_rate: Positive = 1.0,
        adaptive_clipping: bool = True,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        seed: Count = 0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.k = k
        self.rows = rows
        self.columns = columns
        self.max_norm = max_norm
        self.momentum = momentum
        self.variant: SketchVariant = variant
        self.server_learning_rate = server_learning_rate
        self.adaptive_clipping = adaptive_clipping
        self.training = training
        self.num_rounds = num_rounds
        self.seed = seed
        self.momentum_sketch: Tensor | None = None
        self.error_sketch: Tensor | None = None

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return lambda Delta, and keep the new state."""
        training = self.training if self.adaptive_clipping else None
        limit = math.inf if self.max_norm is None else self.max_norm
        bound = adaptive_max_norm(limit, cohort.round, training, self.num_rounds)
        clipped = clipped_mean(cohort.updates, bound, self.weights(cohort))
        size = len(clipped.mean)
        columns = max(1, round(self.columns * size)) if isinstance(self.columns, float) else self.columns
        sketch = _sketch(self.rows, columns, size, self.seed)
        state = fetchsgd_init(sketch, device=clipped.mean.device)
        if self.momentum_sketch is not None and self.error_sketch is not None:
            state = FetchSGDState(self.momentum_sketch, self.error_sketch)
        delta, state = fetchsgd_step(
            state, clipped.mean, sketch=sketch, k=self.k, momentum=self.momentum, variant=self.variant
        )
        self.momentum_sketch, self.error_sketch = state.momentum, state.error
        self.report(
            scores=clipped.norms,
            clipped=clipped.clipped,
            max_norm=None if self.max_norm is None else bound,
            k=num_coordinates(self.k, size),
            error_norm=float(state.error.norm()) / math.sqrt(self.rows),
            sparsity_gap=float((delta - clipped.mean).abs().sum(dtype=torch.float64)),
        )
        return self.server_learning_rate * delta


@functools.lru_cache(maxsize=4)
def _sketch(rows: int, columns: int, size: int, seed: int) -> CountSketch:
    return CountSketch(rows, columns, size, seed)
