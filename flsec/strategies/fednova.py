"""FedNova as a Flower strategy."""

from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from flsec import _numbers
from flsec.aggregation.fednova import STEPS, accumulated_steps, normalising_factors
from flsec.errors import ConfigError
from flsec.strategies.base import FlowerStrategy, KeepPreviousModel, Weighting
from flsec.strategies.cohort import Cohort
from flsec.strategies.server_optimizer import ServerOptimizer
from flsec.training import Training

__all__ = ["FedNova"]


class FedNova(ServerOptimizer):
    """Make updates of clients that took different numbers of local steps count alike, before any defense sees them.

    Each update is multiplied by tau_eff / tau_i: divided by the steps that the client took, so that who trains longer
    pulls no harder, and brought back to the length of tau_eff steps, the mean of all. Defenses inside judge the rows
    so made. Where all take equally many steps nothing changes.

    Args:
        strategy: what to do with the normalised updates: a defense, or the strategy that takes the step.
        max_ratio: tau_i is the client's own word. It counts as at most this many times the round's median, and at
            least as the median divided by it, so that fewer than half of the clients cannot move tau_eff, or make an
            update larger, by more than a factor that is known.
        training: how clients train, for those that do not report their steps; a simulation supplies it. Their number
            of examples then says how many they are.
        weighting: see ``RobustStrategy``; p_i, by default as the paper and Flower's FedAvg have it. Of a defense inside
            its own weighting counts for the step.
        options: see ``RobustStrategy``.

    Hands on (n, d) updates for (n, d). Goes outside all defenses: ``FedNova(Krum(FedAvg(...), num_byzantine=2))``. Put
    ``flsec.client_apps.fednova_client`` around the clients, which report their steps; without it ``training`` must say.
    A round in which nobody's steps are known keeps the previous model.

    What is no number of steps (a text, NaN, zero) costs a client nothing: the median takes its place. Clients' SGD may
    have momentum, and FedProx may be inside; Adam's steps are worth no fixed number of anything, and are refused.

    O(n d) time, one copy of the updates where steps differ, nothing kept between rounds. The notes say the median of
    the steps, and of how many clients they are not known.

    Raises:
        ConfigError: clients train with Adam, or ``max_ratio`` is less than 1. Others: see ``RobustStrategy``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> steps = [{"fednova-steps": 1}, {"fednova-steps": 3}]
        >>> play_rounds(FedNova(FedAvg()), [[1.0], [3.0]], metrics=steps)  # both took steps of 1, and 2 in the mean
        tensor([2.])

    Source: Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS
    2020, Equations 6 and 7. The bound ``max_ratio`` is ours.
    """

    client_half: ClassVar[str | None] = "flsec.client_apps.fednova_client:FedNovaClient"

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        max_ratio: Annotated[float, Ge(1)] = 10.0,
        training: Training | None = None,
        weighting: Weighting = "examples",
        **options: Any,
    ) -> None:
        super().__init__(strategy, weighting=weighting, **options)
        if training is not None and training.optimizer != "sgd":
            raise ConfigError(
                f"FedNova counts steps of SGD, and clients train with {training.optimizer}, whose steps have no fixed "
                "length. Set training.optimizer to sgd, or take fedavg.",
                parameter="training",
            )
        self.max_ratio = max_ratio
        self.training = training

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Return the updates as if all had taken tau_eff steps."""
        steps = self._steps(cohort)
        known = steps.isfinite() & (steps > 0)
        if not bool(known.any()):
            raise KeepPreviousModel(
                f"no client says how many steps it took ({STEPS!r} in its metrics). Put "
                "flsec.client_apps.fednova_client around the clients, or give FedNova their training"
            )
        factors = normalising_factors(steps, self.weights(cohort), self.max_ratio)
        self.report(median_steps=float(steps[known].quantile(0.5)), unknown_steps=len(cohort) - int(known.sum()))
        if bool((factors == 1).all()):
            return cohort
        updates = cohort.updates * factors[:, None].to(cohort.updates.dtype)
        return cohort.with_updates(updates.nan_to_num_())  # what overflows is as large as it can be

    def _steps(self, cohort: Cohort) -> Tensor:
        """Return (n,) float64 tau_i, NaN where it is not known."""
        steps = [_numbers.real(metrics.get(STEPS)) for metrics in cohort.metrics]
        if self.training is not None:
            counts = cohort.num_examples.tolist()
            steps = [self._expected(count) if own is None else own for own, count in zip(steps, counts, strict=True)]
        return torch.tensor([float("nan") if own is None else own for own in steps], dtype=torch.float64)

    def _expected(self, num_examples: float) -> float:
        assert self.training is not None
        return accumulated_steps(self.training.num_steps(max(1, int(num_examples))), self.training.momentum)
