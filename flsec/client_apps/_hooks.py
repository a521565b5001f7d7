"""What a class of attacks overrides, and what an attack is by that."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flsec.attacks.cohort_view import CohortView
from flsec.client_apps._around import NDArrays
from flsec.client_apps._client_data import DataChange
from flsec.data._keys import Key
from flsec.data._poison import Poison
from flsec.data.training_data import TrainingData, training_data
from flsec.randomness import numpy_generator

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AttackContext", "AttackHooks", "Predict"]


@dataclass(frozen=True)
class AttackContext:
    """What an attacker knows when it acts.

    Attributes:
        round: the server's round, from 1; 0 if the server does not say.
        client_id: the client's partition id; -1 if it is not known.
        config: the fit configuration that the server sent.
        seed: the seed of the run.

    Example:
        >>> context = AttackContext(round=2, client_id=7)
        >>> first, again = (context.generator("noise").random() for _ in range(2))
        >>> first == again  # the same for the same round, client and purpose
        True
    """

    round: int
    client_id: int
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def generator(self, purpose: str) -> np.random.Generator:
        """Return this client's random numbers for one purpose in this round."""
        return numpy_generator(self.seed, self.round, self.client_id, purpose)


class Predict(Protocol):
    """The global model, as an attack's ``success`` may ask it."""

    def __call__(self, inputs: Tensor, /) -> Tensor:
        """Return the predictions for inputs (k, ...): (k,), or (k, L) where labels are sequences."""
        ...

    def logits(self, inputs: Tensor, /) -> Tensor:
        """Return the logits of inputs (k, ...), (k, C) or (k, L, C); all at once, so ask for few."""
        ...

    @property
    def round(self) -> int:
        """The round that the model is the outcome of; 0 before the first."""
        ...

    @property
    def start(self) -> Sequence[NDArray[Any]] | None:
        """The parameters that this round's clients were sent; None before the first round."""
        ...


class AttackHooks:
    """What an attack changes: a subclass of ``Attack`` overrides the methods that it needs."""

    data_attribute: str | Sequence[str]
    inputs_key: Key | Sequence[str] | None
    labels_key: Key | None

    def poison(self, num_examples: int, context: AttackContext) -> Poison:
        """Return how this client's training data are changed; by default not at all.

        Args:
            num_examples: how many examples the client has.
            context: round, client and randomness.
        """
        return Poison()

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return what is uploaded in place of the trained parameters; by default those.

        Args:
            global_: the parameters that the server sent.
            local: the parameters after training, same shapes. Not to be changed in place.
            context: round, client and randomness.
        """
        return local

    def poison_metrics(self, metrics: Mapping[str, Any], context: AttackContext) -> dict[str, Any]:
        """Return what is reported beside the upload; by default what the client reports.

        Args:
            metrics: the client's own, not to be changed in place.
            context: round, client and randomness.
        """
        return dict(metrics)

    def poison_cohort(self, view: CohortView) -> Tensor:
        """Return the (m, d) updates that the attackers of a round upload in place of ``view.own``; by default those.

        Args:
            view: what they know of the round.
        """
        return view.own

    def success(self, predict: Predict, x: Tensor, y: Tensor, predictions: Tensor) -> dict[str, float | None]:
        """Return how far this attack reaches its goal on clean test data, by the name of each measure.

        For the metrics of a simulation; by default there is nothing to measure beyond accuracy.

        Args:
            predict: maps inputs (k, ...) to predictions (k,) or (k, L); its ``logits`` maps them to logits.
            x: (n, ...) test inputs.
            y: (n,) their true labels, or (n, L) where labels are sequences.
            predictions: the model's predictions for x, of the shape of y.
        """
        return {}

    def poisoned_dataset(self, dataset: Any, context: AttackContext) -> Any:
        """Return training data changed as ``poison`` says, or otherwise; the data themselves are not changed."""
        data = self.training_data(dataset)
        return data.poisoned(self.poison(len(data), context))

    def training_data(self, dataset: Any) -> TrainingData:
        """Return a client's training data behind the adapter, read by this attack's keys."""
        return training_data(dataset, inputs_key=self.inputs_key, labels_key=self.labels_key)

    def data_change(self, context: AttackContext) -> DataChange:
        """Return what this attack does to a client's training data in a round."""
        return DataChange(type(self).__name__, lambda dataset: self.poisoned_dataset(dataset, context))

    @contextlib.contextmanager
    def data_replaced(self, client: Any, context: AttackContext) -> Iterator[None]:
        """Give ``client`` poisoned training data for a while, if this attack poisons data.

        Raises:
            ConfigError: it is over, and the client has not read them.
        """
        if not self.poisons_data:
            yield
            return
        change = self.data_change(context)
        with change.at_work(), change.in_place_of(client, self.data_attribute):
            yield

    @property
    def poisons_data(self) -> bool:
        """Whether this attack changes the training data."""
        return self._overrides("poison", "poisoned_dataset")

    @property
    def poisons_update(self) -> bool:
        """Whether this attack changes the upload."""
        return self._overrides("poison_update")

    @property
    def poisons_metrics(self) -> bool:
        """Whether this attack changes what the client reports."""
        return self._overrides("poison_metrics")

    @property
    def poisons_cohort(self) -> bool:
        """Whether the attackers of a round decide together what they upload."""
        return self._overrides("poison_cohort")

    def _overrides(self, *names: str) -> bool:
        return any(getattr(type(self), name) is not getattr(AttackHooks, name) for name in names)
