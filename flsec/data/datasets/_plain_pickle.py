"""Pickle files that hold numbers and texts only, read without running what they name."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from flsec.errors import ConfigError

__all__ = ["read_plain_pickle"]

_RECONSTRUCT = np.zeros(0).__reduce__()[0]  # makes an empty array, which the pickle then fills

# All that a pickled array of numbers names; numpy's package was called numpy.core before its version 2.
_ADMITTED = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and only arrays, lists and texts are read")
        return _ADMITTED[module, name]


def read_plain_pickle(path: Path) -> Any:
    """Return what a pickle file holds, if that is built-in containers, numbers, texts and arrays; texts as bytes.

    A pickle can name any function, which unpickling then calls. Here all names but the four that an array needs are
    refused, and none is called.

    Raises:
        ConfigError: not a pickle, a damaged one, or one that names anything else.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise ConfigError(f"{path} is broken: {error}. Delete it and fetch the data set again.") from error
