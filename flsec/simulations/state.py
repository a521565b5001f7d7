"""Nested state (dicts, lists, numbers, arrays) in one safetensors file: what a run needs to go on. No pickle."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from flsec._tensors import array_of, tensor_of

__all__ = ["load_state", "save_state"]


def save_state(path: Path, state: Any) -> None:
    """Write ``state`` to ``path``, completely or not at all.

    Args:
        path: the file; an existing one is replaced.
        state: dicts (keys: str or int), lists, tuples, None, bool, int, float, str, tensors and numpy arrays.

    Raises:
        TypeError: something else in the state.
    """
    tensors: dict[str, torch.Tensor] = {}
    outline = _outline(state, tensors)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"outline": json.dumps(outline)})
    os.replace(partial, path)


def load_state(path: Path) -> Any:
    """Return what ``save_state`` wrote."""
    with safe_open(path, framework="pt") as file:
        outline = json.loads(file.metadata()["outline"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    return _fill(outline, tensors)


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
