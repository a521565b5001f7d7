"""Pickle files that hold numbers and texts only, read without running what they name."""

import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.errors import ConfigError

__all__ = ["read_plain_pickle"]


class _DType:
    """In place of ``numpy.dtype``, whose own way to take a state back believes whatever flags a file claims."""

    def __init__(self, code: Any, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        self.dtype = np.dtype(code) if isinstance(code, str) else np.dtype("O")
        if self.dtype.kind not in "biuf":
            raise pickle.UnpicklingError(f"it has an array of {code!r:.40}, and only numbers are read")

    def __setstate__(self, state: Any) -> None:
        order: Any = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """In place of an array: its parts, from which the array is made when the whole file is read."""

    def __init__(self, *_: Any) -> None:
        self.array: npt.NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("it has an array whose values are no plain bytes")
        if math.prod(shape) * dtype.dtype.itemsize != len(raw) or any(size < 0 for size in shape):
            raise pickle.UnpicklingError(f"it has an array of shape {shape} in {len(raw)} bytes")
        self.array = np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if fortran else "C").copy()


# All that a pickled array of numbers names; numpy's package was called numpy.core before its version 2.
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays, lists and texts are read")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it names something outside of the file")


def read_plain_pickle(path: Path) -> Any:
    """Return what a pickle file holds, if that is built-in containers, numbers, texts and arrays; texts as bytes.

    A pickle can name any function, which unpickling then calls. Here all names but the four that an array needs are
    refused, and these four stand for classes of this module that take numbers and nothing else: numpy's own would
    believe a file that calls its bytes objects.

    Raises:
        ConfigError: not a pickle, a damaged one, or one that names anything else.
    """
    try:
        with path.open("rb") as file:
            return _plain(_PlainUnpickler(file, encoding="bytes").load())
    except Exception as error:  # a damaged pickle raises almost anything
        raise ConfigError(f"{path} is broken: {error}. Delete it and fetch the data set again.") from error


def _plain(value: Any) -> Any:
    """Return what was read with arrays as such."""
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    if isinstance(value, _DType) or callable(value):
        raise pickle.UnpicklingError("it holds something else than arrays, lists and texts")
    return value
