"""What a run writes down: a line for each round, and what all of them come to."""

from collections.abc import Collection
from dataclasses import asdict, fields
from typing import Any

from flsec.metrics.detection import Detection, detection
from flsec.simulations.schema import Config
from flsec.strategies import Adversary
from flsec.strategies._report_record import as_json, record_of, verdict_record
from flsec.strategies.base import RoundReport, Verdict

__all__ = ["defense_record", "summarise"]

_ADVERSARY = Adversary.__name__


def defense_record(report: RoundReport, hostile: Collection[int] | None, sampled: Collection[int]) -> dict[str, Any]:
    """Return what the server decided about the clients of a round, beside the truth.

    Args:
        report: of the outermost defense.
        hostile: ids of those who attack in this round; None where nobody ever does.
        sampled: ids of the clients that were asked.
    """
    together = [verdict.notes["chosen"] for verdict in report.verdicts if verdict.defense == _ADVERSARY]
    return {
        "adversaries": sorted(set(hostile or ()) & set(sampled)),
        "collusion": as_json(together[0]) if together else {},
        **record_of(report),
        "defenses": [
            {**verdict_record(verdict), "detection": None if hostile is None else _detection(verdict, hostile)}
            for verdict in report.verdicts
            if verdict.defense != _ADVERSARY
        ],
    }


def summarise(config: Config, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what a run comes to: final and best accuracy, attack success, detection, time."""
    evaluated = [record for record in rounds if record.get("accuracy") is not None]
    last = evaluated[-1]
    attack: dict[str, Any] = {}
    for name in last.get("attack", {}):
        values = [r["attack"][name] for r in evaluated if r["round"] > 0 and r["attack"].get(name) is not None]
        if values:
            attack[name] = {"last": values[-1], "mean": sum(values) / len(values), "max": max(values)}
    trained = [record for record in rounds if record["round"] > 0]
    return {
        "name": config.name,
        "seed": config.seed,
        "rounds": len(trained),
        "accuracy": last["accuracy"],
        "best_accuracy": max(record["accuracy"] for record in evaluated),
        "loss": last["loss"],
        "measures": last.get("measures", {}),
        "attack": attack,
        "detection": _overall_detection(trained),
        "rounds_that_kept_the_previous_model": sum(r["kept_previous_model"] is not None for r in trained),
        "quarantined": sum(len(r["quarantined"]) for r in trained),
        "seconds": sum(sum(r["seconds"].values()) for r in trained),
    }


def _overall_detection(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Pool the counts of all rounds for each defense that judges clients."""
    pooled: dict[str, Detection] = {}
    for record in rounds:
        for defense in record["defenses"]:
            if defense["detection"] is not None:
                counts = Detection(**{name: defense["detection"][name] for name in _COUNTS})
                before = pooled.get(defense["name"])
                pooled[defense["name"]] = counts if before is None else before + counts
    return {name: _rates(counts) for name, counts in pooled.items()}


_COUNTS = tuple(field.name for field in fields(Detection))


def _rates(counts: Detection) -> dict[str, Any]:
    return {
        **asdict(counts),
        "precision": counts.precision,
        "recall": counts.recall,
        "false_positive_rate": counts.false_positive_rate,
    }


def _detection(verdict: Verdict, hostile: Collection[int]) -> dict[str, Any] | None:
    """Compare a verdict with the truth, for defenses that judge clients."""
    if not verdict.judges:
        return None
    rejected = set(verdict.participants) - set(verdict.kept)
    return _rates(detection(rejected, hostile, verdict.participants))
