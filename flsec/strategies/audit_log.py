"""A record of every verdict that lasts: one line of JSON a round, only ever appended, each line chained to the last."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError
from flsec.strategies._report_record import record_of, report_of
from flsec.strategies.report import RoundReport

__all__ = ["Audit", "AuditEntry", "AuditLog", "read_audit"]

VERSION = 1
_BEGINNING = b'{"flsec_audit":'
_LONGEST_SHOWN = 100


class AuditLog:
    """Write what happened in each round to a file, as ``on_verdict=`` of a strategy.

    A line holds the format's version, the time (UTC), the SHA-256 of the line before, the round's report in the form
    that ``rounds.jsonl`` of a run has, and the SHA-256 of itself. A line that was changed, removed or put in between
    shows when the file is read; see ``read_audit``. Whoever may write the file can cut its end, or write all of it
    anew: keep ``head`` somewhere else to notice that.

    Each line is flushed to the disk before the next round begins. A file that exists is continued, and its chain with
    it; a last line that a crash cut off stays as it is. Texts that clients wrote are escaped, so that none of them can
    begin a line.

    Args:
        path: the file. It is made if it is not there, readable and writable by its owner alone; its folder must exist.

    Attributes:
        head: the SHA-256 of the last line, in hexadecimal; None before the first.

    Raises:
        ConfigError: the file cannot be written, is something else than an audit log, or another ``AuditLog`` is
            writing it.

    A line that cannot be written, on a full disk say, ends the run with Python's ``OSError``: no round goes unrecorded
    without a word.

    Example:
        >>> import tempfile
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Krum, RoundReport
        >>> path = Path(tempfile.mkdtemp()) / "audit.jsonl"
        >>> audit = AuditLog(path)
        >>> strategy = Krum(FedAvg(), num_byzantine=2, on_verdict=audit)
        >>> audit(RoundReport(round=1, quarantined=(), verdicts=(), kept_previous_model=None, seconds={"parse": 0.1}))
        >>> audit.close()
        >>> [report.round for report in read_audit(path).reports], read_audit(path).problems
        ([1], ())
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        new = not self.path.exists()
        try:
            # O_APPEND: the system puts each write at the end, whoever else has the file open
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
        except OSError as error:
            raise ConfigError(
                f"audit log: cannot write to {str(self.path)!r}: {error.strerror}. Name a file in a folder that is "
                "there and that you may write to, such as AuditLog('audit.jsonl').",
                parameter="path",
            ) from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                f"audit log: {str(self.path)!r} is being written by another AuditLog. Give each server a file of its "
                "own, or end the other one.",
                parameter="path",
            ) from None
        try:
            self.head = _head_of(self.path)
        except ConfigError:
            self._file.close()
            raise
        if new:
            _flush_folder(self.path.parent)

    def __call__(self, report: RoundReport, *, model_sha256: str | None = None) -> None:
        """Append a round's report.

        Args:
            report: the round's.
            model_sha256: of the model after the round, where whoever calls this knows it.

        Raises:
            OSError: it cannot be written, or the file was removed.
            ValueError: the log is closed.
        """
        entry = {
            "flsec_audit": VERSION,
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "previous": self.head,
            "model_sha256": model_sha256,
            **record_of(report),
        }
        line = _signed(entry)
        if not os.fstat(self._file.fileno()).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "the audit log was removed while it was written", str(self.path))
        self._write((b"" if self._at_start_of_line() else b"\n") + line + b"\n")
        self.head = _digest(line)

    def close(self) -> None:
        """Give the file back; a log that is closed cannot be written any more."""
        self._file.close()

    def __enter__(self) -> "AuditLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_start_of_line(self) -> bool:
        """Whether the file is empty or ends with a whole line: a crash or a full disk may have cut one off."""
        size = os.fstat(self._file.fileno()).st_size
        return size == 0 or os.pread(self._file.fileno(), 1, size - 1) == b"\n"

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())


@dataclass(frozen=True)
class AuditEntry:
    """One line of an audit log.

    Attributes:
        line: its number in the file, from 1.
        time: when it was written, in ISO 8601 with the offset of UTC.
        report: what happened in the round. What its notes held that JSON has not is text or a list.
        model_sha256: of the model after the round; None where it was not told.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "audit.jsonl"
        >>> with AuditLog(path) as audit:
        ...     audit(RoundReport(7, (), (), "nobody replied", {}))
        >>> entry = read_audit(path).entries[0]
        >>> entry.line, entry.report.round, entry.report.kept_previous_model
        (1, 7, 'nobody replied')
    """

    line: int
    time: str
    report: RoundReport
    model_sha256: str | None


@dataclass(frozen=True)
class Audit:
    """What an audit log tells.

    Attributes:
        entries: the lines that are whole, in the order of the file.
        problems: what is wrong with the file, a sentence each: lines that cannot be read, and places where the chain
            breaks. Empty: every line is as it was written, and none is missing before the last.
        head: the SHA-256 of the last whole line, as ``AuditLog.head``; None if there is none.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "audit.jsonl"
        >>> with AuditLog(path) as log:
        ...     log(RoundReport(1, (), (), None, {}))
        >>> audit = read_audit(path)
        >>> len(audit.entries), audit.problems, audit.head == log.head
        (1, (), True)
    """

    entries: tuple[AuditEntry, ...]
    problems: tuple[str, ...]
    head: str | None

    @property
    def reports(self) -> tuple[RoundReport, ...]:
        """The rounds, in the order of the file; a server that began anew begins anew here too."""
        return tuple(entry.report for entry in self.entries)


def read_audit(path: str | os.PathLike[str]) -> Audit:
    """Return what an audit log tells, and what is wrong with it.

    A damaged line costs itself alone. The last line may have been cut off by a crash; that is said as well.

    Args:
        path: the file. It may be one that a server is writing.

    Raises:
        ConfigError: there is no such file, or it is something else than an audit log.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "audit.jsonl"
        >>> with AuditLog(path) as audit:
        ...     for number in (1, 2, 3):
        ...         audit(RoundReport(number, (), (), None, {}))
        >>> _ = path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[::2]))  # round 2 is taken out
        >>> read_audit(path).problems
        ('line 2: the chain breaks: it does not follow line 1; lines between them were removed or changed.',)
    """
    entries: list[AuditEntry] = []
    problems: list[str] = []
    head: str | None = None
    before = "the beginning"
    for number, line, whole in _lines(Path(path)):
        try:
            previous, entry = _read(number, line)
        except ValueError as error:
            cut = "" if whole else "; it is the last one, and may have been cut off while it was written"
            problems.append(f"line {number}: cannot be read{cut}: {error}")
            continue
        if previous != head:
            problems.append(
                f"line {number}: the chain breaks: it does not follow {before}; lines between them were removed or "
                "changed."
            )
        entries.append(entry)
        head, before = _digest(line), f"line {number}"
    return Audit(tuple(entries), tuple(problems), head)


def _read(number: int, line: bytes) -> tuple[str | None, AuditEntry]:
    """Return what a line says of the one before, and what it tells; raise ``ValueError`` if it is not as written."""
    if not _is_sound(line):
        raise ValueError("it is not as it was written")
    try:
        record = json.loads(line)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if record.get("flsec_audit") != VERSION:
        raise ValueError(f"it is of version {record.get('flsec_audit')}, and this flsec reads version {VERSION}")
    return record.get("previous"), AuditEntry(
        number, str(record.get("time")), report_of(record), record.get("model_sha256")
    )


def _head_of(path: Path) -> str | None:
    """Return the digest of the last whole line of a file."""
    head = None
    for _, line, _ in _lines(path):
        if _is_sound(line):
            head = _digest(line)
    return head


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Yield (number, line, whether it has an end) of an audit log's lines."""
    try:
        with path.open("rb") as file:
            known = False  # as an audit log; what comes before its first line can be that line's cut-off beginning only
            for number, line in enumerate(file, start=1):  # only \n ends a line of bytes
                known = known or line.startswith(_BEGINNING)
                if not known and (line == b"\n" or not _BEGINNING.startswith(line.rstrip(b"\n"))):
                    raise ConfigError(
                        f"{str(path)!r} is no audit log: it begins with {line[:_LONGEST_SHOWN]!r}. Name the file that "
                        "an AuditLog wrote, or a new one.",
                        parameter="path",
                    )
                yield number, line.rstrip(b"\n"), line.endswith(b"\n")
    except OSError as error:
        raise ConfigError(
            f"audit log: cannot read {str(path)!r}: {error.strerror}. Name the file that an AuditLog wrote.",
            parameter="path",
        ) from None


def _signed(entry: dict[str, Any]) -> bytes:
    """Return an entry as a line without its end: ASCII, so that no text in it can end a line."""
    body = json.dumps(entry, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + _seal(body)


def _is_sound(line: bytes) -> bool:
    """Whether a line is as it was written, by its own digest."""
    length = len(_seal(b""))
    return line.startswith(_BEGINNING) and line[-length:] == _seal(line[:-length])


def _seal(body: bytes) -> bytes:
    return b',"sha256":"%s"}' % _digest(body).encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _flush_folder(folder: Path) -> None:
    """Have the disk remember that a file was made."""
    with contextlib.suppress(OSError):  # not every file system lets a folder be flushed
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
