"""What a run or a server came to, round by round, read from what it has left behind; the command ``flsec report``."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from flsec.errors import ConfigError

__all__ = ["Told", "report", "told_by"]


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
    from flsec.simulations.run_folder import RunFolder
    from flsec.strategies._report_record import report_of
    from flsec.strategies._round_line import round_line

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
    from flsec.strategies._round_line import round_line
    from flsec.strategies.audit_log import read_audit

    audit = read_audit(path)
    lines = [f"{entry.time} {round_line(entry.report, {})}" for entry in audit.entries]
    return Told(tuple(lines), audit.problems)


# --- the command --------------------------------------------------------------------------------------------------


def report(
    paths: Annotated[
        list[Path], typer.Argument(help="Folders of runs, sweeps, studies, or audit logs, such as runs/quickstart.")
    ],
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page to look at into this file instead; needs the extra 'report'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records of all rounds as JSON.")] = False,
) -> None:
    """Replay runs and audit logs, a line a round, or as an HTML page; fail if an audit log is damaged.

    Example: flsec report runs/quickstart --html report.html
    """
    if as_json and html is not None:
        raise ConfigError("flsec report writes a page with --html, or prints JSON with --json: leave one of them out.")
    if html is not None:
        problems = _write_page(paths, html)
    else:
        problems = _print_json(paths) if as_json else _print_lines(paths)
    for path, problem in problems:
        typer.secho(f"{path}: {problem}", fg="red", err=True)
    raise typer.Exit(1 if problems else 0)


Problems = list[tuple[Path, str]]


def _write_page(paths: Sequence[Path], target: Path) -> Problems:
    from flsec.simulations.pages.report_page import write_report

    found = write_report(paths, target)
    typer.echo(f"Page: {target}")
    return [(run.path, problem) for run in found.runs for problem in run.problems]


def _print_json(paths: Sequence[Path]) -> Problems:
    from flsec.simulations.studies.reconstruct_results import read_rows
    from flsec.simulations.studies.run_set import RunSet, run_folders, study_folders
    from flsec.strategies._report_record import as_json

    studies = [study for path in paths for study in study_folders(path)]
    found = RunSet.read([path for path in paths if run_folders(path) or not study_folders(path)])
    everything: list[dict[str, Any]] = [
        {
            "path": str(run.path),
            "config": as_json(run.config),
            "rounds": as_json(run.rounds),
            "problems": list(run.problems),
        }
        for run in found.runs
    ]
    everything += [{"path": str(study), "rows": as_json(read_rows(study))} for study in studies]
    typer.echo(json.dumps(everything, indent=2, allow_nan=False))
    return [(run.path, problem) for run in found.runs for problem in run.problems]


def _print_lines(paths: Sequence[Path]) -> Problems:
    from rich.console import Console

    from flsec.simulations.studies.reconstruct_results import leakage_table
    from flsec.simulations.studies.run_set import run_folders, study_folders

    problems: Problems = []
    for path in paths:
        for study in study_folders(path):
            Console(emoji=False).print(leakage_table(study))
        for one in run_folders(path) or ([] if study_folders(path) else [path]):
            told = told_by(one)
            typer.echo(f"{one}: {len(told.lines)} rounds")
            for line in told.lines:
                typer.echo(f"  {line}")
            problems += [(one, problem) for problem in told.problems]
    return problems
