"""Putting something around a client's ``fit``: around a class, an instance, a ``Client`` made from one, a client_fn.

And what can be known around a client while it works: the Flower context, the server's round, the client's partition id.
"""

import contextlib
import contextvars
import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from numbers import Integral
from typing import Any, Protocol, SupportsFloat

import numpy as np
from flwr.app import Array, Context
from flwr.client import NumPyClient
from numpy.typing import NDArray

from flsec import _npy
from flsec.errors import ConfigError

__all__ = [
    "Around",
    "FitResult",
    "HonestFit",
    "NDArrays",
    "as_array",
    "checked_result",
    "client_id_of",
    "context_of",
    "decorated_class",
    "decorated_client",
    "decorated_client_fn",
    "flower_context",
    "round_of",
]

NDArrays = list[NDArray[Any]]
FitResult = tuple[NDArrays, int, dict[str, Any]]
HonestFit = Callable[..., FitResult]


class Around(Protocol):
    """What can be put around a client's ``fit``."""

    def around_fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult: ...


# --- what is known around a client ------------------------------------------------------------------------------

_flower_context: contextvars.ContextVar[Context | None] = contextvars.ContextVar("flower_context", default=None)


@contextlib.contextmanager
def flower_context(context: Context) -> Iterator[None]:
    """Tell what is around a client, while it works, which Flower context it runs in."""
    token = _flower_context.set(context)
    try:
        yield
    finally:
        _flower_context.reset(token)


def context_of(client: Any) -> Context | None:
    """Return the Flower context that a client runs in, from Flower or from the client; None if neither tells."""
    found = (_flower_context.get(), *(getattr(client, name, None) for name in ("_flower_context", "context")))
    return next((context for context in found if isinstance(context, Context)), None)


def round_of(config: Mapping[str, Any]) -> int:
    """Return the server's round from a fit configuration; 0 if it is not there."""
    for key in ("server-round", "server_round", "current_round", "round"):
        if key in config:
            return int(config[key])
    return 0


def client_id_of(client: Any) -> int:
    """Return a client's partition id; -1 if it is not known."""
    for name in ("client_id", "partition_id", "_partition_id"):
        with contextlib.suppress(TypeError, ValueError):  # not there, or a name such as "hospital 3"
            return int(getattr(client, name, None))  # type: ignore[arg-type]
    context = context_of(client)
    return -1 if context is None else int(context.node_config.get("partition-id", -1))


# --- what goes in and out of a client ---------------------------------------------------------------------------


def checked_result(result: Any, method: str) -> tuple[Any, int, dict[str, Any]]:
    """Return what a NumPyClient's ``fit`` or ``evaluate`` returned; raise ``TypeError`` if it is something else."""
    wanted: tuple[Any, ...] = (list if method == "fit" else SupportsFloat, Integral, dict)
    if not isinstance(result, tuple) or len(result) != 3 or not all(map(isinstance, result, wanted)):
        got = f"({', '.join(type(part).__name__ for part in result)})" if isinstance(result, tuple) else repr(result)
        first = "list of arrays" if method == "fit" else "float"
        raise TypeError(f"{method} must return ({first}, int, dict) as Flower's NumPyClient does; got {got:.200}.")
    return result[0], int(result[1]), result[2]


def as_array(array: Any) -> Array:
    """Return numbers as a Flower array, of the same shape also where they have no dimension."""
    values = np.asarray(array, order="C")
    if values.dtype.hasobject:
        raise TypeError(f"parameters must be arrays of numbers; got {type(array).__name__} among them.")
    data = _npy.write(values)  # as Array(values) does, three times faster for a small model
    return Array(str(values.dtype), values.shape, "numpy.ndarray", data)


# --- decorating -------------------------------------------------------------------------------------------------


def decorated_class(around: Around, base: type[Any]) -> type[Any]:
    """Return a subclass of a NumPyClient class whose ``fit`` is ``around`` the class's own."""
    if base.fit is NumPyClient.fit:
        raise ConfigError(f"{base.__name__} has no method fit for anything to go around. Define one in the class.")

    class Decorated(base):  # type: ignore[misc]
        _decorated_by = around

        def fit(self, parameters: NDArrays, config: Any) -> FitResult:
            return around.around_fit(self, super().fit, parameters, config)

        def __reduce_ex__(self, protocol: Any) -> Any:
            if type(self) is not Decorated or _importable(Decorated):  # a class that its module holds under its name
                return super().__reduce_ex__(protocol)
            layers, cls = [around], base
            while "_decorated_by" in vars(cls) and not _importable(cls):
                layers, cls = [cls._decorated_by, *layers], cls.__bases__[0]
            return _blank, (cls, *layers), self.__getstate__()

    Decorated.__name__, Decorated.__qualname__ = base.__name__, base.__qualname__
    Decorated.__module__, Decorated.__doc__ = base.__module__, base.__doc__
    return Decorated


def decorated_client(around: Around, client: Any) -> Any:
    """Return a decorated client that shares the attributes of an existing one."""
    if "fit" in vars(client):
        raise ConfigError(
            f"{type(client).__name__} has a fit set on the instance, which hides what goes around it. Define it in the "
            "class."
        )
    decorated = _blank(type(client), around)
    decorated.__dict__ = vars(client)
    return decorated


def decorated_client_fn(
    decorate: Callable[[Any], Any], client_fn: Callable[[Context], Any]
) -> Callable[[Context], Any]:
    """Return a client_fn whose clients are decorated, and know the context that they were made in."""

    @functools.wraps(client_fn)
    def decorated(context: Context) -> Any:
        client = decorate(client_fn(context))
        made = type(getattr(client, "numpy_client", client))  # for this client alone, which itself stays as it is
        made._partition_id = context.node_config.get("partition-id")
        made._flower_context = context
        return client

    return decorated


def _importable(cls: type) -> bool:
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls


def _blank(base: type[Any], *layers: Around) -> Any:
    """Return a decorated client without attributes; the first layer is the one nearest to the client."""
    return object.__new__(functools.reduce(lambda cls, around: decorated_class(around, cls), layers, base))
