"""Running what claims still lack, each curve and seed a run of its own on one thread, and saying what comes out."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from flsec.errors import ConfigError
from flsec.simulations.config import Config, make_config
from flsec.simulations.studies.claim_plots import plot_claim
from flsec.simulations.studies.claim_results import (
    check_measures,
    judge,
    measured_in,
    read_result,
    record_of,
    write_record,
)
from flsec.simulations.studies.claims import Claim, Size, has_form, load_claim, resolve_claims
from flsec.simulations.studies.missing_runs import earlier_run, finish_run, is_finished, one_thread
from flsec.simulations.studies.statements import Measured, Outcome, interval, view_of
from flsec.simulations.studies.workers import worker_pool

__all__ = ["Report", "Reproduction", "list_claims", "missing_runs", "run_all"]

OnRound = Callable[[dict[str, Any]], None]
Runs = Mapping[tuple[str, int], Config]  # of each curve and seed
OnRun = Callable[[int, tuple[str, int], Config], OnRound]


def missing_runs(runs: Runs) -> Runs:
    """Return the runs that are not finished.

    Args:
        runs: as ``Claim.runs`` has them.

    Raises:
        ConfigError: the folder of one holds a run with other settings.
    """
    found = {key: earlier_run(config) for key, config in runs.items()}
    return {key: runs[key] for key, folder in found.items() if folder is None or not is_finished(folder.path)}


def run_all(
    runs: Runs,
    *,
    needed: Callable[[str], Sequence[str]] = lambda curve: (),
    jobs: int = 1,
    on_run: OnRun = lambda number, key, config: lambda record: None,
    verbose: bool = False,
) -> None:
    """Finish runs, several at a time if asked; the same numbers with any number of jobs.

    Args:
        runs: {(curve, seed): configuration}.
        needed: returns the measures that a curve must have; a run without one is stopped before its first round.
        jobs: processes; 1: this one.
        on_run: called as a run begins with its number, from 0, its curve and seed, and its configuration; returns what
            is called with each of its rounds. With several jobs it is called as a run ends.
        verbose: also show Flower's and Ray's messages on the terminal; of one job only.

    Raises:
        ConfigError: data or resources of a run are missing, or it does not measure what is needed.
        Interrupted: the user stopped it; what was run so far is kept.
    """
    if jobs == 1:
        with one_thread():
            for number, (key, config) in enumerate(runs.items()):
                on_round = _first_checked(needed(key[0]), on_run(number, key, config))
                finish_run(config, on_round=on_round, verbose=verbose)
        return
    with worker_pool(jobs) as pool:
        waiting = {pool.submit(_run, config.to_dict(), needed(key[0])): key for key, config in runs.items()}
        for number, done in enumerate(as_completed(waiting)):
            done.result()
            on_run(number, waiting[done], runs[waiting[done]])


def _run(settings: dict[str, Any], needed: Sequence[str]) -> Path:
    with one_thread():
        return finish_run(make_config(settings), on_round=_first_checked(needed, lambda record: None)).path


def _first_checked(needed: Sequence[str], on_round: OnRound) -> OnRound:
    """Return what is called with each round's record; the first one must have the measures."""

    def checked(record: dict[str, Any]) -> None:
        if record["round"] == 0:
            check_measures(record, needed)
        on_round(record)

    return checked


# --- claims of a command ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """What a claim came to, to be printed.

    Attributes:
        table: the paper's numbers beside ours.
        sentence: the verdict with its reason.
        expected: whether it is what the file expects; True where it expects nothing.
    """

    table: Table
    sentence: str
    expected: bool


@dataclass(frozen=True)
class Reproduction:
    """The claims that one command is about.

    Attributes:
        claims: {paper/claim: the claim}.
        runs: {paper/claim: its runs}.
        output: where runs and figures go.
    """

    claims: Mapping[str, Claim]
    runs: Mapping[str, Runs]
    output: Path

    @classmethod
    def of(
        cls,
        name: str | None,
        *,
        full: bool = False,
        quick: bool = False,
        output: Path,
        engine: str = "inprocess",
        ray_address: str | None = None,
    ) -> "Reproduction":
        """Read the claims that a command is about.

        Args:
            name: a paper, ``paper/claim``, or None for all.
            full: the paper's size.
            quick: the size of seconds, of those claims that have one.
            output: where the runs go.
            engine: what drives the clients.
            ray_address: of a Ray cluster to join.

        Raises:
            ConfigError: no such claim, or something in a file cannot work.
        """
        if full and quick:
            raise ConfigError("--full and --quick are two sizes; give one of them.")
        if engine not in _ENGINES or (ray_address is not None and engine == "inprocess"):
            raise ConfigError("--engine must be inprocess, pooled or flower; --ray-address goes with the last two.")
        size: Size = "full" if full else "quick" if quick else "small"
        names = resolve_claims(name)
        if quick:
            names = [name for name in names if has_form(name, "quick")] or names  # refused below, by name
        claims = {name: load_claim(name, size) for name in names}
        machinery = {"engine": engine, "ray_address": ray_address}
        return cls(claims, {name: claim.runs(output, machinery) for name, claim in claims.items()}, output)

    def report(self, name: str) -> Report:
        """Return what is to be printed of a claim."""
        claim = self.claims[name]
        measured = measured_in(claim, self.runs[name])
        result = judge(claim, measured)
        reason = f": {result.reason}" if result.reason else ""
        held = "".join(f"  {'holds' if o.holds else 'fails'}: {o.text}{_found(o)}\n" for o in result.outcomes)
        sentence = f"{held}{name} ({claim.size}, {claim.file.place}): {result.verdict}{reason}"
        return Report(_table(claim, measured), sentence, claim.expected in (None, result.verdict))

    def draw(self, name: str) -> Path:
        """Draw a claim's figure beside its runs and return its path."""
        path = self.output / f"{name.replace('/', '-')}-{self.claims[name].size}.png"
        plot_claim(self.claims[name], measured_in(self.claims[name], self.runs[name]), path)
        return path

    def record(self, name: str, results: Path) -> Path:
        """Write what is kept of a claim, and its figure, and return the file's path."""
        claim, runs = self.claims[name], self.runs[name]
        measured = measured_in(claim, runs)
        command = f"flsec reproduce {name}" + (" --full" if claim.size == "full" else "")
        path = results / f"{name}.json"
        write_record(record_of(claim, measured, runs, command), path)
        plot_claim(claim, measured, path.with_suffix(".png"))
        return path


_ENGINES = ("inprocess", "pooled", "flower")


def _found(outcome: Outcome) -> str:
    shown = []
    for finding in outcome.findings:
        spread = "" if finding.interval is None else f" [{finding.interval[0]:.3f}, {finding.interval[1]:.3f}]"
        shown.append(f"{finding.text} {finding.mean:.3f}{spread}")
    return f"\n    {'; '.join(shown)}" if shown else ""


def _table(claim: Claim, measured: Measured) -> Table:
    table = Table(title=f"{claim.name}: {claim.file.title}", caption=f"{len(claim.seeds)} seeds; {claim.file.of}")
    table.add_column("curve", no_wrap=True)
    for measure in claim.measures:
        table.add_column(f"{measure.replace('_', ' ')}: paper", justify="right")
        table.add_column("ours ± 95 %", justify="right", no_wrap=True)
    for curve in claim.curves:
        table.add_row(curve, *(cell for measure in claim.measures for cell in _cells(claim, measured, curve, measure)))
    return table


def _cells(claim: Claim, measured: Measured, curve: str, measure: str) -> tuple[str, str]:
    paper = claim.file.paper.get(measure, {}).get(curve)
    said = "" if paper is None else f"{paper:.3f}"
    if measure not in measured.get(curve, {}):
        return said, ""
    values = view_of(measured[curve][measure], "last" if measure == "l1_distance" else claim.file.of)
    spread = interval(values)
    return said, f"{values.mean():.3f}" + ("" if spread is None else f" ± {(spread[1] - spread[0]) / 2:.3f}")


def list_claims(name: str | None, results: Path) -> Table:
    """Return every claim with what was recorded of it.

    Args:
        name: a paper, ``paper/claim``, or None for all.
        results: the folder of what was recorded.

    Raises:
        ConfigError: no such claim.
    """
    table = Table(title="Claims")
    for column in ("claim", "place", "what", "verdict", "reason"):
        table.add_column(column, no_wrap=column == "claim")
    for found in resolve_claims(name):
        claim = load_claim(found)
        known = read_result(found, results) or vars(judge(claim, {}))
        table.add_row(found, claim.file.place, claim.file.title, known["verdict"], known["reason"])
    return table
