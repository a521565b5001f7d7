"""The workers of the pool, and how messages travel to them and back: arrays once a round, and without a copy."""

import gc
import pickle
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from flsec.simulations.engines.grid import reply_of

__all__ = [
    "Packed",
    "Result",
    "SharedArrays",
    "Slot",
    "Work",
    "Worker",
    "actor_factory",
    "identity_of",
    "kill",
    "reply_from",
    "wait_for_workers",
]

Packed = dict[str, Any]  # records by name; arrays as numpy views of their bytes, which Ray maps without pickling them
Work = tuple[Packed, Any, Context]  # a message's records that others of the round do not share, and its metadata
Result = tuple[Any, Error | None, Any, Any, Any]  # a reply: metadata, error or arrays and other records; a state


def _pack(record: ArrayRecord) -> list[tuple[str, str, tuple[int, ...], str, Any]]:
    return [
        (name, array.dtype, array.shape, array.stype, np.frombuffer(array.data, np.uint8))
        for name, array in record.items()
    ]


def _unpack(packed: Iterable[tuple[str, str, tuple[int, ...], str, Any]], *, copy: bool) -> ArrayRecord:
    """Return the record; without a copy, its arrays' bytes are views of Ray's object store."""
    record = ArrayRecord()
    for name, dtype, shape, stype, data in packed:
        array = Array(dtype=dtype, shape=shape, stype=stype, data=bytes(data) if copy else b"")
        if not copy:
            array.data = data.data  # Flower's constructor insists on bytes; reading needs a buffer only
        record[name] = array
    return record


class Worker:
    """What runs in an actor: one app, and the arrays of the present round."""

    def __init__(self, app: ClientApp, num_threads: int):
        import torch

        torch.set_num_threads(num_threads)
        gc.freeze()  # what has been imported stays: collections need not look through it
        self._app = app
        self._key = ""
        self._arrays: dict[str, ArrayRecord] = {}  # a client gets records of its own, which it may empty,
        self._others: Packed = {}  # around these

    def process(self, work: tuple[str, Any, Sequence[Work]]) -> tuple[float, list[Result]]:
        """Run the app on messages of one round, one after the other; return the seconds, and a result for each.

        Without messages it answers as soon as the app has been loaded.
        """
        import ray

        key, shared, parts = work
        started = time.perf_counter()
        if key != self._key:  # the first message of a round: fetch what all its messages share
            arrays, others = ray.get(shared[0])
            self._arrays = {name: _unpack(packed, copy=True) for name, packed in arrays.items()}
            self._others, self._key = others, key
        results = [self._run(*part) for part in parts]
        return time.perf_counter() - started, results

    def _run(self, own: Packed, metadata: Any, context: Context) -> Result:
        """Return the reply to one message in parts, and the client's state if it has any."""
        content = RecordDict(
            {
                **{name: ArrayRecord(dict(record)) for name, record in self._arrays.items()},
                **{name: type(record)(dict(record)) for name, record in self._others.items()},
                **own,
            }
        )
        message = _message(content, metadata)
        reply = reply_of(self._app, message, context)
        state = context.state if len(context.state) else None
        if reply.has_error():
            return reply.metadata, reply.error, None, None, state
        arrays = {name: _pack(record) for name, record in _arrays_of(reply.content).items()}
        others = {name: record for name, record in reply.content.items() if name not in arrays}
        return reply.metadata, None, arrays, others, state


def _message(content: RecordDict | Error, metadata: Any) -> Message:
    """Return a message with metadata that another process made; Flower keeps this way for itself."""
    make: Any = Message
    message: Message = make(content, metadata=metadata)
    return message


def _arrays_of(content: RecordDict) -> dict[str, ArrayRecord]:
    """Return the records of arrays; ``array_records`` makes a dictionary that keeps track of changes, slowly."""
    return {name: record for name, record in content.items() if isinstance(record, ArrayRecord)}


def identity_of(content: RecordDict) -> tuple[object, ...]:
    """Return what is the same for messages with the same arrays, and records of the same names."""
    return *content, *(id(array) for record in _arrays_of(content).values() for array in record.values())


def _described(records: Packed) -> dict[str, bytes]:
    """Return what tells records apart, types included: 1, 1.0 and True are equal."""
    return {name: pickle.dumps(dict(record)) for name, record in records.items()}


def kill(actor: Any) -> None:
    """End an actor."""
    import ray

    end: Any = ray.kill  # untyped
    end(actor)


def reply_from(parts: Result) -> Message:
    """Return the reply that a worker has taken apart."""
    metadata, error, arrays, others, _ = parts
    if error is not None:
        return _message(error, metadata)
    records = {name: _unpack(packed, copy=False) for name, packed in arrays.items()}
    return _message(RecordDict({**records, **others}), metadata)


@dataclass(frozen=True)
class _Round:
    """What the messages of one round share, and how to know one of them."""

    identity: tuple[object, ...]
    key: str
    shared: Any  # in the object store
    arrays: dict[str, ArrayRecord]
    others: dict[str, bytes]


class SharedArrays:
    """What the messages of a round have in common, once in the object store for all of them."""

    def __init__(self) -> None:
        self._round: _Round | None = None

    def split(self, content: RecordDict) -> tuple[str, Any, Packed]:
        """Split a message into what the round's messages share, in the object store, and the rest.

        They share the arrays if they are the same objects, and of the other records those that equal the first's.

        Returns:
            A key that tells rounds apart, a reference to what is shared, and the message's own records.
        """
        import ray

        arrays = _arrays_of(content)
        others = {name: record for name, record in content.items() if name not in arrays}
        identity = identity_of(content)
        known = self._round
        if known is None or identity != known.identity:
            packed = {name: _pack(record) for name, record in arrays.items()}
            # the records are kept as well: an id is only unique while its object lives
            known = _Round(identity, str(uuid.uuid4()), ray.put((packed, others)), arrays, _described(others))
            self._round = known
        mine = _described(others)
        return known.key, known.shared, {name: others[name] for name in others if mine[name] != known.others[name]}


@dataclass(eq=False)
class Slot:
    """One actor, and the call that it is at work on; at first one without messages, which it answers when it is up."""

    actor: Any
    call: Any = None  # reference to the result
    messages: list[Message] = field(default_factory=list)
    since: float = 0.0  # when the call was made

    @classmethod
    def of(cls, actor: Any) -> "Slot":
        """Return a slot whose actor is starting."""
        return cls(actor, actor.process.remote(("", None, [])))


def actor_factory(app: ClientApp, num_cpus: float, num_gpus: float) -> Callable[[], Any]:
    """Return what starts another worker with these shares of a machine."""
    import ray

    stored = ray.put(app)
    worker: Any = ray.remote(Worker)
    # Without task events: Ray would keep a record of each of the last 100,000 calls.
    actor = worker.options(num_cpus=num_cpus, num_gpus=num_gpus, enable_task_events=False)
    return lambda: actor.remote(stored, max(1, int(num_cpus)))


def wait_for_workers(slots: Sequence[Slot], patience: float) -> list[Slot]:
    """Return the slots whose workers have started; in a cluster, others may hold what was counted on.

    Raises:
        RuntimeError: a worker cannot load the app, or none has started within ``patience`` seconds.
    """
    import ray

    started = {slot.call: slot for slot in slots}
    ready, late = ray.wait(list(started), num_returns=len(started), timeout=patience)
    try:
        ray.get(ready)
    except ray.exceptions.RayError as error:
        raise RuntimeError(f"no worker can load the ClientApp: {error}") from error
    for reference in late:
        kill(started[reference].actor)
    up = [slot for reference, slot in started.items() if reference not in late]
    for slot in up:
        slot.call = None
    if not up:
        raise RuntimeError(f"no worker has started within {patience:.0f} s: Ray's nodes are busy with other work.")
    return up
