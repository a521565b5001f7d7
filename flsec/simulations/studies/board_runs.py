"""Running what a board still lacks: a cell is one line of a file, so that the same command again goes on."""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from statistics import mean, median
from typing import Any

from flsec._files import append_line
from flsec._lock import FolderLock
from flsec.errors import ConfigError, NoProgressError
from flsec.simulations import engine
from flsec.simulations.config import make_config
from flsec.simulations.records import summarise
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.schema import Config
from flsec.simulations.studies.board import Cell, Place
from flsec.simulations.studies.missing_runs import one_thread
from flsec.simulations.studies.workers import worker_pool

__all__ = ["LAST_ROUNDS", "Line", "estimated", "lines_at", "lines_of", "missing_cells", "run_cells"]

LAST_ROUNDS = 3  # whose mean is a run's final accuracy
Line = dict[str, Any]


def lines_of(path: Path) -> dict[tuple[Place, str], Line]:
    """Return the cells in a file by place and settings; a last line that was cut off does not count.

    Raises:
        ConfigError: the file is no file of cells.
    """
    found = {}
    text = path.read_text().split("\n") if path.is_file() else [""]
    for number, written in enumerate(text[:-1]):
        try:
            line = json.loads(written)
            found[_place(line), line["settings"]] = line
        except (ValueError, KeyError, TypeError):
            raise ConfigError(f"{path}:{number + 1} is no cell of a board. Remove the line, or the file.") from None
    return found


def _place(line: Mapping[str, Any]) -> Place:
    return Place(*(line[key] for key in Place.__dataclass_fields__))


def missing_cells(cells: Iterable[Cell], known: Mapping[tuple[Place, str], Line]) -> list[Cell]:
    """Return the runs that are not in a file yet, or were made with other settings."""
    return [cell for cell in cells if (cell.place, cell.settings) not in known]


def lines_at(cells: Iterable[Cell], known: Mapping[tuple[Place, str], Line]) -> list[Line]:
    """Return the lines of cells, as far as they are there."""
    return [known[cell.place, cell.settings] for cell in cells if (cell.place, cell.settings) in known]


def estimated(cells: Sequence[Cell], known: Mapping[tuple[Place, str], Line], *, jobs: int = 1) -> dict[Place, float]:
    """Return the seconds that each cell will take on one thread.

    As many as an earlier run with another seed took, else as one round takes times the number of rounds.
    """
    seconds = {place.any_seed: line["seconds"] for (place, _), line in known.items() if line["seconds"] is not None}
    new = {cell.place.any_seed: cell for cell in cells if cell.config and cell.place.any_seed not in seconds}
    for cell, line in _outcomes(list(new.values()), jobs, _probe):
        seconds[cell.place.any_seed] = line["seconds"]
    return {cell.place: seconds.get(cell.place.any_seed, 0.0) for cell in cells}


def run_cells(
    cells: Sequence[Cell],
    path: Path,
    *,
    jobs: int = 1,
    machinery: Mapping[str, Any] | None = None,
    on_line: Callable[[Cell, Line], None] = lambda cell, line: None,
) -> None:
    """Run cells, and add a line to the file after each.

    Args:
        cells: in the order in which they are begun; the longest first waste least time at the end.
        path: the file; one process at a time.
        jobs: processes, with one thread each; the same numbers with any number of them.
        machinery: changes of ``simulation`` that change no number, such as ``{"engine": "pooled"}``.
        on_line: called with each cell and its line.

    Raises:
        ConfigError: another process is at work on the file.
        KeyboardInterrupt: the user stopped it; what was run so far is in the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with FolderLock(path.parent).held():
        _cut_off_torn_line(path)
        for cell, line in _outcomes([_on(cell, machinery or {}) for cell in cells], jobs, _run):
            append_line(path, json.dumps({**_told(cell), **line}))
            on_line(cell, line)


def _cut_off_torn_line(path: Path) -> None:
    if path.is_file() and not (data := path.read_bytes()).endswith(b"\n") and data:
        path.write_bytes(data[: data.rfind(b"\n") + 1])


def _on(cell: Cell, machinery: Mapping[str, Any]) -> Cell:
    if cell.config is None or not machinery:
        return cell
    simulation = cell.config.simulation.model_copy(update=dict(machinery))
    return Cell(cell.place, cell.config.model_copy(update={"simulation": simulation}), cell.settings)


def _told(cell: Cell) -> Line:
    return {**vars(cell.place), "settings": cell.settings}


def _outcomes(
    cells: Sequence[Cell], jobs: int, function: Callable[[dict[str, Any]], Line]
) -> Iterator[tuple[Cell, Line]]:
    """Yield each cell with what the function makes of its configuration, as they come."""
    if jobs == 1:
        for cell in cells:
            yield cell, _refused(cell) if cell.config is None else function(cell.config.to_dict())
        return
    queue, waiting = list(reversed(cells)), dict[Future[Line], Cell]()
    with worker_pool(jobs) as pool:
        while queue or waiting:
            while queue and len(waiting) < 2 * jobs:
                cell = queue.pop()
                if cell.config is None:
                    yield cell, _refused(cell)
                else:
                    waiting[pool.submit(function, cell.config.to_dict())] = cell
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(done), done.result()


def _refused(cell: Cell) -> Line:
    return {**_NOTHING, "refused": cell.refused}


_NOTHING: Line = {
    "accuracy": None,
    "curve": [],
    "success": None,
    "success_curve": [],
    "precision": None,
    "recall": None,
    "false_positive_rate": None,
    "kept_previous": None,
    "server_seconds": None,
    "seconds": None,
    "peak_mib": None,
    "measures": {},
    "refused": None,
    "failed": None,
}


def _probe(settings: dict[str, Any]) -> Line:
    """Return a line with what the whole run would take, by its first round."""
    simulation = {**settings["simulation"], "num_rounds": 1}
    line = _run({**settings, "simulation": simulation})
    return {**line, "seconds": (line["seconds"] or 0.0) * settings["simulation"]["num_rounds"]}


def _run(settings: dict[str, Any]) -> Line:
    """Return what a run comes to; an error of one run is its line, and stops no other."""
    _forget_peak()
    with one_thread(), tempfile.TemporaryDirectory(prefix="flsec-board-") as folder:
        config = make_config({**settings, "output": {**settings["output"], "folder": folder}})
        try:
            engine.run(config)
        except engine.Interrupted:
            raise KeyboardInterrupt from None
        except NoProgressError:  # the attack left a model that no client can use: it stays what it was
            pass
        except ConfigError as error:
            return {**_NOTHING, "refused": str(error)}
        except Exception as error:
            return {**_NOTHING, "failed": f"{type(error).__name__}: {error}"}
        rounds = RunFolder.open(Path(folder) / config.name).rounds()
        return {**_NOTHING, **_measured(config, rounds), "peak_mib": _peak()}


def _measured(config: Config, rounds: Sequence[dict[str, Any]]) -> Line:
    """Return what is kept of a run; the rounds that a broken one lacks have its last model."""
    summary = summarise(config, list(rounds))
    rounds = [*rounds, *[rounds[-1]] * (config.simulation.num_rounds + 1 - len(rounds))]
    trained = rounds[1:]
    curve = [record["accuracy"] for record in rounds]
    success = [value for record in trained for value in list(record.get("attack", {}).values())[:1]]
    judged = list(summary["detection"].values())[-1:]  # of the innermost judge
    names = {defense["name"] for record in trained for defense in record["defenses"]}
    server = [sum(time for stage, time in r["stages"].items() if stage in names) for r in trained]
    line: Line = {
        "accuracy": round(mean(curve[-LAST_ROUNDS:]), 5),
        "curve": [round(1000 * value) for value in curve],
        "success": round(mean(success[-LAST_ROUNDS:]), 5) if success and None not in success else None,
        "success_curve": [None if value is None else round(1000 * value) for value in success],
        "kept_previous": summary["rounds_that_kept_the_previous_model"],
        "server_seconds": round(median(server), 6),
        "seconds": round(summary["seconds"], 3),
        "measures": summary["measures"],
    }
    for rates in judged if config.attacks else []:
        line |= {key: rates[key] for key in ("precision", "recall", "false_positive_rate")}
    for rates in judged if not config.attacks else []:
        line["false_positive_rate"] = rates["false_positive_rate"]
    return line


def _forget_peak() -> None:
    """Let the kernel measure this process's peak memory anew, where it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak() -> float | None:
    """Return the peak memory in MiB since ``_forget_peak``, or None where the kernel does not tell."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in status if line.startswith("VmHWM")), None)
