"""What goes around a run, whatever drives it: logs redirected, Ctrl-C and SIGTERM handled, less garbage collection."""

import contextlib
import gc
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["handlers_kept", "interruptible", "little_to_collect", "logged"]


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
    """Turn the first Ctrl-C or SIGTERM into a request to stop at the next safe point; the second one ends at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def request(signum: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """Put SIGTERM's handler back after a library has set its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def logged(path: Path, verbose: bool) -> Iterator[None]:
    """Send Flower's, Ray's and our messages to a file; our warnings, or all with ``verbose``, to the terminal too."""
    to_file = _LogFile(path)
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


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short: the run tells of the disk, once, and not each line that finds no place."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Lose the line."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        """Close the file, whether its last lines find a place or not."""
        with contextlib.suppress(OSError):
            super().close()


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
