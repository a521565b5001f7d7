"""Clients that send anything at all, and honest ones that differ: examples for property tests of whole rounds.

Each kind of hostile reply has a verdict of its own: ``"content"`` is quarantined for what it holds and counts as one of
the f, ``"silent"`` lowers n only, ``"fine"`` can be read and reaches the rule, ``"either"`` is a matter of taste.
"""

import io
import pickle
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import strategies as st
from numpy.typing import NDArray

from flsec._contracts.server import NDArrays, Reply, npy_bytes

Fate = Literal["content", "silent", "fine", "either"]
Make = Callable[[Reply, np.random.Generator], list[Reply]]

MODEL: dict[str, NDArray[Any]] = {
    "layer.weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3),
    "layer.bias": np.array([0.5, -0.25], np.float64),
    "gain": np.array(1.5, np.float32),
    "steps": np.array(7),
}
NAMES = tuple(MODEL)
STRANGER = 10**6


@dataclass(frozen=True)
class Kind:
    """One way to misbehave."""

    fate: Fate
    make: Make
    apis: tuple[str, ...] = ("classic", "Message")


def _one(change: Callable[[Reply, np.random.Generator], Reply]) -> Make:
    return lambda reply, rng: [change(reply, rng)]


def _array(change: Callable[[NDArray[Any], np.random.Generator], Any], which: int | None = None) -> Make:
    """Change one array (a floating one, drawn) or replace it by bytes."""

    def make(reply: Reply, rng: np.random.Generator) -> list[Reply]:
        place = int(rng.integers(3)) if which is None else which
        tensors = list(reply.tensors)
        changed = change(reply.arrays[place], rng)
        tensors[place] = changed if isinstance(changed, bytes) else npy_bytes(changed)
        return [replace(reply, tensors=tuple(tensors))]

    return make


def _floats(change: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]) -> Make:
    """Change all floating arrays."""

    def make(reply: Reply, rng: np.random.Generator) -> list[Reply]:
        arrays = [
            np.asarray(change(a, rng)).astype(a.dtype).reshape(a.shape) if a.dtype.kind == "f" else a
            for a in reply.arrays
        ]
        return [replace(reply, tensors=tuple(map(npy_bytes, arrays)))]

    return make


def _counter(value: Any) -> Make:
    return _array(lambda a, rng: np.array(value), which=3)


def _entry(value: float) -> Make:
    def change(array: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        changed = array.copy()
        changed.flat[int(rng.integers(array.size))] = value
        return changed

    return _array(change)


def _header(descr: str, shape: str) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode("latin1") + bytes(48)


class _Bomb:
    """What no one may unpickle."""

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    raise SystemExit("a reply was unpickled")


def _pickle_in_npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": array.shape})
    return stream.getvalue() + pickle.dumps([_Bomb()] * max(1, array.size))


def _metrics(value: Any, apis: tuple[str, ...] = ("classic", "Message")) -> Kind:
    """Metrics never cost an update."""
    return Kind("fine", _one(lambda reply, rng: replace(reply, metrics=value)), apis)


def _records(fate: Fate, change: Callable[[RecordDict], Any]) -> Kind:
    return Kind(fate, _one(lambda reply, rng: replace(reply, records=change)), ("Message",))


def _count(value: Any, fate: Fate = "content", apis: tuple[str, ...] = ("classic", "Message")) -> Kind:
    return Kind(fate, _one(lambda reply, rng: replace(reply, num_examples=value)), apis)


def _rename(prefix: str) -> Callable[[RecordDict], None]:
    def change(content: RecordDict) -> None:
        content["arrays"] = ArrayRecord({prefix + name: a for name, a in content.array_records["arrays"].items()})

    return change


def _restyle(content: RecordDict) -> None:
    content["arrays"] = ArrayRecord(
        {name: Array(a.dtype, a.shape, "pickle", a.data) for name, a in content.array_records["arrays"].items()}
    )


def _record_names(content: RecordDict) -> None:
    content["\x1b[2Jarrays"], content["m" * 5000] = content.pop("arrays"), content.pop("metrics")


ONLY_CLASSIC, ONLY_MESSAGE = ("classic",), ("Message",)
MANY = {f"k{i}": float(i) for i in range(3000)}
ESCAPE = "\x1b[2J\x07\r\n"

KINDS: dict[str, Kind] = {
    # bytes
    "no bytes": Kind("content", _array(lambda a, rng: b"")),
    "random bytes": Kind("content", _array(lambda a, rng: rng.bytes(int(rng.integers(1, 400))))),
    "half an array": Kind("content", _array(lambda a, rng: npy_bytes(a)[:-3])),
    "an array and more": Kind("content", _array(lambda a, rng: npy_bytes(a) + rng.bytes(8))),
    "a pickle": Kind("content", _array(lambda a, rng: pickle.dumps(_Bomb()))),
    "a pickle in npy": Kind("content", _array(lambda a, rng: _pickle_in_npy(a))),
    "a huge shape": Kind("content", _array(lambda a, rng: _header("'<f4'", "(1099511627776, 1099511627776)"))),
    "a negative shape": Kind("content", _array(lambda a, rng: _header("'<f4'", "(-2, -3)"))),
    "a header of nonsense": Kind("content", _array(lambda a, rng: _header("'<f4', 'more': 1", "(2, 3)"))),
    "a header that calls": Kind("content", _array(lambda a, rng: _header("__import__('os')", "(2, 3)"))),
    "values of no size": Kind("content", _array(lambda a, rng: _header("'|V0'", "(2, 3)"))),
    # arrays, shapes
    "one array less": Kind("content", _one(lambda r, rng: replace(r, tensors=r.tensors[:-1]))),
    "one array more": Kind("content", _one(lambda r, rng: replace(r, tensors=(*r.tensors, r.tensors[0])))),
    "500 arrays more": Kind("content", _one(lambda r, rng: replace(r, tensors=(*r.tensors, *r.tensors[:1] * 500)))),
    "no arrays": Kind("content", _one(lambda r, rng: replace(r, tensors=()))),
    "arrays in another order": Kind("content", _one(lambda r, rng: replace(r, tensors=r.tensors[::-1]))),
    "one value for all": Kind("content", _array(lambda a, rng: a.ravel()[:1], which=0)),
    "another shape of the same size": Kind("content", _array(lambda a, rng: a.T, which=0)),
    "an empty array": Kind("content", _array(lambda a, rng: a.ravel()[:0])),
    "one dimension more": Kind("content", _array(lambda a, rng: a[None])),
    # dtypes
    "objects": Kind("content", _array(lambda a, rng: a.astype(object))),
    "strings": Kind("content", _array(lambda a, rng: a.astype(str))),
    "byte strings": Kind("content", _array(lambda a, rng: a.astype("S8"))),
    "complex": Kind("content", _array(lambda a, rng: a.astype(np.complex64))),
    "integers": Kind("content", _array(lambda a, rng: np.full(a.shape, 7))),
    "booleans": Kind("content", _array(lambda a, rng: a > 0)),
    "dates": Kind("content", _array(lambda a, rng: np.zeros(a.shape, "datetime64[s]"))),
    "records": Kind("content", _array(lambda a, rng: np.zeros(a.shape, [("x", "f4")]))),
    "void of four bytes": Kind("content", _array(lambda a, rng: np.zeros(a.shape, "V4"), which=0)),
    "void of two bytes": Kind("either", _array(lambda a, rng: np.full(a.shape, 16256, "<u2").view("V2"))),
    "a counter of fractions": Kind("content", _counter(8.5)),
    "a counter of text": Kind("content", _counter("many")),
    "an unsigned counter": Kind("either", _counter(np.uint64(2**64 - 1))),
    "a short counter": Kind("either", _counter(np.int8(-128))),
    # values
    "NaN everywhere": Kind("content", _floats(lambda a, rng: a * np.nan)),
    "one NaN": Kind("content", _entry(np.nan)),
    "one infinity": Kind("content", _entry(np.inf)),
    "minus infinity": Kind("content", _entry(-np.inf)),
    "1e300 in float64": Kind("content", _array(lambda a, rng: np.full(a.shape, 1e300))),
    "3e38": Kind("fine", _floats(lambda a, rng: np.full(a.shape, 3e38))),
    "-1e30": Kind("fine", _floats(lambda a, rng: np.full(a.shape, -1e30))),
    "1e4": Kind("fine", _floats(lambda a, rng: np.full(a.shape, 1e4))),
    "random signs of 1e6": Kind("fine", _floats(lambda a, rng: 1e6 * rng.choice([-1, 1], a.shape))),
    "a small shift": Kind("fine", _floats(lambda a, rng: a + 0.3)),
    "its update reversed": Kind("fine", _one(lambda r, rng: _scaled(r, -4.0))),
    "the global model again": Kind("fine", _one(lambda r, rng: _scaled(r, 0.0))),
    "one huge coordinate": Kind("fine", _entry(1e9)),
    "zeros and denormals": Kind("fine", _floats(lambda a, rng: a * 0 + 1e-40)),
    "a huge counter": Kind("fine", _counter(2**62)),
    "a negative counter": Kind("fine", _counter(-(2**62))),
    "big-endian": Kind("fine", _array(lambda a, rng: a.astype(a.dtype.newbyteorder(">")))),
    # counts
    "num_examples 0": _count(0),
    "num_examples -5": _count(-5),
    "num_examples 1e12": _count(10**12),
    "num_examples 2**63 - 1": _count(2**63 - 1),
    "num_examples NaN": _count(float("nan")),
    "num_examples infinite": _count(float("inf")),
    "num_examples a list": _count([20]),
    "num_examples None": _count(None, apis=ONLY_CLASSIC),
    "num_examples text": _count("20" + ESCAPE, apis=ONLY_CLASSIC),
    "num_examples complex": _count(20j, apis=ONLY_CLASSIC),
    "num_examples an object": _count(object(), apis=ONLY_CLASSIC),
    "num_examples a huge integer": _count(10**400, apis=ONLY_CLASSIC),
    "num_examples 10**9": _count(10**9, "fine"),
    "num_examples 1": _count(1, "fine"),
    # metrics
    "no metrics": _metrics({}),
    "another metric": _metrics({"other": 1.0}),
    "NaN metric": _metrics({"train-loss": float("nan")}),
    "infinite metric": _metrics({"train-loss": float("-inf")}),
    "1e307": _metrics({"train-loss": 1e307}),
    "an integer of 63 bits": _metrics({"train-loss": -(2**63) + 1}),
    "a list": _metrics({"train-loss": [0.5, float("nan")]}),
    "an empty list": _metrics({"train-loss": []}),
    "3000 metrics": _metrics(MANY),
    "a long name": _metrics({"n" * 20_000: 1.0, "train-loss": 0.5}),
    "control characters in a name": _metrics({ESCAPE: 1.0, "train-loss": 0.5}),
    "a name of flsec's": _metrics({"flsec-kept": 99, "train-loss": 0.5}),
    "text": _metrics({"train-loss": "low" + ESCAPE}, ONLY_CLASSIC),
    "a long text": _metrics({"train-loss": "x" * 100_000}, ONLY_CLASSIC),
    "bytes": _metrics({"train-loss": b"\x80\x04"}, ONLY_CLASSIC),
    "true": _metrics({"train-loss": True}, ONLY_CLASSIC),
    "a huge integer": _metrics({"train-loss": 10**400}, ONLY_CLASSIC),
    "a nested mapping": _metrics({"train-loss": {"a": {"b": 1}}}, ONLY_CLASSIC),
    "None as value": _metrics({"train-loss": None}, ONLY_CLASSIC),
    "keys that are no text": _metrics({1: 1.0, None: 2.0, (3, 4): 3.0}, ONLY_CLASSIC),
    "None for metrics": _metrics(None, ONLY_CLASSIC),
    "a list for metrics": _metrics([("train-loss", 0.5)], ONLY_CLASSIC),
    # names and records
    "other array names": _records("content", _rename("module.")),
    "long array names": _records("content", _rename("n" * 20_000)),
    "control characters in array names": _records("content", _rename(ESCAPE)),
    "another serialisation": _records("content", _restyle),
    "no array record": _records("content", lambda c: c.pop("arrays")),
    "two array records": _records("content", lambda c: c.update({"more": c["arrays"]})),
    "no records": _records("content", lambda c: c.clear()),
    "no metric record": _records("either", lambda c: c.pop("metrics")),
    "two metric records": _records("either", lambda c: c.update({"more": c["metrics"]})),
    "no num-examples": _records("either", lambda c: c["metrics"].pop("num-examples")),
    "other record names": _records("fine", _record_names),
    "a config record more": _records("fine", lambda c: c.update({"more": ConfigRecord({"a": "x" * 9999})})),
    # who
    "two replies": Kind("fine", lambda r, rng: [r, _scaled(r, 50.0)]),
    "two replies, the second malformed": Kind("fine", lambda r, rng: [r, replace(r, tensors=())]),
    "two replies, the first malformed": Kind("either", lambda r, rng: [replace(r, tensors=()), r]),
    "100 replies": Kind("fine", lambda r, rng: [r] * 100),
    "as somebody else": Kind("silent", _one(lambda r, rng: replace(_scaled(r, 50.0), sender=STRANGER))),
    "nothing": Kind("silent", lambda r, rng: []),
    "a named failure": Kind("silent", _one(lambda r, rng: replace(r, failure="named"))),
    "a nameless failure": Kind("silent", _one(lambda r, rng: replace(r, failure="nameless"))),
    "a bad status": Kind("silent", _one(lambda r, rng: replace(r, failure="status"))),
}


def _scaled(reply: Reply, factor: float) -> Reply:
    """Scale the update that the reply holds."""
    tensors = []
    for array, start in zip(reply.arrays, MODEL.values(), strict=True):
        new = start + factor * (array - start) if array.dtype.kind == "f" else array
        tensors.append(npy_bytes(np.asarray(new, array.dtype)))
    return replace(reply, tensors=tuple(tensors))


def kinds(api: str) -> dict[str, Kind]:
    return {name: kind for name, kind in KINDS.items() if api in kind.apis}


# --- honest clients, who differ ---------------------------------------------------------------------------------


def _honest_metrics(api: str) -> dict[str, Mapping[str, Any]]:
    metrics: dict[str, Mapping[str, Any]] = {
        "the usual": {"train-loss": 0.5},
        "another loss": {"train-loss": 1.25},
        "one more": {"train-loss": 0.5, "acc-7": 0.9},
        "others": {"perplexity": 12.5},
        "none": {},
        "whole numbers": {"train-loss": 1},
    }
    if api == "Message":
        return {**metrics, "a list": {"per-class": [0.5, 0.25]}, "a longer list": {"per-class": [0.5] * 9}}
    return {**metrics, "text": {"train-loss": 0.5, "device": "pixel"}, "a flag": {"train-loss": 0.5, "plugged": True}}


@dataclass(frozen=True)
class Case:
    """One round: n clients, who of them is hostile and how, what the others send beside their updates."""

    num_clients: int
    hostile: Mapping[int, str]  # {client: kind}
    metrics: Mapping[int, str]  # of the honest clients
    dropouts: Mapping[int, str]  # honest clients that send nothing, and how
    spread: float  # of the honest updates
    shift: float  # that they agree on
    seed: int

    def fates(self) -> dict[int, Fate]:
        return {client: KINDS[kind].fate for client, kind in self.hostile.items()}

    def honest(self) -> list[int]:
        """Return the honest clients whose replies arrive."""
        return [i for i in self.clients() if i not in self.hostile and i not in self.dropouts]

    def clients(self) -> range:
        return range(1, self.num_clients + 1)

    def honest_arrays(self, client: int) -> NDArrays:
        """Return what this client sends if it is honest: the global model and a step."""
        rng = np.random.default_rng([self.seed, client])
        return [
            (array + self.shift + self.spread * rng.uniform(-1, 1, array.shape)).astype(array.dtype)
            if array.dtype.kind == "f"
            else array + 1 + int(rng.integers(4))
            for array in MODEL.values()
        ]

    def answer(self, api: str) -> Callable[[int, int, NDArrays], list[Reply]]:
        metrics = _honest_metrics(api)

        def reply(round: int, client: int, arrays: NDArrays) -> list[Reply]:
            own = Reply(
                tuple(map(npy_bytes, self.honest_arrays(client))),
                num_examples=5 + client,
                metrics=dict(metrics[self.metrics[client]]) if client in self.metrics else {"train-loss": 0.5},
            )
            if client in self.dropouts:
                return KINDS[self.dropouts[client]].make(own, np.random.default_rng(0))
            if client in self.hostile:
                return KINDS[self.hostile[client]].make(own, np.random.default_rng([self.seed, client, 1]))
            return [own]

        return reply


SILENT = ("nothing", "a named failure", "a nameless failure", "a bad status")


@st.composite
def cases(draw: st.DrawFn, api: str, num_byzantine: int, fewest: int, room: int = 2) -> Case:
    """Draw a round of ``fewest`` to ``fewest + room`` clients, up to ``num_byzantine`` of them hostile."""
    n = fewest + draw(st.integers(0, room))
    kind = st.sampled_from(sorted(kinds(api)))
    order = random.Random(draw(st.integers(0, 2**16))).sample(range(1, n + 1), n)
    if draw(st.booleans()):  # colluders do the same, which is what a rule can be misled by
        hostile = dict.fromkeys(order[: draw(st.integers(0, num_byzantine))], draw(kind))
    else:
        hostile = dict(zip(order[:num_byzantine], draw(st.lists(kind, max_size=num_byzantine)), strict=False))
    honest = order[len(hostile) :]
    named = draw(st.lists(st.sampled_from(sorted(_honest_metrics(api))), min_size=len(honest), max_size=len(honest)))
    silent = draw(st.lists(st.sampled_from(SILENT), max_size=2)) if draw(st.integers(0, 3)) == 0 else []
    return Case(
        num_clients=n,
        hostile=hostile,
        metrics=dict(zip(honest, named, strict=True)),
        dropouts=dict(zip(honest, silent, strict=False)),
        spread=draw(st.sampled_from([1e-3, 0.05, 1.0, 100.0])),
        shift=draw(st.sampled_from([0.0, 0.1, -2.0])),
        seed=draw(st.integers(0, 2**32 - 1)),
    )
