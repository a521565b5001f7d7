"""Arrays and a few facts in one safetensors file. No pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flsec._files import replacing
from flsec.errors import ConfigError

__all__ = ["load_arrays", "save_arrays"]

Arrays = dict[str, npt.NDArray[Any]]


def save_arrays(path: Path, kind: str, arrays: Mapping[str, npt.NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write a file, completely or not at all; the folder is made.

    Args:
        path: an existing file is replaced.
        kind: what the file holds, which ``load_arrays`` asks for again.
        arrays: by name.
        facts: what JSON can hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    with replacing(path) as file:
        file.write(save(packed, {"kind": kind, "facts": json.dumps(facts)}))


def load_arrays(path: Path, kind: str) -> tuple[Arrays, dict[str, Any]]:
    """Return the arrays and the facts of a file.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{str(path)!r} cannot be read as a saved {kind}: {error}.") from None
    if metadata.get("kind") != kind:
        raise ConfigError(f"{str(path)!r} must be a saved {kind}; it holds {metadata.get('kind', 'something else')}.")
    return arrays, json.loads(metadata["facts"])
