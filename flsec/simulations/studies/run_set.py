"""Runs read from what they left behind, and put beside each other: twins, seeds, what an attack and a defense cost."""

import csv
import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flsec.errors import ConfigError
from flsec.metrics.paired import cost_of_defense, damage
from flsec.simulations.readable_names import distinct_labels, readable
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.studies.statements import interval
from flsec.simulations.yaml_lines import read
from flsec.strategies._report_record import record_of
from flsec.strategies.audit_log import read_audit

__all__ = ["Point", "Run", "RunSet", "Scenario", "is_reconstruction", "run_folders", "study_folders"]

Record = dict[str, Any]
# In what twins and seeds may differ, and what changes no number.
_FREE = ("name", "seed", "output", "attacks", "adversaries", "defenses")
_FREE_OF_SIMULATION = ("engine", "client_resources", "init_args", "ray_address", "client_timeout", "device")
_MOST_TOLD = 3  # settings in which scenarios differ, named in their titles
_DEPTH = 3  # how far below a folder runs are looked for


@dataclass(frozen=True)
class Run:
    """What one run, or one server with an audit log, left behind.

    Attributes:
        name: of the folder or file.
        path: of it.
        rounds: the records, as in ``rounds.jsonl``; of an audit log without what only a simulation knows.
        config: the resolved settings; empty for an audit log.
        environment: versions and machine; empty for an audit log.
        problems: what is wrong with it, a sentence each.
        times: {round: when it ended}, of an audit log.
    """

    name: str
    path: Path
    rounds: Sequence[Record]
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    times: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def of_folder(cls, path: Path) -> "Run":
        """Read a run's folder.

        Raises:
            ConfigError: it is none, or a record is damaged or of an earlier flsec.
        """
        folder = RunFolder.open(path)
        records = folder.rounds()
        for record in records:
            if record["round"] > 0 and "stages" not in record:
                raise ConfigError(
                    f"{str(path)!r}: round {record['round']} is of an earlier flsec; run it again to have it reported."
                )
        file = path / "environment.json"
        environment = json.loads(file.read_bytes()) if file.is_file() else {}
        return cls(path.name, path, records, read(path / "config.yaml")[0], environment)

    @classmethod
    def of_audit_log(cls, path: Path) -> "Run":
        """Read the audit log of a server.

        Raises:
            ConfigError: it is none.
        """
        audit = read_audit(path)
        records = [record_of(entry.report) for entry in audit.entries]
        times = {entry.report.round: entry.time for entry in audit.entries}
        return cls(path.name, path, records, problems=audit.problems, times=times)

    @functools.cached_property
    def trained(self) -> list[Record]:
        """The records of rounds in which clients trained."""
        return [record for record in self.rounds if record["round"] > 0]

    @functools.cached_property
    def attacked(self) -> list[int]:
        """The rounds in which somebody attacked, as far as that is known."""
        return [record["round"] for record in self.trained if record.get("adversaries")]

    @property
    def measures(self) -> list[str]:
        """What was measured of the model: accuracy, then how far attacks reached their goals."""
        names = [name for record in self.rounds for name in record.get("attack", {})]
        known = ["accuracy"] if any(record.get("accuracy") is not None for record in self.rounds) else []
        return [*known, *dict.fromkeys(names)]

    def curve(self, measure: str) -> dict[int, float]:
        """Return {round: value} of a measure."""
        found = {}
        for record in self.rounds:
            value = record.get("accuracy") if measure == "accuracy" else record.get("attack", {}).get(measure)
            if value is not None:
                found[record["round"]] = float(value)
        return found

    def last(self, measure: str) -> float | None:
        """Return the last value of a measure; None if it was not measured."""
        return next(reversed(self.curve(measure).values()), None)

    def detection(self) -> dict[str, float | None]:
        """Return precision, recall and rate of false alarms over all rounds, of the innermost defense that judges."""
        counts: dict[str, dict[str, int]] = {}
        for record in self.trained:
            for defense in record["defenses"]:
                for name, value in (defense.get("detection") or {}).items():
                    if name.endswith(("positives", "negatives")):
                        pooled = counts.setdefault(defense["name"], {})
                        pooled[name] = pooled.get(name, 0) + value
        if not counts or self.attackless:
            return {}
        last = list(counts.values())[-1]
        hits, false, missed, fine = (
            last.get(f"{kind}s", 0) for kind in ("true_positive", "false_positive", "false_negative", "true_negative")
        )
        return {
            "recall": hits / (hits + missed) if hits + missed else None,
            "precision": hits / (hits + false) if hits + false else None,
            "false_positive_rate": false / (false + fine) if false + fine else None,
        }

    @property
    def attackless(self) -> bool:
        """Whether nobody attacks by the settings."""
        return not self.config.get("attacks")

    @property
    def seconds(self) -> float:
        """The run's time; of an audit log the server's alone."""
        return sum(sum((record.get("seconds") or record["stages"]).values()) for record in self.trained)


@dataclass(frozen=True)
class Point:
    """A measure of several seeds at one place.

    Attributes:
        mean: over the seeds.
        low: end of the 95 % interval of the mean by Student's t; None of one seed.
        high: the other end.
        count: how many seeds.
    """

    mean: float
    low: float | None
    high: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Point":
        """Return the point of some values, at least one."""
        spread = interval(values)
        low, high = spread if spread is not None else (None, None)
        return cls(sum(values) / len(values), low, high, len(values))

    @property
    def half(self) -> float | None:
        """Half the interval's width."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Scenario:
    """Runs that differ in nothing but attack, defense and seed.

    Attributes:
        title: data, model and number of clients.
        runs: {(attack, defense): its runs, one a seed}; both are labels for people.
    """

    title: str
    runs: Mapping[tuple[str, str], tuple[Run, ...]]

    @property
    def attacks(self) -> list[str]:
        """Their labels, those of no attack first."""
        return list(dict.fromkeys(attack for attack, _ in sorted(self.runs, key=lambda key: not self.attackless(key))))

    @property
    def defenses(self) -> list[str]:
        """Their labels, as they come."""
        return list(dict.fromkeys(defense for _, defense in self.runs))

    def attackless(self, key: tuple[str, str]) -> bool:
        """Whether nobody attacks in these runs."""
        return self.runs[key][0].attackless

    def curve(self, key: tuple[str, str], measure: str) -> dict[int, Point]:
        """Return {round: mean over the seeds, with its interval}."""
        curves = [run.curve(measure) for run in self.runs.get(key, ())]
        rounds = sorted({round_ for curve in curves for round_ in curve})
        return {r: Point.of([curve[r] for curve in curves if r in curve]) for r in rounds}

    def last(self, key: tuple[str, str], measure: str) -> Point | None:
        """Return the mean of a measure at the end; ``damage``, ``cost_of_defense`` and detection too."""
        values = [value for run in self.runs.get(key, ()) if (value := self.value(key, run, measure)) is not None]
        return Point.of(values) if values else None

    def value(self, key: tuple[str, str], run: Run, measure: str) -> float | None:
        """Return a measure of one run at its end."""
        if measure == "damage":
            return self._against(run, damage, self._attack_free(key)) if not run.attackless else None
        if measure == "cost_of_defense":
            undefended = self._undefended() if run.attackless and run.config.get("defenses") else ()
            return self._against(run, cost_of_defense, undefended)
        if measure in ("recall", "precision", "false_positive_rate"):
            return run.detection().get(measure)
        return run.last(measure)

    def _against(self, run: Run, cost: Any, others: Iterable[Run]) -> float | None:
        own = run.last("accuracy")
        for other in others:
            if other.config.get("seed") == run.config.get("seed") and (twin := other.last("accuracy")) is not None:
                return None if own is None else float(cost(own, twin))
        return None

    def _attack_free(self, key: tuple[str, str]) -> tuple[Run, ...]:
        """Return the twins of runs without their attack."""
        return tuple(
            run for other, runs in self.runs.items() if other[1] == key[1] and self.attackless(other) for run in runs
        )

    def _undefended(self) -> tuple[Run, ...]:
        """Return the runs without attack and defense."""
        runs = itertools.chain.from_iterable(self.runs.values())
        return tuple(run for run in runs if run.attackless and not run.config.get("defenses"))

    @functools.cached_property
    def measures(self) -> list[str]:
        """What was measured in any of the runs."""
        runs = itertools.chain.from_iterable(self.runs.values())
        return list(dict.fromkeys(measure for run in runs for measure in run.measures))


@dataclass(frozen=True)
class RunSet:
    """Several runs.

    Attributes:
        runs: in the order in which they were named.
    """

    runs: tuple[Run, ...]

    @classmethod
    def read(cls, paths: Iterable[Path]) -> "RunSet":
        """Read runs' folders, folders that hold such (a sweep's, say), and audit logs.

        Raises:
            ConfigError: there is no run at a path, or one is damaged.
        """
        runs = []
        for path in paths:
            folders = run_folders(path)
            if path.is_dir() and not folders:
                raise ConfigError(
                    f"{str(path)!r} holds no run. Give a folder that `flsec run` or `flsec sweep` printed."
                )
            read = [Run.of_folder(folder) for folder in folders] or [Run.of_audit_log(path)]
            runs += [run for run in read if run.rounds]
        return cls(tuple(runs))

    @functools.cached_property
    def scenarios(self) -> list[Scenario]:
        """Simulated runs, those together that differ in nothing but attack, defense and seed."""
        groups: dict[str, list[Run]] = {}
        for run in self.runs:
            if run.config:
                groups.setdefault(json.dumps(_common(run), sort_keys=True, default=str), []).append(run)
        titles = _titles([group[0] for group in groups.values()])
        return [Scenario(title, _labelled(group)) for title, group in zip(titles, groups.values(), strict=True)]

    @functools.cached_property
    def places(self) -> dict[int, tuple[Scenario, tuple[str, str]]]:
        """{``id`` of a simulated run: its scenario, and its attack and defense there}."""
        return {
            id(run): (scenario, key)
            for scenario in self.scenarios
            for key, runs in scenario.runs.items()
            for run in runs
        }


def is_reconstruction(path: Path) -> bool:
    """Return whether a folder is that of ``flsec reconstruct``."""
    return (path / "reconstruction.jsonl").is_file()


def run_folders(path: Path) -> list[Path]:
    """Return the folders of runs at a path: itself, or those below it."""
    return [folder for folder in _folders(path) if not is_reconstruction(folder)]


def study_folders(path: Path) -> list[Path]:
    """Return the folders of ``flsec reconstruct`` at a path: itself, or those below it."""
    return [folder for folder in _folders(path) if is_reconstruction(folder)]


def _folders(path: Path) -> Iterator[Path]:
    if (path / "config.yaml").is_file():
        yield path
        return
    for depth in range(1, _DEPTH):
        found = {file.parent for file in path.glob("*/" * depth + "config.yaml")}
        for parent in sorted({folder.parent for folder in found}):
            yield from sorted((folder for folder in found if folder.parent == parent), key=_order_in_sweep(parent))


def _order_in_sweep(path: Path) -> Any:
    """Return the key that sorts runs as the sweep has them; by name where there is no table."""
    file = path / "results.csv"
    places: dict[str, int] = {}
    if file.is_file():
        with file.open(newline="") as stream:
            places = {row.get("folder", ""): place for place, row in enumerate(csv.DictReader(stream))}
    return lambda folder: (places.get(folder.name, len(places)), folder.name)


def _labelled(runs: Sequence[Run]) -> dict[tuple[str, str], tuple[Run, ...]]:
    """Return the runs of one scenario by the labels of attack and defense."""
    attacks = [_attacks(run) for run in runs]
    defenses = [run.config.get("defenses") or [] for run in runs]
    of_attacks, of_defenses = distinct_labels(attacks, "no attack"), distinct_labels(defenses, "no defense")
    found: dict[tuple[str, str], list[Run]] = {}
    for run, attack, defense in zip(runs, attacks, defenses, strict=True):
        found.setdefault((of_attacks[repr(attack)], of_defenses[repr(defense)]), []).append(run)
    return {key: tuple(group) for key, group in found.items()}


def _attacks(run: Run) -> list[Mapping[str, Any]]:
    """Return a run's attacks; how many attack, and when, are parameters of the first."""
    attacks = run.config.get("attacks") or []
    who = {key: value for key, value in (run.config.get("adversaries") or {}).items() if value is not None}
    return [{**attack, **(who if place == 0 else {})} for place, attack in enumerate(attacks)]


def _common(run: Run) -> dict[str, Any]:
    """Return the settings in which a run's twins agree with it."""
    common = {key: value for key, value in run.config.items() if key not in _FREE}
    simulation = common.get("simulation") or {}
    return {**common, "simulation": {k: v for k, v in simulation.items() if k not in _FREE_OF_SIMULATION}}


def _titles(runs: Sequence[Run]) -> list[str]:
    """Return what is told of data, model and clients, and by what else runs differ that agree in these."""
    plain = [_title(run) for run in runs]
    flat = [_flat(_common(run)) for run in runs]
    titles = []
    for title, settings in zip(plain, flat, strict=True):
        namesakes = [other for other, of in zip(flat, plain, strict=True) if of == title]
        differing = [key for key in settings if any(other.get(key) != settings[key] for other in namesakes)]
        said = [key for key in differing if settings[key] not in (None, {}, [])]
        told = [f"{key.rpartition('.')[2].replace('_', ' ')} {settings[key]}" for key in said[:_MOST_TOLD]]
        titles.append(", ".join([title, *told]))
    return titles


def _title(run: Run) -> str:
    names = [(run.config.get(part) or {}).get("name", "") for part in ("data", "model", "strategy")]
    clients = (run.config.get("simulation") or {}).get("num_clients")
    return ", ".join([*(readable(str(name)) for name in names if name), f"{clients} clients"])


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return {path: setting} of nested settings."""
    if isinstance(value, Mapping) and value:
        parts = (_flat(entry, f"{path}.{key}" if path else str(key)) for key, entry in value.items())
        return dict(itertools.chain.from_iterable(part.items() for part in parts))
    return {path: value}
