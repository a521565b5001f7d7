"""Files that are written whole or not at all, and known to be whole when they are read."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from flsec.errors import SaveError

__all__ = ["Damaged", "append_line", "read_checked", "remove_leftovers", "replacing", "sync", "write_checked"]

_MARK = "flsec"  # the first word of a checked file; then its kind, the version of the format, size and SHA-256
_VERSION = 1
_PARTIAL = ".partial"


class Damaged(ValueError):
    """A file that is not what was once written; says which, and why."""


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False, durable: bool = True) -> Iterator[BinaryIO]:
    """Give a file to write to, which takes the place of ``path`` when it is whole; until then nothing is changed.

    Args:
        path: an existing file is replaced.
        private: only the owner may read it; else as the process's umask says.
        durable: it is on the disk when this returns, so that a power failure finds the old file or the new one.

    Raises:
        SaveError: the disk is full, say.
    """
    # another process, on another machine too, may be at work on the same file
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(partial, path)
        if durable:
            sync(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            raise SaveError(f"{str(path)!r} could not be written: {error.strerror or error}.") from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in a folder and those below it."""
    for path in folder.rglob(f".*{_PARTIAL}"):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def append_line(path: Path, line: str) -> None:
    """Add a line to a file; one that finds no place is taken back. ``sync`` makes lines durable.

    Raises:
        SaveError: the disk is full, say.
    """
    try:
        with path.open("ab", buffering=0) as file:
            before = file.seek(0, os.SEEK_END)
            try:
                left = memoryview(line.encode() + b"\n")
                while left:
                    left = left[file.write(left) :]
            except BaseException:
                file.truncate(before)
                raise
    except OSError as error:
        raise SaveError(f"{str(path)!r} could not be written: {error.strerror or error}.") from error


def sync(path: Path) -> None:
    """Have what has been written to a file or a folder on the disk when this returns.

    Raises:
        SaveError: the disk is full, say.
    """
    try:
        with contextlib.suppress(PermissionError):  # Windows opens no folders
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise SaveError(f"{str(path)!r} could not be written: {error.strerror or error}.") from error


def write_checked(path: Path, kind: str, payload: bytes, *, durable: bool = True) -> None:
    """Write a file that only its owner may read, and that ``read_checked`` knows to be whole.

    Args:
        path: an existing file is replaced.
        kind: one word for what it holds.
        payload: the content; a line with its size and SHA-256 goes before it.
        durable: see ``replacing``.

    Raises:
        SaveError: the disk is full, say.
    """
    with replacing(path, private=True, durable=durable) as file:
        file.write(_first_line(kind, payload))
        file.write(payload)


def _first_line(kind: str, payload: bytes) -> bytes:
    return f"{_MARK} {kind} {_VERSION} {len(payload)} {hashlib.sha256(payload).hexdigest()}\n".encode()


def read_checked(path: Path, kind: str) -> bytes:
    """Return what ``write_checked`` was given.

    The hash tells accidents, not forgery: who can write the file can write its first line too.

    Raises:
        Damaged: the file is cut off, changed, of another kind, or cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error.strerror or error}") from None
    line, _, payload = data.partition(b"\n")
    words = line.split(b" ")
    if len(words) != 5 or words[0] != _MARK.encode():
        raise Damaged(f"{path.name} is none of flsec's files, or its first line is damaged")
    if words[1] != kind.encode() or words[2] != str(_VERSION).encode():
        found = b" ".join(words[1:3]).decode(errors="replace")
        raise Damaged(f"{path.name} is of the kind {found!r}, not {f'{kind} {_VERSION}'!r}")
    if words[3] != str(len(payload)).encode():
        size = words[3].decode(errors="replace")
        raise Damaged(f"{path.name} holds {len(payload)} bytes where {size} were written: it is cut off or damaged")
    if data[: len(line) + 1] != _first_line(kind, payload):
        raise Damaged(f"{path.name} is not what was written: its SHA-256 differs")
    return payload
