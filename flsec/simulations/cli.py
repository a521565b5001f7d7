"""The command ``flsec``."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
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

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
console = Console(emoji=False)  # "a:b" in a message is no picture
errors = Console(stderr=True, emoji=False)

Overrides = lookup.Overrides
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
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder instead.")] = None,
    from_round: Annotated[int | None, typer.Option(help="With --resume: continue after this round.")] = None,
    verbose: Verbose = False,
) -> None:
    """Run an experiment and print what it came to."""
    from flsec.simulations import engine
    from flsec.simulations.check import also_said
    from flsec.simulations.config import load_config, resolve_experiment
    from flsec.simulations.run_folder import RunFolder

    if (experiment is None) == (resume is None):
        raise ConfigError("flsec run takes an experiment, such as quickstart, or --resume with a run's folder.")
    if resume is not None:
        if overrides:
            raise ConfigError("--set cannot change a run that is resumed; start a new one instead.")
        RunFolder.open(resume)
        config = load_config(resume / "config.yaml")
    else:
        if from_round is not None:
            raise ConfigError("--from-round goes with --resume FOLDER.")
        path = resolve_experiment(str(experiment))
        try:
            config = load_config(path, overrides or [])
        except ConfigError as error:
            raise also_said(error, str(experiment), overrides or []) from None
    try:
        with _Progress(config.simulation.num_rounds) as progress:
            if resume is not None:
                folder = engine.resume(
                    resume, from_round=from_round, on_start=progress.resumed, on_round=progress, verbose=verbose
                )
            else:
                folder = engine.run(config, on_round=progress, verbose=verbose)
    except engine.Interrupted as stopped:
        errors.print(f"Stopped. Go on with: flsec run --resume {stopped}", style="yellow")
        raise typer.Exit(130) from None
    _print_result(folder)


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
    verbose: Verbose = False,
) -> None:
    """Run an experiment over a grid of settings; the same command again goes on where it stopped."""
    from flsec.simulations import engine
    from flsec.simulations.config import resolve_experiment
    from flsec.simulations.studies.sweep import load_sweep, run_sweep

    cells = load_sweep(resolve_experiment(grid, ".sweep"), overrides or [])
    total = len(cells.cells)
    try:
        with _Progress(1) as progress:

            def on_cell(number: int, cell: Any) -> Any:
                progress.start(f"{cell.name} ({number + 1}/{total})", cell.config.simulation.num_rounds)
                return progress

            rows = run_sweep(cells, on_cell=on_cell, verbose=verbose)
    except engine.Interrupted:
        errors.print("Stopped. The same command goes on.", style="yellow")
        raise typer.Exit(130) from None
    _print_sweep(cells, rows)


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
) -> None:
    """Measure how much of clients' data a server can rebuild; the same command again goes on where it stopped."""
    from flsec.simulations.config import resolve_experiment
    from flsec.simulations.studies.reconstruct import leakage_table, load_reconstruction, run_reconstruction

    settings = load_reconstruction(resolve_experiment(study, ".reconstruct"), overrides or [])
    columns = (TextColumn("reconstruction"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=errors) as bar:
            task = bar.add_task("")
            folder = run_reconstruction(settings, lambda done, total: bar.update(task, completed=done, total=total))
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on.", style="yellow")
        raise typer.Exit(130) from None
    console.print(leakage_table(folder))
    console.print(f"Folder: {folder}", soft_wrap=True)
    console.print(f"Plot:   {folder / 'leakage.png'}", soft_wrap=True)


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
    verbose: Verbose = False,
) -> None:
    """Run what a paper's claim lacks, and print the paper's numbers beside ours; the same command goes on."""
    from flsec.simulations import engine
    from flsec.simulations.studies.reproduce import Reproduction, list_claims, missing_runs, run_all

    if list_only:
        console.print(list_claims(claim, results))
        return
    if quick and record:
        raise ConfigError("--quick checks that claims run; to record the small form, leave it out.")
    work = Reproduction.of(claim, full=full, quick=quick, output=output, engine=engine_name, ray_address=ray_address)
    unexpected = []
    try:
        with _Progress(1) as progress:
            for name in work.claims:
                waiting = missing_runs(work.runs[name])

                def on_run(number: int, key: Any, config: Any, name: str = name, total: int = len(waiting)) -> Any:
                    what = f"{name} {key[0]}, seed {key[1]} ({number + 1}/{total})"
                    progress.start(what, config.simulation.num_rounds)
                    return progress

                run_all(waiting, needed=work.claims[name].needed, jobs=jobs, on_run=on_run, verbose=verbose)
                report = work.report(name)
                console.print(report.table)
                console.print(report.sentence, soft_wrap=True)
                unexpected += [] if report.expected else [name]
                if record:
                    console.print(f"Recorded: {work.record(name, results)}", soft_wrap=True)
                else:
                    console.print(f"Figure: {work.draw(name)}", soft_wrap=True)
    except (engine.Interrupted, KeyboardInterrupt):
        errors.print("Stopped. The same command goes on.", style="yellow")
        raise typer.Exit(130) from None
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


class _Progress:
    """One line a run: round, accuracy, attack success, time left."""

    def __init__(self, num_rounds: int):
        self._bar = Progress(
            TextColumn("{task.description}"),
            TextColumn("round"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=errors,
        )
        self._task = self._bar.add_task("", total=num_rounds, figures="starting")

    def __enter__(self) -> "_Progress":
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def start(self, name: str, num_rounds: int) -> None:
        """Begin another run."""
        self._bar.reset(self._task, total=num_rounds, description=name, figures="starting")

    def resumed(self, done: int) -> None:
        """Say where a run goes on."""
        errors.print(f"Resumed after round {done}." if done else "Begun again: no round had been saved.")
        self._bar.update(self._task, completed=done)

    def __call__(self, record: dict[str, Any]) -> None:
        figures = ""
        if record.get("accuracy") is not None:
            figures = f"accuracy {record['accuracy']:.3f}"
            for name, value in record["attack"].items():
                if value is not None:
                    figures += f"  {name.replace('_', ' ')} {value:.3f}"
            self._bar.update(self._task, figures=figures)
        self._bar.update(self._task, completed=record["round"])


def _print_result(folder: Any) -> None:
    summary = json.loads((folder.path / "summary.json").read_text())
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
    console.print(table)
    console.print(f"Folder: {folder.path}", soft_wrap=True)
    plot = folder.path / "accuracy.png"
    if plot.is_file():
        console.print(f"Plot:   {plot}", soft_wrap=True)


def _print_sweep(sweep: Any, rows: list[dict[str, Any]]) -> None:
    from flsec.simulations.studies.sweep import averaged, measures, shown_axes

    axes = shown_axes(sweep)
    columns = list(measures(rows)) if len(axes) == 1 else list(sweep.axes[axes[1]])
    for measure in [""] if len(axes) == 1 else measures(rows):
        table = Table(title=f"{sweep.name}{measure and ': '}{measure.replace('_', ' ')}")
        table.add_column(axes[0], no_wrap=True)
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        for label in sweep.axes[axes[0]]:
            if len(axes) == 1:
                values = [averaged(rows, axes, column).get((label,)) for column in columns]
            else:
                values = [averaged(rows, axes, measure).get((label, column)) for column in columns]
            if any(value is not None for value in values):
                table.add_row(label, *("" if value is None else f"{value:.4f}" for value in values))
        console.print(table)
    console.print(f"Folder: {sweep.folder}", soft_wrap=True)
    console.print(f"Table:  {sweep.folder / 'results.csv'}", soft_wrap=True)


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
