"""Pictures of a run and of a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flsec.simulations.figure_style import figures, save_figure, shade_rounds
from flsec.simulations.readable_names import readable_measure

__all__ = ["draw_heatmap", "plot_curves", "plot_heatmap", "plot_rounds"]

_DPI = 120  # of a picture that is looked at on a screen
_DARK = 0.6  # share of the colour map up to which numbers on it are white
Cells = Sequence[Sequence[float | None]]


def plot_rounds(rounds: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw accuracy and, where measured, attack success of every evaluated round; rounds under attack are shaded.

    Args:
        rounds: records of ``rounds.jsonl``.
        path: the file to write.
        title: above the plot.
    """
    evaluated = [record for record in rounds if record.get("accuracy") is not None]
    with figures() as plt:
        figure, axes = plt.subplots(figsize=(7, 4))
        xs = [record["round"] for record in evaluated]
        axes.plot(xs, [record["accuracy"] for record in evaluated], marker="o", label=readable_measure("accuracy"))
        for name in sorted({key for record in evaluated for key in record.get("attack", {})}):
            points = [(record["round"], record["attack"][name]) for record in evaluated if name in record["attack"]]
            axes.plot(*zip(*points, strict=True), marker="x", linestyle="--", label=readable_measure(name))
        shade_rounds(axes, [record["round"] for record in rounds if record.get("adversaries")])
        axes.set(xlabel="round", ylabel="share of test samples", ylim=(-0.02, 1.02), title=title)
        axes.legend()
        save_figure(figure, path, _DPI)


def plot_curves(
    series: Mapping[str, Mapping[str, float]], path: Path, title: str, axis: str, marks: Mapping[str, float]
) -> None:
    """Draw measures over one axis of a sweep; to scale if its labels are numbers.

    Args:
        series: {measure: {label on the axis: value}}.
        path: the file to write.
        title: above the plot.
        axis: what the labels are.
        marks: {what: place on the axis}, drawn where the labels are numbers.
    """
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    places = _numbers(labels)
    with figures() as plt:
        figure, axes = plt.subplots(figsize=(7, 4))
        for measure, values in series.items():
            points = sorted((places[label], value) for label, value in values.items())
            axes.plot(*zip(*points, strict=True), marker="o", label=readable_measure(measure))
        if places == {label: float(i) for i, label in enumerate(labels)}:
            axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
        else:
            for what, place in marks.items():
                axes.axvline(place, color="grey", linestyle=":", label=f"{what}: {place:g}")
            if min(places.values()) > 0 and max(places.values()) > 20 * min(places.values()):
                axes.set_xscale("log")
        axes.set(xlabel=axis, ylabel="share of test samples", ylim=(-0.02, 1.02), title=title)
        axes.legend()
        save_figure(figure, path, _DPI)


def _numbers(labels: Sequence[str]) -> dict[str, float]:
    """Return each label's number, or its place in the row if one of them is none."""
    try:
        return {label: float(label) for label in labels}
    except ValueError:
        return {label: float(i) for i, label in enumerate(labels)}


def plot_heatmap(
    values: Cells, rows: Sequence[str], columns: Sequence[str], path: Path, title: str, spread: Cells | None = None
) -> None:
    """Draw a measure over two axes of a sweep, each cell with its number and, over seeds, its spread.

    Args:
        values: a row for each of ``rows``, in it one value for each of ``columns``; None where there is none.
        rows: labels.
        columns: labels.
        path: the file to write.
        title: the measure; above the plot and at the colour bar.
        spread: half the 95 % interval of each value, None where there is none.
    """
    with figures() as plt:
        figure = draw_heatmap(plt, values, rows, columns, readable_measure(title), spread)
        save_figure(figure, path, _DPI)


def draw_heatmap(
    plt: Any, values: Cells, rows: Sequence[str], columns: Sequence[str], measure: str, spread: Cells | None = None
) -> Any:
    """Return the figure that ``plot_heatmap`` writes; ``measure`` is said as it is."""
    table = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    known = table[np.isfinite(table)]
    share = not known.size or (known.min() >= 0 and known.max() <= 1)
    low, high = (0.0, 1.0) if share else (float(known.min()), float(known.max()))
    wide = 0.95 if spread is not None and any(half is not None for row in spread for half in row) else 0.75
    figure, axes = plt.subplots(figsize=(2.8 + wide * len(columns), 1.6 + 0.42 * len(rows)))
    picture = axes.imshow(table, vmin=low, vmax=high, aspect="auto")
    figure.colorbar(picture, ax=axes, label=measure, fraction=0.05, pad=0.02)
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            half = None if spread is None else spread[row][column]
            text = f"{value:.2f}" if half is None else f"{value:.2f}\n± {half:.2f}"
            colour = "white" if value < low + _DARK * (high - low) else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=7, linespacing=0.95)
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.grid(False)
    axes.set_title(measure)
    return figure
