"""Server optimizers as an experiment's YAML file names them: Flower's, with limits for their parameters, and flsec's.

How clients are sampled is the simulation's affair; it comes as keyword arguments that a file cannot set. What else a
function asks for by a name of ``supplies.SuppliedToStrategies`` it gets.
"""

from typing import Annotated, Any

from annotated_types import Ge, Lt
from flwr.serverapp import strategy

from flsec.errors import ConfigError
from flsec.parameters import NonNegative, Positive
from flsec.registry import Registry
from flsec.strategies.fednova import FedNova
from flsec.strategies.scaffold import Scaffold
from flsec.strategies.server_weight_decay import ServerWeightDecay
from flsec.training import Training

__all__ = [
    "FedNova",
    "Scaffold",
    "ServerWeightDecay",
    "fedadagrad",
    "fedadam",
    "fedavg",
    "fedavgm",
    "fedprox",
    "fedsgd",
    "fedyogi",
]

Decay = Annotated[float, Ge(0), Lt(1)]


def fedavg(**sampling: Any) -> strategy.FedAvg:
    """Average what the clients send.

    Args:
        **sampling: how clients are sampled.

    Example:
        >>> from flsec.testing import play_rounds
        >>> play_rounds(fedavg(), [[1.0], [3.0]])
        tensor([2.])

    Source: McMahan et al., AISTATS 2017, Algorithm 1.
    """
    return strategy.FedAvg(**sampling)


def fedavgm(*, server_momentum: Decay, server_learning_rate: Positive = 1.0, **sampling: Any) -> strategy.FedAvgM:
    """Take the average update as a gradient of SGD with momentum on the server.

    Args:
        server_momentum: share of the last step that is kept; 0.9 is common.
        server_learning_rate: factor of the step.
        **sampling: how clients are sampled.

    Example:
        >>> from flsec.testing import play_rounds
        >>> play_rounds(fedavgm(server_momentum=0.5), [[[1.0], [3.0]], [[0.0], [0.0]]])  # 2, and half of it once more
        tensor([3.])

    Source: Hsu, Qi and Brown, 2019, "Measuring the effects of non-identical data distribution".
    """
    return strategy.FedAvgM(server_momentum=server_momentum, server_learning_rate=server_learning_rate, **sampling)


def fedsgd(*, training: Training, server_learning_rate: Positive = 1.0, **sampling: Any) -> strategy.FedAvgM:
    """Have each client take one gradient over all of its data, and step along the average of these gradients.

    Args:
        training: how clients train; a simulation supplies it.
        server_learning_rate: factor of the step, whose rate is this times ``learning_rate`` of training.
        **sampling: how clients are sampled.

    Raises:
        ConfigError: training is anything but one step of plain SGD over all data.

    Example:
        >>> from flsec.testing import play_rounds
        >>> training = Training(learning_rate=0.1, steps=1, batch_size=1.0)
        >>> play_rounds(fedsgd(training=training), [[1.0], [3.0]])
        tensor([2.])

    Source: McMahan et al., AISTATS 2017, Sec. 2: FederatedSGD.
    """
    whole = isinstance(training.batch_size, float) and training.batch_size == 1
    once = training.steps == 1 or training.epochs == 1
    if training.optimizer != "sgd" or training.momentum or not (whole and once):
        passes = f"steps: {training.steps}" if training.steps is not None else f"epochs: {training.epochs}"
        raise ConfigError(
            "fedsgd is one step of plain SGD over all of a client's data; got optimizer: "
            f"{training.optimizer}, momentum: {training.momentum}, {passes}, batch_size: {training.batch_size}. In "
            "training, set steps: 1, batch_size: 1.0 (1 would be one example), optimizer: sgd, momentum: 0.0; or take "
            "strategy: {name: fedavg}",
            parameter="training",
        )
    return strategy.FedAvgM(server_learning_rate=server_learning_rate, server_momentum=0.0, **sampling)


def fedprox(*, proximal_mu: NonNegative, **sampling: Any) -> strategy.FedProx:
    """Average, and hold every client near the global model with a quadratic penalty.

    Args:
        proximal_mu: weight of the penalty mu / 2 * |w - w_global|^2; 0 is FedAvg.
        **sampling: how clients are sampled.

    Example:
        >>> from flsec.testing import play_rounds
        >>> play_rounds(fedprox(proximal_mu=0.1), [[1.0], [3.0]])  # the penalty is the clients' to add
        tensor([2.])

    Source: Li et al., MLSys 2020, Algorithm 2.
    """
    return strategy.FedProx(proximal_mu=proximal_mu, **sampling)


def fedadam(
    *,
    eta: Positive = 0.1,
    beta_1: Decay = 0.9,
    beta_2: Decay = 0.99,
    tau: Positive = 1e-3,
    **sampling: Any,
) -> strategy.FedAdam:
    """Take the average update as a gradient of Adam on the server.

    Args:
        eta: the server's learning rate.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        tau: added to the root of the second moment; the larger, the less adaptive.
        **sampling: how clients are sampled.

    Example:
        >>> from flsec.testing import play_rounds
        >>> play_rounds(fedadam(eta=0.1), [[1.0], [3.0]]).round(decimals=2)
        tensor([0.0700])

    Source: Reddi et al., ICLR 2021, Algorithm 2.
    """
    return strategy.FedAdam(eta=eta, beta_1=beta_1, beta_2=beta_2, tau=tau, **sampling)


def fedyogi(
    *,
    eta: Positive = 0.01,
    beta_1: Decay = 0.9,
    beta_2: Decay = 0.99,
    tau: Positive = 1e-3,
    **sampling: Any,
) -> strategy.FedYogi:
    """Take the average update as a gradient of Yogi on the server.

    Args:
        eta: the server's learning rate.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        tau: added to the root of the second moment; the larger, the less adaptive.
        **sampling: how clients are sampled.

    Example:
        >>> from flsec.testing import play_rounds
        >>> play_rounds(fedyogi(eta=0.1), [[1.0], [3.0]]).round(decimals=2)
        tensor([0.1000])

    Source: Reddi et al., ICLR 2021, Algorithm 2.
    """
    return strategy.FedYogi(eta=eta, beta_1=beta_1, beta_2=beta_2, tau=tau, **sampling)


def fedadagrad(*, eta: Positive = 0.1, tau: Positive = 1e-3, **sampling: Any) -> strategy.FedAdagrad:
    """Take the average update as a gradient of Adagrad on the server.

    Args:
        eta: the server's learning rate.
        tau: added to the root of the second moment; the larger, the less adaptive.
        **sampling: how clients are sampled.

    Example:
        >>> from flsec.testing import play_rounds
        >>> play_rounds(fedadagrad(eta=0.1), [[1.0], [3.0]]).round(decimals=2)
        tensor([0.1000])

    Source: Reddi et al., ICLR 2021, Algorithm 2.
    """
    return strategy.FedAdagrad(eta=eta, tau=tau, **sampling)


STRATEGIES = Registry("strategy", __name__)
