"""Nested state (dicts, lists, numbers, arrays) in one checked file: what a run or a server goes on with. No pickle."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from flsec._files import Damaged, read_checked, write_checked
from flsec._tensors import array_of, tensor_of

__all__ = ["load_state", "save_state"]


def save_state(path: Path, state: Any, kind: str = "state") -> None:
    """Write ``state`` to ``path``, completely or not at all; only the owner may read it.

    Args:
        path: the file; an existing one is replaced.
        state: dicts (keys: str or int), lists, tuples, None, bool, int, float, str, tensors and numpy arrays.
        kind: one word for what it is, which ``load_state`` asks for again.

    Raises:
        TypeError: something else in the state.
        SaveError: the disk is full, say.
    """
    tensors: dict[str, torch.Tensor] = {}
    outline = json.dumps(_outline(state, tensors)).encode()
    tensors["outline"] = torch.frombuffer(bytearray(outline), dtype=torch.uint8)
    write_checked(path, kind, save(tensors))


def load_state(path: Path, kind: str = "state") -> Any:
    """Return what ``save_state`` wrote.

    Raises:
        Damaged: the file is cut off, changed, of another kind, or cannot be read.
    """
    payload = read_checked(path, kind)
    try:
        tensors = load(payload)
        return _fill(json.loads(tensors["outline"].numpy().tobytes()), tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise Damaged(f"{path.name} holds no state: {type(error).__name__}: {error}") from None


def _outline(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """Return JSON for ``value`` in which arrays are names in ``tensors``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        name = str(len(tensors))
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        tensor = value if isinstance(value, torch.Tensor) else tensor_of(np.array(value, order="C"))
        tensors[name] = tensor.detach().cpu().contiguous().clone()
        return {"type": kind, "name": name}
    if isinstance(value, dict):
        entries = [[key, _outline(entry, tensors)] for key, entry in value.items()]
        return {"type": "dict", "entries": entries}
    if isinstance(value, list | tuple):
        return {"type": type(value).__name__, "entries": [_outline(entry, tensors) for entry in value]}
    raise TypeError(f"a state holds numbers, text, arrays, lists and dicts; got {type(value).__name__}.")


def _fill(outline: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if not isinstance(outline, dict):
        return outline
    kind = outline["type"]
    if kind == "dict":
        return {key: _fill(entry, tensors) for key, entry in outline["entries"]}
    if kind in ("list", "tuple"):
        entries = [_fill(entry, tensors) for entry in outline["entries"]]
        return entries if kind == "list" else tuple(entries)
    tensor = tensors[outline["name"]]
    return tensor if kind == "tensor" else array_of(tensor)
