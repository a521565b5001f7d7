"""RSA as a Flower strategy."""

from typing import Any, ClassVar

from torch import Tensor

from flsec.aggregation.rsa import DELTA, GRADIENT_SCALE, rsa_server_step
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, Positive, PositiveCount
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort
from flsec.training import Training

__all__ = ["RSA"]


class RSA(RobustStrategy):
    """Let each client train a model of its own, and move the global one towards each of them by the same small step.

    An l1 penalty ties the clients' models to the server's. Its subgradient is a sign, so that each client has one vote
    in each coordinate, however far away its model is.

    Args:
        strategy: the strategy to protect; it is given the server's step as one update.
        delta: weight of the l1 penalty, on both sides.
        lambda_: weight of the server's regulariser lambda / 2 |theta|^2.
        learning_rate: mu of the server's step; None: the clients' learning rate of the round, as in the paper, which
            needs ``training``.
        gradient_scale: factor of the clients' loss: 1 in Li et al.; DiverseFL's Equation 6 has 1/n for n clients.
        training: how clients train; a simulation supplies it.
        num_rounds: rounds of the run, where the schedule asks for it; a simulation supplies it.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: neither ``learning_rate`` nor ``training`` is given, ``delta`` or ``lambda_`` is negative, or
            ``learning_rate`` or ``gradient_scale`` is not positive. Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Needs ``flsec.client_apps.rsa_client`` around the clients. The server
    moves each parameter by up to mu delta n a round, from one step a round, whatever clients do in theirs; with delta
    too large for mu it swings, and with it too small it stands still. For convex losses: DiverseFL left it out of its
    experiments with networks.

    Equation 7 uses the clients' models of the round before. In a Flower round the server has the new ones when it
    moves, and uses them.

    O(n d) time, O(d) extra memory, nothing kept between rounds on the server; each client keeps a model.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = RSA(FedAvg(), delta=1.0, learning_rate=0.1)
        >>> play_rounds(strategy, [[0.2], [0.3], [-900.0]]).round(decimals=3)  # two votes up, one down
        tensor([0.1000])

    Source: Li et al., RSA, AAAI 2019, Algorithm 1 with p = 1; DiverseFL, Equations 6-7, delta and lambda from its
    Sec. IV.
    """

    client_half: ClassVar[str | None] = "flsec.client_apps.rsa_client:RSAClient"

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        delta: NonNegative = 0.2635,
        lambda_: NonNegative = 0.0067,
        learning_rate: Positive | None = None,
        gradient_scale: Positive = 1.0,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        if learning_rate is None and training is None:
            raise ConfigError(
                "RSA: without learning_rate the server takes the clients', and there is no training. Pass "
                "learning_rate=0.001, or training=Training(...).",
                parameter="learning_rate",
            )
        self.delta = delta
        self.lambda_ = lambda_
        self.learning_rate = learning_rate
        self.gradient_scale = gradient_scale
        self.training = training
        self.num_rounds = num_rounds

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return the clients' settings."""
        return {DELTA: float(self.delta), GRADIENT_SCALE: float(self.gradient_scale)}

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the server's step."""
        rate = self.learning_rate
        if rate is None:
            assert self.training is not None
            rate = self.training.learning_rate_at(cohort.round, self.num_rounds)
        self.report(learning_rate=rate)
        return rsa_server_step(
            cohort.global_parameters, cohort.updates, learning_rate=rate, delta=self.delta, lambda_=self.lambda_
        )
