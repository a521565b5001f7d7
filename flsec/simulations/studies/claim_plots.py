"""The paper's figure, drawn from our runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flsec.simulations.figure_style import PALETTE, figures, save_figure
from flsec.simulations.readable_names import readable_measure
from flsec.simulations.studies.claims import Claim
from flsec.simulations.studies.statements import Curve, Measured, interval, view_of

__all__ = ["plot_claim"]

_SIZE = (7.0, 3.4)  # inches, at 80 dots each: small files
_SHARES = ("accuracy", "success", "precision", "recall", "rate", "agreement")  # measures that lie in [0, 1]


def plot_claim(claim: Claim, measured: Measured, path: Path) -> None:
    """Draw a claim as its file says: means over the seeds with their 95 % intervals, the paper's numbers beside them.

    Args:
        claim: what is drawn.
        measured: its curves, at least one.
        path: the PNG to write.
    """
    with figures() as plt:
        figure, axes = plt.subplots(figsize=_SIZE)
        draw = {"curves": _over_rounds, "bars": _bars, "line": _line}[claim.file.figure]
        draw(axes, claim, measured)
        axes.set_title(f"{claim.name}: {claim.file.title}", fontsize=9)
        figure.legend(fontsize=7, loc="outside right upper")
        save_figure(figure, path, dpi=80)


def _over_rounds(axes: Any, claim: Claim, measured: Measured) -> None:
    colours: dict[str, str] = {}
    for curve, measures in measured.items():
        if claim.file.measure in measures:
            of = curve.removesuffix("_attack_free")
            colours.setdefault(of, f"C{len(colours)}")
            _band(axes, curve, measures[claim.file.measure], colours[of], dotted=of != curve)
    axes.set(xlabel="round", ylabel=readable_measure(claim.file.measure))
    _limits(axes, claim.file.measure)


def _band(axes: Any, label: str, curve: Curve, colour: str, *, dotted: bool) -> None:
    values = curve.values()
    rounds = np.array(curve.rounds)
    look = {"color": colour, "linestyle": ":" if dotted else "-", "label": label.replace("_", " ")}
    axes.plot(rounds, values.mean(axis=0), **look)
    if len(values) > 1 and not dotted:
        low, high = np.array([interval(column) for column in values.T], dtype=np.float64).T
        axes.fill_between(rounds, low, high, color=colour, alpha=0.12, linewidth=0)


def _bars(axes: Any, claim: Claim, measured: Measured) -> None:
    measure = claim.file.measure
    names = [curve for curve, measures in measured.items() if measure in measures]
    means, errors = _means(measured, names, measure, claim.file.of)
    places = np.arange(len(names))
    axes.bar(places, means, yerr=errors, capsize=2, width=0.6, color=PALETTE[0], alpha=0.6, label="ours")
    paper = claim.paper_numbers(measure)
    there = [(place, paper[name]) for place, name in enumerate(names) if name in paper]
    if there:
        axes.plot(*zip(*there, strict=True), "D", color=PALETTE[1], markersize=5, label="paper")
    axes.set_xticks(places, [name.replace("_", " ") for name in names], rotation=40, ha="right")
    axes.set(ylabel=readable_measure(measure))
    _limits(axes, measure)


def _line(axes: Any, claim: Claim, measured: Measured) -> None:
    numbers = {name: number for name in measured if (number := _as_number(name)) is not None}
    for measure in claim.measures:
        names = sorted((name for name in numbers if measure in measured[name]), key=lambda name: numbers[name])
        if names:
            means, errors = _means(measured, names, measure, claim.file.of)
            places = [numbers[name] for name in names]
            look: dict[str, Any] = {"marker": "o", "markersize": 4, "capsize": 2}
            axes.errorbar(places, means, yerr=errors, label=readable_measure(measure), **look)
    if min(numbers.values()) > 0 and max(numbers.values()) > 20 * min(numbers.values()):
        axes.set_xscale("log")
    axes.set(xlabel="")
    _limits(axes, claim.file.measure)


def _as_number(name: str) -> float | None:
    """Return the number at the end of a curve's name, as in ``k_0.1``."""
    try:
        return float(name.rpartition("_")[2])
    except ValueError:
        return None


def _means(measured: Mapping[str, Any], names: list[str], measure: str, view: str) -> tuple[list[float], list[float]]:
    values = [view_of(measured[name][measure], view) for name in names]
    spreads = [interval(one) for one in values]
    return [float(one.mean()) for one in values], [0.0 if s is None else (s[1] - s[0]) / 2 for s in spreads]


def _limits(axes: Any, measure: str) -> None:
    if any(share in measure for share in _SHARES):
        axes.set_ylim(-0.02, 1.02)
