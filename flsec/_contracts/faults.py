"""What clients can send that they should not, and what says the same in other words."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from flsec._contracts.server import STRANGER, Change, Reply, npy_bytes

# Each fault stops a run of plain Flower or spoils its model.

FAILURES: dict[str, Change] = {
    "a named failure": lambda reply: replace(reply, failure="named"),
    "a nameless failure": lambda reply: replace(reply, failure="nameless"),
    "a bad status": lambda reply: replace(reply, failure="status"),
}


def first_array(reply: Reply, change: Callable[[NDArray[Any]], Any]) -> Reply:
    """Change the first array, or replace it by bytes."""
    changed = change(reply.arrays[0])
    data = changed if isinstance(changed, bytes) else npy_bytes(changed)
    return replace(reply, tensors=(data, *reply.tensors[1:]))


def _one_entry(value: float) -> Callable[[NDArray[Any]], NDArray[Any]]:
    def change(array: NDArray[Any]) -> NDArray[Any]:
        changed = array.copy()
        changed.flat[-1] = value
        return changed

    return change


def _claims(shape: str, dtype: str = "<f4") -> bytes:
    """Return 48 bytes of data under a header that claims another shape or dtype."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(48)


def faults(api: str) -> dict[str, Change]:
    """Return {name: change of an honest reply} of all that a client can do wrong in this API."""
    first: dict[str, Callable[[NDArray[Any]], Any]] = {
        "NaN": _one_entry(np.nan),
        "infinity": _one_entry(np.inf),
        "minus infinity": _one_entry(-np.inf),
        "1e300 in float64": lambda a: np.full(a.shape, 1e300),
        "one column less": lambda a: a[:, 1:],
        "one value for all": lambda a: a[:1, :1],
        "another shape of the same size": lambda a: a.T,
        "no dimensions": lambda a: a.sum(),
        "an empty array": lambda a: a[:0],
        "complex": lambda a: a.astype(np.complex64),
        "integers": lambda a: np.ones(a.shape, np.int64),
        "booleans": lambda a: a > 0,
        "objects": lambda a: a.astype(object),
        "strings": lambda a: a.astype(str),
        "dates": lambda a: np.zeros(a.shape, "datetime64[s]"),
        "records": lambda a: np.zeros(a.shape, [("x", "f4")]),
        "no bytes": lambda a: b"",
        "no array": lambda a: b"garbage" * 20,
        "half an array": lambda a: npy_bytes(a)[:-9],
        "an array and more": lambda a: npy_bytes(a) + b"more",
        "a huge shape": lambda a: _claims("(1099511627776, 1099511627776)"),
        "a negative shape": lambda a: _claims("(-3, -4)"),
        "a header of nonsense": lambda a: _claims("(3, 4), 'more': (3, 4)"),
        "values of no size": lambda a: _claims("(3, 4)", "|V0"),
    }
    faults: dict[str, Change] = {
        name: lambda reply, change=change: first_array(reply, change)  # type: ignore[misc]
        for name, change in first.items()
    }
    nan = np.array(np.nan, np.float32)
    faults |= {
        "NaN in the last float": lambda r: replace(r, tensors=(*r.tensors[:2], npy_bytes(nan), r.tensors[3])),
        "fractions for a counter": lambda r: replace(r, tensors=(*r.tensors[:3], npy_bytes(np.array(8.5)))),
        "one array less": lambda r: replace(r, tensors=r.tensors[:-1]),
        "one array more": lambda r: replace(r, tensors=(*r.tensors, r.tensors[0])),
        "no arrays": lambda r: replace(r, tensors=()),
    }
    counts: dict[str, Any] = {"0": 0, "-5": -5, "1e12": 10**12, "NaN": float("nan"), "infinity": float("inf")}
    counts |= {"a list": [20]} if api == "Message" else {"nothing": None, "text": "20", "true": True, "a list": [20]}
    faults |= {
        f"num_examples: {name}": lambda reply, value=value: replace(reply, num_examples=value)  # type: ignore[misc]
        for name, value in counts.items()
    }
    return {**faults, **(_record_faults() if api == "Message" else {})}


def odd_metrics(api: str) -> dict[str, Change]:
    """Return {name: change of an honest reply} of metrics that cannot be averaged with the others'."""
    metrics: dict[str, dict[str, Any]] = {
        "no metrics": {},
        "one metric more": {"train-loss": 0.5, "more": 1.0},
        "another metric": {"other": 1.0},
        "a list as metric": {"train-loss": [0.5, 0.5]},
        "NaN as metric": {"train-loss": float("nan")},
        "1e307 as metric": {"train-loss": 1e307},
        "2,000 metrics": {f"metric-{i}": 1.0 for i in range(2000)},
        "a metric's name with control characters": {"train-loss": 0.5, "\x1b[2J": 1.0},
    }
    if api == "classic":
        metrics["text as metric"] = {"train-loss": "low"}
        metrics["nothing as metric"] = {"train-loss": None}
    return {
        name: lambda reply, value=value: replace(reply, metrics=value)  # type: ignore[misc]
        for name, value in metrics.items()
    }


def _record_faults() -> dict[str, Change]:
    def rename(content: RecordDict) -> None:
        content["arrays"] = ArrayRecord({f"module.{name}": a for name, a in content.array_records["arrays"].items()})

    def serialise_otherwise(content: RecordDict) -> None:
        arrays = content.array_records["arrays"]
        content["arrays"] = ArrayRecord({k: Array(a.dtype, a.shape, "pickle", a.data) for k, a in arrays.items()})

    def weigh_nothing(content: RecordDict) -> None:
        del content.metric_records["metrics"]["num-examples"]

    changes: dict[str, Callable[[RecordDict], Any]] = {
        "no array record": lambda content: content.pop("arrays"),
        "two array records": lambda content: content.update({"more": content["arrays"]}),
        "no metric record": lambda content: content.pop("metrics"),
        "two metric records": lambda content: content.update({"more": content["metrics"]}),
        "no records": lambda content: content.clear(),
        "other array names": rename,
        "another serialisation": serialise_otherwise,
        "no num-examples": weigh_nothing,
    }
    return {
        name: lambda reply, change=change: replace(reply, records=change)  # type: ignore[misc]
        for name, change in changes.items()
    }


def other_forms(api: str) -> dict[str, Change]:
    """Return {name: change of an honest reply} of what says the same in other words, and must count the same."""
    first: dict[str, Callable[[NDArray[Any]], Any]] = {
        "float64": lambda a: a.astype(np.float64),
        "big-endian": lambda a: a.astype(">f4"),
        "column by column": lambda a: np.asfortranarray(a),
        "another .npy version": lambda a: _npy_version_2(a),
    }
    forms: dict[str, Change] = {
        name: lambda reply, change=change: first_array(reply, change)  # type: ignore[misc]
        for name, change in first.items()
    }
    forms["num_examples: a whole float"] = lambda reply: replace(reply, num_examples=float(reply.num_examples))
    if api == "classic":
        return forms

    def rename(content: RecordDict) -> None:
        content["my-arrays"], content["my-metrics"] = content.pop("arrays"), content.pop("metrics")

    def reorder(content: RecordDict) -> None:
        content["arrays"] = ArrayRecord(dict(reversed(list(content.array_records["arrays"].items()))))

    def add(content: RecordDict) -> None:
        content["metrics "] = ConfigRecord({"more": "text"})

    return forms | {
        "other record names": lambda reply: replace(reply, records=rename),
        "another order of arrays": lambda reply: replace(reply, records=reorder),
        "a config record more": lambda reply: replace(reply, records=add),
    }


def _npy_version_2(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(2, 0))
    return stream.getvalue()


def evaluation_faults(api: str) -> dict[str, Change]:
    values: dict[str, dict[str, Any]] = {
        "loss: NaN": {"loss": float("nan")},
        "loss: infinity": {"loss": float("inf")},
        "loss: a list": {"loss": [0.5]},
        "num_examples: 0": {"num_examples": 0},
        "num_examples: -5": {"num_examples": -5},
        "num_examples: 1e12": {"num_examples": 10**12},
        "num_examples: NaN": {"num_examples": float("nan")},
        "who was not asked": {"sender": STRANGER},
    }
    if api == "Message":
        values |= {
            "no metric record": {"records": lambda content: content.clear()},
            "two metric records": {"records": lambda content: content.update({"more": content["metrics"]})},
        }
    else:
        values["loss: text"] = {"loss": "low"}
    faults: dict[str, Change] = {
        name: lambda reply, value=value: replace(reply, **value)  # type: ignore[misc]
        for name, value in values.items()
    }
    return {**faults, **FAILURES}
