"""Run an example in this process, with and without defense and attack; print the accuracies, check what it claims.

Everything that the examples take from flsec's simulations is here: a grid that runs the clients one after another,
which spares each of some twenty runs the start of Flower's workers. ``flwr run`` runs the same apps as they are.
"""

import contextlib
import importlib
import io
import logging
import math
import os
import random
import sys
import threading
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and sums depend on the number of threads

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from flsec.simulations.engines.grid import InProcessGrid

__all__ = ["accuracy_of", "apps_of", "compare", "quiet", "run_config_of"]

RUNS = {
    "bare": {"defense": False, "attack": False},
    "defended": {"defense": True, "attack": False},
    "attacked": {"defense": False, "attack": True},
    "attacked, defended": {"defense": True, "attack": True},
}


class OneAtATime(InProcessGrid):
    """Flower's classic API asks the clients from several threads; here they take turns."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._turn = threading.Lock()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients."""
        with self._turn:
            return super().push_messages(messages)


def run_config_of(folder: Path) -> dict[str, Any]:
    """Return the run configuration in an app's pyproject.toml."""
    return dict(_flower_settings(folder)["config"])


def _flower_settings(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    return settings


def accuracy_of(server_app: ServerApp, client_app: ClientApp, run_config: Mapping[str, Any]) -> float:
    """Run an app once and return the test accuracy that its server leaves in ``context.state["result"]``."""
    random.seed(0)  # Flower samples with it
    config = dict(run_config)
    context = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=config)
    server_app(OneAtATime(client_app, int(config["num-clients"]), config), context)
    result = context.state["result"]
    assert isinstance(result, MetricRecord)
    return float(result["accuracy"])  # type: ignore[arg-type]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Flower, flsec and the apps say from the terminal for a while."""
    loggers = [logging.getLogger(name) for name in ("flwr", "flsec")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def apps_of(folder: Path) -> tuple[ServerApp, ClientApp]:
    """Return the apps that a pyproject.toml names; like Flower's own command, look for them in its folder."""
    sys.path.insert(0, str(folder))
    names = _flower_settings(folder)["components"]
    server_app, client_app = (_load(names[key]) for key in ("serverapp", "clientapp"))
    return server_app, client_app


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def compare(
    folder: Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    tolerance: float = 0.05,
    damage: float = 0.3,
    after: Callable[[str, float], str | None] = lambda run, accuracy: None,
) -> int:
    """Run an app four times, print one table, and return 0 if it holds what it claims, else 1.

    The claims: flsec costs at most ``tolerance`` of accuracy where nobody attacks; the attack costs the bare server
    at least ``damage``; and the defended server, under the same attack, at most ``tolerance``.

    Args:
        folder: the app's, with its pyproject.toml.
        overrides: run configuration that differs from pyproject.toml.
        tolerance: share of the test images.
        damage: share of the test images.
        after: called after each run with its name and accuracy; what it returns is a claim that does not hold.
    """
    server_app, client_app = apps_of(folder)
    config = {**run_config_of(folder), **(overrides or {})}
    reached: dict[str, float] = {}
    broken: list[str] = []
    for run, switches in RUNS.items():
        try:
            with quiet():
                reached[run] = accuracy_of(server_app, client_app, {**config, **switches})
            complaint = after(run, reached[run])
        except (Exception, SystemExit) as error:
            complaint = f"{type(error).__name__}: {error}"
        if complaint is not None:
            broken.append(f"{run}: {complaint}")
    print("".join(f"{heading:>20}" for heading in ("test accuracy", *RUNS)))
    print(f"{folder.name:>20}" + "".join(f"{reached.get(run, math.nan):20.3f}" for run in RUNS))
    broken += _unfulfilled(reached, tolerance, damage)
    for line in broken:
        print(f"NOT AS CLAIMED: {folder.name}: {line}")
    return 1 if broken else 0


def _unfulfilled(reached: Mapping[str, float], tolerance: float, damage: float) -> list[str]:
    """Return which of the claims the accuracies contradict."""
    if "bare" not in reached:
        return []
    lost = {run: reached["bare"] - accuracy for run, accuracy in reached.items()}
    broken = [
        f"{run}: loses {lost[run]:.3f} of the bare accuracy; at most {tolerance} was claimed"
        for run in ("defended", "attacked, defended")
        if not lost.get(run, 0.0) <= tolerance  # NaN is no success
    ]
    if not lost.get("attacked", 1.0) >= damage:
        broken.append(f"attacked: loses {lost['attacked']:.3f} of the bare accuracy; at least {damage} was claimed")
    return broken
