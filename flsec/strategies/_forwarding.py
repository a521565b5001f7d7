"""What a wrapper passes through to the Flower strategy inside: its attributes, its own methods, its own ``start``."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from flwr.common import Parameters
from flwr.server.client_manager import ClientManager
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp.strategy import Result
from flwr.serverapp.strategy import Strategy as MessageStrategy

__all__ = ["FlowerStrategy", "Forwarding"]

logger = logging.getLogger("flsec")

FlowerStrategy = ClassicStrategy | MessageStrategy

# What Flower's ``start`` calls; where the strategy inside has a ``start`` of its own, it finds the wrapper's there.
_CALLED_BY_START = (
    "configure_train",
    "aggregate_train",
    "configure_evaluate",
    "aggregate_evaluate",
    "should_stop",
    "summary",
)


class Forwarding(ClassicStrategy, MessageStrategy):
    """A strategy around another one: what it does not define is the other one's, for reading and for writing."""

    strategy: FlowerStrategy
    _own_methods: dict[str, Callable[..., Any]]  # of the strategy inside, while its start finds the wrapper's

    @property
    def base(self) -> FlowerStrategy:
        """The Flower strategy inside all wrappers."""
        inner = self.strategy
        return inner.base if isinstance(inner, Forwarding) else inner

    if not TYPE_CHECKING:  # or every misspelt attribute would pass for one of the inner strategy's

        def __getattr__(self, name: str) -> Any:
            inner = vars(self).get("strategy")
            if name.startswith("_") or inner is None:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            try:
                return getattr(inner, name)
            except AttributeError:
                raise AttributeError(f"neither {type(self).__name__} nor what it wraps has {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute of the wrapper, or of the strategy inside where only that one has it."""
        own = name.startswith("_") or name in vars(self) or hasattr(type(self), name)
        if own or "_built" not in vars(self) or not hasattr(self.strategy, name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.strategy, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strategy!r})"

    def inner_method(self, name: str) -> Callable[..., Any]:
        """Return a method of the Flower strategy inside all wrappers."""
        own: Callable[..., Any] | None = vars(self).get("_own_methods", {}).get(name)
        method: Callable[..., Any] = own if own is not None else getattr(self.base, name)
        return method

    def configure_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Return whom the wrapped strategy asks to evaluate."""
        return self.inner_method("configure_evaluate")(server_round, *args, **kwargs)

    def aggregate_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Return what the wrapped strategy makes of evaluations."""
        return self.inner_method("aggregate_evaluate")(server_round, *args, **kwargs)

    # --- classic API ----------------------------------------------------------------------------------------

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Return the wrapped strategy's first model."""
        parameters: Parameters | None = self._classic_base().initialize_parameters(client_manager)
        if parameters is None:
            logger.warning(
                "the strategy has no first model, and Flower asks one client at random for it, which may be hostile. "
                "Give the wrapped strategy initial_parameters."
            )
        return parameters

    def evaluate(self, server_round: int, parameters: Parameters) -> Any:
        """Return what the wrapped strategy finds on the server's own data."""
        return self._classic_base().evaluate(server_round, parameters=parameters)

    def _classic_base(self) -> ClassicStrategy:
        if not isinstance(self.base, ClassicStrategy):
            raise TypeError(f"{self.strategy!r} has no classic API; use aggregate_train and its kin.")
        return self.base

    # --- Message API ----------------------------------------------------------------------------------------

    def start(self, *args: Any, **kwargs: Any) -> Result:
        """Run the rounds as the wrapped strategy does: with its own ``start`` if it has one, else with Flower's.

        Args:
            args: as Flower's ``Strategy.start``: grid, initial_arrays, num_rounds, ...
            kwargs: the same by name.
        """
        inner = self._message_base()
        if getattr(inner.start, "__func__", None) is MessageStrategy.start:
            usual: Result = MessageStrategy.start(self, *args, **kwargs)
            return usual
        with self._found_inside(inner):
            own: Result = inner.start(*args, **kwargs)
        return own

    @contextlib.contextmanager
    def _found_inside(self, inner: MessageStrategy) -> Iterator[None]:
        """Have the inner strategy's own ``start`` call this wrapper, and this wrapper call the inner methods."""
        instance = vars(inner)
        before = {name: instance[name] for name in _CALLED_BY_START if name in instance}
        self._own_methods = {name: getattr(inner, name) for name in _CALLED_BY_START if hasattr(inner, name)}
        instance.update({name: getattr(self, name) for name in _CALLED_BY_START})
        try:
            yield
        finally:
            for name in _CALLED_BY_START:
                instance.pop(name, None)
            instance.update(before)
            self._own_methods = {}

    def should_stop(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether the wrapped strategy wants to stop early, in versions of Flower that ask."""
        try:
            method = self.inner_method("should_stop")
        except AttributeError:
            return False
        return bool(method(*args, **kwargs))

    def summary(self) -> None:
        """Log the defense, then what the wrapped strategy says of itself."""
        self._message_base()
        logger.info("%s around %s", type(self).__name__, type(self.strategy).__name__)
        self.inner_method("summary")()

    def _message_base(self) -> MessageStrategy:
        if not isinstance(self.base, MessageStrategy):
            raise TypeError(f"{self.strategy!r} has no Message API; use aggregate_fit and its kin.")
        return self.base
