"""Every Flower strategy inside a defense that drops, one that aggregates and one that changes rows: what happens.

``python -m flsec._contracts.compatibility`` prints the matrix as Markdown.
"""

import gc
import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import flwr
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common import FitIns, Parameters
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp.strategy import FedAvg as MessageFedAvg
from flwr.serverapp.strategy import Strategy as MessageStrategy
from numpy.typing import NDArray

from flsec._contracts.battery import quiet
from flsec._contracts.server import (
    APIS,
    Answer,
    ClassicServer,
    MessageServer,
    NDArrays,
    Reply,
    Server,
    flower_array,
    from_npy,
    identify,
    npy_bytes,
)
from flsec.errors import ConfigError
from flsec.strategies.median import Median
from flsec.strategies.multi_krum import MultiKrum
from flsec.strategies.norm_clipping import NormClipping

__all__ = ["OWN", "Cell", "as_markdown", "compatibility_matrix", "flower_strategies"]

NUM_CLIENTS, ROUNDS, MAX_NORM = 10, (1, 2, 3), 0.25
SENDS_NAN, SENDS_1E4 = 9, 10
MODEL: dict[str, NDArray[Any]] = {
    "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([0.5, -0.25, 0.125], np.float32),
}
OWN = "derived from Strategy"
EVALUATED = "QFedAvg with evaluate_fn"  # without one it fails in Flower alone

Outcome = Literal["works", "refused", "fails in Flower alone", "fails"]


@dataclass(frozen=True)
class Cell:
    """What one strategy does inside one defense.

    Attributes:
        api: ``"classic"`` or ``"Message"``.
        strategy: the class in Flower's module, or ``OWN``.
        defense: the defense around it.
        outcome: whether it works for three rounds, is refused before clients train, fails without flsec as well, or
            fails.
        detail: the sentence of the refusal, or what went wrong.
    """

    api: str
    strategy: str
    defense: str
    outcome: Outcome
    detail: str = ""


# --- the strategies ---------------------------------------------------------------------------------------------


class _OwnClassic(ClassicStrategy):
    """The plain mean, written from scratch as Flower's documentation shows."""

    def initialize_parameters(self, client_manager: Any) -> Parameters | None:
        return None

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
        proxies = client_manager.sample(num_clients=NUM_CLIENTS, min_num_clients=NUM_CLIENTS)
        return [(proxy, FitIns(parameters, {})) for proxy in proxies]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        replies = [from_npy(result.parameters.tensors) for _, result in results]
        return Parameters([npy_bytes(array) for array in _mean(replies)], "numpy.ndarray"), {"mine": 1.0}

    def configure_evaluate(self, server_round: int, parameters: Parameters, client_manager: Any) -> Any:
        return None

    def aggregate_evaluate(self, server_round: int, results: Any, failures: Any) -> Any:
        return None, {}

    def evaluate(self, server_round: int, parameters: Parameters) -> None:
        return None


class _OwnMessage(MessageStrategy):
    """The plain mean in the Message API: no record keys, no weights, no metrics functions."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterator[Message]:
        for node in grid.get_node_ids():
            yield Message(RecordDict({"arrays": arrays, "config": config}), dst_node_id=node, message_type="train")

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        records = [next(iter(r.content.array_records.values())) for r in replies if not r.has_error()]
        new = _mean([record.to_numpy_ndarrays() for record in records])
        arrays = {name: flower_array(npy_bytes(array)) for name, array in zip(records[0], new, strict=True)}
        return ArrayRecord(arrays), MetricRecord({"mine": 1.0})

    def configure_evaluate(self, *args: Any) -> list[Message]:
        return []

    def aggregate_evaluate(self, *args: Any) -> None:
        return None

    def summary(self) -> None:
        return None


def _mean(replies: Sequence[NDArrays]) -> NDArrays:
    return [np.mean(arrays, axis=0, dtype=arrays[0].dtype) for arrays in zip(*replies, strict=True)]


def flower_strategies(api: str) -> dict[str, type[Any]]:
    """Return {name: class} of all strategies that Flower's module exports, and one written from scratch."""
    module = importlib.import_module("flwr.server.strategy" if api == "classic" else "flwr.serverapp.strategy")
    base, own = (ClassicStrategy, _OwnClassic) if api == "classic" else (MessageStrategy, _OwnMessage)
    exported = {name: getattr(module, name) for name in module.__all__}
    found = {
        name: cls
        for name, cls in exported.items()
        if inspect.isclass(cls) and issubclass(cls, base) and not inspect.isabstract(cls)
    }
    return {**found, **({EVALUATED: found["QFedAvg"]} if api == "classic" else {}), OWN: own}


_SERVER_STEP = {"eta": 0.1, "eta_l": 0.1, "tau": 1e-3}
_FAIR = {"q_param": 0.2, "qffl_learning_rate": 0.5}
_DP = {"noise_multiplier": 1e-7, "num_sampled_clients": NUM_CLIENTS}  # next to no noise: models are compared
_FIXED_DP = {**_DP, "clipping_norm": 1.0}
_ADAPTIVE_DP = {**_DP, "initial_clipping_norm": 1.0, "clipped_count_stddev": 1e-6}
# What the constructors take beside the number of clients. A strategy that Flower adds must be added here, or it is
# missing from the matrix, which a test notices.
_ARGUMENTS: dict[str, dict[str, dict[str, Any]]] = {
    "classic": {
        OWN: {},
        "Bulyan": {"num_malicious_clients": 1},
        "DPFedAvgAdaptive": {**_DP, "init_clip_norm": 1.0, "clip_count_stddev": 1e-6},
        "DPFedAvgFixed": {**_DP, "clip_norm": 1.0},
        "DifferentialPrivacyClientSideAdaptiveClipping": _ADAPTIVE_DP,
        "DifferentialPrivacyClientSideFixedClipping": _FIXED_DP,
        "DifferentialPrivacyServerSideAdaptiveClipping": _ADAPTIVE_DP,
        "DifferentialPrivacyServerSideFixedClipping": _FIXED_DP,
        "FaultTolerantFedAvg": {},
        "FedAdagrad": _SERVER_STEP,
        "FedAdam": _SERVER_STEP,
        "FedAvg": {},
        "FedAvgAndroid": {},
        "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.9},
        "FedMedian": {},
        "FedOpt": _SERVER_STEP,
        "FedProx": {"proximal_mu": 0.1},
        "FedTrimmedAvg": {"beta": 0.2},
        "FedXgbBagging": {},
        "FedXgbCyclic": {},
        "FedXgbNnAvg": {},
        "FedYogi": _SERVER_STEP,
        "Krum": {"num_malicious_clients": 1},
        "QFedAvg": _FAIR,
        EVALUATED: {**_FAIR, "evaluate_fn": lambda round, arrays, config: (0.5, {})},
    },
    "Message": {
        OWN: {},
        "Bulyan": {"num_malicious_nodes": 1},
        "DifferentialPrivacyClientSideAdaptiveClipping": _ADAPTIVE_DP,
        "DifferentialPrivacyClientSideFixedClipping": _FIXED_DP,
        "DifferentialPrivacyServerSideAdaptiveClipping": _ADAPTIVE_DP,
        "DifferentialPrivacyServerSideFixedClipping": _FIXED_DP,
        "FedAdagrad": _SERVER_STEP,
        "FedAdam": _SERVER_STEP,
        "FedAvg": {},
        "FedAvgM": {"server_learning_rate": 0.5, "server_momentum": 0.9},
        "FedMedian": {},
        "FedProx": {"proximal_mu": 0.1},
        "FedTrimmedAvg": {"beta": 0.2},
        "FedXgbBagging": {},
        "FedXgbCyclic": {},
        "FedYogi": _SERVER_STEP,
        "Krum": {"num_malicious_nodes": 1},
        "MultiKrum": {"num_malicious_nodes": 1, "num_nodes_to_select": 4},
        "QFedAvg": {"client_learning_rate": 0.5, "q": 0.2},
    },
}


def build(api: str, name: str) -> Any:
    """Return this strategy, set to ask all clients.

    Raises:
        LookupError: Flower has added a strategy whose arguments are not known here.
    """
    if name not in _ARGUMENTS[api]:
        raise LookupError(f"Flower has a new {api} strategy {name}; add its arguments to _ARGUMENTS in {__file__}.")
    cls, arguments = flower_strategies(api)[name], dict(_ARGUMENTS[api][name])
    kinds, who = ("fit", "clients") if api == "classic" else ("train", "nodes")
    numbers = {f"min_{kind}_{who}": NUM_CLIENTS for kind in (kinds, "evaluate", "available")}
    if name == OWN:
        return cls()
    takes = inspect.signature(cls).parameters
    if "strategy" in takes:
        fedavg: Any = ClassicFedAvg if api == "classic" else MessageFedAvg
        return cls(**arguments, strategy=fedavg(**numbers))
    if "initial_parameters" in takes:
        arguments["initial_parameters"] = Parameters([npy_bytes(a) for a in MODEL.values()], "numpy.ndarray")
    open_ended = any(p.kind is p.VAR_KEYWORD for p in takes.values()) and "Xgb" in name
    return cls(**arguments, **{key: value for key, value in numbers.items() if key in takes or open_ended})


# --- the defenses, and what each hands on, computed here by hand ---------------------------------------------------

Rows = list[NDArrays]


def _updates(rows: Rows, start: NDArrays) -> NDArray[np.float64]:
    """Return the (n, d) updates."""
    flat = [np.concatenate([array.ravel() for array in row]).astype(np.float64) for row in rows]
    updates: NDArray[np.float64] = np.stack(flat) - np.concatenate([array.ravel() for array in start])
    return updates


def _arrays(update: NDArray[np.float64], start: NDArrays) -> NDArrays:
    pieces = np.split(update, np.cumsum([array.size for array in start])[:-1])
    return [(a + u.reshape(a.shape)).astype(a.dtype) for a, u in zip(start, pieces, strict=True)]


def _without_outlier(rows: Rows, start: NDArrays) -> Rows:
    return rows[:-1]


def _the_median(rows: Rows, start: NDArrays) -> Rows:
    return [_arrays(np.median(_updates(rows, start), axis=0), start)]


def _clipped(rows: Rows, start: NDArrays) -> Rows:
    updates = _updates(rows, start)
    factors = np.minimum(1, MAX_NORM / np.linalg.norm(updates, axis=1))
    return [_arrays(update * factor, start) for update, factor in zip(updates, factors, strict=True)]


@dataclass(frozen=True)
class _Defense:
    wrap: Callable[[Any], Any]
    hands_on: Callable[[Rows, NDArrays], Rows]  # from the usable rows, the outlier last


DEFENSES = {
    "MultiKrum": _Defense(lambda inner: MultiKrum(inner, num_byzantine=2), _without_outlier),
    "Median": _Defense(Median, _the_median),
    "NormClipping": _Defense(lambda inner: NormClipping(inner, max_norm=MAX_NORM), _clipped),
}


# --- one cell ---------------------------------------------------------------------------------------------------

_METRICS = {"train_loss": 0.5, "train-loss": 0.5, "norm_bit": 1, "dpfedavg_norm_bit": 1}


def _honest_arrays(round: int, client_id: int, arrays: NDArrays) -> NDArrays:
    rng = np.random.default_rng([round, client_id])
    return [(a + 0.1 + 0.01 * rng.standard_normal(a.shape)).astype(a.dtype) for a in arrays]


def _reply(arrays: NDArrays) -> list[Reply]:
    return [Reply(tuple(map(npy_bytes, arrays)), 1, dict(_METRICS))]


def _bare(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
    return _reply(_honest_arrays(round, client_id, arrays))


def _attacked(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
    values = _honest_arrays(round, client_id, arrays)
    if client_id == SENDS_NAN:
        values = [a * np.nan for a in values]
    if client_id == SENDS_1E4:
        values = [a * 0 + 1e4 for a in values]
    return _reply(values)


def _what_is_handed_on(defense: _Defense) -> Answer:
    """The clients whose replies a defense hands on send just that, so that the bare strategy takes its step on it."""
    usable = [i for i in range(1, NUM_CLIENTS + 1) if i != SENDS_NAN]
    handed: dict[int, dict[int, NDArrays]] = {}  # {round: {client: arrays}}

    def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
        if round not in handed:
            rows = [from_npy(_attacked(round, i, arrays)[0].tensors) for i in usable]
            handed[round] = dict(zip(usable, defense.hands_on(rows, arrays), strict=False))
        return _reply(handed[round][client_id]) if client_id in handed[round] else []

    return answer


def _server(api: str, strategy: Any) -> Server:
    server = ClassicServer if api == "classic" else MessageServer
    return server(strategy, range(1, NUM_CLIENTS + 1), MODEL)


def _failure_alone(api: str, name: str) -> str:
    """Return why this strategy fails without flsec; empty if it does not."""
    try:
        server = _server(api, build(api, name)).play(ROUNDS, _bare)
    except Exception as error:
        return _one_line(error)
    if all(np.array_equal(a, b) for a, b in zip(server.arrays, MODEL.values(), strict=True)):
        return "gives no new model"
    return "" if all(np.isfinite(a).all() for a in server.arrays) else "gives a model that is not finite"


def _cell(api: str, name: str, defense: str) -> Cell:
    trained: list[int] = []

    def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
        trained.append(client_id)
        return _attacked(round, client_id, arrays)

    try:
        server = _server(api, DEFENSES[defense].wrap(build(api, name)))
        problem = _play(api, name, defense, server, answer)
    except LookupError:
        raise
    except Exception as error:
        if isinstance(error, ConfigError) and not trained:
            return Cell(api, name, defense, "refused", _one_line(error))
        problem = f"{'' if not trained else 'after clients trained: '}{_one_line(error)}"
    if not problem:
        return Cell(api, name, defense, "works")
    alone = _failure_alone(api, name)
    return Cell(api, name, defense, "fails in Flower alone" if alone else "fails", alone or problem)


def _play(api: str, name: str, defense: str, server: Server, answer: Answer) -> str:
    """Play the rounds; return what is wrong with the models, if anything."""
    for number in ROUNDS:
        server.play([number], answer)
        reason = server.strategy.last_report.kept_previous_model
        if reason is not None:
            return f"round {number} keeps the previous model: {reason}"
        for array, start in zip(server.arrays, MODEL.values(), strict=True):
            if array.dtype != start.dtype or array.shape != start.shape or not np.isfinite(array).all():
                return f"round {number} gives {array.dtype} of shape {array.shape}: {array.ravel()[:3]}"
    expected = _server(api, build(api, name)).play(ROUNDS, _what_is_handed_on(DEFENSES[defense]))
    differs = max(np.abs(a - b).max() for a, b in zip(server.arrays, expected.arrays, strict=True))
    return "" if differs < 1e-4 else f"the server step differs by {differs:g} from the bare strategy's on the same"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def compatibility_matrix() -> list[Cell]:
    """Return a cell for each strategy of Flower's two modules inside each of three defenses.

    Ten clients train for three rounds, of whom one sends NaN and one 10,000 everywhere. It works if each round gives a
    model, and the model is the one that the bare strategy makes of what the defense hands on.

    Raises:
        LookupError: Flower has a strategy whose arguments are not known here.
    """
    identify()
    gc.freeze()  # Flower collects garbage for every reply that it reads: what is here already is not looked at again
    try:
        with quiet("flwr", "flsec"), np.errstate(all="ignore"):
            return [_cell(api, name, around) for api in APIS for name in flower_strategies(api) for around in DEFENSES]
    finally:
        gc.unfreeze()


def as_markdown(cells: Sequence[Cell]) -> str:
    """Return the matrix as Markdown tables, one an API, with the sentences of refusals below."""
    lines: list[str] = []
    notes: list[str] = []
    for api in APIS:
        lines += [
            "",
            f"## {api} API",
            "",
            f"| strategy | {' | '.join(DEFENSES)} |",
            "|---" * (1 + len(DEFENSES)) + "|",
        ]
        own = [cell for cell in cells if cell.api == api]
        for name in dict.fromkeys(cell.strategy for cell in own):
            texts = []
            for cell in (cell for cell in own if cell.strategy == name):
                if cell.detail and cell.detail not in notes:
                    notes.append(cell.detail)
                texts.append(cell.outcome + (f" ({notes.index(cell.detail) + 1})" if cell.detail else ""))
            lines.append(f"| {name} | {' | '.join(texts)} |")
    numbered = [f"{number}. {note.replace('|', chr(92) + '|')}" for number, note in enumerate(notes, start=1)]
    return "\n".join([*lines[1:], "", *numbered])


def page() -> str:
    """Return the page of the documentation: what was tried, with which Flower, and what came of it."""
    return f"""# Which Flower strategy works inside what

Every strategy that Flower {flwr.__version__} exports, and one derived from `Strategy` itself, inside a rule that drops
clients (`MultiKrum`), one that makes an aggregate (`Median`) and one that changes updates (`NormClipping`): three
rounds, ten clients, one of whom sends NaN and one an update of 1e4. *Works*: the model is finite, and the server's step
is the one that the strategy takes on what the defense hands on. *Refused*: a `ConfigError` before anybody trains, with
the sentence below.

Made by `python -m flsec._contracts.compatibility > docs/compatibility.md`; a test compares.

{as_markdown(compatibility_matrix())}
"""


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(page(), end="")
