"""Hugging Face data sets, changed into Hugging Face data sets: their formats, transforms and methods go on working."""

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flsec._tensors import is_tensor
from flsec.data._poison import Poison
from flsec.data._reads import ReadsCounted
from flsec.data._values import changed, joined
from flsec.data.training_data import MapStyle
from flsec.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HuggingFace", "behind"]

POSITION = "flsec_position"  # the column by which a row knows its place in the client's data
# What a client may look at without reading examples.
ABOUT = {"column_names", "features", "format", "info", "num_columns", "num_rows", "shape", "split"}


class HuggingFace(MapStyle):
    """A Hugging Face ``Dataset``.

    Labels in a column of the table are changed there, so that whatever the client does with the data set finds them.
    What else is changed is what a row gives after the client's own format or transform: a transform around it does
    that, and the clean column is taken out of the table, so that nothing trains on it unawares.
    """

    def examples(self, positions: NDArray[np.intp]) -> list[Any]:
        """Return some examples."""
        return list(self.data.__getitems__(positions.tolist())) if len(positions) else []

    def poisoned(self, poison: Poison) -> Any:
        if not len(self):
            return self.data
        example = self.data[0]
        label = None if poison.labels is None else self.keys.of_labels(example)
        relabelled = self.data
        if poison.labels is not None and label in self.data.column_names:
            new = changed(self._entries(label), poison.labels, poison.rows(np.arange(len(self))))
            relabelled = _with_column(self.data, label, new)
            if poison.inputs is None and _view_behind(self.data) is None:
                return _watched(relabelled)
        without = [] if poison.inputs is None else [self.keys.of_inputs(example)]
        return _seen_through(super().poisoned(poison), relabelled, without)

    def extended(self, x: "Tensor", y: "Tensor") -> Any:
        longer, example = self.data.select([*range(len(self)), *(0 for _ in y)]), self.data[0]
        label = self.keys.of_labels(example)
        if label in longer.column_names:
            longer = _with_column(longer, label, joined(self._entries(label), y))
        return _seen_through(super().extended(x, y), longer, [self.keys.of_inputs(example)])

    def _entries(self, name: Any) -> list[Any]:
        """Return a column of the table as Python values."""
        found: list[Any] = self.data.with_format(None).select_columns([name])[:][name]
        return found


class Seen:
    """A transform that gives what a view gives at the positions of a batch.

    Args:
        view: a view of the clean data set.
        position: the column with the positions.
    """

    def __init__(self, view: Any, position: str) -> None:
        self.view = view
        self.position = position

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the examples at the positions in a batch of the table."""
        if self.position not in batch:
            raise ConfigError(
                f"an attack changes these data where rows are read, by their column {self.position!r}, which was "
                "removed. Keep it (remove_unused_columns=False), or have fit pass the data to "
                "flsec.client_apps.poisoned(...) after its last change of columns."
            )
        examples = self.view.__getitems__(batch[self.position])
        seen = {key: _column([example[key] for example in examples]) for key in examples[0]} if examples else {}
        clean = self.view.dataset.column_names
        return {**{name: column for name, column in batch.items() if name not in (self.position, *clean)}, **seen}


def _column(values: list[Any]) -> Any:
    """Return values as a Hugging Face format gives a column: arrays of one shape as one array."""
    if len({getattr(value, "shape", None) for value in values}) > 1 or not hasattr(values[0], "shape"):
        return values
    if is_tensor(values[0]):
        import torch

        return torch.stack(values)
    return np.stack(values)


def behind(data: Any) -> Any:
    """Return what tells a data set that an attack has changed, also with another format: a view; None for others."""
    view = _view_behind(data)
    return vars(data).get("_flsec_origin") if view is None else view


def _view_behind(data: Any) -> Any:
    transform = (getattr(data, "_format_kwargs", None) or {}).get("transform")
    return transform.view if isinstance(transform, Seen) else None


def _seen_through(view: Any, table: Any, without: list[Any]) -> Any:
    position = _free_name(table)  # another attack may have numbered them
    numbered = table.with_format(None).add_column(position, np.arange(len(table)))
    left = numbered.remove_columns([name for name in without if name in table.column_names])
    return left.with_transform(Seen(view, position))


def _free_name(table: Any) -> str:
    name = POSITION
    while name in table.column_names:
        name += "_"
    return name


def _with_column(data: Any, name: Any, values: list[Any]) -> Any:
    """Return a data set with other values in a column, of the same type, and in the same format."""
    free = _free_name(data)
    both = data.with_format(None).add_column(free, values, feature=data.features[name])
    new = both.remove_columns([name]).rename_column(free, name).select_columns(data.column_names)
    new.set_format(**data.format)
    return new


# --- telling that a data set is read ----------------------------------------------------------------------------


class Origin:
    """What a data set and those made of it with another format have in common."""

    def __deepcopy__(self, memo: Any) -> "Origin":
        return self


def _watched(data: Any) -> Any:
    """Return a data set that notes where it is used for anything but its length and the names of its columns."""
    kind: Any = type(data)
    data._flsec_origin = Origin()
    data.__class__ = _watched_kind(kind)
    return data


@functools.cache
def _watched_kind(kind: Any) -> Any:
    class Watched(ReadsCounted, kind):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            if not name.startswith("_") and name not in ABOUT | {"note_read", "noted_by"}:
                self.note_read()
            return super().__getattribute__(name)

        def __getitem__(self, key: Any) -> Any:
            self.note_read()
            return super().__getitem__(key)

        def __getitems__(self, keys: Any) -> Any:
            self.note_read()
            return super().__getitems__(keys)

        def __iter__(self) -> Any:
            self.note_read()
            return super().__iter__()

        def __reduce_ex__(self, protocol: Any) -> Any:
            self.note_read()
            state = {key: value for key, value in vars(self).items() if key != "noted_by"}
            return object.__new__, (kind,), state  # of a kind that others can import

    Watched.__name__, Watched.__qualname__, Watched.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Watched
