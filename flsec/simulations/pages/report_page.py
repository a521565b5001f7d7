"""The report of runs, sweeps, reconstructions and audit logs as one HTML page of bounded size."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from flsec.errors import ConfigError
from flsec.simulations.pages.comparison import comparison_parts, runs_table
from flsec.simulations.pages.page import Fold, Part, Section, Text, write_page
from flsec.simulations.pages.reconstruction_parts import reconstruction_parts
from flsec.simulations.pages.run_parts import Room, run_parts
from flsec.simulations.studies.run_set import RunSet, run_folders, study_folders

__all__ = ["write_report"]

# With the room of each run, what keeps the page under 5 MB: runs told in detail, bytes of pictures.
_MOST_RUNS = 200
_MOST_BYTES = 1_500_000
_ALL_OPEN = 2  # so many runs are told without a click


def write_report(paths: Sequence[Path], target: Path) -> RunSet:
    """Write the report.

    Args:
        paths: folders of runs, of sweeps and of reconstructions, audit logs.
        target: the HTML file.

    Returns:
        The runs that it tells of.

    Raises:
        ConfigError: one of them is something else, or what draws pages is not installed.
    """
    studies = [study for path in paths for study in study_folders(path)]
    found = RunSet.read([path for path in paths if run_folders(path) or not study_folders(path)])
    if not studies and not found.runs:
        raise ConfigError("there is nothing to report yet: no run has a record. Wait for the first round.")
    sections = [*_overview(found), *_comparisons(found), *_details(found)]
    for number, path in enumerate(studies):
        parts = reconstruction_parts(path, number, _MOST_BYTES // len(studies))
        sections.append(Section(f"Reconstruction: {path.name}", parts))
    write_page(target, _title(found, studies), sections, lead=f"flsec {metadata.version('flsec')}")
    return found


def _title(found: RunSet, studies: Sequence[Path]) -> str:
    names = [run.name for run in found.runs] + [path.name for path in studies]
    return f"Report: {names[0]}" if len(names) == 1 else f"Report of {len(names)} runs"


def _overview(found: RunSet) -> list[Section]:
    if not found.runs:
        return []
    problems = [Text(f"{run.name}: {problem}", "warning") for run in found.runs for problem in run.problems]
    return [Section("Runs", [*problems, runs_table(found)])]


def _comparisons(found: RunSet) -> list[Section]:
    scenarios = found.scenarios
    if len(scenarios) == 1:
        return [Section("Accuracy and attacks", comparison_parts(scenarios[0], 0))]
    parts: list[Part] = [
        Fold(scenario.title, comparison_parts(scenario, number), opened=number < _ALL_OPEN)
        for number, scenario in enumerate(scenarios)
    ]
    return [Section("Accuracy and attacks", parts)] if parts else []


def _details(found: RunSet) -> list[Section]:
    shown = found.runs[:_MOST_RUNS]
    if not shown:
        return []
    room = Room.for_each_of(len(shown))
    if len(shown) == 1:
        return [Section("Clients and rounds", run_parts(shown[0], 0, room))]
    parts: list[Part] = []
    if len(shown) < len(found.runs):
        parts.append(
            Text(f"Shown in detail are {len(shown)} of {len(found.runs)} runs; name fewer to see others.", "note")
        )
    for number, run in enumerate(shown):
        labels = found.places[id(run)][1] if run.config else ()
        title = ": ".join([run.name, *([", ".join(labels)] if labels else [])])
        parts.append(Fold(title, run_parts(run, number, room), opened=len(shown) <= _ALL_OPEN))
    return [Section("Clients and rounds", parts)]
