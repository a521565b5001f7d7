"""The numbers of a round's record under plain names: columns of a table, curves of a dashboard."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MEASURED", "dropped_in", "numbers_of"]

MEASURED = ("loss", "accuracy", "measures", "per_class_accuracy", "attack")  # keys that evaluated rounds alone have


def dropped_in(record: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return how many attackers and how many honest clients the defenses dropped in a round; None if none judges.

    Example:
        >>> verdict = {"judges": True, "participants": [0, 1, 2], "kept": [0]}
        >>> dropped_in({"adversaries": [2, 5], "defenses": [verdict]})
        (1, 1)
    """
    judges = [verdict for verdict in record["defenses"] if verdict["judges"]]
    if not judges:
        return None
    dropped = {client for verdict in judges for client in set(verdict["participants"]) - set(verdict["kept"])}
    hostile = set(record["adversaries"] or ())
    return len(dropped & hostile), len(dropped - hostile)


def numbers_of(record: Mapping[str, Any]) -> dict[str, float]:
    """Return all numbers of a record of ``rounds.jsonl`` by name; groups of them are named ``group/number``.

    ``accuracy``, ``loss``, ``measures/...``, ``attack/...`` (success), ``class_accuracy/...`` where the round was
    evaluated; of the server ``asked``, ``usable``, ``quarantined``, ``kept_previous_model`` (0 or 1), ``attackers``,
    ``dropped_attackers`` and ``dropped_honest``; of each defense ``DEFENSE/kept``, ``dropped``, ``at_most`` and
    ``at_least`` (its threshold), ``precision`` and ``recall``; ``clients/...``, what clients report on average;
    ``seconds/...``. What is not known is left out.

    Example:
        >>> numbers_of({"round": 0, "loss": 2.5, "accuracy": 0.1, "measures": {}, "attack": {"success": 0.2}})
        {'loss': 2.5, 'accuracy': 0.1, 'attack/success': 0.2}
    """
    return {name: float(value) for name, value in _named(record) if isinstance(value, bool | int | float)}


def _named(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "loss", record.get("loss")
    yield "accuracy", record.get("accuracy")
    groups = {
        "measures": record.get("measures", {}),
        "attack": record.get("attack", {}),
        "class_accuracy": dict(enumerate(record.get("per_class_accuracy", ()))),
        "clients": record.get("clients", {}),
        "seconds": record.get("seconds", {}),
    }
    if "defenses" in record:
        yield from _decided(record)
    for group, values in groups.items():
        yield from ((f"{group}/{name}", value) for name, value in values.items())


def _decided(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from ((name, record[name]) for name in ("asked", "usable"))
    yield "quarantined", len(record["quarantined"])
    yield "kept_previous_model", record["kept_previous_model"] is not None
    if record["adversaries"] is not None:
        yield "attackers", len(record["adversaries"])
        if (dropped := dropped_in(record)) is not None:
            yield from zip(("dropped_attackers", "dropped_honest"), dropped, strict=True)
    seen: set[str] = set()
    for number, verdict in enumerate(record["defenses"]):
        name = verdict["name"] if verdict["name"] not in seen else f"{verdict['name']}_{number}"
        seen.add(name)
        yield f"{name}/kept", len(verdict["kept"])
        yield f"{name}/dropped", len(set(verdict["participants"]) - set(verdict["kept"]))
        rates = verdict.get("detection") or {}
        for group in (verdict["threshold"] or {}, {rate: rates.get(rate) for rate in ("precision", "recall")}):
            yield from ((f"{name}/{key}", value) for key, value in group.items())
