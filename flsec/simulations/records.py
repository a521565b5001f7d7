"""What a run writes down: a line for each round, and what all of them come to."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import torch

from flsec.metrics.detection import Detection, detection
from flsec.simulations.schema import Config
from flsec.strategies import Adversary
from flsec.strategies.base import RoundReport, Verdict

__all__ = ["as_json", "defense_record", "summarise"]

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
        "quarantined": [asdict(entry) for entry in report.quarantined],
        "kept_previous_model": report.kept_previous_model,
        "defenses": [
            {
                "name": verdict.defense,
                "kept": list(verdict.kept),
                "scores": _by_client(verdict.scores),
                "weights": _by_client(verdict.weights),
                "notes": as_json(verdict.notes),
                "detection": None if hostile is None else _detection(verdict, hostile),
                "seconds": verdict.seconds,
            }
            for verdict in report.verdicts
            if verdict.defense != _ADVERSARY
        ],
        "stages": dict(report.seconds),
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


def _by_client(values: Mapping[int, float] | None) -> dict[str, float] | None:
    return None if values is None else {str(client): value for client, value in values.items()}


def as_json(value: Any) -> Any:
    """Return ``value`` as JSON can hold it."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    return value
