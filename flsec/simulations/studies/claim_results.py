"""What the runs of a claim gave: the verdict, and the small file that is kept of it."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from flsec.errors import ConfigError
from flsec.metrics.detection import Detection
from flsec.metrics.paired import l1_distance
from flsec.simulations.config import Config
from flsec.simulations.problems import nearest
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.studies.claims import Claim, Verdict, resolved_settings, settings_hash, twin_of
from flsec.simulations.studies.missing_runs import is_finished
from flsec.simulations.studies.statements import Curve, Measured, Outcome, interval, view_of

__all__ = [
    "Result",
    "check_measures",
    "judge",
    "measured_in",
    "measured_of",
    "read_result",
    "record_of",
    "write_record",
]

FEWEST_SEEDS = 3  # of which an interval says something
_RATES = ("precision", "recall", "false_positive_rate")


@dataclass(frozen=True)
class Result:
    """What a claim came to.

    Attributes:
        verdict: whether it comes out.
        reason: why not, or why that is open; empty if it comes out.
        outcomes: of its statements, as far as there are numbers.
    """

    verdict: Verdict
    reason: str
    outcomes: tuple[Outcome, ...] = ()


def judge(claim: Claim, measured: Measured) -> Result:
    """Return the verdict on a claim: it comes out if each of its statements holds.

    Args:
        claim: what is stated.
        measured: the curves; those that were not run are missing.

    Raises:
        ConfigError: a statement is about something that the runs did not measure.
    """
    missing = [curve for curve in claim.curves if curve not in measured]
    if missing:
        what = "" if len(missing) == len(claim.curves) else f": {', '.join(missing)}"
        return Result("open", _reason(claim, "open") or f"not run yet{what}")
    outcomes = tuple(
        statement.decide(measured, claim.paper_numbers(statement.measure), claim.file.measure, claim.file.of)
        for statement in claim.statements
    )
    seeds = min(len(curve.seeds) for measures in measured.values() for curve in measures.values())
    if seeds < FEWEST_SEEDS:
        return Result("open", _reason(claim, "open") or f"{seeds} of the {FEWEST_SEEDS} seeds that it takes", outcomes)
    if all(outcome.holds for outcome in outcomes):
        return Result("comes out", "", outcomes)
    failed = "; ".join(outcome.text for outcome in outcomes if not outcome.holds)
    known = _reason(claim, "does not come out")
    return Result("does not come out", known or f"no reason is established; what fails: {failed}", outcomes)


def _reason(claim: Claim, verdict: Verdict) -> str | None:
    """Return the reason that the file gives, if it is one for this verdict."""
    return claim.file.reason if claim.expected == verdict else None


# --- from run folders -------------------------------------------------------------------------------------------


def measured_in(claim: Claim, runs: Mapping[tuple[str, int], Config]) -> Measured:
    """Return what the finished runs of a claim measured; a curve counts once all its seeds are there.

    Args:
        claim: whose measures are read.
        runs: as ``claim.runs`` has them.
    """
    measured = {}
    for curve in claim.curves:
        folders = {seed: _folder(runs[curve, seed]) for seed in claim.seeds}
        if all(is_finished(folder) for folder in folders.values()):
            curves = {seed: _curves_of(folder, claim.measures) for seed, folder in folders.items()}
            twin = twin_of(curve, claim.curves)
            if "l1_distance" in claim.measures and twin is not None and claim.curves[curve].attacks:
                for seed, folder in folders.items():
                    curves[seed]["l1_distance"] = _distance(folder, _folder(runs[twin, seed]))
            measured[curve] = _over_seeds(curves)
    return measured


def _folder(config: Config) -> Path:
    return Path(config.output.folder) / config.name


def _curves_of(folder: Path, measures: Sequence[str]) -> dict[str, dict[int, float]]:
    """Return {measure: {round: value}} of one run, of those measures that it has."""
    curves: dict[str, dict[int, float]] = {measure: {} for measure in measures}
    for record in _with_rates(RunFolder.open(folder).rounds()):
        everything = {**record, **record.get("measures", {}), **record.get("attack", {}), **record["rates"]}
        for measure in measures:
            if everything.get(measure) is not None and record.get("accuracy") is not None:
                curves[measure][record["round"]] = _rounded(everything[measure])
    return {measure: curve for measure, curve in curves.items() if curve}


def check_measures(record: Mapping[str, Any], measures: Sequence[str]) -> None:
    """Refuse a run that does not measure what a statement is about, by its record before the first round.

    Raises:
        ConfigError: a measure is missing.
    """
    known = ["accuracy", "loss", *record["measures"], *record["attack"], *_RATES, "l1_distance"]
    for measure in measures:
        if measure not in known:
            raise ConfigError(
                f"a run does not measure {measure!r}.{nearest(measure, known)} It has {', '.join(known)}."
            )


def _with_rates(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records, each with the rates of the innermost defense's verdicts in all rounds up to it."""
    total = Detection(0, 0, 0, 0)
    complete = []
    for record in records:
        found = [defense["detection"] for defense in record.get("defenses", []) if defense["detection"] is not None]
        if found:
            counts = {name: found[-1][name] for name in Detection.__dataclass_fields__}
            total += Detection(**counts)
        complete.append({**record, "rates": {rate: getattr(total, rate) for rate in _RATES}})
    return complete


def _distance(folder: Path, twin: Path) -> dict[int, float]:
    """Return {last round: L1 distance to the attack-free model}; nothing where the twin has not been run."""
    if not is_finished(twin):
        return {}
    last = RunFolder.open(folder).rounds()[-1]["round"]
    models = (load_file(path / "model.safetensors") for path in (folder, twin))
    return {last: _rounded(l1_distance(*models))}


def _rounded(value: float) -> float:
    """Return a value as files keep it, so that a verdict is the same from runs and from files."""
    return float(f"{value:.4g}")


def _over_seeds(curves: Mapping[int, Mapping[str, Mapping[int, float]]]) -> dict[str, Curve]:
    """Return {measure: Curve} of what each seed has; a round that only some have is nan in the others."""
    joined = {}
    for measure in dict.fromkeys(measure for one in curves.values() for measure, curve in one.items() if curve):
        rounds = tuple(sorted({r for one in curves.values() for r in one.get(measure, {})}))
        values = {seed: tuple(one.get(measure, {}).get(r, math.nan) for r in rounds) for seed, one in curves.items()}
        joined[measure] = Curve(rounds, values)
    return joined


# --- the file that is kept --------------------------------------------------------------------------------------


def record_of(claim: Claim, measured: Measured, runs: Mapping[tuple[str, int], Config], command: str) -> dict[str, Any]:
    """Return what is kept of a claim: verdict, numbers beside the paper's, whole curves, settings, versions, seconds.

    Args:
        claim: that was run.
        measured: what its runs gave.
        runs: as ``claim.runs`` has them; versions and seconds are read from their folders.
        command: that does it again.
    """
    folders = [_folder(config) for config in runs.values() if is_finished(_folder(config))]
    environments = [json.loads((folder / "environment.json").read_text()) for folder in folders[:1]]
    seconds = sum(json.loads((folder / "summary.json").read_text())["seconds"] for folder in folders)
    result = judge(claim, measured)
    return {
        "claim": claim.name,
        "size": claim.size,
        "verdict": result.verdict,
        "reason": result.reason,
        "seeds": list(claim.seeds),
        "statements": [_outcome(outcome) for outcome in result.outcomes],
        "paper": claim.file.paper,
        "ours": {curve: _numbers(curves, claim.file.of) for curve, curves in measured.items()},
        "command": command,
        "versions": {k: v for environment in environments for k, v in environment.items() if k != "seed"},
        "seconds": round(seconds),
        "settings_hash": settings_hash(claim),
        "settings": resolved_settings(claim),
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    findings = [
        {"what": f.text, "mean": _short(f.mean), "interval": f.interval and [_short(v) for v in f.interval]}
        for f in outcome.findings
    ]
    return {"text": outcome.text, "holds": outcome.holds, "found": findings}


def _numbers(curves: Mapping[str, Curve], view: str) -> dict[str, Any]:
    numbers = {}
    for measure, curve in curves.items():
        values = view_of(curve, "last" if measure == "l1_distance" else view)
        spread = interval(values)
        numbers[measure] = {
            "mean": _short(float(values.mean())),
            "interval": spread and [_short(value) for value in spread],
            "round": list(curve.rounds),
            "by_seed": {str(seed): [_short(value) for value in row] for seed, row in curve.seeds.items()},
        }
    return numbers


def _short(value: float) -> float | None:
    return _rounded(value) if math.isfinite(value) else None


def measured_of(record: Mapping[str, Any]) -> Measured:
    """Return the curves of a stored record, from which the verdict can be made again."""
    return {
        curve: {
            measure: Curve(
                tuple(numbers["round"]),
                {
                    int(seed): tuple(math.nan if value is None else value for value in row)
                    for seed, row in numbers["by_seed"].items()
                },
            )
            for measure, numbers in measures.items()
        }
        for curve, measures in record["ours"].items()
    }


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record as JSON, each list of numbers in a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    path.write_text(re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n")


def read_result(name: str, results: Path) -> dict[str, Any] | None:
    """Return the stored record of a claim, if there is one.

    Args:
        name: ``paper/claim``.
        results: the folder of all records.
    """
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None
