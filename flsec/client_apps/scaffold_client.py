"""SCAFFOLD on a client: its own control variate, and steps that it corrects."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flsec import _numbers
from flsec.aggregation.scaffold import CONTROL, RATE, STEPS
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._half_tools import step_hook
from flsec.client_apps.client_half import ClientHalf
from flsec.client_apps.client_state import ClientState
from flsec.errors import ConfigError
from flsec.training import StepHook, weight_names

__all__ = ["ScaffoldClient", "scaffold_client"]


class ScaffoldClient(ClientHalf):
    """Train along gradient - c_i + c, and keep the mean gradient of the round as the new c_i.

    c comes from the ``Scaffold`` wrapper with each round. c_i, zero at first, is kept as ``ClientState`` says: one
    model a client. Nothing is uploaded but what the client uploads anyway.

    The client must call ``step_hooks`` in its training, as ``TorchClient`` does, and train with SGD without momentum.

    Args:
        data_attribute: see ``ClientHalf``.
        inputs_key: see ``ClientHalf``.
        labels_key: see ``ClientHalf``.

    Raises:
        ConfigError: in a round, the server has no ``Scaffold``, the client took another number of steps or another
            learning rate than the server counts on, or it has no ``step_hooks``.

    Example:
        >>> import numpy as np
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import TorchClient
        >>> from flsec.data import ArrayDataset
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights
        >>> from flsec.strategies import Scaffold
        >>> data = ArrayDataset(np.array([[1.0], [-1.0]]), [1, 0])
        >>> client = TorchClient(Softmax((1,), 2), data, Training(learning_rate=0.5, steps=1), client_id=0)
        >>> server = Scaffold(FedAvg(), training=client.training, num_clients=2)
        >>> upload, _, _ = ScaffoldClient()(client).fit(
        ...     get_weights(Softmax((1,), 2)), {"server-round": 1, **server.client_config(1)}
        ... )
        >>> upload[0].tolist()  # without control variates yet, the step that the client takes anyway
        [[-0.25], [0.25]]

    Source: Karimireddy et al., SCAFFOLD, ICML 2020, Algorithm 1, lines 8 to 13, option II.
    """

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train with the correction, and keep the new variate."""
        name = type(self).__name__
        if CONTROL not in config:
            raise ConfigError(
                f"{name}: the server sent no {CONTROL!r}, so nothing would be corrected. Put "
                "flsec.strategies.Scaffold(...) around the server's strategy."
            )
        start = [np.array(array) for array in parameters]  # training may write into what it was given
        control = _arrays_of(config[CONTROL], start)
        state = ClientState(client, config)
        own = state.load("scaffold") or [np.zeros_like(array) for array in control]
        correction = _Correction([c - c_i for c, c_i in zip(control, own, strict=True)])
        with step_hook(client, correction, name):
            result = honest_fit(parameters, config)
        local, num_examples, metrics = checked_result(result, "fit")
        told = (int(config[STEPS]), float(config[RATE]))
        _check_steps(name, told, (correction.num_steps, correction.learning_rate))
        length = told[0] * told[1]
        gradients = [(_floats(a) - _floats(b)) / length for a, b in zip(start, local, strict=True)]
        state.save("scaffold", [g - d for g, d in zip(gradients, correction.differences, strict=True)])
        return local, num_examples, metrics


scaffold_client = ScaffoldClient  # reads better above a class


def _check_steps(name: str, told: tuple[int, float], taken: tuple[int, float]) -> None:
    if told[0] != taken[0] or not math.isclose(told[1], taken[1], rel_tol=1e-6):
        raise ConfigError(
            f"{name}: the server counts on {told[0]} steps with learning rate {told[1]:g}, and the client took "
            f"{taken[0]} with {taken[1]:g}. Give Scaffold the clients' own training, and train with step_hooks."
        )


def _floats(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return an array's real numbers, flat; none of a counter."""
    if not _numbers.is_weight(array.dtype):
        return np.zeros(0, np.float32)
    return _numbers.floats_of(array).astype(np.float32)


def _arrays_of(data: bytes, like: NDArrays) -> list[NDArray[np.float32]]:
    """Cut the server's bytes into one flat vector for each array of the model; zeros before it has sent any."""
    sizes = [_floats(array).size for array in like]
    vector = np.frombuffer(data, np.float32) if data else np.zeros(sum(sizes), np.float32)
    if vector.size != sum(sizes):
        raise ConfigError(
            f"the server's {CONTROL!r} has {vector.size} numbers where the model has {sum(sizes)}. Do server and "
            "client build the same model?"
        )
    return np.split(vector, np.cumsum(sizes)[:-1])


class _Correction(StepHook):
    """Adds c - c_i to each gradient, and counts the steps."""

    def __init__(self, differences: list[NDArray[np.float32]]) -> None:
        self.differences = differences
        self.num_steps = 0
        self.learning_rate = 0.0
        self._corrections: list[Tensor | None] | None = None

    def before_step(self, model: nn.Module, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if self._corrections is None:
            by_name = dict(zip(weight_names(model), self.differences, strict=True))
            self._corrections = [
                _as_parameter(by_name[name], p) if name in by_name else None
                for name, p in model.named_parameters()
                if p.requires_grad
            ]
        return [
            gradient if gradient is None or correction is None else gradient + correction
            for gradient, correction in zip(gradients, self._corrections, strict=True)
        ]

    def after_step(self, model: nn.Module, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        self.num_steps += 1
        self.learning_rate = learning_rate


def _as_parameter(vector: NDArray[np.float32], parameter: nn.Parameter) -> Tensor:
    floats = torch.tensor(vector)
    if parameter.is_complex():
        return torch.view_as_complex(floats.reshape(*parameter.shape, 2)).to(parameter)
    return floats.reshape(parameter.shape).to(parameter)
