"""The checks of a server optimizer."""

import copy
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from torch import nn

from flsec._contracts.battery import equal
from flsec._contracts.server import identify
from flsec.client_apps.app import numpy_client_app
from flsec.client_apps.torch_client import TorchClient
from flsec.data.source import ArrayDataset
from flsec.parameters import parameters_of
from flsec.strategies._server_state import put_back, take
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.median import Median
from flsec.strategies.server_optimizer import defended
from flsec.training import Training

CLIENTS = (1, 2, 3, 4, 5, 6)
ONE_STEP = Training(learning_rate=0.5, steps=1, batch_size=1.0)  # what every server optimizer can go with

Change = Callable[[RecordDict], None]
Make = Callable[[], FlowerStrategy]


def _model() -> dict[str, NDArray[np.float32]]:
    return {"weight": np.full((3, 4), 0.01, np.float32), "bias": np.zeros(3, np.float32)}


def _data(client_id: int) -> ArrayDataset:
    rng = np.random.default_rng(client_id)
    return ArrayDataset(rng.normal(size=(12 + client_id, 4)).astype(np.float32), rng.integers(0, 3, 12 + client_id))


@dataclass
class _Run:
    """A server with its clients: what it knows, what they keep, and the model between them."""

    strategy: Any
    model: ArrayRecord
    contexts: dict[int, Context] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: array.numpy() for name, array in self.model.items()}


class OptimizerBattery:
    def __init__(self, make: Make):
        identify()
        self._make = make

    def _run(self, defend: Callable[[FlowerStrategy], FlowerStrategy] = lambda strategy: strategy) -> _Run:
        model = ArrayRecord({name: Array(array) for name, array in _model().items()})
        contexts = {i: Context(1, i, {"partition-id": i, "num-partitions": 9}, RecordDict(), {}) for i in CLIENTS}
        return _Run(defended(self._make(), defend), model, contexts)

    def _play(self, run: _Run, rounds: Sequence[int], change: Change = lambda content: None) -> _Run:
        """Play rounds in which the last client sends what ``change`` makes of its reply."""
        app, grid = numpy_client_app(lambda context: _client(run.strategy, context)), _grid()
        for number in rounds:
            messages = list(
                run.strategy.configure_train(number, run.model, ConfigRecord({"server-round": number}), grid)
            )
            assert messages, f"round {number}: nobody of {len(CLIENTS)} clients is asked to train"
            replies = []
            for message in sorted(messages, key=lambda m: m.metadata.dst_node_id):  # Flower's order is random
                node = message.metadata.dst_node_id
                reply = app(message, run.contexts[node])
                if node == CLIENTS[-1]:
                    change(reply.content)
                replies.append(reply)
            arrays, _ = run.strategy.aggregate_train(number, replies)
            assert arrays is not None, f"round {number}: aggregate_train returns no model"
            run.model = arrays
        return run

    def is_of_the_message_api(self) -> None:
        strategy = self._make()
        assert isinstance(strategy, Strategy), f"{type(strategy).__name__} is no flwr.serverapp.strategy.Strategy"
        assert self._make() is not strategy, "each call must make a fresh strategy"

    def trains_a_model(self) -> None:
        run = self._play(self._run(), [1, 2])
        _assert_sound(run, "two rounds")
        moved = any(not np.array_equal(run.arrays[name], start) for name, start in _model().items())
        assert moved, "two rounds leave the model as it was"

    def does_not_modify_what_it_is_given(self) -> None:
        run = self._run()
        first = run.model
        before = {name: array.data for name, array in first.items()}
        self._play(run, [1, 2])
        assert {name: array.data for name, array in first.items()} == before, "the model of round 1 was changed"

    def gives_the_same_model_again(self) -> None:
        one, other = (self._play(self._run(), [1, 2, 3]) for _ in range(2))
        _assert_same(one, other, "two runs")

    def works_with_a_defense(self) -> None:
        run = self._run(Median)
        for number in (1, 2):
            self._play(run, [number])
            reason = run.strategy.last_report.kept_previous_model
            assert reason is None, f"round {number} with the median: the model was kept: {reason}"
        _assert_sound(run, "two rounds with the median")

    def is_not_stopped_by_hostile_replies(self) -> None:
        """One of six lies in what it sends; with the median the model goes about where it goes without the lie."""
        start = np.concatenate([array.ravel() for array in _model().values()])
        way = np.linalg.norm(_vector(self._play(self._run(Median), [1, 2])) - start)
        for what, change in _lies().items():
            run = self._run(Median)
            for number in (1, 2):
                self._play(run, [number], change)
                reason = run.strategy.last_report.kept_previous_model
                assert reason is None, f"{what}, round {number}: the model was kept: {reason}"
            _assert_sound(run, what)
            moved = np.linalg.norm(_vector(run) - start)
            assert moved < 10 * way, f"{what}: the model moves by {moved:g} instead of {way:g}"

    def resumes_from_its_state(self) -> None:
        for what, defend in (("bare", lambda strategy: strategy), ("with the median", Median)):
            whole = self._play(self._run(defend), [1, 2])
            state, fresh = _state_of(whole.strategy), self._run(defend)
            kept = copy.deepcopy(state)
            fresh.model, fresh.contexts = whole.model, copy.deepcopy(whole.contexts)
            self._play(whole, [3, 4])
            assert equal(state, kept), f"{what}: later rounds change a state that was taken before"
            _continue_from(fresh.strategy, state)
            _assert_same(whole, self._play(fresh, [3, 4]), f"{what}, resumed after round 2")


def _grid() -> Any:
    return SimpleNamespace(get_node_ids=lambda: list(CLIENTS))


def _client(strategy: Any, context: Context) -> NumPyClient:
    """Return a client with the halves that the server's strategy needs around it, the innermost first."""
    node = int(context.node_config["partition-id"])
    client: Any = TorchClient(nn.Linear(4, 3), _data(node), ONE_STEP, client_id=node)
    for wrapper in reversed(strategy.chain() if isinstance(strategy, RobustStrategy) else []):
        if wrapper.client_half is not None:
            module, _, name = wrapper.client_half.partition(":")
            half = getattr(importlib.import_module(module), name)
            client = half(**({"seed": 0} if "seed" in parameters_of(half) else {}))(client)
    numpy_client: NumPyClient = client
    return numpy_client


def _lies() -> dict[str, Change]:
    """Return {what: change of a reply}; of metrics all that the client reports but its examples, one value for each."""

    def times(factor: float) -> Change:
        def change(content: RecordDict) -> None:
            record = content.array_records["arrays"]
            content["arrays"] = ArrayRecord({name: Array(array.numpy() * factor) for name, array in record.items()})

        return change

    def metrics(value: Any) -> Change:
        def change(content: RecordDict) -> None:
            known = dict(content.metric_records["metrics"])
            content["metrics"] = MetricRecord(
                {name: n if name == "num-examples" else value for name, n in known.items()}
            )

        return change

    def no_metrics(content: RecordDict) -> None:
        content["metrics"] = MetricRecord({"num-examples": content.metric_records["metrics"]["num-examples"]})

    values: list[Any] = [1e-300, 1e-9, 1e9, 1e300, 0, -1.0, float("nan"), float("inf"), [1.0, 2.0]]
    return {
        "NaN": times(float("nan")),
        "a million times the model": times(1e6),
        "the opposite": times(-1.0),
        "no metrics": no_metrics,
        **{f"{value} for every metric": metrics(value) for value in values},
    }


def _vector(run: _Run) -> NDArray[np.float64]:
    return np.concatenate([array.astype(np.float64).ravel() for array in run.arrays.values()])


def _state_of(strategy: FlowerStrategy) -> Any:
    return strategy.state_dict() if isinstance(strategy, RobustStrategy) else take(strategy)


def _continue_from(strategy: FlowerStrategy, state: Any) -> None:
    if isinstance(strategy, RobustStrategy):
        strategy.load_state_dict(state)
    else:
        put_back(strategy, state)


def _assert_sound(run: _Run, what: str) -> None:
    start = _model()
    assert set(run.arrays) == set(start), f"{what}: the model's arrays are {', '.join(run.arrays)}"
    for name, array in run.arrays.items():
        assert array.shape == start[name].shape, f"{what}: {name} has shape {array.shape}, not {start[name].shape}"
        assert torch.from_numpy(array.astype(np.float64)).isfinite().all(), f"{what}: {name} is not finite"


def _assert_same(one: _Run, other: _Run, what: str) -> None:
    for name, array in one.arrays.items():
        assert np.array_equal(array, other.arrays[name]), f"{what}: {name} differs"
