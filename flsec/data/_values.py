"""Values as data sets hold them (arrays, tensors, frames, lists, images), changed by functions of batches."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_tensor
from flsec.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "changed",
    "changed_entry",
    "described",
    "is_column",
    "is_frame",
    "is_image",
    "joined",
    "like",
    "pixels",
    "stacked",
    "taken",
]

Change = Callable[[Any], Any]


def is_frame(value: Any) -> bool:
    """Return whether ``value`` is a pandas frame."""
    return _is_pandas(value, "DataFrame")


def is_image(value: Any) -> bool:
    """Return whether ``value`` is a PIL image."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def is_column(value: Any) -> bool:
    """Return whether ``value`` holds one entry for each of several examples: an array, a tensor, a series, a list."""
    return isinstance(value, list) or len(getattr(value, "shape", ())) > 0


def described(value: Any) -> str:
    """Return the type of a value in a few words, such as ``Tensor float32 (3, 32, 32)``."""
    kind = type(value).__name__
    if is_image(value):
        return f"PIL image {value.mode} {value.width}x{value.height}"
    if hasattr(value, "shape"):
        return " ".join(map(str, (kind, getattr(value, "dtype", ""), tuple(value.shape)))).replace("  ", " ")
    return f"{kind} of {len(value)}" if isinstance(value, list | tuple) else kind


def taken(values: Any, rows: NDArray[np.intp] | slice) -> Any:
    """Return some entries of a column, in its own type."""
    if is_frame(values) or _is_pandas(values, "Series"):
        return values.iloc[rows]
    if hasattr(values, "shape"):
        return values[rows]
    return values[rows] if isinstance(rows, slice) else [values[int(row)] for row in rows]


# --- changing ---------------------------------------------------------------------------------------------------


def changed(values: Any, change: Change, rows: NDArray[np.intp] | None = None) -> Any:
    """Return a column with some entries changed, in its own type; ``values`` are not.

    Args:
        values: (n, ...) an array or tensor, a series or frame, or a list of numbers, arrays, lists or images.
        change: maps a batch (k, ...) of numbers to changed ones. Images are channels of 0 to 1, (k, C, H, W).
        rows: which entries; None: all.

    Raises:
        ConfigError: texts, or something else without numbers.
    """
    if is_frame(values) or _is_pandas(values, "Series"):
        return _changed_table(values, change, rows)
    if hasattr(values, "shape"):
        return _changed_array(values if is_tensor(values) else np.asarray(values), change, rows)
    copied = list(values)
    places = range(len(copied)) if rows is None else rows.tolist()
    if all(type(copied[place]) in (int, float, bool) for place in places):
        news = change(np.asarray([copied[place] for place in places])).tolist() if len(places) else []
    else:
        news = [changed_entry(copied[place], change) for place in places]
    for place, new in zip(places, news, strict=True):
        copied[place] = new
    return copied


def _changed_array(values: Any, change: Change, rows: NDArray[np.intp] | None) -> Any:
    if rows is None:
        return change(values)
    index: Any = rows
    if is_tensor(values):
        import torch

        index = torch.from_numpy(rows)
    copied: Any = values.clone() if is_tensor(values) else np.array(values)
    copied[index] = change(values[index])
    return copied


def _changed_table(values: Any, change: Change, rows: NDArray[np.intp] | None) -> Any:
    numbers = values.to_numpy()
    if numbers.dtype == object:
        raise _no_numbers("a column of texts, or of mixed types")
    numbers = _changed_array(numbers, change, np.arange(len(numbers)) if rows is None else rows)
    if not is_frame(values):
        return _as_series(numbers, values)
    copied = values.copy()
    for i in range(numbers.shape[1]):
        copied.isetitem(i, _as_series(numbers[:, i], values.iloc[:, i]))
    return copied


def _as_series(numbers: NDArray[Any], old: Any) -> Any:
    """Return numbers as a series like ``old``; in its type, where that loses nothing."""
    new = type(old)(numbers, index=old.index, name=old.name)
    try:
        typed = new.astype(old.dtype)
    except (TypeError, ValueError):
        return new
    return typed if (typed.to_numpy() == numbers).all() else new


def changed_entry(value: Any, change: Change) -> Any:
    """Return what one example has, changed, in its own type; see ``changed``."""
    if is_image(value):
        return _as_image(change(pixels(value)[None])[0], value)
    if hasattr(value, "shape") and not isinstance(value, np.generic):
        return change(value[None])[0]
    try:
        numbers = np.asarray([value])
    except ValueError:  # lists in a list, of different lengths
        raise _no_numbers(described(value)) from None
    if numbers.dtype.kind not in "biufc":
        raise _no_numbers(described(value))
    new = change(numbers)[0]
    return new if isinstance(value, np.generic) else _listed(new, value)


def _listed(new: Any, value: Any) -> Any:
    return type(value)(new.tolist()) if isinstance(value, list | tuple) else new.tolist()


def _no_numbers(what: str) -> ConfigError:
    return ConfigError(
        f"an attack that changes inputs or labels works on numbers, images or tokens; got {what}. Attack the data "
        "after they have become numbers (tokenized; class numbers as labels), or use an attack on labels alone."
    )


# --- images -----------------------------------------------------------------------------------------------------


def pixels(image: Any) -> NDArray[np.float32]:
    """Return a PIL image as an array (C, H, W) of 0 to 1."""
    array = np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK", "HSV", "YCbCr") else image)
    if array.dtype not in (np.uint8, np.bool_):
        raise ConfigError(
            f"PIL images must have 8 bits per channel to be attacked; got mode {image.mode}. Convert them to arrays of "
            "a floating type first, or to mode L or RGB."
        )
    scaled = array.astype(np.float32) / np.float32(255 if array.dtype == np.uint8 else 1)
    return scaled[None] if array.ndim == 2 else np.moveaxis(scaled, -1, 0)


def _as_image(channels: Any, example: Any) -> Any:
    array = np.rint(np.clip(np.asarray(channels), 0, 1) * 255).astype(np.uint8)
    image = sys.modules["PIL.Image"].fromarray(array[0] if len(array) == 1 else np.moveaxis(array, 0, -1))
    return image if image.mode == example.mode else image.convert(example.mode)


# --- adding -----------------------------------------------------------------------------------------------------


def joined(own: Any, added: "Tensor") -> Any:
    """Return a column (n, ...) with (k, ...) entries added behind it, in its own type.

    Raises:
        ConfigError: they have other shapes than the client's.
    """
    if hasattr(own, "shape"):
        _check_shape(tuple(own.shape[1:]), tuple(added.shape[1:]))
    if is_tensor(own):
        import torch

        return torch.cat([own, added.to(own)])
    if is_frame(own):
        new = type(own)(added.numpy(), columns=own.columns).astype(own.dtypes)
        return sys.modules["pandas"].concat([own, new], ignore_index=True)
    if _is_pandas(own, "Series"):
        new = type(own)(added.numpy(), name=own.name).astype(own.dtype)
        return sys.modules["pandas"].concat([own, new], ignore_index=True)
    if isinstance(own, list):
        return [*own, *(like(value, own[0]) if own else value.tolist() for value in added)]
    return np.concatenate([own, added.numpy().astype(own.dtype)])


def like(value: "Tensor", example: Any) -> Any:
    """Return a value in the type in which a client has its own.

    Raises:
        ConfigError: it has another shape than the client's, which are images or the like; or those are no numbers.
    """
    if is_image(example):
        _check_shape(pixels(example).shape, tuple(value.shape))
        return _as_image(value.numpy(), example)
    if isinstance(example, str | bytes):
        raise _no_numbers(described(example))
    shape = getattr(example, "shape", ())
    if len(shape) > 1 or len(shape) != value.ndim > 0:
        _check_shape(tuple(shape) if hasattr(example, "shape") else np.shape(example), tuple(value.shape), strict=False)
    if is_tensor(example):
        return value.to(example)
    if isinstance(example, np.ndarray | np.generic):
        converted = value.numpy().astype(example.dtype)
        return converted if isinstance(example, np.ndarray) else converted[()]
    if isinstance(example, int | float | list | tuple):
        kind: Any = type(example)
        return kind(value.tolist())
    return value


def _check_shape(own: Sequence[int], added: Sequence[int], *, strict: bool = True) -> None:
    if not strict and len(own) == len(added) == 1:
        return  # sequences, which may have any length
    if tuple(own) != tuple(added):
        raise ConfigError(
            f"the attacker's samples must have the shape of the client's, {tuple(own)}; got {tuple(added)}. Is "
            "auxiliary_data of the same data set?"
        )


def stacked(values: Iterable[Any]) -> "Tensor":
    """Return values of one shape as a batch (k, ...).

    Raises:
        ConfigError: they have different shapes, or are no numbers.
    """
    import torch
    from torch.utils.data import default_collate

    entries = [pixels(v) if is_image(v) else v for v in values]
    for entry in entries[:1]:
        if isinstance(entry, str | bytes | dict):
            raise _no_numbers(described(entry))
    try:
        batch = default_collate([torch.as_tensor(v) if isinstance(v, list | tuple) else v for v in entries])
    except (RuntimeError, TypeError, ValueError):
        shapes = ", ".join(sorted({described(entry) for entry in entries})[:4])
        raise ConfigError(
            f"training inputs must have one shape to be read as a batch; got {shapes}. Hold a DataLoader whose "
            "collate_fn pads them."
        ) from None
    return torch.as_tensor(batch)


def _is_pandas(value: Any, name: str) -> bool:
    kind = getattr(sys.modules.get("pandas"), name, None)
    return isinstance(kind, type) and isinstance(value, kind)
