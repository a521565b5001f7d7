"""A NumPyClient that trains any torch model."""

import functools
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from flwr.client import NumPyClient
from numpy.typing import NDArray

from flsec.client_apps._around import round_of
from flsec.errors import ConfigError
from flsec.randomness import generator
from flsec.tasks import CLASSIFICATION, Task
from flsec.training import StepHook, Training, evaluate, get_weights, set_weights, train

__all__ = ["TorchClient"]


class TorchClient(NumPyClient):
    """Train a torch model on one client's data.

    Args:
        model: the network; its weights are replaced by what the server sends.
        trainset: the client's data, with ``tensors()`` as ``flsec.data.ArrayDataset`` has it.
        training: optimizer, learning rate, epochs or steps, batch size.
        client_id: the client's partition id.
        testset: what ``evaluate`` uses; the training data if left out.
        num_rounds: rounds of the run, for learning-rate schedules that depend on it.
        device: where to train.
        seed: the seed of the run; batches depend on it, the round and the client, and on nothing else.
        task: what the client learns: its loss and its measures.
        augmentation: changes the inputs of each training batch, with ``apply(x, generator)`` as
            ``flsec.data.augmentation.Augmentation`` has it; what it draws depends on what batches depend on.

    Raises:
        ConfigError: in a round, the fit configuration has no ``server-round``.

    Inputs are (n, ...) and labels (n,), or (n, L) for sequences. Halves of defenses that act on each step of training
    put hooks into ``step_hooks``; see ``flsec.training.StepHook``.

    Example:
        >>> import numpy as np
        >>> from flsec.data import ArrayDataset
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights
        >>> data = ArrayDataset(np.array([[1.0], [-1.0]]), [1, 0])
        >>> client = TorchClient(Softmax((1,), 2), data, Training(learning_rate=0.5, steps=1), client_id=0)
        >>> upload, num_examples, metrics = client.fit(get_weights(client.model), {"server-round": 1})
        >>> upload[0].tolist(), num_examples, sorted(metrics)
        ([[-0.25], [0.25]], 2, ['train-loss'])
    """

    def __init__(
        self,
        model: torch.nn.Module,
        trainset: Any,
        training: Training,
        *,
        client_id: int,
        testset: Any = None,
        num_rounds: int | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
        task: Task = CLASSIFICATION,
        augmentation: Any = None,
    ) -> None:
        device = torch.device(device)
        if any(tensor.device != device for tensor in chain(model.parameters(), model.buffers())):
            model.to(device)  # which takes a while also where there is nothing to move
        self.model = model
        self.trainset = trainset
        self.training = training
        self.client_id = client_id
        self.testset = testset
        self.num_rounds = num_rounds
        self.device = device
        self.seed = seed
        self.task = task
        self.augmentation = augmentation
        self.step_hooks: tuple[StepHook, ...] = ()  # what halves of defenses do around each step of training

    def get_parameters(self, config: dict[str, Any]) -> list[NDArray[Any]]:
        """Return the model's weights and buffers in the order of its state dict."""
        return get_weights(self.model)

    def fit(
        self, parameters: list[NDArray[Any]], config: dict[str, Any]
    ) -> tuple[list[NDArray[Any]], int, dict[str, Any]]:
        """Train from ``parameters``; return the new ones, the number of examples and the training loss.

        Args:
            parameters: in the order of the model's state dict.
            config: what the server sends: ``server-round``, and FedProx's ``proximal-mu``.

        Raises:
            ConfigError: no round in ``config``, or parameters that do not fit the model.
        """
        set_weights(self.model, parameters)
        x, y = self.trainset.tensors()
        round_ = round_of(config)
        if round_ < 1:
            raise ConfigError(
                "TorchClient: batches and learning rate depend on the round, but the fit configuration has no "
                "'server-round'. flsec's strategies and Flower's Message API send it; with a bare classic strategy "
                "use on_fit_config_fn."
            )
        result = train(
            self.model,
            x.to(self.device),
            y.to(self.device),
            self.training,
            round=round_,
            num_rounds=self.num_rounds,
            generator=generator(self.seed, round_, self.client_id, "batches"),
            proximal_mu=float(config.get("proximal-mu", config.get("proximal_mu", 0.0))),
            hooks=self.step_hooks,
            task=self.task,
            augment=self._augment(round_),
        )
        return get_weights(self.model), len(y), {"train-loss": float(result.loss)}

    def _augment(self, round_: int) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Return what changes the batches of a round, if anything does."""
        if self.augmentation is None:
            return None
        random = generator(self.seed, round_, self.client_id, "augmentation")  # its own: batches stay as they are
        return functools.partial(self.augmentation.apply, generator=random)

    def accuracy(self, parameters: list[NDArray[Any]], x: torch.Tensor, y: torch.Tensor) -> float:
        """Return the accuracy of ``parameters`` on (x, y), which halves of defenses ask for.

        Args:
            parameters: in the order of the model's state dict.
            x: (n, ...) inputs.
            y: (n, ...) labels.
        """
        set_weights(self.model, parameters)
        return float(evaluate(self.model, x.to(self.device), y.to(self.device), task=self.task).accuracy)

    def evaluate(self, parameters: list[NDArray[Any]], config: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
        """Return loss, number of examples and the task's measures of ``parameters`` on the client's test data."""
        set_weights(self.model, parameters)
        x, y = (self.testset if self.testset is not None else self.trainset).tensors()
        result = evaluate(self.model, x.to(self.device), y.to(self.device), task=self.task)
        return float(result.loss), len(y), dict(result.measures)
