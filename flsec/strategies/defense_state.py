"""A server that goes on where it was stopped: the model, and what a defense remembers, saved after each round."""

import inspect
import logging
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import Parameters
from flwr.server.client_manager import ClientManager
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result
from numpy.typing import NDArray

from flsec import _npy
from flsec._checkpoints import Checkpoints
from flsec._files import remove_leftovers
from flsec._lock import FolderLock
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, parameters_of
from flsec.strategies._classic import Failures
from flsec.strategies._classic import Result as FitResult
from flsec.strategies._server_state import made_of, take
from flsec.strategies.base import FlowerStrategy, RobustStrategy

__all__ = ["DefenseState"]

logger = logging.getLogger("flsec")

Model = Parameters | ArrayRecord


class DefenseState(RobustStrategy):
    """Save the model and what a defense remembers after each round; a server that is started again goes on there.

    The outermost wrapper, for a server of one's own, in either Flower API. It changes no number. An app that was
    killed and builds the same strategy again reaches the same model, to the bit, as one that never stopped:
    ``num_rounds`` is the total, rounds that are done pass without a question to anybody, and the next one has the
    number that it would have had, so that schedules, seeds and ``start_round`` mean the same. The saved model takes
    the place of ``initial_arrays`` and ``initial_parameters``, and Python's, numpy's and torch's global random numbers
    go on where they were, with which Flower samples clients.

    Args:
        strategy: the defense, or a Flower strategy, which then averages by ``num_examples`` as ever, with impossible
            replies quarantined. Settings such as ``patience`` and ``device`` are those of the defense.
        path: the folder of the states, made if it is not there; only the owner may enter it. One process, and one
            object in it, at a time.
        keep: how many of the newest states to keep; an older one stands in for one that is damaged.

    Attributes:
        rounds_done: the number of the last round that is saved; 0 at the beginning.

    Raises:
        ConfigError: another process, or an object of this one that is not closed, is at work in the folder; the saved
            state is of another defense, strategy, model or API; none of the states there is whole; by the rounds:
            something outside this wrapper changes the model.
        SaveError: by the rounds: the disk is full, say; what was saved before still is.

    A state holds what ``state_dict`` of the strategy holds, the settings of Flower's own strategy included, and no
    code. What clients keep is theirs to save; who is asked is the same if the same clients connect in the same order.
    A server that is stopped in its first round starts anew; one that is stopped between training and evaluation
    repeats the evaluation.

    Example:
        >>> import tempfile
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Krum
        >>> folder = tempfile.mkdtemp()
        >>> strategy = DefenseState(Krum(FedAvg(), num_byzantine=2), path=folder)
        >>> strategy.rounds_done  # and then, as ever: strategy.start(grid, initial_arrays, num_rounds=10)
        0

    Source: ours; saving all state at the end of a round is what Flower's apps do by hand in ``evaluate_fn``.
    """

    compares_clients: ClassVar[bool] = False
    defends: ClassVar[bool] = False
    outermost: ClassVar[int] = 2
    state_names: ClassVar[tuple[str, ...]] = ("rounds_done",)

    def __init__(self, strategy: FlowerStrategy, path: str | Path, *, keep: PositiveCount = 3) -> None:
        super().__init__(strategy, **_settings_of(strategy))
        if isinstance(strategy, RobustStrategy):
            self.partition_ids = strategy.partition_ids
        self.path = Path(path)
        self.keep = keep
        self.rounds_done = 0
        self._model: Model | None = None  # as it was after that round; None: not known
        self._random: Any = None  # to go on with after the rounds that were done before
        self._checkpoints = Checkpoints(self.path, "defense-state")
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"DefenseState: path must be a folder that can be written to; got {str(path)!r}: {error.strerror}.",
                parameter="path",
            ) from None
        self._lock = FolderLock(self.path)
        self._lock.acquire()
        try:
            remove_leftovers(self.path)
            self._go_on()
        except ConfigError:
            self.close()
            raise

    def chain(self) -> list[RobustStrategy]:
        """Return the wrappers inside; this one has no part in what becomes of replies."""
        inner = self.strategy
        return inner.chain() if isinstance(inner, RobustStrategy) else [self]

    @property
    def judges_clients(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Let go of the folder, for another object of this process; the end of the process does so too."""
        self._lock.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(f"DefenseState is at work in {str(self.path)!r}, alone: copy the strategy inside it instead.")

    # --- saving and going on --------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Take up the newest state that is whole."""
        found = self._checkpoints.newest()
        for reason in found.lost:
            logger.warning("lost, and run again: %s", reason)
        if found.state is None:
            return
        model = made_of(found.state["model"])
        if isinstance(model, Parameters) != isinstance(self.base, ClassicStrategy):
            raise ConfigError(
                f"the state in {str(self.path)!r} is of Flower's other API. Go on with a strategy of that API, or name "
                "another folder."
            )
        try:
            self.load_state_dict(found.state["strategy"])
        except ConfigError as error:
            raise ConfigError(
                f"the state in {str(self.path)!r} cannot be taken up: {error} Or name another folder."
            ) from None
        self._model, self._random = model, found.state["random"]
        self._checkpoints.forget_after(found.round)
        logger.warning("going on after round %d, as saved in %s", found.round, self.path)

    def _save(self, server_round: int, model: Model) -> None:
        if not self._lock.is_held:
            raise ConfigError(f"DefenseState was closed, or is in a forked process: {str(self.path)!r} is not its own.")
        self.rounds_done = server_round
        state = {"strategy": self.state_dict(), "model": take(model), "random": _random_state()}
        self._checkpoints.save(server_round, state, self.keep)
        self._model, self._random = model, None

    def load_state_dict(self, state: Any) -> None:
        """Continue from what ``state_dict`` returned; the model to go on with is the caller's."""
        super().load_state_dict(state)
        self._model = self._random = None

    def _is_done(self, server_round: int, model: Model) -> bool:
        """Return whether a round has been done before this process; refuse a model that cannot be gone on with."""
        if server_round > self.rounds_done:
            if self._model is not None and not _same(self._model, model):
                raise ConfigError(
                    f"the model of round {server_round} is not the one that DefenseState saved after round "
                    f"{self.rounds_done}: something outside changes it. Put DefenseState around that, or begin with "
                    "the saved model."
                )
            return False
        self._check_layout(model)
        if server_round == 1:
            logger.warning("the rounds until %d have been done before: nobody is asked", self.rounds_done)
        if server_round == self.rounds_done and self._random is not None:
            _set_random_state(self._random)
        return True

    def _check_layout(self, model: Model) -> None:
        if self._model is None:
            return
        saved, given = ([_described(entry) for entry in _arrays(m).items()] for m in (self._model, model))
        if saved != given:
            raise ConfigError(
                f"the state in {str(self.path)!r} is of another model: it has {_first_apart(saved, given)}. Build the "
                "model that it was saved of, or name another folder."
            )

    # --- classic API ----------------------------------------------------------------------------------------

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return the saved model; at the beginning the wrapped strategy's first one."""
        if not isinstance(self._model, Parameters):
            return super().initialize_parameters(client_manager)
        given = self._classic_base().initialize_parameters(client_manager)
        if given is not None:
            self._check_layout(given)
        return self._model

    def evaluate(self, server_round: int, parameters: Parameters) -> Any:
        """Return what the wrapped strategy finds on the server's data, but of rounds that are past."""
        return None if server_round < self.rounds_done else super().evaluate(server_round, parameters)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: ClientManager) -> Any:
        """Ask as the wrapped strategy does; nobody in rounds that have been done."""
        if self._is_done(server_round, parameters):
            return []
        return super().configure_fit(server_round, parameters, client_manager)

    def aggregate_fit(
        self, server_round: int, results: list[FitResult], failures: Failures
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Aggregate as the wrapped strategy does, and save."""
        if server_round <= self.rounds_done:
            return None, {}
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        assert parameters is not None, "flsec's strategies always return a model"
        self._save(server_round, parameters)
        return parameters, metrics

    # --- Message API ----------------------------------------------------------------------------------------

    def start(self, *args: Any, **kwargs: Any) -> Result:
        """Run the rounds that are left; ``num_rounds`` is the total. Arguments as of the wrapped strategy's ``start``.

        ``evaluate_fn`` is not called for rounds before the last one that is saved.
        """
        bound = inspect.signature(self._message_base().start).bind(*args, **kwargs)
        evaluate = bound.arguments.get("evaluate_fn")
        if evaluate is not None:
            bound.arguments["evaluate_fn"] = self._of_present_rounds(evaluate)
        return super().start(*bound.args, **bound.kwargs)

    def _of_present_rounds(self, evaluate: Callable[[int, ArrayRecord], Any]) -> Callable[[int, ArrayRecord], Any]:
        return lambda server_round, arrays: None if server_round < self.rounds_done else evaluate(server_round, arrays)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask as the wrapped strategy does; nobody in rounds that have been done."""
        if self._is_done(server_round, arrays):
            return []
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate as the wrapped strategy does, and save; in rounds that have been done return the saved model."""
        if server_round <= self.rounds_done:
            return (self._model if isinstance(self._model, ArrayRecord) else None), None
        arrays, metrics = super().aggregate_train(server_round, replies)
        assert arrays is not None, "flsec's strategies always return a model"
        self._save(server_round, arrays)
        return arrays, metrics

    # --- both -----------------------------------------------------------------------------------------------

    def configure_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Ask as the wrapped strategy does; nobody in rounds that are past."""
        return [] if server_round < self.rounds_done else super().configure_evaluate(server_round, *args, **kwargs)

    def aggregate_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Return what the wrapped strategy makes of evaluations; nothing of rounds that are past."""
        return None if server_round < self.rounds_done else super().aggregate_evaluate(server_round, *args, **kwargs)


def _settings_of(strategy: FlowerStrategy) -> dict[str, Any]:
    """Return the settings that count on the outermost wrapper, as they are without this one."""
    if not isinstance(strategy, RobustStrategy):
        return {"weighting": "examples", "patience": None}
    names = [name for name in parameters_of(RobustStrategy) if name != "strategy"]
    return {name: getattr(strategy, name) for name in names} | {"device": strategy.device.type}


def _random_state() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
    }


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


def _arrays(model: Model) -> dict[str, NDArray[Any]]:
    """Return {name, or position in the classic API: array}."""
    if isinstance(model, Parameters):
        return {str(i): _npy.read(data) for i, data in enumerate(model.tensors)}
    return {name: _npy.read(array.data) for name, array in model.items()}


def _described(entry: tuple[str, NDArray[Any]]) -> str:
    name, array = entry
    return f"array {name} of {array.dtype}{list(array.shape)}"


def _first_apart(saved: list[str], given: list[str]) -> str:
    for ours, theirs in zip(saved, given, strict=False):
        if ours != theirs:
            return f"{ours}, and the app {theirs}"
    return f"{len(saved)} arrays, and the app {len(given)}"


def _same(saved: Model, given: Model) -> bool:
    """Whether two models are equal to the bit."""
    if saved is given:
        return True
    ours, theirs = _arrays(saved), _arrays(given)
    return ours.keys() == theirs.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
        for a, b in zip(ours.values(), theirs.values(), strict=True)
    )
