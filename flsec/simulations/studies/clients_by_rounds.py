"""Who attacked, who was dropped, by which defense and why: a cell for each client and round."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flsec.simulations.readable_names import readable
from flsec.simulations.studies.run_set import Run

__all__ = ["OUTCOMES", "Cells", "cells_of", "role_of"]

Record = Mapping[str, Any]

# What became of a client's reply, and its colour. Where it is not known who attacks, clients are kept or dropped.
OUTCOMES = {
    "honest, kept": "#A9C7E0",
    "attacker, kept": "#D55E00",
    "attacker, dropped": "#009E73",
    "honest, dropped": "#E69F00",
    "kept": "#A9C7E0",
    "dropped": "#0072B2",
    "quarantined": "#CC79A7",
    "no reply": "#8C8C8C",
}


@dataclass(frozen=True)
class Cells:
    """The grid of a run, thinned where it is too large.

    Attributes:
        rows: one a client and round: ``round``, ``client``, ``rank`` (its line), ``attacks`` (1 or 0), ``outcome``,
            ``defense``, ``score``, ``low`` and ``high`` (its threshold), ``weight``, ``why``.
        clients: how many clients are shown, and of how many.
        rounds: how many rounds are shown, and of how many.
    """

    rows: list[dict[str, Any]]
    clients: tuple[int, int]
    rounds: tuple[int, int]

    @property
    def thinned(self) -> str:
        """What was left out, in a sentence; empty where nothing was."""
        told = []
        for (shown, total), what in ((self.clients, "clients"), (self.rounds, "rounds")):
            if shown < total:
                told.append(f"{shown} of {total} {what}")
        return f"Shown are {' and '.join(told)}; the run's rounds.jsonl has all." if told else ""


def cells_of(run: Run, most: int, defense: str | None = None) -> Cells:
    """Return a run's grid.

    Args:
        run: with its records.
        most: how many cells at most. Rounds are then left out evenly, and of the clients those are kept that attacked,
            were dropped or quarantined most often.
        defense: the name of the defense whose scores are shown; None: of each client's verdict, the defense that
            dropped it or else the innermost that scored it.
    """
    clients = _clients(run)
    fitting = max(1, min(len(clients), math.isqrt(most)))
    fitting = max(fitting, min(len(clients), most // max(1, len(run.trained))))
    ranks = {client: rank for rank, client in enumerate(clients[:fitting])}
    records = evenly(run.trained, max(1, most // max(1, fitting)))
    rows = [row for record in records for row in _rows(record, ranks, defense)]
    return Cells(rows, (fitting, len(clients)), (len(records), len(run.trained)))


def evenly(values: Sequence[Any], most: int) -> Sequence[Any]:
    """Return at most so many values, evenly chosen, the last among them.

    Example:
        >>> evenly([1, 2, 3, 4, 5, 6, 7], 3)
        [3, 5, 7]
    """
    if len(values) <= most:
        return values
    step = len(values) / most
    return [values[math.ceil((place + 1) * step) - 1] for place in range(most)]


def role_of(record: Record, client: int) -> int | None:
    """Return 1 for a client that attacks in a round, 0 for one that does not, None where that is not known."""
    hostile = record.get("adversaries")
    return None if hostile is None else int(client in hostile)


def _clients(run: Run) -> list[int]:
    """Return all clients of a run, those of interest first."""
    interest: dict[int, int] = {}
    for record in run.trained:
        for client in _seen(record):
            interest.setdefault(client, 0)
        for client in record.get("adversaries") or ():
            interest[client] = interest.get(client, 0) + 1000
        for entry in record["quarantined"]:
            interest[entry["client_id"]] = interest.get(entry["client_id"], 0) + 1
        for verdict in record["defenses"]:
            for client in set(verdict["participants"]) - set(verdict["kept"]):
                interest[client] = interest.get(client, 0) + 1
    return sorted(interest, key=lambda client: (-interest[client], client))


def _seen(record: Record) -> list[int]:
    seen = [*record.get("sampled", ()), *(client for v in record["defenses"] for client in v["participants"])]
    return list(dict.fromkeys([*seen, *(entry["client_id"] for entry in record["quarantined"])]))


def _rows(record: Record, ranks: Mapping[int, int], defense: str | None) -> Iterator[dict[str, Any]]:
    quarantined = {entry["client_id"]: entry for entry in record["quarantined"]}
    sets = [(verdict, set(verdict["participants"]), set(verdict["kept"])) for verdict in record["defenses"]]
    for client in _seen(record):
        if client not in ranks:
            continue
        dropping = next((v for v, saw, kept in sets if client in saw and client not in kept), None)
        entry = quarantined.get(client)
        shown = dropping if defense is None else None
        if shown is None:
            shown = next((v for v, saw, _ in reversed(sets) if client in saw and _shows(v, defense)), None)
        score = number_of((shown or {}).get("scores"), client)
        weights = next((v["weights"] for v, saw, _ in reversed(sets) if client in saw and v["weights"]), None)
        attacks = role_of(record, client)
        threshold = (shown or {}).get("threshold") or {}
        yield {
            "round": record["round"],
            "client": str(client),  # ids of Flower's nodes have more digits than numbers in a browser
            "rank": ranks[client],
            "attacks": attacks or 0,
            "outcome": _outcome(entry, dropping is not None, attacks),
            "defense": "" if shown is None else readable(shown["name"]),
            "score": score,
            "low": _rounded(threshold.get("at_least")) if score is not None else None,
            "high": _rounded(threshold.get("at_most")) if score is not None else None,
            "weight": number_of(weights, client),
            "why": _why(record, entry, dropping, client),
        }


def _shows(verdict: Record, defense: str | None) -> bool:
    return bool(verdict["scores"]) if defense is None else verdict["name"] == defense


def _outcome(entry: Record | None, dropped: bool, attacks: int | None) -> str:
    if entry is not None:
        return "no reply" if entry.get("kind") in ("no_reply", "failed") else "quarantined"
    fate = "dropped" if dropped else "kept"
    return fate if attacks is None else f"{'attacker' if attacks else 'honest'}, {fate}"


def _why(record: Record, entry: Record | None, dropping: Record | None, client: int) -> str:
    if entry is not None:
        return str(entry["reason"])
    if dropping is None:
        kept = record["kept_previous_model"]
        return "" if kept is None else "no new model in this round"
    reasons = dropping["notes"].get("dropped")
    told = reasons.get(str(client)) if isinstance(reasons, Mapping) else None
    return str(told) if told is not None else ""


def number_of(values: Mapping[str, Any] | None, client: int) -> float | None:
    """Return a client's number as a page needs it: four digits, and None where there is none or it is not finite."""
    return _rounded((values or {}).get(str(client)))


def _rounded(value: Any) -> float | None:
    if value is None or not math.isfinite(float(value)):
        return None
    return float(f"{float(value):.4g}")
