"""SCAFFOLD as a Flower strategy."""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from flsec import _numbers
from flsec.aggregation.scaffold import CONTROL, RATE, STEPS, scaffold_control
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy
from flsec.strategies.cohort import Cohort, Layout
from flsec.strategies.server_optimizer import ServerOptimizer
from flsec.training import Training

__all__ = ["Scaffold"]


class Scaffold(ServerOptimizer):
    """Correct each step of local training by how the client's gradients differ from everybody's.

    Clients keep a control variate c_i, the mean gradient of their last round, and the server one for all, c. Each
    local step goes along g - c_i + c, so that clients whose data differ do not drift apart.

    Args:
        strategy: the strategy to hand the updates on to.
        training: how clients train: SGD without momentum, ``steps`` a round, the same for all; a simulation supplies
            it.
        num_clients: N, all clients that there are, not those of a round; a simulation supplies it.
        num_rounds: rounds of the run, where the learning rate's schedule asks for it; a simulation supplies it.
        server_learning_rate: eta_g, factor of the server's step.
        options: see ``RobustStrategy``. Clients count alike, as in the paper.

    Takes the step of one (d,) update and moves c, (d,). Goes inside all defenses:
    ``Krum(Scaffold(FedAvg(...), ...), num_byzantine=2)``. Put ``flsec.client_apps.scaffold_client`` around the clients.

    No client sends a control variate. The server computes the change of c from the update that the defenses around it
    have accepted, with the steps and the learning rate that it knows; see ``flsec.aggregation.scaffold_control``. So c
    is as robust as the model, and there is no second vector to screen. c counts as moved by all usable clients of a
    round, also where a defense has chosen one of them to stand for all.

    2 d numbers go to each client in a round after the first and d come back (the paper: 2 d and 2 d). c travels as
    float32 bytes in the clients' configuration. Kept: d numbers on the server, d on each client.

    Raises:
        ConfigError: clients train with Adam, with momentum, or for epochs, whose number of steps differs among clients;
            ``num_clients`` is not at least 1, or ``server_learning_rate`` is not positive. Others: see
            ``RobustStrategy``.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.training import Training
        >>> training = Training(learning_rate=0.5, steps=2)
        >>> strategy = Scaffold(FedAvg(), training=training, num_clients=2)
        >>> play_rounds(strategy, [[-1.0], [-3.0]])
        tensor([-2.])
        >>> strategy.control  # the mean gradient: 2 in 2 steps of 0.5
        tensor([2.])

    Source: Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020, Algorithm
    1 with option II.
    """

    place: ClassVar[Literal["outside", "inside"] | None] = "inside"
    client_half: ClassVar[str | None] = "flsec.client_apps.scaffold_client:ScaffoldClient"
    state_names: ClassVar[tuple[str, ...]] = ("control",)

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        training: Training,
        num_clients: PositiveCount,
        num_rounds: PositiveCount | None = None,
        server_learning_rate: Positive = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if training.optimizer != "sgd" or training.momentum or training.steps is None:
            raise ConfigError(
                "Scaffold: a client's control variate is the mean of its gradients only after plain SGD, of equally "
                f"many steps for all; got optimizer {training.optimizer}, momentum {training.momentum}, steps "
                f"{training.steps}. In training, set for example: optimizer: sgd, momentum: 0.0, steps: 10",
                parameter="training",
            )
        self.training = training
        self.num_clients = num_clients
        self.num_rounds = num_rounds
        self.server_learning_rate = server_learning_rate
        self.control: Tensor | None = None  # as it travels: a float32 for each float of the model, zero for state

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return c, empty at first, and the steps and the rate that the server counts on."""
        control = b"" if self.control is None else self.control.numpy().tobytes()
        return {CONTROL: control, STEPS: self._num_steps, RATE: self._rate(server_round)}

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Learn c from the updates that came this far, and lengthen them by the server's learning rate."""
        weights = self.weights(cohort)
        shares = torch.ones(len(cohort), dtype=torch.float64) if weights is None else weights
        mean = (shares / shares.sum()) @ cohort.updates.double()
        if bool(mean.isfinite().all()):
            self._learn(mean, cohort)
        if self.server_learning_rate == 1:
            return cohort
        return cohort.with_updates(self.server_learning_rate * cohort.updates)

    def _learn(self, mean: Tensor, cohort: Cohort) -> None:
        update = _on_the_way(mean.float(), cohort.layout)
        self.control = scaffold_control(
            torch.zeros_like(update) if self.control is None else self.control,
            update,
            num_steps=self._num_steps,
            learning_rate=self._rate(cohort.round),
            share=min(1.0, cohort.num_usable / self.num_clients),
        )
        self.report(control_norm=float(self.control.double().norm()))

    @property
    def _num_steps(self) -> int:
        assert self.training.steps is not None  # else the constructor has refused
        return self.training.steps

    def _rate(self, server_round: int) -> float:
        return self.training.learning_rate_at(server_round, self.num_rounds)


def _on_the_way(vector: Tensor, layout: Layout) -> Tensor:
    """Return a (d,) vector with zeros where the model has floats that are state: clients know no other order."""
    parts = []
    for slot in layout.slots:
        if slot.start is not None:
            parts.append(vector[slot.start : slot.stop])
        elif _numbers.is_weight(slot.dtype):
            parts.append(vector.new_zeros(math.prod(slot.shape) * (1 + (slot.dtype.kind == "c"))))
    return torch.cat(parts)
