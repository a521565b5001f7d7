"""The picture of a comparison: the same experiment attack-free, attacked and defended, round by round."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flsec._files import replacing

__all__ = ["plot_comparison"]

_COLOURS = ("#009E73", "#D55E00", "#0072B2")  # Okabe and Ito's, which colour-blind readers tell apart
_MARKERS = ("s", "x", "o")


def plot_comparison(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, title: str) -> None:
    """Draw accuracy over the rounds, and attack success where it was measured; attacked rounds are shaded.

    Args:
        runs: {label: records of ``rounds.jsonl``}, at most three; the attackers of the last are shown.
        path: the PNG to write.
        title: above the plot.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (label, rounds), colour, marker in zip(runs.items(), _COLOURS, _MARKERS, strict=False):
        evaluated = [record for record in rounds if record.get("accuracy") is not None]
        points = [(record["round"], record["accuracy"]) for record in evaluated]
        axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=3, label=f"{label}: accuracy")
        for name in sorted({key for record in evaluated for key in record.get("attack", {})}):
            points = [
                (record["round"], record["attack"][name])
                for record in evaluated
                if record["attack"].get(name) is not None
            ]
            if points:
                what = f"{label}: {name.replace('_', ' ')}"
                axes.plot(*zip(*points, strict=True), color=colour, linestyle="--", linewidth=1, label=what)
    attacked = [record["round"] for record in list(runs.values())[-1] if record.get("adversaries")]
    for number, first in enumerate(attacked):
        said = "attacked rounds" if number == 0 else None
        axes.axvspan(first - 0.5, first + 0.5, color="grey", alpha=0.12, linewidth=0, label=said)
    axes.set(xlabel="round", ylabel="share of test samples", ylim=(-0.02, 1.02))
    axes.set_title(title, fontsize=10, wrap=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
