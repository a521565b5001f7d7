"""Constructors that are called in a wrong way: one sentence, with a call that would do."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

__all__ = ["MARK", "explained"]

Member = TypeVar("Member")
MARK = "__flsec_explained__"  # on a constructor that says what would do


def explained(member: Member) -> Member:
    """Return a function, or a class with its constructor, that says what would do if it fails by how it is called.

    A call that works is not looked at. A class is changed in place, where its constructor stands; an exception
    comes back as it is, and so does what is neither a class nor a function.

    Example:
        >>> from flsec.client_apps import Adversaries
        >>> Adversaries(20)
        Traceback (most recent call last):
        flsec.errors.ConfigError: Adversaries takes keyword arguments only. For example: Adversaries(num_clients=20).
    """
    if not isinstance(member, type):
        return _explained_function(member) if inspect.isfunction(member) else member
    owner = next(cls for cls in member.__mro__ if "__init__" in vars(cls))
    original = vars(owner)["__init__"]
    ours = owner.__module__.partition(".")[0] == member.__module__.partition(".")[0]
    if not (ours and inspect.isfunction(original)) or hasattr(original, MARK) or issubclass(member, BaseException):
        return member

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            original(self, *args, **kwargs)
        except (AttributeError, TypeError) as error:
            if getattr(type(self), "__init__") is not init:  # noqa: B009 - mypy calls it unsound; a subclass calls it
                raise
            _raise_what_would_do(error, type(self), args, kwargs)

    setattr(init, MARK, True)
    setattr(owner, "__init__", init)  # noqa: B010 - as above
    return member


def _explained_function(function: Any) -> Any:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            return _raise_what_would_do(error, function, args, kwargs)

    return call


def _raise_what_would_do(
    error: Exception, called: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> NoReturn:
    from flsec.parameters import wrong_call, wrong_value

    explain = wrong_value
    try:
        inspect.signature(called).bind(*args, **kwargs)
    except TypeError:  # refused by Python, before anything in it ran
        explain = wrong_call
    said = explain(called, called.__name__, args, kwargs)
    raise error if said is None else said from None
