"""The command ``flsec leaderboard``: defenses against attacks, with what that will cost told before it starts."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from flsec.errors import ConfigError
from flsec.simulations.terminal import console, errors, is_plain, print_json, show_table

if TYPE_CHECKING:
    from flsec.simulations.studies.board import Board, Cell
    from flsec.simulations.studies.board_runs import Line

__all__ = ["leaderboard"]

_ENGINES = ("inprocess", "pooled", "flower")


def leaderboard(
    board: Annotated[
        str, typer.Argument(help="A YAML file, or a packaged board, such as digits, mnist, har or text.")
    ] = "digits",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the board, such as seeds=[1]. Repeatable."),
    ] = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(help="Only this row; package.module:Name adds a row of your own to --against. Repeatable."),
    ] = None,
    attack: Annotated[list[str] | None, typer.Option(help="Only this attack; none: no attack. Repeatable.")] = None,
    tuned: Annotated[bool, typer.Option("--tuned", help="Choose settings by the validation seed first.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each on a thread of its own.")] = 1,
    output: Annotated[Path, typer.Option(help="The folder of the cells.")] = Path("runs/leaderboard"),
    estimate: Annotated[bool, typer.Option("--estimate", help="Only say what it will cost.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only show what there is.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="A recorded CSV; by default results/leaderboard/BOARD.csv, if it is there.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="Write CSV, table and page into this folder.")] = None,
    engine: Annotated[str, typer.Option(help="inprocess, pooled or flower: the same numbers.")] = "inprocess",
    ray_address: Annotated[str | None, typer.Option(help="Of a Ray cluster to join; with --engine.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rows as JSON.")] = False,
) -> None:
    """Run what a board of defenses and attacks lacks, and rank the defenses; the same command goes on."""
    from flsec.simulations.studies.board import load_board, row_label
    from flsec.simulations.studies.board_files import read_csv
    from flsec.simulations.studies.board_runs import lines_at, lines_of
    from flsec.simulations.studies.board_tuning import tuned as tune

    if engine not in _ENGINES or (ray_address is not None and engine == "inprocess"):
        raise ConfigError("--engine must be inprocess, pooled or flower; --ray-address goes with the last two.")
    whole = load_board(board, overrides or [])
    own = [name for name in defense or [] if ":" in name]
    for name in own:
        whole = _with_own(whole, name)
    path = output / f"{whole.name}.jsonl"
    machinery = {} if engine == "inprocess" else {"engine": engine, "ray_address": ray_address}

    def finish(cells: Sequence["Cell"]) -> list["Line"]:
        if not show:
            _finish(cells, path, jobs, machinery, estimate)
        return lines_at(cells, lines_of(path))

    try:
        asked = tune(whole, finish) if tuned else whole
        cells = asked.chosen(defenses=[row_label(name) for name in defense or []], attacks=attack or []).cells()
        lines = finish(list(cells))
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on.", style="yellow")
        raise typer.Exit(130) from None
    if own:
        stored = against or Path("results/leaderboard") / f"{asked.name}.csv"
        if against is not None or stored.is_file():
            mine = {row_label(name) for name in own}
            lines = [*lines, *(line for line in read_csv(stored) if line["defense"] not in mine)]
        else:
            errors.print(f"No recorded board at {stored}: the row stands alone. --against names one.", style="yellow")
    _print(asked, lines, as_json)
    if record is not None:
        for file in _record(asked, lines, record):
            errors.print(f"Recorded: {file}", soft_wrap=True)


def _with_own(board: "Board", name: str) -> "Board":
    """Return the board with a row of somebody else's, whose defense keeps what all defenses keep."""
    from flsec.simulations.studies.board_rows import check_contract

    errors.print(f"Contract tests of {name} ...")
    check_contract(name)
    return board.with_row(name)


def _finish(cells: Sequence["Cell"], path: Path, jobs: int, machinery: dict[str, Any], only_estimate: bool) -> None:
    """Run the cells that are missing, the longest first."""
    from flsec.simulations.studies.board_runs import estimated, lines_of, missing_cells, run_cells

    known = lines_of(path)
    missing = missing_cells(cells, known)
    if not missing:
        return
    seconds = estimated(missing, known, jobs=jobs)
    total = sum(seconds[cell.place] for cell in missing)
    errors.print(f"{len(missing)} runs, about {_duration(total / jobs)} with --jobs {jobs}.")
    if only_estimate:
        raise typer.Exit
    ordered = sorted(missing, key=lambda cell: -seconds[cell.place])
    columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=errors) as bar:
        task, left = bar.add_task("", total=len(ordered)), [total]

        def on_line(cell: "Cell", line: "Line") -> None:
            left[0] -= seconds[cell.place]
            what = f"{cell.place.defense} under {cell.place.attack}"
            bar.update(task, advance=1, description=f"left {_duration(left[0] / jobs)}, {what}")

        run_cells(ordered, path, jobs=jobs, machinery=machinery, on_line=on_line)


def _record(board: "Board", lines: Sequence["Line"], folder: Path) -> list[Path]:
    """Write what is kept of a board: ``NAME.csv``, ``NAME.md`` and the page ``NAME.html``."""
    from flsec._files import replacing
    from flsec.simulations.pages.board_page import write_board_page
    from flsec.simulations.studies.board_files import markdown, write_csv

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{board.name}{suffix}" for suffix in (".csv", ".md", ".html")]
    write_csv(board, lines, paths[0])
    with replacing(paths[1]) as file:
        file.write(markdown(board, lines).encode())
    write_board_page(board, lines, paths[2])
    return paths


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(max(0.0, seconds) / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def _print(board: "Board", lines: Sequence["Line"], as_json: bool) -> None:
    from flsec.simulations.studies.board_files import as_data, table_of
    from flsec.simulations.studies.board_scores import parts, rows_of

    found = {part: rows_of(board, part, lines) for part in parts(board)}
    if as_json:
        print_json([as_data(part, row) for part, rows in found.items() for row in rows])
        return
    for part, rows in found.items():
        there = [row for row in rows if row.clean or row.attacks or row.refused]
        show_table(table_of(board, part, there, 1000 if is_plain(console) else console.width))
