"""A client's training data while something changes them: by attribute or through ``poisoned``, never in silence."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flsec._tensors import is_loader
from flsec.client_apps._data_attribute import DataAttribute, no_such_data, where_data_may_be
from flsec.data._reads import Reads, ReadsCounted
from flsec.data.training_data import is_columns, training_data, views_of
from flsec.errors import ConfigError

__all__ = ["DataChange", "poisoned"]


class DataChange:
    """What one attack does to a client's training data in one round, and whether the client has read the outcome.

    The client may hold its data in an attribute, or pass them through ``poisoned``, or both: data that this change has
    made are not changed again.

    Args:
        name: who does this, for messages.
        change: maps training data to changed ones, without changing them.
    """

    def __init__(self, name: str, change: Callable[[Any], Any]) -> None:
        self._name = name
        self._change = change
        self._reads = Reads()
        self._made: list[Any] = []

    @property
    def was_read(self) -> bool:
        """Whether the client has read changed data."""
        return bool(self._reads)

    def note_read(self) -> None:
        """Count the changed data as read."""
        self._reads.note()

    def of(self, data: Any) -> Any:
        """Return ``data`` changed; as they are if this change has made them."""
        if self.has_made(data):
            return data
        changed = self._change(data)
        clean = list(views_of(data))
        made = [view for view in views_of(changed) if not any(view is own for own in clean)]
        for change in (self, *_at_work.get()):
            if change is self or change.has_made(data):
                change._made.extend(made)
        return changed

    def has_made(self, data: Any) -> bool:
        """Whether ``data`` are, or are a view or a loader of, what this change has made."""
        return any(_is_same(view, made) for view in views_of(data) for made in self._made)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Have ``poisoned`` apply this change meanwhile."""
        token = _at_work.set((*_at_work.get(), self))
        try:
            yield
        finally:
            _at_work.reset(token)

    @contextlib.contextmanager
    def in_place_of(self, client: Any, attribute: str | Sequence[str]) -> Iterator[None]:
        """Give ``client`` the changed data in its attribute, if it has that, for a while.

        Raises:
            ConfigError: it is over, and the client has read no changed data.
        """
        place = DataAttribute(attribute)
        original = place.of(client)
        if original is None:
            yield
        else:
            changed = self.of(original)
            if _is_empty(changed):
                self.note_read()  # as far as there is something to read
            counted = [view for view in views_of(changed) if isinstance(view, ReadsCounted)]
            for view in counted[:1]:  # it can tell where it is read; other data are read where they are taken out
                view.noted_by = (*view.noted_by, self._reads)
            with place.replaced(client, changed, self._name, None if counted else self._reads):
                yield
        if not self.was_read:
            raise no_such_data(client, place, self._name) if original is None else self._unread(client, place)

    def _unread(self, client: Any, place: DataAttribute) -> ConfigError:
        others = [found for found in where_data_may_be(client) if found.split(" (")[0] not in place.names]
        hint = f" The data may be in: {', '.join(others)}." if others else ""
        return ConfigError(
            f"{self._name} replaces the client's attribute {place} while it trains, but fit read nothing from "
            "it, so that it has no effect: fit trained on data made from it earlier, such as a DataLoader of __init__, "
            "loaded them anew, or gave the attribute another value. Make the DataLoader in fit, name the attribute "
            "that fit reads with data_attribute=, or have fit pass its data through flsec.client_apps.poisoned(...)."
            f"{hint}"
        )


# What changes the data of the client at work; the outermost first.
_at_work: contextvars.ContextVar[tuple[DataChange, ...]] = contextvars.ContextVar("data_changes", default=())


def poisoned(dataset: Any) -> Any:
    """Return ``dataset`` as the data attacks at work want it: those around the client, and those among an app's mods.

    For clients that do not hold their training data in an attribute, and for training functions of the Message API.
    Unchanged where no attack is at work; data that an attack has changed already are not changed twice.

    Args:
        dataset: training data of a shape that ``flsec.data.training_data`` takes. Not modified.

    Example:
        >>> import numpy as np
        >>> from flwr.client import NumPyClient
        >>> from flsec.client_apps import LabelFlipping
        >>> @LabelFlipping(source=0, target=7)
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         x, y = poisoned((np.zeros((3, 2)), np.arange(3)))
        ...         return parameters, len(y), {"labels": y.tolist()}
        >>> Client().fit([np.zeros(1)], {})[2]
        {'labels': [7, 1, 2]}
    """
    for change in _at_work.get():
        dataset = change.of(dataset)
        change.note_read()
    return dataset


def _is_empty(data: Any) -> bool:
    if is_columns(data):
        return not len(training_data(data))
    held = data.dataset if is_loader(data) else data
    return hasattr(held, "__len__") and len(held) == 0


def _is_same(data: Any, made: Any) -> bool:
    """Whether data are ``made``, or their columns, perhaps taken apart and put together again."""
    if type(data) is type(made) and isinstance(data, tuple | list | dict) and is_columns(data) and is_columns(made):
        keys = list(data) if isinstance(data, dict) else range(len(data))
        known = list(made) if isinstance(made, dict) else range(len(made))
        return list(keys) == list(known) and all(data[key] is made[key] for key in keys)
    return data is made
