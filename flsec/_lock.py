"""At most one process at work in a folder."""

import contextlib
import logging
import os
import socket
import weakref
from collections.abc import Iterator
from pathlib import Path

from flsec.errors import ConfigError

__all__ = ["FolderLock"]

logger = logging.getLogger("flsec")

_held: "weakref.WeakSet[FolderLock]" = weakref.WeakSet()


class FolderLock:
    """A lock of the kernel on the file ``lock`` in a folder: it ends with the process, however that ends.

    Args:
        folder: must exist. The file stays there; what it holds, who is at work, is for messages only.

    Raises:
        ConfigError: by ``acquire``: another process, or another object of this one, has the lock.

    See docs/decisions/state-files.md for why it is ``flock``, and for network file systems.
    """

    def __init__(self, folder: Path):
        self._descriptor: int | None = None
        self._folder = folder
        self._depth = 0

    @property
    def is_held(self) -> bool:
        """Whether this object has the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock, or refuse at once; who has it may take it again."""
        if self._descriptor is None:
            self._descriptor = self._locked()
            _held.add(self)
        self._depth += 1

    def release(self) -> None:
        """Give it back, when it has been given back as often as it was taken."""
        self._depth -= 1
        if self._depth == 0:
            self.close()

    def close(self) -> None:
        """Give it back at once."""
        descriptor, self._descriptor, self._depth = self._descriptor, None, 0
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock meanwhile."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _locked(self) -> int:
        descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):  # on a full disk the name is missing, the lock is not
                os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        except BlockingIOError:
            who = os.pread(descriptor, 200, 0).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ConfigError(
                f"{who} is at work in {str(self._folder)!r}. Wait until it has ended, stop it, or use another folder."
            ) from None
        except ImportError:
            logger.warning("this system has no flock: nothing keeps a second process out of %s", self._folder)
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(
                f"{str(self._folder)!r} cannot be locked: {error.strerror}. Use a folder on a file system that has "
                "locks, such as a local disk."
            ) from None
        return descriptor


def _let_go_in_a_forked_child() -> None:
    """A child would keep the lock when its parent has died."""
    for lock in list(_held):
        lock.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_a_forked_child)
