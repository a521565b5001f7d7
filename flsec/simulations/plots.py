"""Pictures of a run and of a sweep."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flsec._files import replacing

__all__ = ["plot_curves", "plot_heatmap", "plot_rounds"]


def plot_rounds(rounds: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw accuracy and, where measured, attack success of every evaluated round.

    Args:
        rounds: records of ``rounds.jsonl``.
        path: the PNG to write.
        title: above the plot.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    evaluated = [record for record in rounds if record.get("accuracy") is not None]
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    xs = [record["round"] for record in evaluated]
    axes.plot(xs, [record["accuracy"] for record in evaluated], marker="o", markersize=3, label="accuracy")
    for name in sorted({key for record in evaluated for key in record.get("attack", {})}):
        points = [(record["round"], record["attack"][name]) for record in evaluated if name in record["attack"]]
        axes.plot(*zip(*points, strict=True), marker="x", markersize=4, linestyle="--", label=name.replace("_", " "))
    axes.set(xlabel="round", ylabel="share of test samples", ylim=(-0.02, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def plot_curves(
    series: Mapping[str, Mapping[str, float]], path: Path, title: str, axis: str, marks: Mapping[str, float]
) -> None:
    """Draw measures over one axis of a sweep; to scale if its labels are numbers.

    Args:
        series: {measure: {label on the axis: value}}.
        path: the PNG to write.
        title: above the plot.
        axis: what the labels are.
        marks: {what: place on the axis}, drawn where the labels are numbers.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    labels = list(dict.fromkeys(label for values in series.values() for label in values))
    places = _numbers(labels)
    for measure, values in series.items():
        points = sorted((places[label], value) for label, value in values.items())
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=measure.replace("_", " "))
    if places == {label: float(i) for i, label in enumerate(labels)}:
        axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    else:
        for what, place in marks.items():
            axes.axvline(place, color="grey", linestyle=":", label=f"{what}: {place:g}")
        if min(places.values()) > 0 and max(places.values()) > 20 * min(places.values()):
            axes.set_xscale("log")
    axes.set(xlabel=axis, ylabel="share of test samples", ylim=(-0.02, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)


def _numbers(labels: Sequence[str]) -> dict[str, float]:
    """Return each label's number, or its place in the row if one of them is none."""
    try:
        return {label: float(label) for label in labels}
    except ValueError:
        return {label: float(i) for i, label in enumerate(labels)}


def plot_heatmap(
    values: Sequence[Sequence[float | None]], rows: Sequence[str], columns: Sequence[str], path: Path, title: str
) -> None:
    """Draw a measure over two axes of a sweep, each cell with its number.

    Args:
        values: a row for each of ``rows``, in it one value for each of ``columns``; None where there is none.
        rows: labels.
        columns: labels.
        path: the PNG to write.
        title: above the plot.
    """
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    table = np.array([[np.nan if value is None else value for value in row] for row in values], float)
    size = (2.5 + 0.8 * len(columns), 1.5 + 0.4 * len(rows))
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        if np.isfinite(value):
            colour = "white" if value < 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title.replace("_", " "))
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
