"""Norm clipping as a Flower strategy."""

from collections.abc import Callable
from typing import Any

from flsec.aggregation._gram import row_norms
from flsec.aggregation.adaptive_clipping import adaptive_max_norm
from flsec.aggregation.norm_clipping import norm_clipping
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.training import Training

__all__ = ["NormClipping"]


class NormClipping(RobustStrategy):
    """Scale each update down to a largest L2 norm; keep everybody.

    Args:
        strategy: the strategy to protect.
        max_norm: L, the bound on each update's L2 norm, in parameter units. SparseFed tries 1, 3, 5 and 10.
        schedule: maps the round to a factor of ``max_norm``; constant if left out.
        adaptive_clipping: let the bound follow the clients' learning rate, see ``flsec.aggregation.adaptive_max_norm``;
            needs ``training``.
        training: how clients train; a simulation supplies it.
        num_rounds: rounds of the run, where the learning rate's schedule asks for it; a simulation supplies it.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``max_norm`` is not positive, or ``adaptive_clipping`` without ``training``. Others: see
            ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). Works with any number of replies; each hostile one still moves the model by up
    to L / n. O(n d) time and memory, nothing kept between rounds.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = NormClipping(FedAvg(), max_norm=5.0)
        >>> play_rounds(strategy, [[3.0, 4.0], [300.0, 400.0]])
        tensor([3., 4.])
        >>> strategy.last_report.verdicts[0].notes["clipped"]
        1

    Source: Sun et al., 2019, Sec. 4; the schedule is SparseFed, App. B.2.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        max_norm: Positive = 5.0,
        schedule: Callable[[int], float] | None = None,
        adaptive_clipping: bool = False,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if adaptive_clipping and training is None:
            raise ConfigError(
                "NormClipping: adaptive_clipping needs training, to follow its learning rate; got None. For example: "
                "training=Training(learning_rate=0.1, schedule='triangular', peak_at=0.2).",
                parameter="adaptive_clipping",
            )
        self.max_norm = max_norm
        self.schedule = schedule
        self._training = training if adaptive_clipping else None
        self._num_rounds = num_rounds

    @property
    def judges_clients(self) -> bool:
        """Clipping is no verdict on a client."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Clip the rows; a cohort in which nobody exceeds the bound is handed on as it is."""
        bound = adaptive_max_norm(self.max_norm, cohort.round, self._training, self._num_rounds)
        bound *= self.schedule(cohort.round) if self.schedule else 1.0
        norms = row_norms(cohort.updates)
        clipped = int((norms > bound).sum())
        self.report(scores=norms, clipped=clipped)
        return cohort.with_updates(norm_clipping(cohort.updates, bound)) if clipped else cohort
