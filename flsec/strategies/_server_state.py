"""What a wrapped strategy remembers from round to round: taken, put back, and told of a changed model.

Nothing is known by name. A strategy's attributes are looked at by what they hold: numbers, texts, arrays, collections
of these, Flower's records, random generators, objects with ``state_dict``, and other objects attribute by attribute.
What is no memory (functions, loggers, locks, data sets) is passed over. What may be memory and cannot be copied, such
as an iterator, is refused with its name. No pickle: what is put back goes into the objects that are there.
"""

import enum
import functools
import logging
import random
import threading
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common import Parameters
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp.strategy import Strategy as MessageStrategy
from numpy.typing import NDArray

from flsec import _npy
from flsec.errors import ConfigError

__all__ = ["made_of", "put_back", "take", "tell_changed_model", "with_inner"]

State = dict[str, Any]

_NO_MEMORY = (
    types.FunctionType | types.MethodType | types.BuiltinFunctionType | types.ModuleType | type | logging.Logger
    | functools.partial | enum.Enum | PurePath | torch.utils.data.Dataset | torch.utils.data.DataLoader
    | type(threading.Lock()) | type(threading.RLock()) | threading.Event | threading.Condition
    | torch.device | torch.dtype | np.dtype
)  # fmt: skip


def take(strategy: Any) -> State:
    """Return what a strategy remembers, as a copy of plain data that a checkpoint can hold.

    A strategy with ``state_dict`` and ``load_state_dict`` of its own is asked instead.

    Raises:
        ConfigError: an attribute may be memory and cannot be copied; the message names it.
    """
    return _pack(strategy, type(strategy).__name__, ())


def put_back(strategy: Any, state: State) -> None:
    """Make a strategy remember what ``take`` returned, of this or of a like strategy.

    Raises:
        ConfigError: the state is of something else.
    """
    if "defense" in state:
        raise ConfigError(f"this state is of {state['defense']}; it cannot continue {type(strategy).__name__}.")
    if "kind" not in state:
        raise ConfigError(
            f"the saved state of {type(strategy).__name__} is of another version of flsec. Start the run anew, or go "
            "on with the version that it was begun with."
        )
    _put_into(strategy, state, type(strategy).__name__)


def made_of(state: State) -> Any:
    """Return anew what ``take`` was given: numbers, arrays, collections, Flower's records."""
    return _unpack(state, None, "the saved value")


def tell_changed_model(strategy: Any, returned: Sequence[NDArray[Any]], changed: Sequence[NDArray[Any]]) -> None:
    """Put the changed model wherever a strategy remembers the one that it has just returned (FedAdam, FedAvgM, ...).

    Args:
        strategy: the strategy that returned the model.
        returned: the arrays that it returned.
        changed: the arrays that took their place.
    """
    for owner in with_inner(strategy):
        for name, value in list(vars(owner).items()):
            arrays = _arrays_in(value)
            if arrays is not None and _same(arrays, returned):
                setattr(owner, name, _with_arrays(value, list(changed)))


def with_inner(strategy: Any) -> Iterator[Any]:
    """Yield a strategy and those that it wraps, as Flower's differential-privacy wrappers do."""
    while strategy is not None:
        yield strategy
        inner = vars(strategy).get("strategy")
        strategy = inner if isinstance(inner, ClassicStrategy | MessageStrategy) else None


def _arrays_in(value: Any) -> list[NDArray[Any]] | None:
    """Return the arrays of a model in one of the forms in which strategies hold one; None if it is none."""
    if isinstance(value, Parameters):
        return [_npy.read(data) for data in value.tensors]
    if isinstance(value, ArrayRecord):
        return [_npy.read(array.data) for array in value.values()]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple) and value and all(isinstance(v, np.ndarray | np.generic) for v in value):
        return [np.asarray(v) for v in value]
    return None


def _same(arrays: Sequence[NDArray[Any]], others: Sequence[NDArray[Any]]) -> bool:
    return len(arrays) == len(others) and all(
        a.shape == b.shape and np.array_equal(a, b) for a, b in zip(arrays, others, strict=True)
    )


def _with_arrays(value: Any, arrays: list[NDArray[Any]]) -> Any:
    if isinstance(value, Parameters):
        return Parameters([_npy.write(array) for array in arrays], value.tensor_type)
    if isinstance(value, ArrayRecord):
        return ArrayRecord({name: Array(np.asarray(array)) for name, array in zip(value, arrays, strict=True)})
    if isinstance(value, dict):
        return dict(zip(value, arrays, strict=True))
    return type(value)(arrays)


# --- taking ---------------------------------------------------------------------------------------------------


def _pack(value: Any, path: str, above: tuple[int, ...]) -> State:
    """Return plain data for a value that is something to remember."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.hasobject:
            raise _cannot(path, value)
        return {"kind": "array", "scalar": isinstance(value, np.generic), "data": _bytes(_npy.write(np.asarray(value)))}
    if value is None or isinstance(value, bool | int | float | str):
        return {"kind": "plain", "value": value}
    if isinstance(value, torch.Tensor):
        return {"kind": "tensor", "data": value.detach().clone()}
    if isinstance(value, bytes | bytearray):
        return {"kind": "bytes", "data": _bytes(bytes(value))}
    if isinstance(value, Parameters):
        return {"kind": "parameters", "type": value.tensor_type, "data": [_bytes(data) for data in value.tensors]}
    if isinstance(value, Array):
        return {"kind": "flower array", "of": [value.dtype, list(value.shape), value.stype], "data": _bytes(value.data)}
    if id(value) in above:
        raise _cannot(path, value, "it holds itself")
    return _pack_holder(value, path, (*above, id(value)))


def _pack_holder(value: Any, path: str, above: tuple[int, ...]) -> State:
    """Return plain data for a value that holds others."""

    def packed(entry: Any, where: str) -> State:
        return _PASSED_OVER if isinstance(entry, _NO_MEMORY) else _pack(entry, where, above)

    if isinstance(value, Mapping):
        keys = [_pack(key, f"a key of {path}", above) for key in value]
        values = [packed(entry, f"{path}[{key!r}]") for key, entry in value.items()]
        return {"kind": "mapping", "type": type(value).__name__, "keys": keys, "values": values}
    if isinstance(value, list | tuple | set | frozenset | deque):
        ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        values = [packed(entry, f"{path}[{i}]") for i, entry in enumerate(ordered)]
        limit = value.maxlen if isinstance(value, deque) else None
        return {"kind": "items", "type": type(value).__name__, "values": values, "limit": limit}
    for kind, get in _GENERATORS.items():
        if isinstance(value, kind):
            return {"kind": "generator", "state": _pack(get(value), path, above)}
    if callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None)):
        return {"kind": "state_dict", "state": _pack(value.state_dict(), path, above)}
    if hasattr(value, "__dict__") and not isinstance(value, Iterator):
        attributes = {name: packed(entry, f"{path}.{name}") for name, entry in vars(value).items()}
        if isinstance(value, ClassicStrategy) and vars(value).get("initial_parameters", ...) is None:
            attributes["initial_parameters"] = _PASSED_OVER  # handed out and forgotten; a resumed server needs it again
        return {"kind": "object", "type": type(value).__name__, "attributes": attributes}
    raise _cannot(path, value)


_PASSED_OVER: State = {"kind": "passed over"}


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8).copy()


_GENERATORS: dict[type, Callable[[Any], Any]] = {
    np.random.Generator: lambda g: g.bit_generator.state,
    np.random.RandomState: lambda g: g.get_state(legacy=False),
    random.Random: lambda g: g.getstate(),
    torch.Generator: lambda g: g.get_state(),
}


def _cannot(path: str, value: Any, why: str = "") -> ConfigError:
    what = why or f"it is of type {type(value).__name__}, which cannot be copied"
    return ConfigError(
        f"{path} may be memory of the wrapped strategy, and {what}: the strategy could not be resumed or set back "
        "exactly. Give the strategy class the methods state_dict() and load_state_dict(state), or keep such things out "
        "of its attributes."
    )


# --- putting back ---------------------------------------------------------------------------------------------


def _put_into(target: Any, state: State, path: str) -> None:
    """Make an existing object hold what was taken of it or of its like."""
    kind = state["kind"]
    if kind == "state_dict" and hasattr(target, "load_state_dict"):
        target.load_state_dict(_unpack(state["state"], None, path))
    elif kind == "generator" and isinstance(target, tuple(_GENERATORS)):
        _set_generator(target, _unpack(state["state"], None, path))
    elif kind == "object" and type(target).__name__ == state["type"]:
        now = vars(target)
        for name in [name for name, value in now.items() if not isinstance(value, _NO_MEMORY)]:
            if name not in state["attributes"]:  # made since
                del now[name]
        for name, packed in state["attributes"].items():
            if packed["kind"] != "passed over":
                now[name] = _unpack(packed, now.get(name), f"{path}.{name}")
    else:
        raise ConfigError(
            f"the saved state has a {state.get('type', kind)} for {path}, where the strategy has "
            f"{'nothing' if target is None else type(target).__name__}. Resume with the strategy that it was taken of."
        )


def _unpack(state: State, before: Any, path: str) -> Any:
    """Return what was taken; lists, dicts and objects that are there already are filled and not replaced."""
    kind = state["kind"]
    if kind in ("plain", "tensor", "array", "bytes", "parameters", "flower array"):
        return _unpack_leaf(state)
    if kind == "mapping":
        return _unpack_mapping(state, before, path)
    if kind == "items":
        return _unpack_items(state, before, path)
    if kind != "passed over":
        _put_into(before, state, path)
    return before


def _unpack_leaf(state: State) -> Any:
    kind = state["kind"]
    if kind == "plain":
        return state["value"]
    if kind == "tensor":
        return state["data"].clone()
    if kind == "array":
        array = _npy.read(state["data"].tobytes()).copy()
        return array[()] if state["scalar"] else array
    if kind == "bytes":
        return state["data"].tobytes()
    if kind == "parameters":
        return Parameters([data.tobytes() for data in state["data"]], state["type"])
    dtype, shape, stype = state["of"]
    return Array(dtype, tuple(shape), stype, state["data"].tobytes())


_MAPPINGS: dict[str, Callable[[Any], Any]] = {
    kind.__name__: kind for kind in (ArrayRecord, ConfigRecord, MetricRecord, RecordDict, OrderedDict)
}


def _unpack_mapping(state: State, before: Any, path: str) -> Any:
    keys = [_unpack(key, None, path) for key in state["keys"]]
    old = before if isinstance(before, Mapping) else {}
    values = {
        key: _unpack(packed, old.get(key), f"{path}[{key!r}]")
        for key, packed in zip(keys, state["values"], strict=True)
    }
    if isinstance(before, dict) and type(before).__name__ == state["type"]:
        before.clear()
        before.update(values)
        return before
    return _MAPPINGS.get(state["type"], dict)(values)


_COLLECTIONS: dict[str, Callable[[Any], Any]] = {kind.__name__: kind for kind in (tuple, set, frozenset)}


def _unpack_items(state: State, before: Any, path: str) -> Any:
    old = list(before) if isinstance(before, list | tuple | deque) else []
    values = [
        _unpack(packed, old[i] if i < len(old) else None, f"{path}[{i}]") for i, packed in enumerate(state["values"])
    ]
    if type(before).__name__ == state["type"]:
        if isinstance(before, list):
            before[:] = values
            return before
        if hasattr(before, "_fields"):  # a named tuple
            return type(before)(*values)
    if state["type"] == "deque":
        return deque(values, state["limit"])
    return _COLLECTIONS.get(state["type"], list)(values)


def _set_generator(target: Any, state: Any) -> None:
    if isinstance(target, np.random.Generator):
        target.bit_generator.state = state
    elif isinstance(target, np.random.RandomState | torch.Generator):
        target.set_state(state)
    else:
        target.setstate(state)
