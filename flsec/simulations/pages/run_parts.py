"""What a page tells of one run: its clients by rounds, scores, weights, quarantine, time, and how to repeat it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from flsec.simulations.pages.page import Chart, Code, Column, Data, Fold, Part, Table, Text
from flsec.simulations.pages.run_charts import grid_spec, penalties_spec, scores_spec, time_spec, weights_spec
from flsec.simulations.readable_names import readable
from flsec.simulations.studies.clients_by_rounds import OUTCOMES, Cells, cells_of, evenly, number_of, role_of
from flsec.simulations.studies.run_set import Run
from flsec.simulations.yaml_lines import dump

__all__ = ["Room", "run_parts"]

_MOST_LINES = 30  # clients of which a line each is drawn
_TALLEST = 620  # pixels of a grid
_SCORES = {"DiverseFL": "C1 × C2", "FLTrust": "trust score", "Krum": "Krum score", "MultiKrum": "Krum score"}


@dataclass(frozen=True)
class Room:
    """How much of a page a run may take.

    Attributes:
        cells: of its grid of clients and rounds.
        rows: of a table.
        rounds: of a chart over rounds.
        letters: of a reason in the grid.
    """

    cells: int
    rows: int
    rounds: int
    letters: int

    @classmethod
    def for_each_of(cls, runs: int) -> "Room":
        """Return the room of each of so many runs, with which the page stays under 5 MB."""
        share = max(1, runs)
        return cls(
            cells=max(100, 30_000 // share),
            rows=max(10, min(500, 2_000 // share)),
            rounds=max(10, min(300, 4_000 // share)),
            letters=max(60, min(200, 2_000 // share)),
        )


def run_parts(run: Run, number: int, room: Room) -> list[Part]:
    """Return what is told of a run.

    Args:
        run: simulated or deployed.
        number: its own on the page.
        room: how much of the page it may take.
    """
    parts: list[Part] = [Text(problem, "warning") for problem in run.problems]
    if run.trained:
        cells = cells_of(run, room.cells)
        data = Data(f"cells-{number}", [{**row, "why": _cut(row["why"], room.letters)} for row in cells.rows])
        parts += _grid(cells, data, run)
        parts += _scores(run, data, number, room)
        parts += _weights(data, cells)
        parts += _cases(run, number, room)
        parts += _troubles(run, room.rows)
        parts += _notes(run, room.rows)
        parts += _time(run, number, room.rounds)
    return [*parts, *_repeat(run)]


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 3] + "..."


# --- clients by rounds --------------------------------------------------------------------------------------------


def _grid(cells: Cells, data: Data, run: Run) -> list[Part]:
    if not cells.rows:
        return []
    present = {row["outcome"] for row in cells.rows}
    known = any(role_of(record, 0) is not None for record in run.trained)
    told = "Clients by rounds: what became of each reply, and by which defense; point at a cell for score, threshold "
    told += "and reason. " + ("A cross marks who attacks." if known else "Who attacks is not known here.")
    return [
        Chart(
            caption=f"{told} {cells.thinned}".strip(),
            description=f"Grid of clients by rounds. {_counted(cells)}",
            spec=grid_spec(tuple(outcome for outcome in OUTCOMES if outcome in present), _height(cells), _cross(cells)),
            data={"rows": data},
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


def _height(cells: Cells) -> int:
    return min(_TALLEST, max(120, 16 * cells.clients[0]))


def _cross(cells: Cells) -> int:
    """Return the area of a cross that fits into a cell on a narrow screen."""
    side = min(_height(cells) / max(1, cells.clients[0]), 900 / max(1, cells.rounds[0]))
    return round(max(2.0, min(60.0, (0.6 * side) ** 2)))


# --- scores and weights -------------------------------------------------------------------------------------------


def _scores(run: Run, cells: Data, number: int, room: Room) -> list[Part]:
    names = list(dict.fromkeys(v["name"] for record in run.trained for v in record["defenses"] if v["scores"]))
    parts: list[Part] = []
    for place, name in enumerate(names):
        data = cells
        if len(names) > 1:
            data = Data(f"scores-{number}-{place}", cells_of(run, room.cells // len(names), name).rows)
        rows = [row for row in data.rows if row["score"] is not None]
        if rows:
            parts.append(_score_chart(name, data, rows))
    return parts


def _score_chart(name: str, data: Data, rows: Sequence[Mapping[str, Any]]) -> Chart:
    scores = [row["score"] for row in rows]
    title = _SCORES.get(name, "score")
    bounds = tuple(bound for bound in ("low", "high") if any(row[bound] is not None for row in rows))
    what = f"{readable(name)}: {title} of each client by round" + ("; dashed, the threshold." if bounds else ".")
    return Chart(
        caption=what,
        description=f"{what} From {min(scores):.4g} to {max(scores):.4g}.",
        spec=scores_spec(title, bounds, _linear_up_to(scores)),
        data={"rows": data},
    )


def _linear_up_to(values: Sequence[float]) -> float | None:
    """Return up to which size a scale is linear that also shows small values beside very large ones; None: all."""
    sizes = sorted(abs(value) for value in values)
    typical = median(sizes)
    return float(f"{typical:.1g}") if typical > 0 and sizes[-1] > 100 * typical else None


def _weights(data: Data, cells: Cells) -> list[Part]:
    weights = [row["weight"] for row in data.rows if row["weight"] is not None]
    if not weights:
        return []
    what = "Weights of clients in the aggregate, by round."
    told = f"{what} From {min(weights):.4g} to {max(weights):.4g}."
    return [Chart(caption=what, description=told, spec=weights_spec(_height(cells)), data={"rows": data})]


# --- cases and penalties ------------------------------------------------------------------------------------------


def _cases(run: Run, number: int, room: Room) -> list[Part]:
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
        for record, verdict in evenly(told, room.rows)
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
    cut = f" ({len(rows)} of {len(told)} rounds)" if len(rows) < len(told) else ""
    return [Table(f"{name}: the case of each round{cut}", columns, rows), *_penalties(run, name, number, room.rounds)]


def _penalties(run: Run, name: str, number: int, most: int) -> list[Part]:
    found: dict[int, dict[int, float]] = {}
    hostile: set[int] = set()
    for record in run.trained:
        hostile |= set(record.get("adversaries") or ())
        for verdict in record["defenses"]:
            penalties = verdict["notes"].get("penalties")
            for client in map(int, penalties) if isinstance(penalties, Mapping) else ():
                value = number_of(penalties, client)
                if value is not None:
                    found.setdefault(client, {})[record["round"]] = value
    if not found:
        return []
    largest = sorted(found, key=lambda client: -max(found[client].values()))[:_MOST_LINES]
    rows = [
        {"round": r, "client": str(client), "penalty": value, "role": "attacks" if client in hostile else "honest"}
        for client in largest
        for r, value in evenly(list(found[client].items()), most)
    ]
    cut = f" The {len(largest)} largest of {len(found)} clients." if len(largest) < len(found) else ""
    what = f"{name}: penalties of clients by round.{cut}"
    columns = [
        Column("client", "Client"),
        Column("round", "Round", 0),
        Column("penalty", "Penalty"),
        Column("role", "Role"),
    ]
    return [Chart(what, what, penalties_spec(), {"rows": Data(f"penalties-{number}", rows)}, columns)]


def _listed(clients: Any) -> str:
    if not isinstance(clients, list):
        return ""
    return ", ".join(map(str, clients[:12])) + (f" and {len(clients) - 12} more" if len(clients) > 12 else "")


# --- what went wrong, notes, time ---------------------------------------------------------------------------------


def _troubles(run: Run, most: int) -> list[Part]:
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
    cut = f" (the first {most} of {len(rows)})" if len(rows) > most else ""
    return [Table(f"Quarantine, and rounds without a new model{cut}", columns, rows[:most])]


def _trouble(record: Mapping[str, Any], client: Any, what: str, reason: Any) -> dict[str, Any]:
    return {
        "round": record["round"],
        "client": None if client is None else str(client),
        "what": what,
        "reason": str(reason),
    }


def _notes(run: Run, most: int) -> list[Part]:
    """Tell the numbers and sentences that defenses noted, a row a round."""
    cut = f" ({most} of {len(run.trained)} rounds)" if len(run.trained) > most else ""
    rows = []
    keys: dict[str, None] = {}
    for record in evenly(run.trained, most):
        for verdict in record["defenses"]:
            plain = {k: v for k, v in verdict["notes"].items() if isinstance(v, int | float | str)}
            if plain:
                keys |= dict.fromkeys(plain)
                shown = {k: _cut(v, 200) if isinstance(v, str) else _short(v) for k, v in plain.items()}
                rows.append(
                    {"at": record["round"], "by": readable(verdict["name"]), **{f"n:{k}": v for k, v in shown.items()}}
                )
    if not rows:
        return []
    columns = [Column("at", "Round", 0), Column("by", "Defense", choose=True)]
    columns += [Column(f"n:{key}", key.replace("_", " ")) for key in keys]
    return [Fold("What the defenses noted", [Table(f"Notes of the defenses by round{cut}", columns, rows)])]


def _short(value: float) -> float:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _time(run: Run, number: int, most: int) -> list[Part]:
    totals: dict[str, float] = {}
    rows = []
    for record in evenly(run.trained, most):
        stages = _stages(record)
        rows += [{"round": record["round"], "stage": stage, "seconds": round(s, 5)} for stage, s in stages.items()]
    for record in run.trained:
        for stage, seconds in _stages(record).items():
            totals[stage] = totals.get(stage, 0.0) + seconds
    if not rows:
        return []
    total = sum(totals.values()) or 1.0
    told = "; ".join(f"{stage} {seconds:.2f} s" for stage, seconds in sorted(totals.items(), key=lambda t: -t[1]))
    summary = [
        {"stage": stage, "seconds": seconds, "share": 100 * seconds / total} for stage, seconds in totals.items()
    ]
    columns = [Column("stage", "Stage"), Column("seconds", "Seconds", 3), Column("share", "Share, %", 1)]
    cut = f" Shown are {most} of {len(run.trained)} rounds." if len(run.trained) > most else ""
    what = f"Time by stage and round.{cut}"
    chart = Chart(what, f"{what} In all: {told}.", time_spec(tuple(totals)), {"rows": Data(f"time-{number}", rows)})
    return [Fold("Time by stage", [chart, Table("Time of the whole run by stage", columns, summary, sort="-seconds")])]


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
