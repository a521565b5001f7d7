"""Where a client keeps its training data: found, replaced for a while, and watched where they are taken out."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from flsec._tensors import is_loader, is_module, is_tensor
from flsec.data._reads import Reads
from flsec.data.training_data import is_columns
from flsec.errors import ConfigError

__all__ = ["DataAttribute", "data_of", "no_such_data", "where_data_may_be"]


class DataAttribute:
    """The attribute in which clients keep their training data, or the two for inputs and labels.

    Args:
        attribute: a name such as ``"trainset"``, a path such as ``"module.trainset"``, or two of these, as one text
            (``"x_train,y_train"``) or as a sequence.

    Raises:
        ConfigError: something else.
    """

    def __init__(self, attribute: str | Sequence[str]) -> None:
        names = attribute.split(",") if isinstance(attribute, str) else list(attribute)
        self.places = tuple(name.strip() for name in names)
        parts = [part for place in self.places for part in place.split(".")]
        if len(self.places) not in (1, 2) or not all(part.isidentifier() for part in parts):
            raise ConfigError(
                "data_attribute must be the name of an attribute, or those of inputs and labels; got "
                f"{attribute!r}. For example: 'trainset', 'module.trainset' or 'x_train,y_train'.",
                parameter="data_attribute",
            )

    def __str__(self) -> str:
        return " and ".join(map(repr, self.places))

    @property
    def names(self) -> tuple[str, ...]:
        """What hints call it."""
        return (*self.places, ",".join(self.places))

    def of(self, client: Any) -> Any:
        """Return a client's training data; None if it has none there."""
        found = [_value_at(client, place) for place in self.places]
        if any(value is None for value in found):
            return None
        return found[0] if len(found) == 1 else tuple(found)

    @contextlib.contextmanager
    def replaced(self, client: Any, data: Any, name: str, reads: Reads | None = None) -> Iterator[None]:
        """Give a client other training data for a while.

        Args:
            client: the client, which has training data there.
            data: the other data.
            name: who does this, for messages.
            reads: note there where the client takes out what is another value than its own.
        """
        values = [data] if len(self.places) == 1 else list(data)
        own = [_value_at(client, place) for place in self.places]
        same = [value is before for value, before in zip(values, own, strict=True)]
        owners = [_value_at(client, path) if path else client for path, _, _ in self._split]
        with contextlib.ExitStack() as stack:
            for owner, (_, _, last), value in zip(owners, self._split, values, strict=True):
                stack.enter_context(_attribute_replaced(owner, last, value, name))
            for owner, value, unchanged in zip(owners, values, same, strict=True):
                if reads is not None and (not unchanged or all(same)):
                    stack.enter_context(_taking_out_noted(owner, value, reads, name))
            yield

    @property
    def _split(self) -> list[tuple[str, str, str]]:
        return [place.rpartition(".") for place in self.places]


def data_of(client: Any, attribute: str | Sequence[str], name: str) -> Any:
    """Return a client's training data.

    Raises:
        ConfigError: it has none there.
    """
    data = DataAttribute(attribute).of(client)
    if data is None:
        raise no_such_data(client, DataAttribute(attribute), name)
    return data


def _value_at(client: Any, place: str) -> Any:
    for part in place.split("."):
        client = getattr(client, part, None)
    return client


@contextlib.contextmanager
def _attribute_replaced(owner: Any, attribute: str, value: Any, name: str) -> Iterator[None]:
    """Give an object another value in an attribute, which it has, itself or from its class, for a while."""
    original, own = getattr(owner, attribute), attribute in getattr(owner, "__dict__", {})
    try:
        setattr(owner, attribute, value)
    except AttributeError:
        raise ConfigError(
            f"{name}: {attribute!r} of the client cannot be replaced. Make it an attribute that can be set, or a "
            "functools.cached_property."
        ) from None
    try:
        yield
    finally:
        if own or attribute not in getattr(owner, "__dict__", {}):
            setattr(owner, attribute, original)
        else:  # it was the class's, and still is
            delattr(owner, attribute)


# --- messages ---------------------------------------------------------------------------------------------------


def no_such_data(client: Any, attribute: DataAttribute, name: str) -> ConfigError:
    """Return the error that says that a client has no training data where they are looked for."""
    found = where_data_may_be(client)
    hint = f" The data may be in: {', '.join(found)}." if found else ""
    return ConfigError(
        f"{name}: the client has no attribute {attribute} with its training data. Name the attribute with "
        f"data_attribute=; it has: {', '.join(sorted(vars(client))) or 'none'}.{hint} Or have fit pass its data "
        "through flsec.client_apps.poisoned(...)."
    )


def where_data_may_be(client: Any) -> list[str]:
    """Return which of a client's attributes, and of its attributes' attributes, look like data, with their types."""
    found = {}
    for name, value in vars(client).items():
        if _looks_like_data(value):
            found[name] = type(value).__name__
        elif hasattr(value, "__dict__") and not isinstance(value, type) and not is_module(value):
            inner = {f"{name}.{key}": held for key, held in vars(value).items() if _looks_like_data(held)}
            found |= {path: type(held).__name__ for path, held in inner.items()}
        labels = getattr(client, f"y{name[1:]}", None) if name.lower().startswith("x") else None
        if labels is not None and is_columns((value, labels)):
            found[f"{name},y{name[1:]}"] = "a pair"
    return sorted(f"{name} ({kind})" for name, kind in found.items())


def _looks_like_data(value: Any) -> bool:
    if is_columns(value) or is_loader(value):
        return True
    plain = isinstance(value, str | bytes | tuple | list | dict | set) or hasattr(value, "dtype")
    has_items = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    return has_items and not plain and not is_tensor(value) and not is_module(value)


# --- watching ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _taking_out_noted(owner: Any, data: Any, reads: Reads, name: str) -> Iterator[None]:
    """Note where an attribute of ``owner`` is read and gives ``data``, whatever the attribute's name."""
    original = type(owner)

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
    try:
        watching = _of_class(owner, Watched)
        watching.__enter__()
    except TypeError:
        raise ConfigError(
            f"{name}: whether fit reads the data cannot be seen, since {original.__name__} holds them. Hold them in an "
            "attribute of the client, or have fit pass them through flsec.client_apps.poisoned(...)."
        ) from None
    try:
        yield
    finally:
        watching.__exit__(None, None, None)


@contextlib.contextmanager
def _of_class(owner: Any, cls: type) -> Iterator[None]:
    original = type(owner)
    object.__setattr__(owner, "__class__", cls)  # whatever the owner does with attributes
    try:
        yield
    finally:
        object.__setattr__(owner, "__class__", original)
