"""What a page tells of one run: its clients by rounds, scores, weights, quarantine, time, and how to repeat it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from flsec.simulations.figure_style import PALETTE
from flsec.simulations.pages.clients_by_rounds import OUTCOMES, Cells, cells_of, evenly, number_of, role_of
from flsec.simulations.pages.page import Chart, Code, Column, Data, Fold, Part, Table, Text, altair
from flsec.simulations.readable_names import readable
from flsec.simulations.studies.run_set import Run
from flsec.simulations.yaml_lines import dump

__all__ = ["run_parts"]

_MOST_ROWS = 500  # of a table
_MOST_ROUNDS = 300  # of a chart over rounds
_MOST_LINES = 30  # clients of which a line each is drawn
_TALLEST = 620  # pixels of a grid
_SCORES = {"DiverseFL": "C1 × C2", "FLTrust": "trust score", "Krum": "Krum score", "MultiKrum": "Krum score"}
_AT_ROUND = ("round", "Round", 0)


def run_parts(run: Run, number: int, most_cells: int) -> list[Part]:
    """Return what is told of a run.

    Args:
        run: simulated or deployed.
        number: its own on the page.
        most_cells: of its grid of clients and rounds.
    """
    parts: list[Part] = [Text(problem, "warning") for problem in run.problems]
    if run.trained:
        cells = cells_of(run, most_cells)
        data = Data(f"cells-{number}", cells.rows)
        parts += _grid(cells, data, run)
        parts += _scores(run, data, number, most_cells)
        parts += _weights(data, cells)
        parts += _cases(run, number)
        parts += _troubles(run)
        parts += _notes(run)
        parts += _time(run, number)
    return [*parts, *_repeat(run)]


# --- clients by rounds --------------------------------------------------------------------------------------------


def _grid(cells: Cells, data: Data, run: Run) -> list[Part]:
    if not cells.rows:
        return []
    alt = altair()
    present = {row["outcome"] for row in cells.rows}
    domain = [outcome for outcome in OUTCOMES if outcome in present]
    colour = alt.Color(
        "outcome:N", title=None, scale=alt.Scale(domain=domain, range=[OUTCOMES[outcome] for outcome in domain])
    )
    base = alt.Chart(data.named).encode(x=_rounds_axis(alt), y=_clients_axis(alt), tooltip=_tooltip(alt))
    squares = base.mark_rect(stroke="#ffffff", strokeOpacity=0.25, aria=False).encode(color=colour)
    crosses = base.mark_point(shape="cross", angle=45, color="#000000", filled=True, aria=False, size=_mark(cells))
    crosses = crosses.encode(opacity=alt.condition("datum.attacks == 1", alt.value(0.85), alt.value(0)))
    known = any(role_of(record, 0) is not None for record in run.trained)
    marked = " A cross marks who attacks." if known else " Who attacks is not known here."
    caption = (
        "Clients by rounds: what became of each reply, and by which defense; point at a cell for score, threshold "
    )
    return [
        Chart(
            caption=f"{caption}and reason.{marked} {cells.thinned}".strip(),
            description=f"Grid of clients by rounds. {_counted(cells)}",
            spec=alt.layer(squares, crosses).properties(height=_height(cells)),
            data=[data],
            columns=_CELL_COLUMNS,
        )
    ]


_CELL_COLUMNS = [
    Column("round", "Round", 0),
    Column("client", "Client"),
    Column("outcome", "Outcome"),
    Column("defense", "Defense"),
    Column("score", "Score"),
    Column("low", "At least"),
    Column("high", "At most"),
    Column("weight", "Weight"),
    Column("why", "Reason"),
]


def _counted(cells: Cells) -> str:
    counts = {outcome: sum(row["outcome"] == outcome for row in cells.rows) for outcome in OUTCOMES}
    return "; ".join(f"{outcome}: {count}" for outcome, count in counts.items() if count) + " replies."


def _rounds_axis(alt: Any) -> Any:
    return alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0))


def _clients_axis(alt: Any) -> Any:
    return alt.Y("client:N", title="client", sort=alt.EncodingSortField("rank", op="min"), axis=alt.Axis(labelLimit=70))


def _tooltip(alt: Any) -> list[Any]:
    told = [
        ("client", "client"),
        ("round", "round"),
        ("outcome", "outcome"),
        ("defense", "defense"),
        ("score", "score"),
    ]
    told += [("low", "threshold, at least"), ("high", "threshold, at most"), ("weight", "weight"), ("why", "reason")]
    return [alt.Tooltip(field, type="nominal", title=title) for field, title in told]


def _height(cells: Cells) -> int:
    return min(_TALLEST, max(120, 16 * cells.clients[0]))


def _mark(cells: Cells) -> float:
    """Return the area of a cross that fits into a cell on a narrow screen."""
    side = min(_height(cells) / max(1, cells.clients[0]), 900 / max(1, cells.rounds[0]))
    return max(2.0, min(60.0, (0.6 * side) ** 2))


# --- scores and weights -------------------------------------------------------------------------------------------


def _scores(run: Run, cells: Data, number: int, most_cells: int) -> list[Part]:
    names = list(dict.fromkeys(v["name"] for record in run.trained for v in record["defenses"] if v["scores"]))
    parts: list[Part] = []
    for place, name in enumerate(names):
        data = cells
        if len(names) > 1:
            data = Data(f"scores-{number}-{place}", cells_of(run, most_cells // len(names), name).rows)
        rows = [row for row in data.rows if row["score"] is not None]
        if rows:
            parts.append(_score_chart(name, data, rows))
    return parts


def _score_chart(name: str, data: Data, rows: Sequence[Mapping[str, Any]]) -> Chart:
    alt = altair()
    title = _SCORES.get(name, "score")
    y = alt.Y("score:Q", title=title, scale=_scale(alt, [row["score"] for row in rows]))
    base = alt.Chart(data.named).transform_filter("datum.score !== null")
    role = alt.Color(
        "role:N", title=None, scale=alt.Scale(domain=["honest", "attacks"], range=[PALETTE[0], PALETTE[1]])
    )
    shape = alt.Shape("role:N", title=None, scale=alt.Scale(domain=["honest", "attacks"], range=["circle", "cross"]))
    points = (
        base.transform_calculate(role="datum.attacks == 1 ? 'attacks' : 'honest'")
        .mark_point(size=28, filled=True, opacity=0.75, aria=False)
        .encode(
            x=alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1)),
            y=y,
            color=role,
            shape=shape,
            tooltip=_tooltip(alt),
        )
    )
    layers = [points]
    for bound in ("low", "high"):
        if any(row[bound] is not None for row in rows):
            line = base.transform_filter(f"datum.{bound} !== null").mark_line(
                interpolate="step", strokeDash=[5, 3], color=PALETTE[6], aria=False
            )
            layers.append(line.encode(x="round:Q", y=alt.Y(f"mean({bound}):Q")))
    what = f"{readable(name)}: {title} of each client by round; dashed, the threshold."
    return Chart(
        caption=what,
        description=f"{what} From {min(row['score'] for row in rows):.4g} to {max(row['score'] for row in rows):.4g}.",
        spec=alt.layer(*layers).properties(height=260),
        data=[data],
    )


def _scale(alt: Any, values: Sequence[float]) -> Any:
    """Return a plain scale, or one that also shows small values beside very large ones."""
    sizes = sorted(abs(value) for value in values)
    typical = median(sizes)
    if typical > 0 and sizes[-1] > 100 * typical:
        return alt.Scale(type="symlog", constant=typical)
    return alt.Scale(zero=False, nice=True)


def _weights(data: Data, cells: Cells) -> list[Part]:
    weights = [row["weight"] for row in data.rows if row["weight"] is not None]
    if not weights:
        return []
    alt = altair()
    base = alt.Chart(data.named).transform_filter("datum.weight !== null")
    chart = base.mark_rect(aria=False).encode(
        x=_rounds_axis(alt),
        y=_clients_axis(alt),
        color=alt.Color("weight:Q", title="weight", scale=alt.Scale(scheme="viridis")),
        tooltip=_tooltip(alt),
    )
    what = "Weights of clients in the aggregate, by round."
    return [
        Chart(
            caption=what,
            description=f"{what} From {min(weights):.4g} to {max(weights):.4g}.",
            spec=chart.properties(height=_height(cells)),
            data=[data],
        )
    ]


# --- cases and penalties ------------------------------------------------------------------------------------------


def _cases(run: Run, number: int) -> list[Part]:
    """Tell the cases that SIREN, or whatever notes cases and penalties, decided by."""
    told = [(record, v) for record in run.trained for v in record["defenses"] if "case" in v["notes"]]
    if not told:
        return []
    rows = [
        {
            "round": record["round"],
            "case": str(verdict["notes"]["case"]),
            "alarms": _listed(verdict["notes"].get("alarms")),
            "banned": _listed(verdict["notes"].get("banned")),
            "back": "yes" if verdict["notes"].get("rolled_back") else "",
            "before": str(verdict["notes"].get("previous_round", "")),
        }
        for record, verdict in told[:_MOST_ROWS]
    ]
    columns = [
        Column("round", "Round", 0),
        Column("case", "Case", choose=True),
        Column("alarms", "Alarms from"),
        Column("banned", "Banned"),
        Column("back", "Went back", choose=True, help="whether the model went back to the one before"),
        Column("before", "The round before"),
    ]
    name = readable(told[0][1]["name"])
    return [Table(f"{name}: the case of each round", columns, rows), *_penalties(run, name, number)]


def _penalties(run: Run, name: str, number: int) -> list[Part]:
    found: dict[int, dict[int, float]] = {}
    hostile: set[int] = set()
    for record in run.trained:
        hostile |= set(record.get("adversaries") or ())
        for verdict in record["defenses"]:
            for client in map(int, verdict["notes"].get("penalties") or {}):
                value = number_of(verdict["notes"]["penalties"], client)
                if value is not None:
                    found.setdefault(client, {})[record["round"]] = value
    if not found:
        return []
    largest = sorted(found, key=lambda client: -max(found[client].values()))[:_MOST_LINES]
    rows = [
        {"round": r, "client": str(client), "penalty": value, "role": "attacks" if client in hostile else "honest"}
        for client in largest
        for r, value in found[client].items()
    ]
    alt = altair()
    data = Data(f"penalties-{number}", rows)
    scale = alt.Scale(domain=["honest", "attacks"], range=[PALETTE[0], PALETTE[1]])
    chart = (
        alt.Chart(data.named)
        .mark_line(point=True, opacity=0.7, aria=False)
        .encode(
            x=alt.X("round:Q", title="round", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("penalty:Q", title="penalty count"),
            detail="client:N",
            color=alt.Color("role:N", title=None, scale=scale),
            tooltip=["client:N", "round:Q", "penalty:Q", "role:N"],
        )
    )
    cut = f" The {len(largest)} largest of {len(found)} clients." if len(largest) < len(found) else ""
    what = f"{name}: penalties of clients by round.{cut}"
    columns = [
        Column("client", "Client"),
        Column("round", "Round", 0),
        Column("penalty", "Penalty"),
        Column("role", "Role"),
    ]
    return [Chart(what, what, chart.properties(height=220), [data], columns)]


def _listed(clients: Any) -> str:
    clients = list(clients or ())
    return ", ".join(map(str, clients[:12])) + (f" and {len(clients) - 12} more" if len(clients) > 12 else "")


# --- what went wrong, notes, time ---------------------------------------------------------------------------------


def _troubles(run: Run) -> list[Part]:
    rows: list[dict[str, Any]] = []
    for record in run.trained:
        if record["kept_previous_model"] is not None:
            rows.append(_trouble(record, None, "previous model kept", record["kept_previous_model"]))
        for entry in record["quarantined"]:
            what = f"quarantined: {str(entry.get('kind', 'other')).replace('_', ' ')}"
            rows.append(_trouble(record, entry["client_id"], what, entry["reason"]))
        for client, reason in record["metrics_left_out"].items():
            rows.append(_trouble(record, client, "metrics left out of averages", reason))
    if not rows:
        return [Text("No reply was quarantined, and every round gave a new model.")]
    columns = [
        Column("round", "Round", 0),
        Column("client", "Client"),
        Column("what", "What", choose=True),
        Column("reason", "Reason"),
    ]
    cut = f" (the first {_MOST_ROWS} of {len(rows)})" if len(rows) > _MOST_ROWS else ""
    return [Table(f"Quarantine, and rounds without a new model{cut}", columns, rows[:_MOST_ROWS])]


def _trouble(record: Mapping[str, Any], client: Any, what: str, reason: Any) -> dict[str, Any]:
    return {
        "round": record["round"],
        "client": None if client is None else str(client),
        "what": what,
        "reason": str(reason),
    }


def _notes(run: Run) -> list[Part]:
    """Tell the numbers and sentences that defenses noted, a row a round."""
    rows = []
    keys: dict[str, None] = {}
    for record in evenly(run.trained, _MOST_ROWS):
        for verdict in record["defenses"]:
            plain = {k: v for k, v in verdict["notes"].items() if isinstance(v, int | float | str)}
            if plain:
                keys |= dict.fromkeys(plain)
                shown = {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in plain.items()}
                rows.append(
                    {"at": record["round"], "by": readable(verdict["name"]), **{f"n:{k}": v for k, v in shown.items()}}
                )
    if not rows:
        return []
    columns = [Column("at", "Round", 0), Column("by", "Defense", choose=True)]
    columns += [Column(f"n:{key}", key.replace("_", " ")) for key in keys]
    return [Fold("What the defenses noted", [Table("Notes of the defenses by round", columns, rows)])]


def _time(run: Run, number: int) -> list[Part]:
    totals: dict[str, float] = {}
    rows = []
    for record in evenly(run.trained, _MOST_ROUNDS):
        stages = _stages(record)
        rows += [{"round": record["round"], "stage": stage, "seconds": round(s, 5)} for stage, s in stages.items()]
    for record in run.trained:
        for stage, seconds in _stages(record).items():
            totals[stage] = totals.get(stage, 0.0) + seconds
    if not rows:
        return []
    alt = altair()
    data = Data(f"time-{number}", rows)
    chart = (
        alt.Chart(data.named)
        .mark_bar(aria=False)
        .encode(
            x=alt.X("round:O", title="round", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("sum(seconds):Q", title="seconds"),
            color=alt.Color(
                "stage:N", title=None, sort=list(totals), scale=alt.Scale(domain=list(totals), range=list(PALETTE))
            ),
            tooltip=["round:O", "stage:N", alt.Tooltip("seconds:Q", format=".3s")],
        )
    )
    total = sum(totals.values()) or 1.0
    told = "; ".join(f"{stage} {seconds:.2f} s" for stage, seconds in sorted(totals.items(), key=lambda t: -t[1]))
    summary = [
        {"stage": stage, "seconds": seconds, "share": 100 * seconds / total} for stage, seconds in totals.items()
    ]
    columns = [Column("stage", "Stage"), Column("seconds", "Seconds", 3), Column("share", "Share, %", 1)]
    what = "Time by stage and round."
    return [
        Fold(
            "Time by stage",
            [
                Chart(what, f"{what} In all: {told}.", chart.properties(height=200), [data]),
                Table("Time of the whole run by stage", columns, summary, sort="-seconds"),
            ],
        )
    ]


def _stages(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds of a round: clients, the stages on the server, evaluation."""
    seconds = {name: float(value) for name, value in (record.get("seconds") or {}).items()}
    server = {_stage(name): float(value) for name, value in record["stages"].items()}
    if "aggregation" not in seconds:
        return server
    rest = seconds.pop("aggregation") - sum(server.values())
    clients = {"clients": seconds.pop("clients")} if "clients" in seconds else {}
    return {**clients, **server, "rest of the server": max(0.0, rest), **seconds}


def _stage(name: str) -> str:
    return "reading replies" if name == "parse" else readable(name)


# --- how to repeat it ---------------------------------------------------------------------------------------------


def _repeat(run: Run) -> list[Part]:
    if not run.config:
        times = list(run.times.values())
        return [Text(f"Audit log {run.path}; rounds from {times[0]} to {times[-1]}.")] if times else []
    command = f"flsec run {shlex.quote(str(Path(run.path) / 'config.yaml'))}"
    packages = run.environment.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    python = run.environment.get("python")
    told = [f"Python {python}" if python else "", versions, str(run.environment.get("machine", ""))]
    return [
        Code("The command that repeats it", command),
        Text(f"Made with {'; '.join(part for part in told if part)}.")
        if any(told)
        else Text("Versions are not known."),
        Fold("Configuration", [Code("config.yaml", dump(dict(run.config)))]),
        Fold("Environment", [Code("environment.json", json.dumps(dict(run.environment), indent=2))]),
    ]
