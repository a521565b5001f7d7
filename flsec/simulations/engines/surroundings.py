"""What goes around a run, whatever drives it: logs redirected, Ctrl-C and SIGTERM handled, less garbage collection."""

import contextlib
import gc
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["handlers_kept", "interruptible", "little_to_collect", "logged", "starting_ray"]

_STEPS = "flsec.steps"  # what is logged there takes long enough to be shown on the terminal


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
def starting_ray(then: str = "") -> Iterator[None]:
    """Say that Ray starts, which takes some seconds in which nothing else is to be seen, and how long it took.

    Args:
        then: a sentence on what comes next, if that takes its time, too.
    """
    steps, begun = logging.getLogger(_STEPS), time.perf_counter()
    steps.info("Starting Ray ...")
    yield
    steps.info("%s", f"Ray has started ({time.perf_counter() - begun:.1f} s). {then}".rstrip())


@contextlib.contextmanager
def logged(path: Path, verbose: bool) -> Iterator[None]:
    """Send Flower's, Ray's and our messages to a file; our warnings, or all with ``verbose``, to the terminal too."""
    to_file = _LogFile(path)
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    to_terminal = logging.StreamHandler(sys.stderr)
    to_terminal.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    to_terminal.addFilter(lambda entry: verbose or entry.levelno >= logging.WARNING)
    steps = logging.StreamHandler(sys.stderr)
    steps.addFilter(lambda entry: entry.name == _STEPS and not verbose)
    with contextlib.ExitStack() as stack:
        for name in ("flwr", "ray", "flsec"):
            handlers: list[logging.Handler] = [to_file]
            if verbose or name == "flsec":
                handlers += [to_terminal, steps]
            stack.enter_context(_handlers(logging.getLogger(name), handlers))
        stack.enter_context(_handlers(logging.getLogger(_PRINTED), [to_file]))
        stack.enter_context(_prints_logged())
        try:
            yield
        finally:
            to_file.close()


@contextlib.contextmanager
def _prints_logged() -> Iterator[None]:
    """Log what Ray and Flower print, too: Ray prints messages of its nodes, whatever ``log_to_driver`` says."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _OthersLogged(sys.stdout), _OthersLogged(sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _OthersLogged:
    """A stream that passes on what is written to it, but for what Ray's and Flower's own code writes."""

    def __init__(self, stream: Any):
        self._stream = stream
        self._log = logging.getLogger(_PRINTED)

    def write(self, text: str) -> int:
        """Write, or log."""
        if _package_that_writes() not in ("ray", "flwr"):
            return int(self._stream.write(text) or 0)
        if said := _COLOURS.sub("", text).strip():
            self._log.warning("%s", said)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _package_that_writes() -> str:
    """Return the package whose code has printed or warned; ``print`` has no frame of its own."""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") in _PASSING_ON and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).partition(".")[0]


_PRINTED = "printed by ray or flwr"  # a logger of its own: Ray gives a handler to those below "ray"
_PASSING_ON = ("warnings", "ray.experimental.tqdm_ray")  # print for others; Ray puts its own in the place of print
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


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
