"""Rounds at the boundary between Flower and flsec: other people's strategies, models and clients."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.common import Parameters
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp.strategy import FedAvg as MessageFedAvg
from numpy.typing import NDArray

from flsec._contracts.server import (
    MODEL,
    Answer,
    ClassicServer,
    MessageServer,
    NDArrays,
    Reply,
    Server,
    honest,
    npy_bytes,
)

both_apis = pytest.mark.parametrize("api", ["classic", "Message"])
LONGEST_REASON = 200


def parameters(model: Mapping[str, NDArray[Any]]) -> Parameters:
    return Parameters([npy_bytes(array) for array in model.values()], "numpy.ndarray")


def counts(api: str, num_clients: int, evaluated: int | None = None) -> dict[str, int]:
    """Return the settings that make a Flower strategy ask exactly so many clients."""
    kinds = ("fit", "evaluate", "available") if api == "classic" else ("train", "evaluate", "available")
    who = "clients" if api == "classic" else "nodes"
    numbers = (num_clients, num_clients if evaluated is None else evaluated, num_clients)
    return {f"min_{kind}_{who}": number for kind, number in zip(kinds, numbers, strict=True)}


def fedavg(api: str, num_clients: int, **options: Any) -> Any:
    strategy = ClassicFedAvg if api == "classic" else MessageFedAvg
    return strategy(**{**counts(api, num_clients), **options})


def play(
    api: str,
    strategy: Any,
    num_clients: int,
    rounds: Sequence[int] = (1,),
    answer: Answer = honest,
    model: Mapping[str, NDArray[Any]] = MODEL,
) -> Server:
    """Play rounds with clients 1 to ``num_clients``."""
    return server(api, strategy, num_clients, model).play(rounds, answer)


def server(
    api: str, strategy: Any, num_clients: int, model: Mapping[str, NDArray[Any]] = MODEL, first: int = 1
) -> Server:
    """Return a server of clients ``first``, ``first + 1``, ..., who are all honest unless a round says otherwise."""
    clients = range(first, first + num_clients)
    return (_Classic if api == "classic" else _Message)(strategy, clients, model)


class _AllHonest(Server):
    def play(self, rounds: Sequence[int], answer: Answer = honest, arrival: int = 0) -> Server:
        return super().play(rounds, answer, arrival)


class _Classic(_AllHonest, ClassicServer):
    pass


class _Message(_AllHonest, MessageServer):
    pass


def sends(changes: Mapping[int, Callable[[Reply], Reply | None]], others: Answer = honest) -> Answer:
    """All answer as ``others`` do, but for some, whose reply is changed (None: no reply)."""

    def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
        replies = others(round, client_id, arrays)
        if client_id not in changes:
            return replies
        return [changed for reply in replies if (changed := changes[client_id](reply)) is not None]

    return answer


def trains(step: Callable[[int, str, NDArray[Any]], Any], names: Sequence[str], **fields: Any) -> Answer:
    """Client i sends ``step(i, name, array)`` in the place of each array."""

    def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
        new = [step(client_id, name, array) for name, array in zip(names, arrays, strict=True)]
        return [Reply(tuple(npy_bytes(array) for array in new), **fields)]

    return answer


def nan(reply: Reply) -> Reply:
    """Put NaN in every floating array: the crudest attack."""
    arrays = [array * np.nan if array.dtype.kind == "f" else array for array in reply.arrays]
    return replace(reply, tensors=tuple(npy_bytes(array) for array in arrays))


def silence(reply: Reply) -> None:
    """Send nothing."""


def quarantined(server: Server) -> dict[int, str]:
    """Return {client: reason} of the last round."""
    return {entry.client_id: entry.reason for entry in report(server).quarantined}


def report(server: Server) -> Any:
    last = server.strategy.last_report
    assert last is not None, "no report"
    return last


def why_kept(server: Server) -> str | None:
    """Return why the last round gave no new model; None if it gave one."""
    reason: str | None = report(server).kept_previous_model
    return reason


def moved(server: Server, model: Mapping[str, NDArray[Any]] = MODEL) -> bool:
    return any(not np.array_equal(a, b) for a, b in zip(server.arrays, model.values(), strict=True))


def assert_moved(server: Server, model: Mapping[str, NDArray[Any]] = MODEL) -> None:
    assert why_kept(server) is None, why_kept(server)
    assert moved(server, model), "the report says that there is a new model, but it is the old one"


def assert_kept(server: Server, reason: str, model: Mapping[str, NDArray[Any]] = MODEL) -> None:
    assert not moved(server, model), "the model moved"
    assert reason in (why_kept(server) or ""), f"kept because {why_kept(server)!r}, not {reason!r}"


def assert_bounded(server: Server, max_text: int = 10_000) -> None:
    """Reasons are short, printable and on one line; what reaches Flower's metrics is finite and short."""
    last = report(server)
    reasons = [entry.reason for entry in last.quarantined]
    reasons += [last.kept_previous_model or "", *getattr(last, "metrics_left_out", {}).values()]
    for reason in reasons:
        assert len(reason) <= LONGEST_REASON, f"a reason of {len(reason)} characters: {reason[:80]!r}"
        assert reason.isprintable(), f"a reason that is not printable or not one line: {reason[:80]!r}"
    for key, value in server.metrics.items():
        assert len(str(key)) <= 1000, f"a metric's name of {len(str(key))} characters"
        assert str(key).isprintable(), f"a metric's name that is not printable: {str(key)[:80]!r}"
        if isinstance(value, str):
            assert len(value) <= max_text, f"the metric {key!r} is a text of {len(value)} characters"
            assert value.isprintable(), f"the metric {key!r} is not printable: {value[:80]!r}"
        elif isinstance(value, int | float | list) and not str(key).startswith("flsec-"):  # ids have 64 bits
            numbers = np.asarray(value, np.float64)
            assert np.isfinite(numbers).all(), f"the metric {key!r} is {value}"
            assert (np.abs(numbers) <= 1e15).all(), f"the metric {key!r} is {value}"
