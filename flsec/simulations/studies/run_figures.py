"""Figures of runs for a paper: curves, a heat map, clients by rounds, and what attacks and defenses cost."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from flsec.errors import ConfigError
from flsec.simulations.figure_style import DASHES, PALETTE, shade_rounds
from flsec.simulations.plots import draw_heatmap
from flsec.simulations.readable_names import readable_measure
from flsec.simulations.studies.clients_by_rounds import OUTCOMES, cells_of
from flsec.simulations.studies.run_set import Point, RunSet, Scenario

__all__ = ["KINDS", "draw"]

_MOST_CELLS = 20_000
Key = tuple[str, str]  # (attack, defense)


def draw(plt: Any, kind: str, found: RunSet, measure: str = "accuracy") -> Any:
    """Return a figure.

    Args:
        plt: ``matplotlib.pyplot``.
        kind: one of ``KINDS``.
        found: the runs; those of one setting, which differ in attack, defense and seed alone.
        measure: ``"accuracy"``, or an attack's success as ``rounds.jsonl`` calls it; of curves and heat maps.

    Raises:
        ConfigError: these runs cannot give such a figure; the message says what it takes.
    """
    if kind not in KINDS:
        raise ConfigError(f"--kind: no kind {kind!r}. Known: {', '.join(KINDS)}.")
    if kind == "clients":
        return _clients(plt, found)
    scenario = _one(found)
    if kind in ("curve", "heatmap") and measure not in scenario.measures:
        raise ConfigError(f"--measure: no run measured {measure!r}. Known: {', '.join(scenario.measures)}.")
    return {"curve": _curve, "heatmap": _heatmap, "trade-off": _trade_off}[kind](plt, scenario, measure)


KINDS = ("curve", "heatmap", "clients", "trade-off")


def _one(found: RunSet) -> Scenario:
    if not found.scenarios:
        raise ConfigError("a figure of this kind is of simulated runs; of an audit log there is --kind clients.")
    if len(found.scenarios) > 1:
        titles = "; ".join(scenario.title for scenario in found.scenarios[:4])
        raise ConfigError(
            f"these runs differ in more than attack, defense and seed: {titles}. Give those of one setting at a time."
        )
    return found.scenarios[0]


def _look(place: int) -> dict[str, Any]:
    return {"color": PALETTE[place % len(PALETTE)], "linestyle": DASHES[place // len(PALETTE) % len(DASHES)]}


# --- curves -------------------------------------------------------------------------------------------------------


def _curve(plt: Any, scenario: Scenario, measure: str) -> Any:
    """Draw a panel for each attack: means, 95 % intervals, attacked rounds shaded, attack-free twins dotted."""
    attacks = [attack for attack in scenario.attacks if not _attackless(scenario, attack)] or scenario.attacks
    measured = {key[0] for key in scenario.runs if scenario.curve(key, measure)}
    attacks = [attack for attack in attacks if attack in measured]
    columns = min(3, len(attacks))
    rows = -(-len(attacks) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(1.2 + 3.1 * columns, 0.9 + 2.4 * rows), sharex=True, sharey=True, squeeze=False
    )
    looks = {defense: _look(place) for place, defense in enumerate(scenario.defenses)}
    for axes, attack in zip(panels.flat, attacks, strict=False):
        _panel(axes, scenario, attack, measure, looks)
        axes.set_title(attack)
    for axes in panels.flat[len(attacks) :]:
        axes.set_visible(False)
    if _is_share(scenario, measure):
        panels[0, 0].set_ylim(-0.02, 1.02)  # of all panels
    for axes in panels[:, 0]:
        axes.set_ylabel(readable_measure(measure))
    for axes in panels[-1]:
        axes.set_xlabel("round")
    _legend(figure, panels)
    return figure


def _is_share(scenario: Scenario, measure: str) -> bool:
    curves = (run.curve(measure).values() for runs in scenario.runs.values() for run in runs)
    return all(0 <= value <= 1 for curve in curves for value in curve)


def _attackless(scenario: Scenario, attack: str) -> bool:
    return all(scenario.attackless(key) for key in scenario.runs if key[0] == attack)


def _panel(axes: Any, scenario: Scenario, attack: str, measure: str, looks: dict[str, Any]) -> None:
    keys = [key for key in scenario.runs if key[0] == attack]
    for key in keys:
        curve = scenario.curve(key, measure)
        _line(axes, curve, looks[key[1]], key[1])
        twin = next((k for k in scenario.runs if k[1] == key[1] and scenario.attackless(k) and k != key), None)
        if twin is not None and measure == "accuracy":
            points = scenario.curve(twin, measure)
            means = [point.mean for point in points.values()]
            axes.plot(list(points), means, color=looks[key[1]]["color"], linestyle=":", linewidth=1)
    shade_rounds(axes, sorted({r for key in keys for run in scenario.runs[key] for r in run.attacked}))


def _line(axes: Any, curve: dict[int, Point], look: dict[str, Any], label: str) -> None:
    if not curve:
        return
    rounds, points = list(curve), list(curve.values())
    axes.plot(rounds, [point.mean for point in points], label=label, **look)
    low = [point.mean if point.low is None else point.low for point in points]
    high = [point.mean if point.high is None else point.high for point in points]
    if low != high:
        axes.fill_between(rounds, low, high, color=look["color"], alpha=0.13, linewidth=0)


def _legend(figure: Any, panels: Any) -> None:
    handles: dict[str, Any] = {}
    for axes in panels.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, max(1, len(handles))))


# --- heat map -----------------------------------------------------------------------------------------------------


def _heatmap(plt: Any, scenario: Scenario, measure: str) -> Any:
    """Draw attack by defense at the last round: mean over seeds, and half its 95 % interval."""
    points = {(a, d): scenario.last((a, d), measure) for a in scenario.attacks for d in scenario.defenses}
    attacks = [a for a in scenario.attacks if any(points[a, d] is not None for d in scenario.defenses)]
    values = [[None if (p := points[a, d]) is None else p.mean for d in scenario.defenses] for a in attacks]
    halves = [[None if (p := points[a, d]) is None else p.half for d in scenario.defenses] for a in attacks]
    figure = draw_heatmap(plt, values, attacks, scenario.defenses, readable_measure(measure), halves)
    figure.axes[0].set(xlabel="defense", ylabel="attack")
    return figure


# --- clients by rounds --------------------------------------------------------------------------------------------


def _clients(plt: Any, found: RunSet) -> Any:
    """Draw what became of each client's reply in each round of one run."""
    if len(found.runs) != 1:
        raise ConfigError(f"--kind clients draws one run; got {len(found.runs)}. Give the folder of one.")
    run = found.runs[0]
    cells = cells_of(run, _MOST_CELLS)
    if not cells.rows:
        raise ConfigError(f"{str(run.path)!r}: no round has been recorded yet.")
    present = [outcome for outcome in OUTCOMES if any(row["outcome"] == outcome for row in cells.rows)]
    rounds = sorted({row["round"] for row in cells.rows})
    clients = {row["rank"]: row["client"] for row in cells.rows}
    ranks = {rank: place for place, rank in enumerate(sorted(clients))}
    table = np.full((len(ranks), len(rounds)), np.nan)
    places = {round_: place for place, round_ in enumerate(rounds)}
    for row in cells.rows:
        table[ranks[row["rank"]], places[row["round"]]] = present.index(row["outcome"])
    size = (2.2 + min(7.0, 0.25 * len(rounds) + 1.5), 1.3 + min(7.0, 0.17 * len(ranks)))
    figure, axes = plt.subplots(figsize=size)
    colours = plt.matplotlib.colors.ListedColormap([OUTCOMES[outcome] for outcome in present])
    axes.pcolormesh(table, cmap=colours, vmin=-0.5, vmax=len(present) - 0.5, edgecolors="white", linewidth=0.3)
    attackers = [(places[r["round"]] + 0.5, ranks[r["rank"]] + 0.5) for r in cells.rows if r["attacks"]]
    handles = [plt.matplotlib.patches.Patch(color=OUTCOMES[outcome], label=outcome) for outcome in present]
    if attackers:
        area = max(1.0, min(16.0, (300 * size[1] / 5 / len(ranks)) ** 1.2 / 4))
        crosses = axes.scatter(*zip(*attackers, strict=True), marker="x", s=area, color="black", linewidth=0.7)
        crosses.set_label("attacks")
        handles.append(crosses)
    _ticks(axes.set_xticks, [str(round_) for round_ in rounds], 15)
    _ticks(axes.set_yticks, [clients[rank] for rank in ranks], 30)
    axes.invert_yaxis()
    axes.grid(False)
    axes.set(xlabel="round", ylabel="client")
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _ticks(put: Any, labels: Sequence[str], most: int) -> None:
    step = -(-len(labels) // most)
    put([place + 0.5 for place in range(0, len(labels), step)], labels[::step])


# --- damage, cost of defense, detection ---------------------------------------------------------------------------


def _trade_off(plt: Any, scenario: Scenario, measure: str) -> Any:
    """Draw what attacks take, what defenses cost where nobody attacks, and how well attackers are found."""
    attacks = [attack for attack in scenario.attacks if not _attackless(scenario, attack)]
    panels = {
        "damage": _points(scenario, attacks, "damage"),
        "cost": _points(scenario, [a for a in scenario.attacks if _attackless(scenario, a)], "cost_of_defense"),
        "detection": _points(scenario, attacks, "recall"),
    }
    there = [name for name, points in panels.items() if points]
    if not there:
        raise ConfigError(
            "--kind trade-off needs attack-free twins for damage, runs without attack and defense for the cost, or a "
            "defense that drops clients; these runs have none of them. Vary attack and defense in one sweep."
        )
    figure, all_axes = plt.subplots(1, len(there), figsize=(1.0 + 3.2 * len(there), 3.4), squeeze=False)
    looks = {attack: _marker(place) for place, attack in enumerate(attacks)}
    for axes, name in zip(all_axes[0], there, strict=True):
        if name == "detection":
            _detection(axes, scenario, panels[name], looks)
        else:
            _dots(axes, scenario, panels[name], looks, name)
    _legend(figure, all_axes)
    return figure


def _marker(place: int) -> dict[str, Any]:
    return {"color": PALETTE[place % len(PALETTE)], "marker": "os^Dv<>Pp*"[place % 10]}


def _points(scenario: Scenario, attacks: Sequence[str], measure: str) -> dict[Key, Point]:
    keys = [key for key in scenario.runs if key[0] in attacks]
    return {key: point for key in keys if (point := scenario.last(key, measure)) is not None}


def _dots(axes: Any, scenario: Scenario, points: dict[Key, Point], looks: dict[str, Any], name: str) -> None:
    """Draw accuracy lost: a line for each defense, a mark for each attack with its interval."""
    defenses = [defense for defense in scenario.defenses if any(key[1] == defense for key in points)]
    attacks = list(dict.fromkeys(attack for attack, _ in points))
    for place, attack in enumerate(attacks):
        shift = (place - (len(attacks) - 1) / 2) * 0.6 / max(1, len(attacks))
        mine = [(defenses.index(d) + shift, point) for (a, d), point in points.items() if a == attack]
        look = looks.get(attack, {"color": PALETTE[6], "marker": "o"})
        axes.errorbar(
            [point.mean for _, point in mine],
            [y for y, _ in mine],
            xerr=[point.half or 0.0 for _, point in mine],
            linestyle="none",
            capsize=2,
            label=attack,
            **look,
        )
    axes.set_yticks(range(len(defenses)), defenses)
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    told = {"damage": "accuracy that the attack takes", "cost": "accuracy that the defense costs"}
    axes.set(xlabel=told[name], title={"damage": "damage", "cost": "cost of defense"}[name])


def _detection(axes: Any, scenario: Scenario, points: dict[Key, Point], looks: dict[str, Any]) -> None:
    """Draw how many attackers' replies are dropped against how many honest ones."""
    near: dict[tuple[float, float], dict[str, tuple[float, float]]] = {}
    for (attack, defense), recall in points.items():
        alarms = scenario.last((attack, defense), "false_positive_rate")
        x = 0.0 if alarms is None else alarms.mean
        half = 0.0 if alarms is None else alarms.half or 0.0
        axes.errorbar(x, recall.mean, xerr=half, yerr=recall.half or 0.0, capsize=2, label=attack, **looks[attack])
        near.setdefault((round(x, 1), round(recall.mean, 1)), {})[defense] = (x, recall.mean)
    for names in near.values():  # those that would cover each other share a label
        place = next(iter(names.values()))
        axes.annotate("\n".join(names), place, textcoords="offset points", xytext=(5, 4), fontsize=6, va="top")
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.08), title="detection")
    axes.set(xlabel="share of honest replies dropped", ylabel="share of attackers' replies dropped")
