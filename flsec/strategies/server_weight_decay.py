"""The server's own part of weight decay, as a Flower strategy."""

from typing import Any, ClassVar, Literal

from torch import Tensor

from flsec.parameters import NonNegative, PositiveCount
from flsec.strategies.base import FlowerStrategy
from flsec.strategies.cohort import Cohort
from flsec.strategies.server_optimizer import ServerOptimizer
from flsec.training import Training

__all__ = ["ServerWeightDecay"]


class ServerWeightDecay(ServerOptimizer):
    """Shrink the model on the server, so that the penalty is in no client's hands.

    The clients send the step of their loss alone (``weight_decay: 0`` in training), and the server takes
    theta_r = theta_{r-1} + aggregate - mu_r lambda theta_{r-1}. Where clients have the penalty in their steps, an
    attacker who turns its update around turns the penalty as well.

    Args:
        strategy: the strategy to hand the updates on to.
        weight_decay: lambda; DiverseFL has 0.0067 for softmax regression and 0.0005 for its networks.
        training: how clients train, of which mu_r is the learning rate of round r; a simulation supplies it.
        num_rounds: rounds of the run, where the learning rate's schedule asks for it; a simulation supplies it.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``weight_decay`` is negative, ``training`` is no ``Training``, or ``num_rounds`` is not at least 1.
            Others: see ``RobustStrategy``.

    Changes the (d,) new model. With one local step it is the gradient step of the penalised loss. Statistics such as
    BatchNorm's are not shrunk. Goes inside all defenses. Memory and time: those of one more model.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> from flsec.training import Training
        >>> training = Training(learning_rate=0.5, steps=1)
        >>> strategy = ServerWeightDecay(FedAvg(), weight_decay=0.1, training=training)
        >>> play_rounds(strategy, [[[1.0], [3.0]], [[0.5], [-0.5]]])  # 2, and then 2 - 0.5 * 0.1 * 2
        tensor([1.9000])

    Source: DiverseFL, Eq. 4 and 13.
    """

    place: ClassVar[Literal["outside", "inside"] | None] = "inside"

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        weight_decay: NonNegative,
        training: Training,
        num_rounds: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.weight_decay = weight_decay
        self.training = training
        self.num_rounds = num_rounds

    def after_aggregation(self, parameters: Tensor, cohort: Cohort) -> Tensor:
        """Take the penalty's step from the model that the clients started from."""
        rate = self.training.learning_rate_at(cohort.round, self.num_rounds)
        return parameters - rate * self.weight_decay * cohort.global_parameters
