"""A Flower server and its clients, reduced to what a strategy sees of them, in both APIs."""

import importlib
import io
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common import Code, EvaluateRes, FitRes, Parameters, Status
from flwr.server import SimpleClientManager
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from flsec.strategies.base import FlowerStrategy

NDArrays = list[NDArray[Any]]

APIS = ("classic", "Message")
FLOWER: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedAdam": {"eta": 0.1, "eta_l": 0.1, "beta_1": 0.9, "beta_2": 0.99, "tau": 1e-3},
    "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.9},
    "FedProx": {"proximal_mu": 0.1},
}
MODEL: dict[str, NDArray[Any]] = {
    "weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "bias": np.array([0.5, -0.25, 0.125, 0.0], np.float32),
    "scale": np.array(1.5, np.float32),
    "steps": np.array(7),  # as BatchNorm counts
}
HOSTILE, STRANGER = (7, 9, 10, 11), 6
HONEST = (3, 5, 8, 2**53 + 1, *range(2**63, 2**63 + 1000))  # Flower's ids have 64 bits


def identify() -> None:
    """Give this process the identity without which Flower makes no message."""
    TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1


def flower_strategy(api: str, name: str, num_clients: int) -> FlowerStrategy:
    if api == "classic":
        module, kinds = "flwr.server.strategy", ("fit_clients", "evaluate_clients", "available_clients")
        more: dict[str, Any] = {
            "initial_parameters": _parameters(MODEL.values()),
            "fit_metrics_aggregation_fn": _mean_of_metrics,
            "evaluate_metrics_aggregation_fn": _mean_of_metrics,
        }
    else:
        module, kinds, more = "flwr.serverapp.strategy", ("train_nodes", "evaluate_nodes", "available_nodes"), {}
    counts = {f"min_{kind}": num_clients for kind in kinds}
    strategy: FlowerStrategy = getattr(importlib.import_module(module), name)(**counts, **more, **FLOWER[name])
    return strategy


def _mean_of_metrics(pairs: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    total = sum(weight for weight, _ in pairs)
    return {key: sum(w * metrics[key] for w, metrics in pairs) / total for key in pairs[0][1]}


def npy_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)  # an object array is what a hostile client may send
    return stream.getvalue()


def from_npy(tensors: Sequence[bytes]) -> NDArrays:
    """Return the arrays in ``.npy`` bytes as Flower reads them."""
    return [np.load(io.BytesIO(data)) for data in tensors]


def _parameters(arrays: Any) -> Parameters:
    return Parameters([npy_bytes(array) for array in arrays], "numpy.ndarray")


def flower_array(data: bytes) -> Array:
    return Array("", (), "numpy.ndarray", data)  # Flower itself says no more of a classic client's arrays


@dataclass(frozen=True)
class Reply:
    """What a client sends back in either API."""

    tensors: tuple[bytes, ...] = ()
    num_examples: Any = 20
    metrics: dict[str, Any] = field(default_factory=lambda: {"train-loss": 0.5})
    loss: Any = 0.5  # of an evaluation
    failure: str = ""  # "named", "nameless" or "status": how Flower reports that the client failed
    sender: int | None = None  # if it is not who was asked
    records: Callable[[RecordDict], None] | None = None  # the last word on a Message's content

    @property
    def arrays(self) -> NDArrays:
        """The arrays, if they can be read."""
        return from_npy(self.tensors)

    def content(self, names: Sequence[str]) -> RecordDict:
        """Return the content of a training reply in the Message API."""
        names = [*names, *(f"extra-{i}" for i in range(len(self.tensors) - len(names)))]
        arrays = {name: flower_array(data) for name, data in zip(names, self.tensors, strict=False)}
        metrics = MetricRecord({**self.metrics, "num-examples": self.num_examples})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        if self.records is not None:
            self.records(content)
        return content

    def evaluation(self) -> RecordDict:
        """Return the content of an evaluation reply in the Message API."""
        values = {**self.metrics, "loss": self.loss, "num-examples": self.num_examples}
        content = RecordDict({"metrics": MetricRecord(values)})
        if self.records is not None:
            self.records(content)
        return content


Answer = Callable[[int, int, NDArrays], list[Reply]]  # (round, client id, what it was sent) -> its replies


def honest(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
    """One well-formed reply: a step that all agree on, and noise of the client's own."""
    rng = np.random.default_rng([round, client_id % 2**32])
    trained = [
        (array + 0.1 + 0.05 * rng.standard_normal(array.shape)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array + 1
        for array in arrays
    ]
    metrics = {"train-loss": float(rng.random())}
    return [Reply(tuple(npy_bytes(a) for a in trained), 10 + client_id % 5, metrics, loss=float(rng.random()))]


def only_honest(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
    return [] if client_id in HOSTILE else honest(round, client_id, arrays)


Change = Callable[[Reply], Reply]


def hostile_sends(*changes: Change) -> Answer:
    """All are honest but some, each of whom sends what one of ``changes`` makes of an honest reply."""
    hostile = dict(zip(HOSTILE, changes, strict=False))

    def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
        if client_id in hostile:
            return [hostile[client_id](reply) for reply in honest(round, client_id, arrays)]
        return only_honest(round, client_id, arrays)

    return answer


def in_turn(changes: Mapping[str, Change]) -> Iterator[tuple[int, str, dict[int, str], Answer]]:
    """Yield (round, what, {client: what}, answer): so many changes at a time as there are hostile clients."""
    names, width = list(changes), len(HOSTILE)
    for number, start in enumerate(range(0, len(names), width), start=1):
        group = names[start : start + width]
        answer = hostile_sends(*(changes[name] for name in group))
        yield number, " | ".join(group), dict(zip(HOSTILE, group, strict=False)), answer


class Server:
    """A Flower server reduced to its calls of the strategy, which are written exactly as Flower writes them."""

    def __init__(self, strategy: FlowerStrategy, clients: Sequence[int], model: Mapping[str, NDArray[Any]] = MODEL):
        self.strategy: Any = strategy  # mostly a defense; a strategy of Flower's to compare it with
        self.names = list(model)
        self.tensors = [npy_bytes(array) for array in model.values()]
        self.clients = clients
        self.metrics: Mapping[str, Any] = {}
        self.configs: dict[int, Mapping[str, Any]] = {}  # of those who were asked to train in the last round

    @property
    def arrays(self) -> NDArrays:
        """The global model."""
        return from_npy(self.tensors)

    def play(self, rounds: Sequence[int], answer: Answer = only_honest, arrival: int = 0) -> "Server":
        """Play rounds; the replies arrive in an order that depends on ``arrival`` (0: sorted by client)."""
        for number in rounds:
            self.fit(number, answer, arrival)
        return self

    def fit(self, number: int, answer: Answer, arrival: int = 0) -> None:
        raise NotImplementedError

    def evaluate(self, number: int, answer: Answer, arrival: int = 0) -> float | None:
        raise NotImplementedError

    def _replies(
        self, asked: Mapping[int, NDArrays], number: int, answer: Answer, arrival: int
    ) -> list[tuple[int, Reply]]:
        replies = [(i, reply) for i in sorted(asked) for reply in answer(number, i, asked[i])]
        if arrival:
            random.Random(arrival).shuffle(replies)
        return replies


class ClassicServer(Server):
    def __init__(self, strategy: FlowerStrategy, clients: Sequence[int], model: Mapping[str, NDArray[Any]] = MODEL):
        super().__init__(strategy, clients, model)
        self.manager = SimpleClientManager()
        for client_id in clients:
            self.manager.register(self._proxy(client_id))
        self.strategy.initialize_parameters(client_manager=self.manager)

    @staticmethod
    def _proxy(client_id: int) -> Any:
        return SimpleNamespace(cid=str(client_id), node_id=client_id)

    def _parameters(self) -> Parameters:
        return Parameters(list(self.tensors), "numpy.ndarray")

    def fit(self, number: int, answer: Answer, arrival: int = 0) -> None:
        instructions = self.strategy.configure_fit(
            server_round=number, parameters=self._parameters(), client_manager=self.manager
        )
        self.configs = {proxy.node_id: ins.config for proxy, ins in instructions or ()}
        if not instructions:  # Flower's server goes on to the next round
            return
        sent = from_npy(instructions[0][1].parameters.tensors)
        asked = {proxy.node_id: sent for proxy, _ in instructions}
        results: list[Any] = []
        failures: list[Any] = []
        for client_id, reply in self._replies(asked, number, answer, arrival):
            code = Code.FIT_NOT_IMPLEMENTED if reply.failure else Code.OK
            result = FitRes(
                Status(code, reply.failure),
                Parameters(list(reply.tensors), "numpy.ndarray"),
                reply.num_examples,
                reply.metrics,
            )
            pair = (self._proxy(client_id if reply.sender is None else reply.sender), result)
            if reply.failure == "nameless":
                failures.append(ValueError("the client raised"))
            else:
                (failures if reply.failure == "named" else results).append(pair)
        parameters, self.metrics = self.strategy.aggregate_fit(number, results, failures)
        if parameters is not None:
            self.tensors = parameters.tensors

    def evaluate(self, number: int, answer: Answer, arrival: int = 0) -> float | None:
        self.strategy.evaluate(number, parameters=self._parameters())
        instructions = self.strategy.configure_evaluate(
            server_round=number, parameters=self._parameters(), client_manager=self.manager
        )
        if not instructions:
            return None
        results: list[Any] = []
        failures: list[Any] = []
        for client_id, reply in self._replies({p.node_id: [] for p, _ in instructions}, number, answer, arrival):
            code = Code.EVALUATE_NOT_IMPLEMENTED if reply.failure else Code.OK
            result = EvaluateRes(Status(code, reply.failure), reply.loss, reply.num_examples, reply.metrics)
            if reply.failure == "nameless":
                failures.append(ValueError("the client raised"))
            else:
                sender = self._proxy(client_id if reply.sender is None else reply.sender)
                (failures if reply.failure == "named" else results).append((sender, result))
        loss, self.metrics = self.strategy.aggregate_evaluate(number, results, failures)
        return None if loss is None else float(loss)


class MessageServer(Server):
    @property
    def _grid(self) -> Any:
        return SimpleNamespace(get_node_ids=lambda: list(self.clients))

    def _record(self) -> ArrayRecord:
        return ArrayRecord({name: flower_array(data) for name, data in zip(self.names, self.tensors, strict=True)})

    def _answers(self, instructions: Sequence[Message], number: int, answer: Answer, arrival: int) -> Iterator[Message]:
        if not instructions:
            return
        by_client = {message.metadata.dst_node_id: message for message in instructions}
        training = any(message.metadata.message_type == "train" for message in instructions)
        sent = next(iter(instructions[0].content.array_records.values())).to_numpy_ndarrays()
        for client_id, reply in self._replies(dict.fromkeys(by_client, sent), number, answer, arrival):
            question = by_client[client_id]
            if reply.sender is not None:
                question = Message(RecordDict(), reply.sender, question.metadata.message_type)
            if reply.failure:
                yield Message(Error(2, reply.failure), reply_to=question)
            else:
                yield Message(reply.content(self.names) if training else reply.evaluation(), reply_to=question)

    def fit(self, number: int, answer: Answer, arrival: int = 0) -> None:
        instructions = list(self.strategy.configure_train(number, self._record(), ConfigRecord(), self._grid))
        self.configs = {
            m.metadata.dst_node_id: config for m in instructions for config in m.content.config_records.values()
        }
        replies = list(self._answers(instructions, number, answer, arrival))
        arrays, metrics = self.strategy.aggregate_train(number, replies)
        self.metrics = metrics or {}
        if arrays is not None:
            self.tensors = [arrays[name].data for name in self.names]

    def evaluate(self, number: int, answer: Answer, arrival: int = 0) -> float | None:
        instructions = list(self.strategy.configure_evaluate(number, self._record(), ConfigRecord(), self._grid))
        replies = list(self._answers(instructions, number, answer, arrival))
        metrics = self.strategy.aggregate_evaluate(number, replies)
        self.metrics = metrics or {}
        return None if not metrics else float(metrics["loss"])
