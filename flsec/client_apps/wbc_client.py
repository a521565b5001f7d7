"""FL-WBC on a client: noise in local training, where the loss is flat."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flsec.aggregation.flwbc import SCALE, wbc_perturbation
from flsec.client_apps._around import FitResult, HonestFit, NDArrays
from flsec.client_apps._half_tools import round_generator, step_hook
from flsec.client_apps.client_half import ClientHalf
from flsec.parameters import NonNegative
from flsec.training import StepHook

__all__ = ["WBCClient", "wbc_client"]


class WBCClient(ClientHalf):
    """Perturb the parameters after each step of local training but the first, where the gradient hardly changed.

    After a step with gradient g, preceded by one with g', each parameter gets learning_rate * e, e drawn from a Laplace
    distribution, if |g - g'| <= |e|, and nothing otherwise. An update that an attacker left in the global model, and
    that training alone would not remove, is perturbed away.

    The client must call ``step_hooks`` in its training, as ``TorchClient`` does, and take at least two steps a round.
    The noise depends on seed, round and client alone; the client's partition id and the round must be known.

    Args:
        scale: b of the Laplace distribution, see ``flsec.aggregation.wbc_perturbation``. What the ``FLWBC`` wrapper
            sends with each round takes its place.
        seed: the seed of the run.
        options: see ``ClientHalf``.

    Raises:
        ConfigError: a parameter is out of its range; in a round, the client has no ``step_hooks``, or its partition id
            or the round is not known.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps import TorchClient
        >>> from flsec.data import ArrayDataset
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights
        >>> data = ArrayDataset(np.array([[1.0], [-1.0]]), [1, 0])
        >>> client = TorchClient(Softmax((1,), 2), data, Training(learning_rate=0.5, steps=2), client_id=0)
        >>> plain, _, _ = client.fit(get_weights(Softmax((1,), 2)), {"server-round": 1})
        >>> perturbed, _, _ = WBCClient(scale=5.0)(client).fit(get_weights(Softmax((1,), 2)), {"server-round": 1})
        >>> bool((perturbed[0] != plain[0]).any())
        True

    Source: Sun et al., FL-WBC, NeurIPS 2021, Algorithm 1. The released program leaves biases alone, and compares no
    gradients across epochs; this perturbs all parameters and compares all consecutive steps, as the paper has it.
    """

    def __init__(self, *, scale: NonNegative = 0.4, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale
        self.seed = seed

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train with the perturbation after each step."""
        noise = round_generator(client, config, self.seed, "flwbc")
        with step_hook(client, _Perturbation(float(config.get(SCALE, self.scale)), noise), type(self).__name__):
            return honest_fit(parameters, config)


wbc_client = WBCClient  # reads better above a class


class _Perturbation(StepHook):
    def __init__(self, scale: float, noise: torch.Generator) -> None:
        self._scale = scale
        self._noise = noise
        self._previous: Sequence[Tensor | None] | None = None

    def after_step(self, model: nn.Module, gradients: Sequence[Tensor | None], learning_rate: float) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        if self._previous is not None:
            for p, gradient, before in zip(parameters, gradients, self._previous, strict=True):
                if gradient is not None and before is not None:
                    p.add_(wbc_perturbation(gradient, before, self._scale, self._noise), alpha=learning_rate)
        self._previous = gradients
