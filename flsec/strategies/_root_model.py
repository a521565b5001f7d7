"""The network on the server: for defenses that judge updates by data of the server's own."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from flsec.aggregation._device import computing_device
from flsec.errors import ConfigError
from flsec.randomness import generator
from flsec.strategies.cohort import Cohort
from flsec.tasks import CLASSIFICATION, Task
from flsec.training import Evaluation, Training, evaluate, get_weights, set_weights, train, weight_names

__all__ = ["Examples", "ModelFactory", "RootModel", "check_examples"]

Examples = tuple[Tensor, Tensor]  # (x, y): inputs (n, ...) and labels (n, ...)
ModelFactory = Callable[[], nn.Module]


class RootModel:
    """A network that is loaded with a round's global parameters plus an update, then evaluated or trained.

    Everything depends on the cohort and on ``seed``; torch's global random state is left as it was.

    Args:
        model_factory: builds the network that the clients train, with its arrays in the order in which they are sent.
        training: how clients train; None where nothing is trained.
        num_rounds: rounds of the run, for learning-rate schedules that depend on it.
        seed: the seed of the run.
        task: what is learned: the loss, and what predictions are judged by.

    Raises:
        ConfigError: the factory makes no network, or ``training`` is no ``Training``.
    """

    def __init__(
        self,
        model_factory: ModelFactory,
        *,
        training: Training | None = None,
        num_rounds: int | None = None,
        seed: int = 0,
        task: Task = CLASSIFICATION,
    ) -> None:
        if training is not None and not isinstance(training, Training):
            raise ConfigError(f"training must be a flsec.training.Training; got {training!r}.", parameter="training")
        with torch.random.fork_rng(devices=[]):  # weights are drawn, and then replaced
            self._model = model_factory()
        if not isinstance(self._model, nn.Module):
            raise ConfigError(
                f"model_factory must return a torch.nn.Module; got {type(self._model).__name__}.",
                parameter="model_factory",
            )
        arrays = zip(weight_names(self._model), get_weights(self._model), strict=True)
        self.shapes = {name: array.shape for name, array in arrays}  # in the order in which they are sent
        self._training = training
        self._num_rounds = num_rounds
        self._seed = seed
        self._task = task

    def evaluate(self, cohort: Cohort, update: Tensor, examples: Examples) -> Evaluation:
        """Return loss, accuracy and predictions of the global model after ``update`` (d,); NaN where that overflows."""
        self._load(cohort, cohort.global_parameters + update)
        return evaluate(self._model, *examples, task=self._task)

    def after(self, cohort: Cohort, update: Tensor) -> nn.Module:
        """Return the network itself, in eval mode, as the global model after ``update`` (d,); until the next call."""
        self._load(cohort, cohort.global_parameters + update)
        return self._model.eval()

    def train(
        self,
        cohort: Cohort,
        examples: Examples,
        *,
        purpose: str,
        client: int = -1,
        steps: int | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Return the (d,) update that a client with these examples would send in this round.

        Args:
            cohort: gives the global parameters and the round.
            examples: what to train on.
            purpose: what the update is for, so that two uses draw different batches.
            client: whose update it stands for; -1 is the server's own.
            steps: batches to train on, in place of what ``training`` says.
            batch_size: examples a batch, in place of what ``training`` says.
        """
        settings = self._training
        if settings is None:
            raise ConfigError(
                "training is needed to train the server's model; pass a flsec.training.Training.", parameter="training"
            )
        if steps is not None:
            settings = replace(settings, epochs=None, steps=steps)
        if batch_size is not None:
            settings = replace(settings, batch_size=batch_size)
        self._load(cohort, cohort.global_parameters)
        batches = generator(self._seed, cohort.round, client, purpose)
        train(
            self._model,
            *examples,
            settings,
            round=cohort.round,
            num_rounds=self._num_rounds,
            generator=batches,
            task=self._task,
        )
        return cohort.layout.flatten(get_weights(self._model)) - cohort.global_parameters.cpu()

    def _load(self, cohort: Cohort, parameters: Tensor) -> None:
        """Set the model's weights, and BatchNorm's statistics and counters to those that the clients started from."""
        shapes = [slot.shape for slot in cohort.layout.slots]
        own = list(self.shapes.values())
        if own != shapes:
            first = next((pair for pair in zip(own, shapes, strict=False) if pair[0] != pair[1]), None)
            what = "" if first is None else f", the first that differs of shape {first[0]} where it is {first[1]}"
            raise ConfigError(
                f"model_factory builds a model of {len(own)} arrays; the clients train one of {len(shapes)}"
                f"{what}. Give the factory of the clients' model.",
                parameter="model_factory",
            )
        self._model.to(computing_device())
        with np.errstate(over="ignore"):  # a hostile value may be too large for a model in half precision
            set_weights(self._model, cohort.layout.unflatten(parameters, cohort.global_state))


def check_examples(examples: Examples, name: str) -> None:
    """Raise ``ConfigError`` unless ``examples`` has one label for each input, and at least one."""
    x, y = examples
    if not x.ndim or x.shape[:1] != y.shape[:1] or not len(x):
        raise ConfigError(
            f"{name} must be (x, y) with n inputs and n labels, at least 1; "
            f"got shapes {tuple(x.shape)} and {tuple(y.shape)}.",
            parameter=name,
        )
