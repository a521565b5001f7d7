"""Which arrays of a model are state, statistics and counters that no gradient ever moves, and which are weights.

Three ways to know, and they agree where more than one applies: the arrays' names, the torch module that they come from,
or, where only the arrays are at hand, the pattern that BatchNorm leaves in a state dict.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from flsec._numbers import is_weight

__all__ = [
    "STATE_NAMES",
    "HasStateDict",
    "holds",
    "is_state_name",
    "state_by_name",
    "state_by_pattern",
    "state_of_module",
]

STATE_NAMES = frozenset({"running_mean", "running_var", "num_batches_tracked", "moving_mean", "moving_variance"})


@runtime_checkable
class HasStateDict(Protocol):
    """A ``torch.nn.Module``, as far as it matters here."""

    def state_dict(self) -> Any:
        """Return the arrays by name, in order."""
        ...


def is_state_name(name: str) -> bool:
    """Return whether an array of this name is state: its last part, after "." or "/", is one of ``STATE_NAMES``.

    Keras writes ``moving_mean:0`` in some versions; what follows a colon does not count.

    Example:
        >>> [is_state_name(name) for name in ("layer1.0.bn1.running_var", "bn/moving_mean", "bn.weight")]
        [True, True, False]
    """
    return name.replace("/", ".").rpartition(".")[2].partition(":")[0] in STATE_NAMES


def state_by_name(names: Iterable[str]) -> frozenset[int]:
    """Return the positions of the arrays that are BatchNorm's statistics and counters, by their names.

    Args:
        names: of a model's arrays, in order, as torch's or Keras's BatchNorm calls them.

    Example:
        >>> sorted(state_by_name(["bn.weight", "bn.running_mean", "bn.running_var", "bn.num_batches_tracked"]))
        [1, 2, 3]
    """
    return frozenset(i for i, name in enumerate(names) if is_state_name(name))


def state_by_pattern(arrays: Iterable[Any]) -> frozenset[int]:
    """Return the positions of the arrays that are state, by shapes and dtypes alone.

    Integers and booleans are state. So are two vectors of one length and one floating dtype directly before a lone
    int64 number: ``running_mean``, ``running_var``, ``num_batches_tracked`` as they lie in a torch state dict. A
    BatchNorm without a counter, as Keras has it, cannot be told from weights in this way.

    Args:
        arrays: a model's arrays in order, or a (shape, dtype) pair for each.

    Example:
        >>> model = [np.ones(3), np.zeros(3), np.zeros(3), np.ones(3), np.array(7)]  # weight, bias, mean, var, counter
        >>> sorted(state_by_pattern(model))
        [2, 3, 4]
        >>> sorted(state_by_pattern([((3,), "float32"), ((3,), "float32"), ((), "int64")]))
        [0, 1, 2]
    """
    known = [_shape_and_dtype(array) for array in arrays]
    found = {i for i, (_, dtype) in enumerate(known) if dtype.kind in "biu"}
    for i in range(2, len(known)):
        if known[i] == ((), np.dtype(np.int64)) and _is_pair_of_vectors(known[i - 2 : i]):
            found.update((i - 2, i - 1))
    return frozenset(found)


def state_of_module(module: HasStateDict) -> frozenset[int]:
    """Return the positions, among the arrays that a torch module exchanges, of those that are state.

    BatchNorm's, by name, and all integers and booleans. Other floating buffers, such as constants, are left to the
    user to name.

    Args:
        module: a ``torch.nn.Module``, whose ``exchanged_state()``, or ``state_dict()`` where it has no such method, has
            the order of the arrays.

    Example:
        >>> import torch
        >>> sorted(state_of_module(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))))
        [4, 5, 6]
    """
    entries = [(name, value) for name, value in _exchanged(module).items() if hasattr(value, "dtype")]
    whole = {i for i, (_, v) in enumerate(entries) if not (v.is_floating_point() or v.is_complex())}
    return state_by_name(name for name, _ in entries) | whole


def holds(module: HasStateDict, arrays: Iterable[Any]) -> bool:
    """Return whether what a module exchanges has arrays of these shapes, in this order.

    Args:
        module: a ``torch.nn.Module``.
        arrays: a model's arrays.

    Example:
        >>> import torch
        >>> holds(torch.nn.Linear(2, 3), [np.zeros((3, 2)), np.zeros(3)])
        True
    """
    shapes = [tuple(value.shape) for value in _exchanged(module).values() if hasattr(value, "shape")]
    return shapes == [np.shape(array) for array in arrays]


def _exchanged(module: HasStateDict) -> Any:
    return getattr(module, "exchanged_state", module.state_dict)()


def _shape_and_dtype(array: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shape, dtype = array if isinstance(array, tuple) else (array.shape, array.dtype)
    return tuple(shape), np.dtype(dtype)


def _is_pair_of_vectors(known: Sequence[tuple[tuple[int, ...], np.dtype[Any]]]) -> bool:
    (shape, dtype), second = known
    return (shape, dtype) == second and len(shape) == 1 and is_weight(dtype)
