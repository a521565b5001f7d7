"""Server strategies from an experiment's file: those of ``server_strategies``, Flower's others, and anybody's own."""

import contextlib
import inspect
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp.strategy import FedAvg, Strategy

from flsec.errors import ConfigError
from flsec.parameters import parameters_of
from flsec.simulations.signatures import example_value, parameters_model
from flsec.simulations.supplies import SUPPLIED_TO_STRATEGIES
from flsec.strategies.base import RobustStrategy
from flsec.strategies.server_optimizer import ServerOptimizer

__all__ = ["SAMPLING", "build_server_strategy", "check_strategy"]

# How clients are sampled is the simulation's affair: no file can set these.
SAMPLING = ("fraction_train", "fraction_evaluate", "min_train_nodes", "min_evaluate_nodes", "min_available_nodes")

_EXAMPLE = "For example: name: flwr.serverapp.strategy:FedMedian"


def check_strategy(name: str, member: Any) -> None:
    """Raise ``ConfigError`` unless ``member`` makes strategies of Flower's Message API from what a file can say.

    Args:
        name: as the file has it.
        member: a class, or a function that returns a strategy.
    """
    if isinstance(member, type):
        if issubclass(member, ServerOptimizer):
            return
        if issubclass(member, RobustStrategy):
            raise ConfigError(f"{name} is a defense; list it in defenses. {_EXAMPLE}")
        if not issubclass(member, Strategy):
            what = "of Flower's classic API" if issubclass(member, ClassicStrategy) else "no strategy"
            raise ConfigError(f"{name} is {what}; a simulation runs those of flwr.serverapp.strategy. {_EXAMPLE}")
        if inspect.isabstract(member):
            missing = ", ".join(sorted(member.__abstractmethods__))
            raise ConfigError(f"{name} has no {missing}; define what Flower's Strategy leaves open. {_EXAMPLE}")
    for key, info in parameters_model(member, (*SAMPLING, *SUPPLIED_TO_STRATEGIES)).model_fields.items():
        if info.is_required() and example_value(info.annotation) is None:
            raise ConfigError(
                f"{name} needs {key}, which a file cannot say. Write a function that returns the strategy, and name "
                "that. For example: name: my_package.my_module:my_strategy"
            )


def build_server_strategy(name: str, member: Any, params: Mapping[str, Any], clients_per_round: int) -> Strategy:
    """Return a strategy that asks every client it is shown to train.

    Args:
        name: as the file has it.
        member: a class, or a function that returns a strategy; it gets those keywords of ``SAMPLING`` that it takes. A
            class of ``ServerOptimizer`` goes around FedAvg, which gets them.
        params: its own parameters, and what is supplied to it.
        clients_per_round: how many clients it is shown.

    Raises:
        ConfigError: it refuses, or returns something else.
    """
    sampling: dict[str, Any] = {
        "fraction_train": 1.0,
        "fraction_evaluate": 0.0,
        "min_train_nodes": clients_per_round,
        "min_available_nodes": clients_per_round,
    }
    if isinstance(member, type) and issubclass(member, ServerOptimizer):
        with _no_advice():
            return member(FedAvg(**sampling), **params)
    taken = parameters_of(member)
    given = {key: value for key, value in sampling.items() if key in taken or _takes_any_keyword(member)}
    try:
        with _no_advice():
            strategy = member(**params, **given)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} cannot be built: {type(error).__name__}: {error}") from error
    own = isinstance(strategy, RobustStrategy) and not isinstance(strategy, ServerOptimizer)
    if not isinstance(strategy, Strategy) or own:
        raise ConfigError(
            f"{name} must return a strategy of flwr.serverapp.strategy; got {type(strategy).__name__}. {_EXAMPLE}"
        )
    return strategy


def _takes_any_keyword(member: Any) -> bool:
    """Whether a function, or every constructor from a class up, takes ``**keywords``."""
    if not isinstance(member, type):
        return _has_keywords(member)
    constructors = [vars(owner)["__init__"] for owner in member.__mro__[:-1] if "__init__" in vars(owner)]
    return bool(constructors) and all(map(_has_keywords, constructors))


def _has_keywords(function: Any) -> bool:
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values())


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Have Flower not warn that clients do not evaluate, which is meant."""
    flower = logging.getLogger("flwr")
    level = flower.level
    flower.setLevel(logging.ERROR)
    try:
        yield
    finally:
        flower.setLevel(level)
