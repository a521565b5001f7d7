"""FedNova on a client: it says how many steps it took."""

from collections.abc import Sequence
from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import Tensor, nn

from flsec.aggregation.fednova import STEPS, accumulated_steps
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._half_tools import step_hook
from flsec.client_apps.client_half import ClientHalf
from flsec.errors import ConfigError
from flsec.training import StepHook

__all__ = ["FedNovaClient", "fednova_client"]


class FedNovaClient(ClientHalf):
    """Count the steps of local training, and report what they are worth as ``fednova-steps`` in the metrics.

    The client must call ``step_hooks`` in its training, as ``TorchClient`` does. With momentum, or FedProx's penalty in
    the server's configuration, a step is worth more or less than one; see ``flsec.aggregation.accumulated_steps``.

    Args:
        momentum: of the client's SGD; None: that of its attribute ``training``, or 0 if it has none.
        options: see ``ClientHalf``.

    Raises:
        ConfigError: in a round, the client has no ``step_hooks``, calls none, or trains with Adam.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps import TorchClient
        >>> from flsec.data import ArrayDataset
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights
        >>> data = ArrayDataset(np.array([[1.0], [-1.0]]), [1, 0])
        >>> client = TorchClient(Softmax((1,), 2), data, Training(learning_rate=0.5, steps=3), client_id=0)
        >>> _, _, metrics = FedNovaClient()(client).fit(get_weights(Softmax((1,), 2)), {"server-round": 1})
        >>> metrics["fednova-steps"]
        3.0

    Source: Wang et al., FedNova, NeurIPS 2020, Sec. 4.
    """

    def __init__(self, *, momentum: Annotated[float, Ge(0), Lt(1)] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.momentum = momentum

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train, and report the steps."""
        name, counter = type(self).__name__, _Counter()
        with step_hook(client, counter, name):
            result = honest_fit(parameters, config)
        local, num_examples, metrics = checked_result(result, "fit")
        if not counter.num_steps:
            raise ConfigError(
                f"{name}: {type(client).__name__} has step_hooks and calls none of them. Pass them on: "
                "flsec.training.train(..., hooks=self.step_hooks)."
            )
        mu = float(config.get("proximal-mu", config.get("proximal_mu", 0.0)))
        steps = accumulated_steps(counter.num_steps, self._momentum(client), counter.learning_rate * mu)
        return local, num_examples, {**metrics, STEPS: steps}

    def _momentum(self, client: Any) -> float:
        training = getattr(client, "training", None)
        optimizer = getattr(training, "optimizer", "sgd")
        if optimizer != "sgd":
            raise ConfigError(
                f"{type(self).__name__} counts steps of SGD, and {type(client).__name__} trains with {optimizer}. "
                "Train it with optimizer='sgd'."
            )
        return float(getattr(training, "momentum", 0.0)) if self.momentum is None else self.momentum


fednova_client = FedNovaClient  # reads better above a class


class _Counter(StepHook):
    """Counts."""

    num_steps = 0
    learning_rate = 0.0

    def after_step(self, model: nn.Module, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        self.num_steps += 1
        self.learning_rate = learning_rate
