"""A server that listens: it rebuilds its clients' data from their updates, as a Flower strategy."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from annotated_types import Ge
from torch import nn

from flsec.errors import ConfigError
from flsec.parameters import Count, Positive, PositiveCount
from flsec.randomness import seed_for
from flsec.reconstruction import INVERSIONS, Observation, Reconstruction
from flsec.reconstruction.invert_observation import INVERSION_SUPPLIED, UnknownLabels, invert_observation
from flsec.strategies._root_model import ModelFactory
from flsec.strategies.base import FlowerStrategy, RobustStrategy, Weighting
from flsec.strategies.cohort import Cohort
from flsec.training import Training

__all__ = ["Eavesdrop"]

logger = logging.getLogger("flsec")

Inversion = Callable[..., Reconstruction]
Key = tuple[int, int]  # (round, client id)


class Eavesdrop(RobustStrategy):
    """Rebuild clients' training data from what they send: an attack by the server, for measuring; not a defense.

    An honest but curious server: it aggregates as if this wrapper were not there, to the last bit, and looks at the
    updates of chosen clients in chosen rounds on the way. All it uses is what it sent, what came back, and the
    assumptions below; it never has a client's data. An inversion that fails is logged and changes nothing, but one that
    takes long holds the round up; ``flsec.reconstruction.invert_observation`` inverts what was only observed.

    Args:
        strategy: the strategy, or the defense, whose clients are listened to. Put this wrapper outermost: inside
            another it hears what that one hands on, and its own ``weighting`` is what reaches the Flower strategy.
        attack: ``"invert_gradients"``, ``"deep_leakage"``, ``"package.module:function"`` for one of your own in their
            form, or a callable that is given the network as it was sent and the ``Observation`` and returns a
            ``Reconstruction``. None: only observe.
        clients: ids of the clients to listen to; None: all.
        rounds: in which; None: all. An observation holds two models in memory. An untrained network gives most away.
        learning_rate: assumed, of the clients' SGD; None: as ``training`` says.
        steps: assumed, batches in a round; None: as ``training`` says, else what the examples make in batches.
        batch_size: assumed, examples in each batch; None: as ``training`` says, else all of them.
        num_examples: assumed, examples of each client; None: the number that its reply claims.
        labels: {client id: labels} where they are assumed known.
        unknown_labels: other clients' are ``"revealed"`` by the last layer first, or ``"searched"`` by the attack.
        settings: of a named attack, such as ``{"max_iterations": 500}``.
        input_shape: of one example; a named attack needs it.
        num_classes: C; a named attack needs it.
        max_examples: an update of more than that is not inverted: it would take long and show nothing.
        folder: where each is also written, as ``round-000001-client-0.observation.safetensors`` (``.reconstruction``),
            which ``Observation.load`` and ``Reconstruction.load`` read; those of an earlier run are replaced.
        model_factory: builds the clients' network; an attack needs it.
        training: how clients are told to train.
        num_rounds: rounds of the run, for learning-rate schedules that depend on it.
        seed: the seed of the run; random starts depend on it, the round and the client.
        weighting: see ``RobustStrategy``; by default as Flower does it.
        options: see ``RobustStrategy``.

    Attributes:
        observations: {(round, client id): ``Observation``}.
        reconstructions: {(round, client id): ``Reconstruction``}.
        failures: {(round, client id): why there is none}.

    Raises:
        ConfigError: what an attack needs is missing, ``settings`` for a callable, or a value out of its range.

    The three are no part of ``state_dict``: a resumed run has those of its own rounds, and ``folder`` those of all.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = Eavesdrop(FedAvg(), clients=[1], learning_rate=0.5)  # only observes
        >>> _ = play_rounds(strategy, [[1.0], [2.0]])
        >>> list(strategy.observations)  # (round, client)
        [(1, 1)]

    Source: FedMLSecurity, Sec. 3.3 (the passive adversary and what it uses); see ``flsec.reconstruction``.
    """

    compares_clients: ClassVar[bool] = False
    defends: ClassVar[bool] = False

    def __init__(
        self,
        strategy: FlowerStrategy,
        attack: str | Inversion | None = None,
        *,
        clients: Sequence[Count] | None = None,
        rounds: Sequence[PositiveCount] | None = (1,),
        learning_rate: Positive | None = None,
        steps: PositiveCount | None = None,
        batch_size: PositiveCount | None = None,
        num_examples: PositiveCount | None = None,
        labels: Mapping[int, Sequence[Count]] | None = None,
        unknown_labels: UnknownLabels = "revealed",
        settings: Mapping[str, Any] | None = None,
        input_shape: Sequence[PositiveCount] | None = None,
        num_classes: Annotated[int, Ge(2)] | None = None,
        max_examples: PositiveCount = 64,
        folder: str | Path | None = None,
        model_factory: ModelFactory | None = None,
        training: Training | None = None,
        num_rounds: PositiveCount | None = None,
        seed: int = 0,
        weighting: Weighting = "examples",
        **options: Any,
    ) -> None:
        super().__init__(strategy, weighting=weighting, **options)
        self.attack = attack
        self.clients = None if clients is None else frozenset(clients)
        self.rounds = None if rounds is None else frozenset(rounds)
        self.learning_rate = learning_rate
        self.steps = steps
        self.batch_size = batch_size
        self.num_examples = num_examples
        self.labels = dict(labels or {})
        self.unknown_labels: UnknownLabels = unknown_labels
        self.settings = dict(settings or {})
        self.input_shape = input_shape
        self.num_classes = num_classes
        self.max_examples = max_examples
        self.folder = None if folder is None else Path(folder)
        self.model_factory = model_factory
        self.training = training
        self.num_rounds = num_rounds
        self.seed = seed
        self.observations: dict[Key, Observation] = {}
        self.reconstructions: dict[Key, Reconstruction] = {}
        self.failures: dict[Key, str] = {}
        self._check()

    def _check(self) -> None:
        """Refuse now what would otherwise fail in every round."""
        if self.learning_rate is None and self.training is None:
            raise ConfigError(
                "Eavesdrop: learning_rate is needed to make gradients of updates, or training, which has one.",
                parameter="learning_rate",
            )
        if self.attack is None:
            return
        if self.model_factory is None:
            raise ConfigError(
                "Eavesdrop: model_factory is needed to invert anything. Give it, or attack=None.",
                parameter="model_factory",
            )
        if not isinstance(self.attack, str):
            if self.settings:
                raise ConfigError(
                    "Eavesdrop: settings are those of a named attack; bind a callable's own to it.",
                    parameter="settings",
                )
            return
        INVERSIONS.check(self.attack, self.settings, INVERSION_SUPPLIED)
        for name, example in (("input_shape", "[1, 28, 28]"), ("num_classes", "10")):
            if getattr(self, name) is None:
                raise ConfigError(
                    f"Eavesdrop: {name} is needed by a named attack. For example: {name}: {example}", parameter=name
                )

    @property
    def fits_inputs(self) -> str | None:
        """A named attack rebuilds inputs that are real numbers."""
        return "numbers" if isinstance(self.attack, str) else None

    @property
    def fits_labels(self) -> str | None:
        """And one label of each."""
        return "class" if isinstance(self.attack, str) else None

    @property
    def knows_clients(self) -> bool:
        """Always: it listens to single clients."""
        return True

    @property
    def judges_clients(self) -> bool:
        """Listening is no verdict on a client."""
        return False

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """State what was heard, and hand the cohort on as it came."""
        heard = [(client_id, (cohort.round, client_id)) for client_id in cohort.client_ids]
        self.report(
            observed=[client_id for client_id, key in heard if key in self.observations],
            rebuilt={
                str(client): self.reconstructions[key].loss for client, key in heard if key in self.reconstructions
            },
            failed={str(client): self.failures[key] for client, key in heard if key in self.failures},
        )
        return cohort

    def observe(self, cohort: Cohort) -> None:
        """Listen: not in a stage, since an attacker that tries stages out is nobody to listen to."""
        if self.rounds is None or cohort.round in self.rounds:
            for row, client_id in enumerate(cohort.client_ids):
                if self.clients is None or client_id in self.clients:
                    self._try_to_listen(cohort, row, (cohort.round, client_id))

    def _try_to_listen(self, cohort: Cohort, row: int, key: Key) -> None:
        try:
            with torch.random.fork_rng(devices=[]):  # a model factory may draw from the global state
                self._listen(cohort, row, key)
        except Exception as error:  # whatever goes wrong in here, the round goes on
            self.failures[key] = f"{type(error).__name__}: {error}"
            logger.warning("round %d: nothing rebuilt of client %d: %s", *key, self.failures[key])

    def _listen(self, cohort: Cohort, row: int, key: Key) -> None:
        observation = self._observation(cohort, row)
        self.observations[key] = observation
        file = f"round-{key[0]:06d}-client-{key[1]}"
        if self.folder is not None:
            observation.save(self.folder / f"{file}.observation.safetensors")
        if self.attack is None:
            return
        if observation.examples > self.max_examples:
            raise ConfigError(
                f"the update is of {observation.examples} examples, more than max_examples={self.max_examples}."
            )
        result = self._invert(observation, key)
        if not isinstance(result, Reconstruction):
            raise TypeError(f"the attack must return a Reconstruction; it returned {type(result).__name__}.")
        self.reconstructions[key] = result
        if self.folder is not None:
            result.save(self.folder / f"{file}.reconstruction.safetensors")

    def _observation(self, cohort: Cohort, row: int) -> Observation:
        """Put together what was sent, what came back and what is assumed about the training between."""
        layout = cohort.layout
        sent = layout.unflatten(cohort.global_parameters, cohort.global_state)
        matrix, numbers = cohort.parts()
        vector = cohort.global_parameters + matrix[numbers[row]]
        buffers = cohort.buffers[row] if cohort.buffers else cohort.global_state
        available = self.num_examples or max(1, int(cohort.num_examples[row]))
        if self.training is not None:
            batch_size = self.batch_size or self.training.batch_size_for(available)
            steps = self.steps or self.training.num_steps(available)
        else:
            batch_size = self.batch_size or available
            steps = self.steps or math.ceil(available / batch_size)
        return Observation(
            sent=sent,
            received=layout.unflatten(vector, buffers),
            learning_rate=self._learning_rate(cohort.round),
            steps=steps,
            batch_size=batch_size,
            num_examples=min(available, steps * batch_size),
            labels=self.labels.get(cohort.client_ids[row]),
        )

    def _learning_rate(self, round_: int) -> float:
        if self.learning_rate is not None:
            return self.learning_rate
        assert self.training is not None  # else the constructor has refused
        return self.training.learning_rate_at(round_, self.num_rounds)

    def _invert(self, observation: Observation, key: Key) -> Reconstruction:
        assert self.model_factory is not None  # else the constructor has refused
        network: nn.Module = observation.network(self.model_factory())
        if not isinstance(self.attack, str):
            assert self.attack is not None  # nobody calls this without an attack
            return self.attack(network, observation)
        assert self.input_shape is not None  # else the constructor has refused
        assert self.num_classes is not None
        return invert_observation(
            network,
            observation,
            input_shape=self.input_shape,
            num_classes=self.num_classes,
            attack=self.attack,
            settings=self.settings,
            unknown_labels=self.unknown_labels,
            seed=seed_for(self.seed, *key, "eavesdrop"),
        )
