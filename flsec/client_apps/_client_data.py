"""A client's training data while something changes them: by attribute or through ``poisoned``, never in silence."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

from flsec._tensors import is_loader, is_module, is_tensor
from flsec.client_apps._reads import Reads, ReadsCounted
from flsec.errors import ConfigError

__all__ = ["DataChange", "attribute_replaced", "is_pair", "no_such_data", "poisoned"]


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
        made = [changed, changed.dataset] if is_loader(changed) else [changed]
        for change in (self, *_at_work.get()):
            if change is self or change.has_made(data):
                change._made.extend(made)
        return changed

    def has_made(self, data: Any) -> bool:
        """Whether ``data`` are, or are a view or a loader of, what this change has made."""
        while data is not None:
            if any(_is_same(data, made) for made in self._made):
                return True
            data = getattr(data, "dataset", None)
        return False

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Have ``poisoned`` apply this change meanwhile."""
        token = _at_work.set((*_at_work.get(), self))
        try:
            yield
        finally:
            _at_work.reset(token)

    @contextlib.contextmanager
    def in_place_of(self, client: Any, attribute: str) -> Iterator[None]:
        """Give ``client`` the changed data in its attribute, if it has that, for a while.

        Raises:
            ConfigError: it is over, and the client has read no changed data.
        """
        original = getattr(client, attribute, None)
        if original is None:
            yield
        else:
            changed = self.of(original)
            if _is_empty(changed):
                self.note_read()  # as far as there is something to read
            with attribute_replaced(client, attribute, changed, self._name), self._watched(client, changed):
                yield
        if not self.was_read:
            raise no_such_data(client, attribute, self._name) if original is None else self._unread(client, attribute)

    @contextlib.contextmanager
    def _watched(self, client: Any, data: Any) -> Iterator[None]:
        """Note where ``data`` are read: in themselves where they can tell, else where the client takes them out."""
        for view in (data, getattr(data, "dataset", None)):
            if isinstance(view, ReadsCounted):
                view.noted_by = (*view.noted_by, self._reads)
                yield
                return
        with _taking_out_noted(client, data, self._reads):
            yield

    def _unread(self, client: Any, attribute: str) -> ConfigError:
        others = [found for found in _data_attributes(client) if found.split()[0] != attribute]
        hint = f" The data may be in: {', '.join(others)}." if others else ""
        return ConfigError(
            f"{self._name} replaces the client's attribute {attribute!r} while it trains, but fit read nothing from "
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
        dataset: training data: a torch ``Dataset``, a ``DataLoader`` or an (x, y) pair of arrays. Not modified.

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


@contextlib.contextmanager
def attribute_replaced(client: Any, attribute: str, value: Any, name: str) -> Iterator[None]:
    """Give a client another value in an attribute for a while.

    Args:
        client: the client, which has the attribute, itself or from its class.
        attribute: its name.
        value: the other value.
        name: who does this, for messages.
    """
    original, own = getattr(client, attribute), attribute in vars(client)
    try:
        setattr(client, attribute, value)
    except AttributeError:
        raise ConfigError(
            f"{name}: {attribute!r} of the client cannot be replaced. Make it an attribute that can be set, or a "
            "functools.cached_property."
        ) from None
    try:
        yield
    finally:
        if own or attribute not in vars(client):
            setattr(client, attribute, original)
        else:  # it was the class's, and still is
            delattr(client, attribute)


def no_such_data(client: Any, attribute: str, name: str) -> ConfigError:
    """Return the error that says that a client has no training data where they are looked for."""
    found = _data_attributes(client)
    hint = f" The data may be in: {', '.join(found)}." if found else ""
    return ConfigError(
        f"{name}: the client has no attribute {attribute!r} with its training data. Name the attribute with "
        f"data_attribute=; it has: {', '.join(sorted(vars(client))) or 'none'}.{hint} Or have fit pass its data "
        "through flsec.client_apps.poisoned(...)."
    )


def is_pair(data: Any) -> bool:
    """Return whether training data are an (x, y) pair of arrays."""
    return isinstance(data, tuple | list) and len(data) == 2 and all(hasattr(part, "shape") for part in data)


def _is_empty(data: Any) -> bool:
    examples = data[1] if is_pair(data) else getattr(data, "dataset", data)
    return hasattr(examples, "__len__") and len(examples) == 0


def _is_same(data: Any, made: Any) -> bool:
    if is_pair(data) and is_pair(made):  # perhaps taken apart and put together again
        return all(a is b for a, b in zip(data, made, strict=True))
    return data is made


def _data_attributes(client: Any) -> list[str]:
    """Return which of a client's attributes look like training data, with their types."""
    return sorted(f"{name} ({type(value).__name__})" for name, value in vars(client).items() if _looks_like_data(value))


def _looks_like_data(value: Any) -> bool:
    if is_pair(value) or is_loader(value):
        return True
    plain = isinstance(value, str | bytes | tuple | list | dict | set) or hasattr(value, "dtype")
    has_items = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return has_items and not plain and not is_tensor(value) and not is_module(value)


@contextlib.contextmanager
def _taking_out_noted(client: Any, data: Any, reads: Reads) -> Iterator[None]:
    """Note where an attribute of ``client`` is read and gives ``data``, whatever the attribute's name."""
    original = type(client)

    class Watched(original):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if value is data or name == "__dict__":  # through which anything can be read
                reads.note()
            return value

        def __reduce_ex__(self, protocol: Any) -> Any:
            reads.note()
            with _of_class(self, original):  # which others can import; this one, they cannot
                return self.__reduce_ex__(protocol)

    Watched.__name__, Watched.__qualname__ = original.__name__, original.__qualname__
    Watched.__module__, Watched.__doc__ = original.__module__, original.__doc__
    with _of_class(client, Watched):
        yield


@contextlib.contextmanager
def _of_class(client: Any, cls: type) -> Iterator[None]:
    original = type(client)
    object.__setattr__(client, "__class__", cls)  # whatever the client does with attributes
    try:
        yield
    finally:
        object.__setattr__(client, "__class__", original)
