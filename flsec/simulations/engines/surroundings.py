"""What goes around a run, whatever drives it: logs redirected, Ctrl-C handled, less garbage collection."""

import contextlib
import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["interruptible", "little_to_collect", "logged"]


@contextlib.contextmanager
def little_to_collect() -> Iterator[None]:
    """Keep the garbage collector from looking through all that has been imported, again and again, in a run."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextlib.contextmanager
def interruptible(stop: threading.Event) -> Iterator[None]:
    """Turn the first Ctrl-C into a request to stop at the next safe point; the second one interrupts at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(signum: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, request)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def logged(path: Path, verbose: bool) -> Iterator[None]:
    """Send Flower's, Ray's and our messages to a file; our warnings, or all with ``verbose``, to the terminal too."""
    to_file = logging.FileHandler(path)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    to_terminal.setLevel(logging.INFO if verbose else logging.WARNING)
    with contextlib.ExitStack() as stack:
        for name in ("flwr", "ray", "flsec"):
            handlers: list[logging.Handler] = [to_file]
            if verbose or name == "flsec":
                handlers.append(to_terminal)
            stack.enter_context(_handlers(logging.getLogger(name), handlers))
        try:
            yield
        finally:
            to_file.close()


@contextlib.contextmanager
def _handlers(logger: logging.Logger, handlers: list[logging.Handler]) -> Iterator[None]:
    before, propagated, level = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = handlers, False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before, propagated
        logger.setLevel(level)
