"""Folders of runs that nobody ran: written as runs write them, in no time, and of any size."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flsec.simulations.records import defense_record
from flsec.simulations.yaml_lines import dump
from flsec.strategies import Quarantined, RoundReport, Threshold, Verdict

HONEST = 0.9


def config(attack: str | None = "sign_flipping", defense: str | None = "multi_krum", seed: int = 1, **more: Any) -> Any:
    """Resolved settings, as far as a report reads them."""
    return {
        "name": f"{attack}-{defense}-{seed}",
        "seed": seed,
        "data": {"name": "digits"},
        "model": {"name": "mlp"},
        "strategy": {"name": "fedavg"},
        "training": {"learning_rate": 0.1},
        "defenses": [] if defense is None else [{"name": defense}],
        "attacks": [] if attack is None else [{"name": attack, "scale": 4.0}],
        "adversaries": None if attack is None else {"fraction": 0.25},
        "simulation": {"engine": "inprocess", "num_clients": 8},
        "output": {"folder": "runs"},
        **more,
    }


def report(round_: int, clients: int, *, drops: bool, reason: str, notes: Any = None) -> RoundReport:
    """A round in which a quarter of the clients is dropped by score, and one reply quarantined for ``reason``."""
    everybody = tuple(range(clients - 1))
    kept = everybody[max(1, clients // 4) :] if drops else everybody
    scores = {client: 7.5 if client not in kept else 0.25 + client / 1000 for client in everybody}
    verdict = Verdict(
        "MultiKrum",
        everybody,
        kept,
        scores=scores,
        threshold=Threshold(at_most=1.5),
        weights=dict.fromkeys(everybody, 1.0 / clients),
        notes={"note": reason, **(notes or {})},
        judges=drops,
    )
    return RoundReport(
        round_,
        (Quarantined(clients - 1, reason, "not_finite"),),
        (verdict,),
        reason if round_ == 2 else None,
        {"parse": 0.01, "MultiKrum": 0.02},
        metrics_left_out={0: reason},
        asked=clients,
        usable=clients - 1,
        rejected=(clients - 1,),
    )


def write_run(
    folder: Path,
    settings: Any,
    *,
    rounds: int = 4,
    clients: int = 8,
    reason: str = "array 'w' holds NaN",
    measures: Sequence[str] = (),
    notes: Any = None,
    accuracy: float | None = None,
) -> Path:
    """Write a run's folder; under attack and undefended its accuracy falls."""
    folder.mkdir(parents=True)
    attacked, defended = bool(settings["attacks"]), bool(settings["defenses"])
    (folder / "config.yaml").write_text(dump(settings))
    environment = {"packages": {"flsec": "0.1.0"}, "python": "3.11", "machine": "Linux, 2 cores"}
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [{"round": 0, "accuracy": 0.1, "loss": 2.0, "attack": dict.fromkeys(measures, 0.0)}]
    for round_ in range(1, rounds + 1):
        hostile = list(range(max(1, clients // 4))) if attacked and round_ > 1 else []
        told = report(round_, clients, drops=defended, reason=reason, notes=notes)
        record = defense_record(told, hostile if attacked else None, range(clients))
        share = round_ / rounds * (0.3 if attacked and not defended else 1.0)
        record["accuracy"] = HONEST * share + settings["seed"] / 1000 if accuracy is None else accuracy
        record |= {"attack": dict.fromkeys(measures, 0.5), "sampled": list(range(clients)), "loss": 1.0}
        record["seconds"] = {"clients": 0.5, "aggregation": 0.1, "evaluation": 0.05}
        lines.append(record)
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write_grid(parent: Path, seeds: Sequence[int] = (1, 2, 3), **more: Any) -> Path:
    """Write the runs of a sweep over attack, defense and seed."""
    for attack in (None, "sign_flipping"):
        for defense in (None, "multi_krum"):
            for seed in seeds:
                write_run(parent / f"{attack}-{defense}-{seed}", config(attack, defense, seed), **more)
    return parent
