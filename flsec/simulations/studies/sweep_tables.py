"""What the terminal shows of a sweep: means with their spread, over one or two of its axes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flsec.simulations.studies.sweep import Spread, Sweep, measures, shown_axes, spreads

__all__ = ["Grid", "grids"]


@dataclass(frozen=True)
class Grid:
    """A table of two axes.

    Attributes:
        title: which measure, and what the numbers are.
        axes: what the rows are, and what the columns.
        rows: labels.
        columns: labels.
        cells: {(row, column): text}; what was not measured is missing.
    """

    title: str
    axes: tuple[str, str]
    rows: Sequence[str]
    columns: Sequence[str]
    cells: Mapping[tuple[str, str], str]


def grids(sweep: Sweep, rows: Sequence[dict[str, Any]]) -> Iterator[Grid]:
    """Yield the tables of a sweep: of one axis all measures in one, of two axes one for each measure."""
    axes = shown_axes(sweep)
    shown = list(measures(rows))
    if len(axes) == 1:
        cells = {
            (label, _words(measure)): value
            for measure in shown
            for (label,), value in spreads(rows, axes, measure).items()
        }
        yield _grid(sweep, sweep.name, axes, [_words(measure) for measure in shown], cells)
        return
    for measure in shown:
        found = {(row, column): value for (row, column), value in spreads(rows, axes, measure).items()}
        yield _grid(sweep, f"{sweep.name}: {_words(measure)}", axes, sweep.axes[axes[1]], found)


def _grid(
    sweep: Sweep, title: str, axes: Sequence[str], columns: Sequence[str], values: Mapping[tuple[str, str], Spread]
) -> Grid:
    counts = sorted({value.runs for value in values.values()})
    if counts and counts[-1] > 1:
        over = ", ".join(axis for axis, labels in sweep.axes.items() if axis not in axes and len(labels) > 1)
        n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        title += f", mean ± standard deviation (n = {n}, over {over})"
    return Grid(
        title,
        (axes[0], axes[1] if len(axes) > 1 else "measure"),
        sweep.axes[axes[0]],
        columns,
        {place: str(value) for place, value in values.items()},
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
