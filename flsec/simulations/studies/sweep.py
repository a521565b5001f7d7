"""Many runs from one file: a grid of settings over one experiment, resumable, one row a run."""

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from safetensors.numpy import load_file

from flsec._files import replacing
from flsec.errors import ConfigError
from flsec.metrics.paired import cost_of_defense, damage, l1_distance
from flsec.simulations._frames import import_pandas
from flsec.simulations.config import Check, apply_override, load_config, make_config, resolve_experiment
from flsec.simulations.plots import plot_curves, plot_heatmap
from flsec.simulations.problems import (
    Findings,
    Origin,
    Problem,
    SettingsError,
    as_yaml_text,
    blame_parameter,
    nearest,
    say_where,
)
from flsec.simulations.run_names import check_folder_name
from flsec.simulations.schema import Config
from flsec.simulations.studies.missing_runs import earlier_run, finish_run, is_finished
from flsec.simulations.studies.statements import interval
from flsec.simulations.yaml_lines import read

if TYPE_CHECKING:
    import pandas

__all__ = ["Cell", "Spread", "Sweep", "load_sweep", "measures", "run_sweep", "shown_axes", "spreads"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        labels: {axis: label}, its place in the grid.
        config: the experiment with this cell's settings.
    """

    labels: Mapping[str, str]
    config: Config

    @property
    def name(self) -> str:
        """The run's folder."""
        return self.config.name


@dataclass(frozen=True)
class Sweep:
    """A grid of runs.

    Attributes:
        name: of the sweep and its folder.
        axes: {axis: its labels}, in the file's order.
        cells: every combination; the last axis varies fastest.
        marks: {what: number on the axis}, drawn where the sweep has one axis.
    """

    name: str
    axes: Mapping[str, tuple[str, ...]]
    cells: tuple[Cell, ...]
    marks: Mapping[str, float]

    @property
    def folder(self) -> Path:
        """Where the runs and the table go."""
        return Path(self.cells[0].config.output.folder)

    def frame(self) -> "pandas.DataFrame":
        """Return the finished runs as a pandas DataFrame: a row a run, as in ``results.csv``.

        The axes come first, as text; a measure that a run does not have is NaN. No row where nothing is finished.

        Raises:
            ConfigError: pandas is not installed.

        Example:
            >>> sweep.frame().groupby("defense")["accuracy"].mean()  # doctest: +SKIP
        """
        pandas = import_pandas("Sweep.frame()")
        finished = [cell for cell in self.cells if is_finished(self.folder / cell.name)]
        rows = _rows(self, finished)
        return pandas.DataFrame(rows, columns=list(dict.fromkeys([*self.axes, *itertools.chain.from_iterable(rows)])))


def load_sweep(path: str | Path, overrides: Sequence[str] = (), further: Sequence[Check] = ()) -> Sweep:
    """Read a sweep and check every one of its runs.

    The file has ``experiment``, an experiment as for ``flsec run`` or the name of one, and ``vary``, the axes. An axis
    is a list of values for the setting of that name (``seed: [1, 2]``, ``defenses[0].k: [0.01, 0.1]``), or a mapping of
    labels to the settings that they stand for (``median: {defenses: [{name: median}]}``). ``marks`` are places on a
    single axis that its picture shows (``{Algorithm 11: 0.095}``).

    Args:
        path: of a YAML file.
        overrides: ``key.sub=value`` each, for the experiment; an axis goes before it, and ``name=`` is the sweep's.
        further: checks of each run beyond the settings themselves, such as of the data.

    Raises:
        ConfigError: something in the file, or in the runs, cannot work; what is wrong in several runs is said once.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "seeds.yaml"
        >>> _ = file.write_text("{experiment: quickstart, vary: {seed: [1, 2], training.epochs: [1, 2, 3]}}")
        >>> sweep = load_sweep(file)
        >>> len(sweep.cells), sweep.cells[0].labels
        (6, {'seed': '1', 'training.epochs': '1'})
    """
    data, lines = read(Path(path))
    origin = Origin(str(path), lines)
    names = [text for text in overrides if text.partition("=")[0].strip() == "name"]
    overrides = [text for text in overrides if text not in names]
    for text in names:
        apply_override(data, text, origin)
    with say_where(origin):
        _check_file(data)
        axes = {str(axis): _settings(str(axis), values) for axis, values in data["vary"].items()}
        name = data.get("name", Path(path).stem.removesuffix(".sweep"))
    cells, wrong, total = list[Cell](), dict[str, list[str]](), 0
    for chosen in itertools.product(*(settings.items() for settings in axes.values())):
        labels = dict(zip(axes, (label for label, _ in chosen), strict=True))
        settings = {key: value for _, entry in chosen for key, value in entry.items()}
        total += 1
        try:
            cells.append(Cell(labels, _config(name, data["experiment"], origin, overrides, labels, settings, further)))
        except ConfigError as error:
            for message in getattr(error, "messages", [str(error)]):
                wrong.setdefault(message, []).append(_run_name(labels))
    if wrong:
        raise SettingsError([f"{path}: {_of_runs(runs, total)}: {text}" for text, runs in wrong.items()], None)
    folders = [cell.name for cell in cells]
    if len(set(folders)) < len(folders):
        twice = next(folder for folder in folders if folders.count(folder) > 1)
        raise ConfigError(f"{path}: two runs would be called {twice!r}. Give the axes' labels different names.")
    named = {axis: tuple(settings) for axis, settings in axes.items()}
    return Sweep(name, named, tuple(cells), data.get("marks") or {})


def _of_runs(runs: Sequence[str], total: int) -> str:
    if len(runs) == 1:
        return f"the run {runs[0]}"
    if len(runs) == total:
        return f"all {total} runs"
    shown = ", ".join(runs[:_MOST_SHOWN])
    return f"the runs {shown}" + (f" and {len(runs) - _MOST_SHOWN} others" if len(runs) > _MOST_SHOWN else "")


_MOST_SHOWN = 6


def _check_file(data: Mapping[str, Any]) -> None:
    findings = Findings()
    for key in data:
        if key not in _KEYS:
            findings.add(Problem((key,), f"no such key.{nearest(key, _KEYS)} Legal: {', '.join(_KEYS)}."))
    for check in (_check_keys, _check_marks):
        with findings:
            check(data)
    if "name" in data:
        with findings:
            _check_name(data["name"])
    for axis, values in data["vary"].items() if isinstance(data.get("vary"), dict) else ():
        with findings:
            _settings(str(axis), values)
    findings.raise_all()


def _check_keys(data: Mapping[str, Any]) -> None:
    for key, example in (("experiment", "quickstart"), ("vary", "{seed: [1, 2]}")):
        if not data.get(key):
            raise Problem((key,), f"is missing; a sweep needs it. For example: {key}: {example}")
    if not isinstance(data["experiment"], dict | str):
        raise Problem(
            ("experiment",), f"must be an experiment or the name of one; got {as_yaml_text(data['experiment'])}."
        )
    if not isinstance(data["vary"], dict):
        raise Problem(
            ("vary",), f"must map axes to values; got {as_yaml_text(data['vary'])}. For example: {{seed: [1, 2]}}"
        )


def _check_marks(data: Mapping[str, Any]) -> None:
    marks = data.get("marks") or {}
    if not isinstance(marks, dict) or not all(type(place) in (int, float) for place in marks.values()):
        raise Problem(
            ("marks",), f"must map names to numbers; got {as_yaml_text(marks)}. For example: {{Algorithm 11: 0.095}}"
        )


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise Problem(("name",), f"must be str; got {as_yaml_text(name)}. For example: name: trade_off")
    blame_parameter(("name",), (), check_folder_name, name)


_KEYS = ("name", "experiment", "vary", "marks")


def _settings(axis: str, values: Any) -> dict[str, dict[str, Any]]:
    """Return {label: {setting: value}} of one axis."""
    if isinstance(values, list) and values:
        return {_label(value): {axis: value} for value in values}
    if isinstance(values, dict) and values and all(isinstance(entry, dict) for entry in values.values()):
        return {str(label): entry for label, entry in values.items()}
    raise Problem(
        ("vary", axis),
        "must be a list of values, or a mapping of labels to settings; got "
        f"{as_yaml_text(values)}. For example: median: {{defenses: [{{name: median}}]}}",
    )


def _label(value: Any) -> str:
    return str(value) if isinstance(value, str | int | float | bool) else json.dumps(value)


def _config(
    sweep: str,
    experiment: Any,
    origin: Origin,
    overrides: Sequence[str],
    labels: Mapping[str, str],
    settings: Mapping[str, Any],
    further: Sequence[Check],
) -> Config:
    """Return one run's configuration."""
    if isinstance(experiment, str):
        data = load_config(resolve_experiment(experiment)).to_dict()
        place = Origin(experiment)
    else:
        data = json.loads(json.dumps(experiment))  # a copy
        inside = {path[1:]: line for path, line in origin.lines.items() if path[0] == "experiment" and path[1:]}
        place = Origin(origin.file, inside)
    for text in overrides:
        apply_override(data, text, place)
    for key, value in settings.items():
        apply_override(data, f"{key}={json.dumps(value)}", place)
    output = data.get("output") or {}
    if isinstance(output, dict) and isinstance(output.get("folder", ""), str):  # else that is what is wrong
        output = {**output, "folder": str(Path(output.get("folder", "runs")) / sweep)}
    return make_config({**data, "name": _run_name(labels), "output": output}, place, further)


def _run_name(labels: Mapping[str, str]) -> str:
    return "-".join(_as_file_name(label) for label in labels.values())


def _as_file_name(label: str) -> str:
    return "".join(char if char.isalnum() or char in "._+" else "_" for char in label)


def run_sweep(
    sweep: Sweep,
    *,
    on_cell: Callable[[int, Cell], Callable[[dict[str, Any]], None]] = lambda number, cell: lambda record: None,
    verbose: bool = False,
) -> list[Row]:
    """Run what has not been run yet, and write the table after every run.

    A finished run is taken as it is, one that was stopped goes on from its last checkpoint, so that the same command
    again goes on with the sweep. One process at a time: a run that another process is at work on is refused.
    ``results.csv`` has one row a run; ``*.png`` show the measures over the grid.

    Args:
        sweep: the runs.
        on_cell: called with a run's number, from 0, and the run; returns what is called with each of its rounds.
        verbose: also show Flower's and Ray's messages on the terminal.

    Returns:
        The rows of ``results.csv``.

    Raises:
        ConfigError: the folder holds a run of the same name with other settings.
        Interrupted: the user stopped it.
    """
    for cell in sweep.cells:
        earlier_run(cell.config)
    rows: list[Row] = []
    for number, cell in enumerate(sweep.cells):
        finish_run(cell.config, on_round=on_cell(number, cell), verbose=verbose)
        rows = _rows(sweep, sweep.cells[: number + 1])
        _write(sweep.folder / "results.csv", rows)
    _plot(sweep, rows)
    return rows


# --- the table ------------------------------------------------------------------------------------------------


def _rows(sweep: Sweep, cells: Sequence[Cell]) -> list[Row]:
    summaries = {cell.name: json.loads((sweep.folder / cell.name / "summary.json").read_text()) for cell in cells}
    return [_row(sweep, cell, cells, summaries) for cell in cells]


def _row(sweep: Sweep, cell: Cell, cells: Sequence[Cell], summaries: Mapping[str, Any]) -> Row:
    summary = summaries[cell.name]
    row: Row = {**cell.labels, "accuracy": summary["accuracy"], "best_accuracy": summary["best_accuracy"]}
    row |= {"loss": summary["loss"], **summary["measures"]}
    for measure, values in summary["attack"].items():
        row |= {measure: values["last"], f"{measure}_mean": values["mean"], f"{measure}_max": values["max"]}
    if "outsized_impact_factor" in summary:
        row["outsized_impact_factor"] = summary["outsized_impact_factor"]
    for rates in list(summary["detection"].values())[-1:]:  # of the innermost judge
        row |= {rate: rates[rate] for rate in ("precision", "recall", "false_positive_rate")}
    if (twin := _twin(cell, cells, attacks=(), adversaries=None)) is not None and cell.config.attacks:
        row["damage"] = damage(summary["accuracy"], summaries[twin.name]["accuracy"])
        row["l1_to_attack_free"] = l1_distance(
            *(load_file(sweep.folder / c.name / "model.safetensors") for c in (cell, twin))
        )
    if (twin := _twin(cell, cells, defenses=())) is not None and cell.config.defenses and not cell.config.attacks:
        row["cost_of_defense"] = cost_of_defense(summary["accuracy"], summaries[twin.name]["accuracy"])
    row["rounds_that_kept_the_previous_model"] = summary["rounds_that_kept_the_previous_model"]
    return {**row, "seconds": summary["seconds"], "folder": cell.name}


def _twin(cell: Cell, cells: Sequence[Cell], **changed: Any) -> Cell | None:
    """Return the run that differs in nothing but ``changed``."""
    wanted = cell.config.model_copy(update={**changed, "name": ""})
    return next((other for other in cells if other.config.model_copy(update={"name": ""}) == wanted), None)


def _write(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    for late in ("rounds_that_kept_the_previous_model", "seconds", "folder"):
        columns.remove(late)
        columns.append(late)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def measures(rows: Sequence[Row]) -> Iterator[str]:
    """Yield what is worth a picture or a table of its own: accuracy, and how far attacks reached their goals."""
    yield "accuracy"
    for column in dict.fromkeys(itertools.chain.from_iterable(rows)):
        if f"{column}_max" in {key for row in rows for key in row}:
            yield column


class Spread(NamedTuple):
    """A measure over several runs.

    Attributes:
        mean: of the runs.
        deviation: standard deviation of the runs, with n - 1; None for one run.
        runs: n.
    """

    mean: float
    deviation: float | None
    runs: int

    def __str__(self) -> str:
        return f"{self.mean:.4f}" if self.deviation is None else f"{self.mean:.3f} ± {self.deviation:.3f}"


def spreads(rows: Sequence[Row], axes: Sequence[str], measure: str) -> dict[tuple[str, ...], Spread]:
    """Return {labels on these axes: a measure over all others}; rows without the measure do not count.

    Example:
        >>> rows = [{"seed": "1", "accuracy": 0.5}, {"seed": "2", "accuracy": 0.7}]
        >>> str(spreads(rows, [], "accuracy")[()])
        '0.600 ± 0.141'
    """
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.get(measure) is not None:
            found.setdefault(tuple(row[axis] for axis in axes), []).append(float(row[measure]))
    return {
        labels: Spread(fmean(values), stdev(values) if len(values) > 1 else None, len(values))
        for labels, values in found.items()
    }


def shown_axes(sweep: Sweep) -> list[str]:
    """Return the one or two axes that a table shows; seeds are averaged over if they can be."""
    axes = [axis for axis, labels in sweep.axes.items() if len(labels) > 1 and axis != "seed"]
    return (axes or list(sweep.axes))[:2]


def _plot(sweep: Sweep, rows: Sequence[Row]) -> None:
    axes = shown_axes(sweep)
    if len(axes) == 1:
        series = {m: {labels[0]: v.mean for labels, v in spreads(rows, axes, m).items()} for m in measures(rows)}
        plot_curves(series, sweep.folder / f"{_as_file_name(axes[0])}.png", sweep.name, axes[0], sweep.marks)
        return
    for measure in measures(rows):
        values = {labels: spread.mean for labels, spread in spreads(rows, axes, measure).items()}
        table = [[values.get((row, column)) for column in sweep.axes[axes[1]]] for row in sweep.axes[axes[0]]]
        halves = _halves(rows, axes, measure)
        spread = [[halves.get((row, column)) for column in sweep.axes[axes[1]]] for row in sweep.axes[axes[0]]]
        plot_heatmap(table, sweep.axes[axes[0]], sweep.axes[axes[1]], sweep.folder / f"{measure}.png", measure, spread)


def _halves(rows: Sequence[Row], axes: Sequence[str], measure: str) -> dict[tuple[str, ...], float]:
    """Return {labels on these axes: half the 95 % interval over seeds}, where nothing but the seed is averaged over."""
    if any(len({row[axis] for row in rows}) > 1 for axis in _other_axes(rows, axes)):
        return {}
    found: dict[tuple[str, ...], list[float]] = {}
    for row in rows:
        if row.get(measure) is not None:
            found.setdefault(tuple(row[axis] for axis in axes), []).append(float(row[measure]))
    ends = {labels: interval(values) for labels, values in found.items()}
    return {labels: (end[1] - end[0]) / 2 for labels, end in ends.items() if end is not None}


def _other_axes(rows: Sequence[Row], axes: Sequence[str]) -> list[str]:
    return [axis for axis in itertools.takewhile(lambda key: key != "accuracy", rows[0]) if axis not in (*axes, "seed")]
