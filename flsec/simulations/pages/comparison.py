"""What a page tells of several runs side by side: a table, curves with the attacked rounds, a map, cost and damage."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from flsec.simulations.figure_style import PALETTE, SHADE, spans
from flsec.simulations.pages.page import Chart, Column, Data, Fold, Part, Table, Text, altair
from flsec.simulations.readable_names import readable_measure
from flsec.simulations.studies.clients_by_rounds import evenly
from flsec.simulations.studies.run_set import RunSet, Scenario

__all__ = ["comparison_parts", "runs_table"]

_MOST_POINTS = 100  # of a curve
_MOST_CURVES = 14  # in a chart: the palette, twice
_ATTACKED, _TWIN = "under attack", "attack-free twin"
_MOST_OPEN = 8  # charts of a scenario that are open at first
_DETECTION = ("recall", "precision", "false_positive_rate")


def runs_table(found: RunSet) -> Table:
    """Return one row a run."""
    rows = []
    values: dict[str, None] = {}
    for run in found.runs:
        row: dict[str, Any] = {"run": run.name, "seed": run.config.get("seed"), "rounds": len(run.trained)}
        row |= {"seconds": run.seconds, "folder": str(run.path)}
        if id(run) in found.places:
            scenario, key = found.places[id(run)]
            row |= {"attack": key[0], "defense": key[1], "scenario": scenario.title}
            measured = [*scenario.measures, "damage", "cost_of_defense", *_DETECTION]
            row |= {f"m:{measure}": scenario.value(key, run, measure) for measure in measured}
            values |= dict.fromkeys(f"m:{measure}" for measure in measured)
        row["quarantined"] = sum(len(record["quarantined"]) for record in run.trained)
        row["kept"] = sum(record["kept_previous_model"] is not None for record in run.trained)
        rows.append(row)
    columns = [Column("run", "Run"), Column("attack", "Attack", choose=True), Column("defense", "Defense", choose=True)]
    columns += [Column("scenario", "Setting", choose=True), Column("seed", "Seed", 0), Column("rounds", "Rounds", 0)]
    columns += [Column(key, _capital(readable_measure(key[2:])), 3, help=_HELP.get(key[2:], "")) for key in values]
    columns += [Column("quarantined", "Quarantined", 0), Column("kept", "Rounds without a new model", 0)]
    columns += [Column("seconds", "Seconds", 1), Column("folder", "Folder")]
    there = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    if len({row.get("scenario") for row in rows}) < 2:
        there = [column for column in there if column.key != "scenario"]
    return Table("The runs, at their last round", there, rows)


_HELP = {
    "damage": "accuracy that the attack has taken: that of the attack-free twin less this",
    "cost_of_defense": "accuracy that the defense costs where nobody attacks",
    "recall": "share of the attackers' replies that the defense dropped",
    "precision": "share of the dropped replies that were attackers'",
    "false_positive_rate": "share of the honest replies that the defense dropped",
}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def comparison_parts(scenario: Scenario, number: int) -> list[Part]:
    """Return what is told of runs that differ in nothing but attack, defense and seed.

    Args:
        scenario: the runs.
        number: its own on the page.
    """
    parts = _seeds_table(scenario)
    parts += _maps(scenario, number)
    charts = list(_curves(scenario, number))
    parts += charts[:_MOST_OPEN]
    if charts[_MOST_OPEN:]:
        parts.append(Fold(f"{len(charts) - _MOST_OPEN} more charts", charts[_MOST_OPEN:]))
    return parts


def _seeds_table(scenario: Scenario) -> list[Part]:
    if max(len(runs) for runs in scenario.runs.values()) < 2:
        return []
    measures = [*scenario.measures, "damage", "cost_of_defense", *_DETECTION]
    rows = []
    for key, runs in scenario.runs.items():
        row: dict[str, Any] = {"attack": key[0], "defense": key[1], "seeds": len(runs)}
        for measure in measures:
            point = scenario.last(key, measure)
            if point is not None:
                row |= {f"m:{measure}": point.mean, f"h:{measure}": point.half}
        rows.append(row)
    columns = [
        Column("attack", "Attack", choose=True),
        Column("defense", "Defense", choose=True),
        Column("seeds", "Seeds", 0),
    ]
    for measure in measures:
        columns += [Column(f"m:{measure}", _capital(readable_measure(measure)), 3, help=_HELP.get(measure, ""))]
        columns += [
            Column(f"h:{measure}", "± 95 %", 3, help="half the interval of the mean by Student's t over the seeds")
        ]
    there = [column for column in columns if any(row.get(column.key) is not None for row in rows)]
    return [Table("Means over seeds at the last round", there, rows)]


# --- maps ---------------------------------------------------------------------------------------------------------


def _maps(scenario: Scenario, number: int) -> list[Part]:
    if len(scenario.attacks) < 2 or len(scenario.defenses) < 2:
        return []
    return [chart for place, m in enumerate(scenario.measures) if (chart := _map(scenario, m, f"map-{number}-{place}"))]


def _map(scenario: Scenario, measure: str, name: str) -> Chart | None:
    rows: list[dict[str, Any]] = []
    for (attack, defense), _ in scenario.runs.items():
        point = scenario.last((attack, defense), measure)
        if point is not None:
            half = None if point.half is None else round(point.half, 4)
            rows.append(
                {
                    "attack": attack,
                    "defense": defense,
                    "value": round(point.mean, 4),
                    "half": half,
                    "seeds": point.count,
                }
            )
    if any(len({row[axis] for row in rows}) < 2 for axis in ("attack", "defense")):
        return None
    alt = altair()
    data = Data(name, rows)
    low, high = _limits([row["value"] for row in rows])
    title = readable_measure(measure)
    base = alt.Chart(data.named).encode(
        x=alt.X("defense:N", title="defense", sort=scenario.defenses, axis=alt.Axis(labelAngle=-30, labelLimit=140)),
        y=alt.Y("attack:N", title="attack", sort=scenario.attacks, axis=alt.Axis(labelLimit=130)),
        tooltip=[
            "attack:N",
            "defense:N",
            alt.Tooltip("value:Q", title=title),
            alt.Tooltip("half:Q", title="± 95 %"),
            "seeds:Q",
        ],
    )
    colour = alt.Color("value:Q", title=title, scale=alt.Scale(scheme="viridis", domain=[low, high]))
    squares = base.mark_rect(aria=False).encode(color=colour)
    dark = f"datum.value < {low + 0.6 * (high - low):.6g}"
    numbers = base.mark_text(fontSize=11, aria=False).encode(
        text=alt.Text("value:Q", format=".2f"), color=alt.condition(dark, alt.value("#ffffff"), alt.value("#000000"))
    )
    what = f"{_capital(title)} at the last round, by attack and defense; mean over seeds."
    columns = [Column("attack", "Attack"), Column("defense", "Defense"), Column("value", _capital(title), 3)]
    columns += [Column("half", "± 95 %", 3), Column("seeds", "Seeds", 0)]
    chart = alt.layer(squares, numbers).properties(height=max(90, 28 * len(scenario.attacks)))
    return Chart(what, what, chart, [data], columns)


def _limits(values: Sequence[float]) -> tuple[float, float]:
    if min(values) >= 0 and max(values) <= 1:
        return 0.0, 1.0
    return min(values), max(values)


# --- curves -------------------------------------------------------------------------------------------------------


def _curves(scenario: Scenario, number: int) -> Iterator[Part]:
    attacks = [attack for attack in scenario.attacks if not _attackless(scenario, attack)] or scenario.attacks
    for place, attack in enumerate(attacks):
        for measure in scenario.measures:
            keys = [key for key in scenario.runs if key[0] == attack and scenario.curve(key, measure)]
            if keys:
                yield from _curve_chart(
                    scenario, keys, measure, f"curve-{number}-{place}-{measure_id(scenario, measure)}"
                )


def measure_id(scenario: Scenario, measure: str) -> int:
    """Return a number for a measure, whose name somebody else may have chosen."""
    return scenario.measures.index(measure)


def _attackless(scenario: Scenario, attack: str) -> bool:
    return all(scenario.attackless(key) for key in scenario.runs if key[0] == attack)


def _curve_chart(scenario: Scenario, keys: list[tuple[str, str]], measure: str, name: str) -> Iterator[Part]:
    shown = keys[:_MOST_CURVES]
    rows = [row for key in shown for row in _points(scenario, key, measure, key[1], _ATTACKED)]
    under_attack = not _attackless(scenario, keys[0][0])
    if under_attack and measure == "accuracy":
        for _, defense in shown:
            twins = [key for key in scenario.runs if key[1] == defense and scenario.attackless(key)]
            rows += [row for twin in twins[:1] for row in _points(scenario, twin, measure, defense, _TWIN)]
    attacked = sorted({r for key in shown for run in scenario.runs[key] for r in run.attacked})
    shades = Data(f"{name}-shade", [{"from": first - 0.5, "to": last + 0.5} for first, last in spans(attacked)])
    data = Data(name, rows)
    title = readable_measure(measure)
    place = f"{_capital(title)} over rounds"
    what = f"{place}, {shown[0][0]}" + (", attacked rounds shaded" if under_attack else "")
    what += "; dotted, the attack-free twins." if any(row["twin"] == _TWIN for row in rows) else "."
    what += " Bands: 95 % intervals over seeds." if any(row["low"] is not None for row in rows) else ""
    last = "; ".join(
        f"{key[1]} {point.mean:.3f}" for key in shown if (point := scenario.last(key, measure)) is not None
    )
    columns = [Column("defense", "Defense"), Column("twin", "Curve"), Column("round", "Round", 0)]
    columns += [Column("value", _capital(title), 4), Column("low", "95 % from", 4), Column("high", "95 % to", 4)]
    values = [row["value"] for row in rows]
    spec = _curve_spec(
        tuple(dict.fromkeys(defense for _, defense in shown)),
        title,
        shaded=bool(attacked),
        bands=any(row["low"] is not None for row in rows),
        dots=len(values) <= 40 * len(shown),
        share=_limits(values) == (0.0, 1.0),
    )
    named = {"curves": data, **({"shade": shades} if attacked else {})}
    yield Chart(what, f"{what} At the end: {last}.", spec, named, columns)
    if keys[_MOST_CURVES:]:
        yield Text(f"The chart shows {_MOST_CURVES} of {len(keys)} defenses; the table of runs has all.", "note")


def _points(scenario: Scenario, key: tuple[str, str], measure: str, defense: str, twin: str) -> list[dict[str, Any]]:
    curve = scenario.curve(key, measure)
    rows = []
    for round_ in evenly(list(curve), _MOST_POINTS):
        point = curve[round_] if twin == _ATTACKED else dataclasses.replace(curve[round_], low=None, high=None)
        ends = {
            end: None if value is None else round(value, 5) for end, value in (("low", point.low), ("high", point.high))
        }
        rows.append({"round": round_, "defense": defense, "twin": twin, "value": round(point.mean, 5), **ends})
    return rows


@functools.cache
def _curve_spec(defenses: tuple[str, ...], title: str, *, shaded: bool, bands: bool, dots: bool, share: bool) -> Any:
    """Draw curves over rounds.

    Args:
        defenses: one colour each.
        title: of the measure.
        shaded: whether rounds are shaded.
        bands: whether there are intervals.
        dots: whether each point is marked.
        share: whether the measure lies in [0, 1].
    """
    alt = altair()
    scale = alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=False)
    colours = alt.Scale(domain=list(defenses), range=[PALETTE[i % len(PALETTE)] for i in range(len(defenses))])
    base = alt.Chart(alt.NamedData("curves")).encode(
        x=alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
        color=alt.Color("defense:N", title=None, legend=alt.Legend(symbolOpacity=1), scale=colours),
    )
    dashes = alt.Scale(domain=[_ATTACKED, _TWIN], range=[[1, 0], [2, 3]])
    layers = []
    if shaded:
        shade = alt.Chart(alt.NamedData("shade")).mark_rect(color=SHADE, opacity=0.09, aria=False, clip=True)
        layers.append(shade.encode(x=alt.X("from:Q", title="round"), x2="to:Q"))
    if bands:
        band = base.transform_filter("datum.low !== null").mark_area(opacity=0.13, aria=False, clip=True)
        layers.append(band.encode(y=alt.Y("low:Q", title=title, scale=scale), y2="high:Q", detail="twin:N"))
    lines = base.mark_line(aria=False, point=alt.OverlayMarkDef(size=18) if dots else False, clip=True).encode(
        y=alt.Y("value:Q", title=title, scale=scale),
        strokeDash=alt.StrokeDash("twin:N", title=None, legend=None, scale=dashes),
        tooltip=["defense:N", "twin:N", "round:Q", alt.Tooltip("value:Q", title=title), "low:Q", "high:Q"],
    )
    return alt.layer(*layers, lines).properties(height=280).to_dict()
