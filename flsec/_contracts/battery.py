"""What the batteries of checks have in common."""

import contextlib
import inspect
import logging
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from flsec.errors import ConfigError
from flsec.parameters import parameters_of


def run(subject: str, battery: Any) -> None:
    """Call the public methods of ``battery`` in the order in which they are written."""
    with quiet("flwr", "flsec"):
        for name in [name for name in vars(type(battery)) if not name.startswith("_")]:
            try:
                getattr(battery, name)()
            except Exception as error:
                title = f"{subject}: {name.replace('_', ' ')}"
                raise AssertionError(f"{title}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Silence loggers: some hundred rounds would drown the one message that matters."""
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def check_documented(target: Any) -> None:
    text = inspect.getdoc(target) or ""
    for section in ("Args:", "Source:"):
        assert re.search(rf"^{section}", text, re.MULTILINE), f"the docstring has no {section} section"
    inherited = isinstance(target, type) and "__init__" not in vars(target)  # its base explains them
    own = () if inherited else inspect.signature(target).parameters
    missing = [name for name in own if not re.search(rf"^ +\*{{0,2}}{name}:", text, re.MULTILINE)]
    assert not missing, f"the docstring's Args do not explain {', '.join(missing)}"


class Nonsense:
    """Nothing that a parameter could want."""


def check_refuses_nonsense(target: Callable[..., Any], *args: Any) -> None:
    for name, (hint, _) in list(parameters_of(target).items())[len(args) :]:
        if hint is Any:
            continue
        message = ""
        try:
            target(*args, **{name: Nonsense()})
        except ConfigError as error:
            message = str(error)
        assert message, f"{name}={Nonsense()!r} is accepted"
        assert name in message, f"the message for a bad {name} does not name it: {message}"


def pickled(value: Any) -> Any:
    try:
        data = pickle.dumps(value)
    except Exception:  # classes made inside a function: Ray ships them all the same
        from ray import cloudpickle

        data = cloudpickle.dumps(value)  # type: ignore[no-untyped-call]
    return pickle.loads(data)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(np.array_equal(a, b))
