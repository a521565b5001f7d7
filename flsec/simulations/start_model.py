"""A run that starts from a trained model: which file that is, whether it fits, and what it holds."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from flsec._tensors import array_of
from flsec.errors import ConfigError
from flsec.training import get_weights, set_weights, weight_names

__all__ = ["load_start", "start_file", "start_record"]


def start_file(written: str) -> Path:
    """Return the absolute path of the file that holds a trained model.

    Args:
        written: a run's folder, which holds ``model.safetensors`` when the run is over, or a file of that format;
            relative to the current directory, ``~`` is the home directory.

    Raises:
        ConfigError: there is none; says what there is instead.
    """
    path = Path(written).expanduser().absolute()
    if path.is_dir():
        path /= "model.safetensors"
        if not path.is_file():
            raise ConfigError(
                f"{written} has no model.safetensors, which a run writes at its end. Name a finished run."
            )
    if not path.is_file():
        raise ConfigError(f"there is no {path!s}. Name a run's folder, or a .safetensors file.")
    if path.suffix != ".safetensors":
        raise ConfigError(f"{written} is no .safetensors file. Name a run's folder, or such a file.")
    return path


def load_start(model: nn.Module, file: Path) -> None:
    """Put a trained model's weights and state into a network; all of them, or none if one does not fit.

    Args:
        model: changed in place.
        file: has exactly the arrays, by name and shape, that clients of ``model`` upload.

    Raises:
        ConfigError: the file cannot be read, holds other arrays, or a number that is not finite.
    """
    try:
        held = load_file(file)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{file} cannot be read: {' '.join(str(error).split())}. Name another file.") from None
    wanted = dict(zip(weight_names(model), (tuple(array.shape) for array in get_weights(model)), strict=True))
    found = {name: tuple(tensor.shape) for name, tensor in held.items()}
    if wanted != found:
        raise ConfigError(
            f"{file} is of another model: {_difference(wanted, found)}. Name the model that it was trained as."
        )
    bad = [name for name, tensor in held.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if bad:
        raise ConfigError(f"{file} holds NaN or infinity in {bad[0]}, so nothing can start from it. Name another run.")
    with torch.no_grad():
        set_weights(model, [array_of(held[name]) for name in wanted])


def _difference(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Say in a few words how two sets of named shapes differ."""
    for name, shape in wanted.items():
        if name not in found:
            return f"it has no {name}, of shape {shape}"
        if found[name] != shape:
            return f"{name} has the shape {found[name]} there and {shape} here"
    return f"it has {next(name for name in found if name not in wanted)}, which is not here"


def start_record(written: str) -> dict[str, str]:
    """Return what is put on record about where a run starts: the file, and its SHA-256."""
    file = start_file(written)
    with file.open("rb") as stream:
        return {"file": str(file), "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
