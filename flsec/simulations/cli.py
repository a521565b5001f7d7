"""The command ``flsec``."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from flsec import __version__
from flsec.errors import ConfigError, NoProgressError, SaveError
from flsec.simulations import lookup
from flsec.simulations._help import Group
from flsec.simulations.figure import figure
from flsec.simulations.leaderboard import leaderboard
from flsec.simulations.report import report
from flsec.simulations.submit import submit
from flsec.simulations.terminal import RunProgress, errors, is_plain, print_json, say, show_grid, show_table

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
Overrides = lookup.Overrides
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Also show what Flower and Ray log.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"flsec {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: flsec run quickstart")
def flsec(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end.")
    ] = False,
) -> None:
    """Attacks, defenses and honest measurements for federated learning."""


@app.command(epilog="Example: flsec run quickstart --set seed=3 --set 'defenses[0].num_byzantine=3'")
def run(
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="A YAML file, or the name of a packaged experiment, such as quickstart.",
            autocompletion=lookup.names_or_files("experiments"),
        ),
    ] = None,
    overrides: Overrides = None,
    compare: Annotated[
        bool | None,
        typer.Option("--compare/--no-compare", help="Also run it without the attack and without the defense."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder instead.")] = None,
    from_round: Annotated[int | None, typer.Option(help="With --resume: continue after this round.")] = None,
    rounds: Annotated[int | None, typer.Option(help="With --resume: extend the run to so many rounds.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run an experiment and print what it came to."""
    from flsec.simulations import engine
    from flsec.simulations.run_folder import RunFolder
    from flsec.simulations.studies.comparison import Comparison
    from flsec.simulations.studies.missing_runs import is_finished

    if (experiment is None) == (resume is None):
        raise ConfigError("flsec run takes an experiment, such as quickstart, or --resume with a run's folder.")
    if resume is not None:
        config = _resumed_config(resume, overrides, rounds)
    else:
        config = _new_config(str(experiment), overrides or [], {"--from-round": from_round, "--rounds": rounds})
    comparison = Comparison.of(config) if (config.output.compare if compare is None else compare) else None
    again = "" if comparison is None or config.output.compare else " --compare"
    try:
        with RunProgress(config.simulation.num_rounds) as progress:
            if resume is None:
                folder = engine.run(config, on_round=progress, verbose=verbose)
            elif comparison is not None and is_finished(resume) and from_round is None and rounds is None:
                folder = RunFolder.open(resume)
            else:
                folder = engine.resume(
                    resume,
                    from_round=from_round,
                    rounds=rounds,
                    on_start=progress.resumed,
                    on_round=progress,
                    verbose=verbose,
                )
    except engine.Interrupted as stopped:
        say(f"Stopped. Go on with: flsec run --resume {stopped}{again}", errors, "yellow")
        raise typer.Exit(130) from None
    if comparison is None:
        _print_result(folder, as_json)
        return
    _print_comparison(comparison, folder, _run_twins(comparison, folder, again, verbose), as_json)


def _new_config(experiment: str, overrides: list[str], of_resumed: dict[str, int | None]) -> Any:
    from flsec.simulations.check import also_said
    from flsec.simulations.config import load_config, resolve_experiment

    for option, value in of_resumed.items():
        if value is not None:
            raise ConfigError(f"{option} goes with --resume FOLDER.")
    path = resolve_experiment(experiment)
    try:
        return load_config(path, overrides)
    except ConfigError as error:
        raise also_said(error, experiment, overrides) from None


def _resumed_config(folder: Path, overrides: list[str] | None, rounds: int | None) -> Any:
    from flsec.simulations.config import load_config
    from flsec.simulations.extension import extended
    from flsec.simulations.run_folder import RunFolder

    if overrides:
        raise ConfigError("--set cannot change a run that is resumed; start a new one instead.")
    RunFolder.open(folder)
    config = load_config(folder / "config.yaml")
    return config if rounds is None else extended(config, rounds)


def _run_twins(comparison: Any, folder: Any, again: str, verbose: bool) -> list[dict[str, Any]]:
    from flsec.simulations import engine

    num_rounds = comparison.config.simulation.num_rounds
    try:
        with RunProgress(num_rounds) as progress:

            def on_twin(number: int, twin: Any) -> Any:
                progress.start(f"{twin.label} ({number + 1}/{len(comparison.twins)})", num_rounds)
                return progress

            rows: list[dict[str, Any]] = comparison.finish(folder, on_twin=on_twin, verbose=verbose)
    except engine.Interrupted:
        say(f"Stopped. Go on with: flsec run --resume {folder.path}{again}", errors, "yellow")
        raise typer.Exit(130) from None
    return rows


app.command(epilog="Example: flsec submit quickstart --superlink my_federation")(submit)
app.command(epilog="Example: flsec leaderboard digits")(leaderboard)


@app.command(epilog="Example: flsec sweep attack_table --set simulation.num_rounds=5")
def sweep(
    grid: Annotated[
        str,
        typer.Argument(
            help="A YAML file with an experiment and what to vary, or a packaged one, such as attack_table.",
            autocompletion=lookup.names_or_files("sweeps"),
        ),
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run an experiment over a grid of settings; the same command again goes on where it stopped."""
    from flsec.simulations import engine
    from flsec.simulations.config import resolve_experiment
    from flsec.simulations.studies.sweep import load_sweep, run_sweep

    cells = load_sweep(resolve_experiment(grid, ".sweep"), overrides or [])
    total = len(cells.cells)
    try:
        with RunProgress(1) as progress:

            def on_cell(number: int, cell: Any) -> Any:
                progress.start(f"{cell.name} ({number + 1}/{total})", cell.config.simulation.num_rounds)
                return progress

            rows = run_sweep(cells, on_cell=on_cell, verbose=verbose)
    except engine.Interrupted:
        say("Stopped. The same command goes on.", errors, "yellow")
        raise typer.Exit(130) from None
    _print_sweep(cells, rows, as_json)


@app.command(epilog="Example: flsec reconstruct reconstruction/quick --set attack.max_iterations=50")
def reconstruct(
    study: Annotated[
        str,
        typer.Argument(
            help="A YAML file, or a packaged one, such as reconstruction/quick.",
            autocompletion=lookup.names_or_files("reconstructions"),
        ),
    ],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure how much of clients' data a server can rebuild; the same command again goes on where it stopped."""
    from flsec.simulations.config import resolve_experiment
    from flsec.simulations.studies.reconstruct import leakage_table, load_reconstruction, run_reconstruction
    from flsec.simulations.studies.reconstruct_results import read_rows, summarise

    settings = load_reconstruction(resolve_experiment(study, ".reconstruct"), overrides or [])
    columns = (TextColumn("reconstruction"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
    try:
        left = (TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *left, console=errors, disable=is_plain(errors)) as bar:
            task = bar.add_task("")
            folder = run_reconstruction(settings, lambda done, total: bar.update(task, completed=done, total=total))
    except KeyboardInterrupt:
        say("Stopped. The same command goes on.", errors, "yellow")
        raise typer.Exit(130) from None
    if as_json:
        print_json({"name": folder.name, "settings": summarise(read_rows(folder)), "folder": str(folder)})
        return
    show_table(leakage_table(folder))
    _print_places({"Folder": folder, "Plot": folder / "leakage.png"})


@app.command(epilog="Example: flsec reproduce diversefl --quick")
def reproduce(
    claim: Annotated[
        str | None,
        typer.Argument(
            help="A paper, or PAPER/CLAIM, such as siren/fig5_40; else all.",
            autocompletion=lookup.names_or_files("papers", "claims", files=False),
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The paper's size.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="One claim a paper, in seconds each.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list claims and recorded verdicts.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each on a thread of its own.")] = 1,
    output: Annotated[Path, typer.Option(help="Where the runs go.")] = Path("runs/claims"),
    record: Annotated[bool, typer.Option("--record", help="Keep verdict and figure in --results.")] = False,
    results: Annotated[Path, typer.Option(help="The folder of what was recorded.")] = Path("results"),
    engine_name: Annotated[str, typer.Option("--engine", help="inprocess, pooled or flower.")] = "inprocess",
    ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster to join; with --engine.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run what a paper's claim lacks, and print the paper's numbers beside ours; the same command goes on."""
    from flsec.simulations import engine
    from flsec.simulations.studies.reproduce import Reproduction, claims_table, known_claims, missing_runs, run_all

    if list_only:
        known = known_claims(claim, results)
        print_json(known) if as_json else show_table(claims_table(known))
        return
    if quick and record:
        raise ConfigError("--quick checks that claims run; to record the small form, leave it out.")
    work = Reproduction.of(claim, full=full, quick=quick, output=output, engine=engine_name, ray_address=ray_address)
    unexpected, told = [], []
    try:
        with RunProgress(1) as progress:
            for name in work.claims:
                waiting = missing_runs(work.runs[name])

                def on_run(number: int, key: Any, config: Any, name: str = name, total: int = len(waiting)) -> Any:
                    what = f"{name} {key[0]}, seed {key[1]} ({number + 1}/{total})"
                    progress.start(what, config.simulation.num_rounds)
                    return progress

                run_all(waiting, needed=work.claims[name].needed, jobs=jobs, on_run=on_run, verbose=verbose)
                report = work.report(name)
                unexpected += [] if report.expected else [name]
                written = {"Recorded": work.record(name, results)} if record else {"Figure": work.draw(name)}
                if as_json:
                    told.append({**report.as_json(), **{what.lower(): str(path) for what, path in written.items()}})
                else:
                    show_table(report.table)
                    say(report.sentence)
                    _print_places(written)
    except (engine.Interrupted, KeyboardInterrupt):
        say("Stopped. The same command goes on.", errors, "yellow")
        raise typer.Exit(130) from None
    if as_json:
        print_json(told)
    if unexpected:
        errors.print(f"Another verdict than the file expects: {', '.join(unexpected)}", style="red")
        raise typer.Exit(1)


app.command(name="list", epilog="Example: flsec list defenses")(lookup.list_)
app.command(epilog="Example: flsec describe krum")(lookup.describe)
app.command(epilog="Example: flsec init quickstart > my.yaml")(lookup.init)
app.command(epilog="Example: flsec schema > flsec.schema.json")(lookup.schema)
app.command(epilog="Example: flsec check quickstart --set 'defenses[0].num_byzantine=9'")(lookup.check)
app.command(epilog="Example: flsec doctor --start-ray")(lookup.doctor)


app.command(epilog="Example: flsec report runs/quickstart")(report)
app.command(epilog="Example: flsec figure runs/quickstart")(figure)


def _print_result(folder: Any, as_json: bool) -> None:
    summary = json.loads((folder.path / "summary.json").read_text())
    if as_json:
        print_json({**summary, "folder": str(folder.path)})
        return
    table = Table(title=f"{summary['name']}: {summary['rounds']} rounds in {summary['seconds']:.1f} s")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_row("test accuracy", f"{summary['accuracy']:.4f}")
    table.add_row("best test accuracy", f"{summary['best_accuracy']:.4f}")
    for name, value in summary["measures"].items():
        table.add_row(f"test {name.replace('_', ' ')}", f"{value:.4f}")
    for name, values in summary["attack"].items():
        table.add_row(f"{name.replace('_', ' ')} (last)", f"{values['last']:.4f}")
        table.add_row(f"{name.replace('_', ' ')} (largest)", f"{values['max']:.4f}")
    for defense, rates in summary["detection"].items():
        for rate in ("precision", "recall", "false_positive_rate"):
            if rates[rate] is not None:
                table.add_row(f"{defense}: {rate.replace('_', ' ')}", f"{rates[rate]:.4f}")
    if summary["quarantined"]:
        table.add_row("replies quarantined", str(summary["quarantined"]))
    if summary["rounds_that_kept_the_previous_model"]:
        table.add_row("rounds without a new model", str(summary["rounds_that_kept_the_previous_model"]))
    show_table(table)
    _print_places({"Folder": folder.path, "Plot": folder.path / "accuracy.png"})


def _print_comparison(comparison: Any, folder: Any, rows: list[dict[str, Any]], as_json: bool) -> None:
    from flsec.simulations.studies.comparison import PICTURE

    title, said = comparison.title(folder.rounds()), comparison.verdict(rows)
    if as_json:
        print_json({"title": title, "verdict": said, "runs": rows, "folder": str(folder.path)})
        return
    table = Table(title=title)
    table.add_column("run", no_wrap=True)
    attack = list(dict.fromkeys(name for row in rows for name in row["attack"]))
    for column in (
        "test accuracy",
        *(name.replace("_", " ") for name in attack),
        "attackers dropped",
        "honest dropped",
    ):
        table.add_column(column, justify="right")
    for row in rows:
        measured = [row["accuracy"], *(row["attack"].get(name) for name in attack)]
        dropped = [(row[f"dropped_{who}"], row[who]) for who in ("attackers", "honest")]
        table.add_row(
            row["run"],
            *("-" if value is None else f"{value:.4f}" for value in measured),
            *("-" if number is None or not of else f"{number} of {of}" for number, of in dropped),
        )
    show_table(table)
    say(said)
    _print_places({"Folder": folder.path, "Plot": folder.path / PICTURE})


def _print_sweep(sweep: Any, rows: list[dict[str, Any]], as_json: bool) -> None:
    from flsec.simulations.studies.sweep_tables import grids

    if as_json:
        print_json({"name": sweep.name, "runs": rows, "folder": str(sweep.folder)})
        return
    for grid in grids(sweep, rows):
        show_grid(grid.title, grid.axes, grid.rows, grid.columns, grid.cells)
    _print_places({"Folder": sweep.folder, "Table": sweep.folder / "results.csv"})


def _print_places(places: dict[str, Path]) -> None:
    for what, path in places.items():
        if path.exists():
            say(f"{what + ':':<7} {path}")


def main() -> None:
    """Run the command; a wrong setting is one message and exit code 2, a failed run exit code 1."""
    try:
        app()
    except ConfigError as error:
        for message in getattr(error, "messages", [str(error)]):
            errors.print(f"error: {message}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except (NoProgressError, SaveError) as error:
        errors.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        errors.print(
            f"error: {type(error).__name__}: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        errors.print_exception()
        sys.exit(1)


if __name__ == "__main__":
    main()
