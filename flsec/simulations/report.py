"""What a run or a server came to, round by round, read from what it has left behind."""

from dataclasses import dataclass
from pathlib import Path

from flsec.errors import ConfigError
from flsec.simulations.run_folder import RunFolder
from flsec.strategies._report_record import report_of
from flsec.strategies._round_line import round_line
from flsec.strategies.audit_log import read_audit

__all__ = ["Told", "told_by"]


@dataclass(frozen=True)
class Told:
    """What a run's folder or an audit log tells.

    Attributes:
        lines: one a round, as the server's log had it, with what the folder or the log adds.
        problems: what is wrong with it, a sentence each.
    """

    lines: tuple[str, ...]
    problems: tuple[str, ...] = ()


def told_by(path: Path) -> Told:
    """Replay a run's folder (simulation or deployment), or the audit log of a server of one's own.

    Args:
        path: the folder that ``flsec run`` printed, or the file of ``AuditLog``.

    Raises:
        ConfigError: it is neither, or was written before rounds were recorded as they are now.
    """
    return _of_folder(path) if path.is_dir() else _of_audit_log(path)


def _of_folder(path: Path) -> Told:
    lines = []
    for record in RunFolder.open(path).rounds():
        if record["round"] == 0:
            continue
        try:
            line = round_line(report_of(record), {})
        except ValueError as error:
            raise ConfigError(
                f"{str(path)!r}: round {record['round']}: {error}. It is of an earlier flsec; run it again to have it "
                "reported."
            ) from None
        accuracy = record.get("accuracy")
        lines.append(line if accuracy is None else f"{line} | test accuracy {accuracy:.4f}")
    return Told(tuple(lines))


def _of_audit_log(path: Path) -> Told:
    audit = read_audit(path)
    lines = [f"{entry.time} {round_line(entry.report, {})}" for entry in audit.entries]
    return Told(tuple(lines), audit.problems)
