"""RSA on a client: a model of its own, tied to the server's by an l1 penalty."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from flsec.aggregation.rsa import DELTA, GRADIENT_SCALE, rsa_gradient
from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._half_tools import step_hook
from flsec.client_apps.client_half import ClientHalf
from flsec.client_apps.client_state import ClientState
from flsec.parameters import NonNegative, Positive
from flsec.training import StepHook, weight_names

__all__ = ["RSAClient", "rsa_client"]


class RSAClient(ClientHalf):
    """Train the client's own model, which it keeps from round to round, with a pull towards the server's.

    Each step of training descends along gradient_scale * gradient + delta * sign(own - server), at the client's own
    model. What is uploaded is that model. A client's first round starts from the server's.

    The client must call ``step_hooks`` in its training, as ``TorchClient`` does. Its model is kept as ``ClientState``
    says: one model a client.

    Args:
        delta: weight of the l1 penalty.
        gradient_scale: factor of the loss: 1/n in DiverseFL's Equation 6, 1 in Li et al.
        options: see ``ClientHalf``.

    Raises:
        ConfigError: a parameter is out of its range; in a round, the client has no ``step_hooks``, or its own model
            cannot be kept.

    What the ``RSA`` wrapper sends with each round takes the place of both.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps import TorchClient
        >>> from flsec.data import ArrayDataset
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights
        >>> data = ArrayDataset(np.array([[1.0], [-1.0]]), [1, 0])
        >>> client = TorchClient(Softmax((1,), 2), data, Training(learning_rate=0.5, steps=1), client_id=0)
        >>> client = RSAClient(delta=0.0)(client)  # no pull
        >>> first, _, _ = client.fit(get_weights(Softmax((1,), 2)), {"server-round": 1})
        >>> second, _, _ = client.fit(get_weights(Softmax((1,), 2)), {"server-round": 2})  # goes on from its own model
        >>> bool(abs(second[0]).sum() > abs(first[0]).sum())
        True

    Source: Li et al., RSA, AAAI 2019, Algorithm 1 with p = 1; DiverseFL, Equation 6.
    """

    def __init__(self, *, delta: NonNegative = 0.2635, gradient_scale: Positive = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.delta = delta
        self.gradient_scale = gradient_scale

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train the own model, keep it, and upload it."""
        state = ClientState(client, config)
        own = state.load("rsa")
        pull = _Pull(
            [np.array(array) for array in parameters],  # training may write into what it was given
            float(config.get(DELTA, self.delta)),
            float(config.get(GRADIENT_SCALE, self.gradient_scale)),
        )
        with step_hook(client, pull, type(self).__name__):
            result = honest_fit(parameters if own is None else own, config)
        local, num_examples, metrics = checked_result(result, "fit")
        state.save("rsa", local)
        return local, num_examples, metrics


rsa_client = RSAClient  # reads better above a class


class _Pull(StepHook):
    """Adds the l1 penalty's subgradient."""

    def __init__(self, server: NDArrays, delta: float, gradient_scale: float) -> None:
        self._server = server
        self._delta = delta
        self._gradient_scale = gradient_scale
        self._targets: list[Tensor] | None = None

    def before_step(self, model: nn.Module, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        own = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if self._targets is None:
            arrays = dict(zip(weight_names(model), self._server, strict=True))
            self._targets = [torch.as_tensor(arrays[name]).to(p) for name, p in own]
        return [
            rsa_gradient(gradient, p, target, self._delta, self._gradient_scale)
            for gradient, (_, p), target in zip(gradients, own, self._targets, strict=True)
        ]
