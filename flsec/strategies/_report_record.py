"""A round's report as JSON and back: one form for the audit log and for the records of simulations.

What JSON does not have is written as text: NaN and infinity as "nan", "inf" and "-inf", which ``float`` reads.
"""

import math
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
import torch

from flsec.strategies.report import Quarantined, RoundReport, Threshold, Verdict, text_of

__all__ = ["as_json", "record_of", "report_of", "verdict_record"]


def record_of(report: RoundReport) -> dict[str, Any]:
    """Return a report in types that strict JSON has."""
    return {
        "round": report.round,
        "asked": report.asked,
        "usable": report.usable,
        "rejected": list(report.rejected),
        "quarantined": [dict(vars(entry)) for entry in report.quarantined],
        "metrics_left_out": as_json(report.metrics_left_out),
        "kept_previous_model": report.kept_previous_model,
        "defenses": [verdict_record(verdict) for verdict in report.verdicts],
        "stages": as_json(report.seconds),
    }


def verdict_record(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict in types that strict JSON has; clients are keys as text."""
    threshold = verdict.threshold
    return {
        "name": verdict.defense,
        "judges": verdict.judges,
        "participants": list(verdict.participants),
        "kept": list(verdict.kept),
        "accused": list(verdict.accused),
        "scores": as_json(verdict.scores),
        "threshold": None if threshold is None else as_json(vars(threshold)),
        "weights": as_json(verdict.weights),
        "notes": as_json(verdict.notes),
        "seconds": as_json(verdict.seconds),
    }


def report_of(record: Mapping[str, Any]) -> RoundReport:
    """Return the report that a record was made of; its notes hold what JSON has.

    Raises:
        ValueError: it is no such record; the message says what is missing or wrong.
    """
    try:
        return RoundReport(
            round=int(record["round"]),
            quarantined=tuple(Quarantined(int(q["client_id"]), q["reason"], q["kind"]) for q in record["quarantined"]),
            verdicts=tuple(_verdict_of(verdict) for verdict in record["defenses"]),
            kept_previous_model=record["kept_previous_model"],
            seconds={name: float(value) for name, value in record["stages"].items()},
            metrics_left_out={int(client_id): why for client_id, why in record["metrics_left_out"].items()},
            asked=int(record["asked"]),
            usable=int(record["usable"]),
            rejected=tuple(map(int, record["rejected"])),
        )
    except KeyError as error:
        raise ValueError(f"this is no record of a round: it lacks {error}") from None
    except (TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"this is no record of a round: {error}") from None


def _verdict_of(record: Mapping[str, Any]) -> Verdict:
    threshold = record["threshold"]
    return Verdict(
        defense=record["name"],
        participants=tuple(map(int, record["participants"])),
        kept=tuple(map(int, record["kept"])),
        weights=_numbers(record["weights"]),
        scores=_numbers(record["scores"]),
        notes=dict(record["notes"]),
        seconds=float(record["seconds"]),
        judges=bool(record["judges"]),
        accused=tuple(map(int, record["accused"])),
        threshold=None if threshold is None else Threshold(*(_number(threshold[name]) for name in vars(Threshold()))),
    )


def _numbers(values: Mapping[str, Any] | None) -> dict[int, float] | None:
    return None if values is None else {int(client_id): float(value) for client_id, value in values.items()}


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def as_json(value: Any) -> Any:
    """Return a value in types that strict JSON has: of what has no such form, its text.

    Example:
        >>> as_json({3: (1, float("inf")), "when": {"x"}, "how": torch.ones(2)})
        {'3': [1, 'inf'], 'when': ['x'], 'how': [1.0, 1.0]}
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {text_of(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, Set):
        return [as_json(entry) for entry in sorted(value, key=text_of)]
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return text_of(value)
