"""What commands show: tables that fit, lines that do not wrap, progress; plain where nobody looks at a terminal."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

__all__ = ["RunProgress", "console", "errors", "is_plain", "print_json", "say", "show_grid", "show_table"]

console = Console(emoji=False)  # "a:b" in a message is no picture
errors = Console(stderr=True, emoji=False)


def is_plain(to: Console) -> bool:
    """Whether output goes to a file, a pipe or a terminal that knows no colours: no frames, no bars, no wrapping."""
    return not to.is_terminal or to.is_dumb_terminal


def say(text: str, to: Console | None = None, style: str | None = None) -> None:
    """Print text as it is, by default to the standard output: neither wrapped nor coloured by what stands in it."""
    (to or console).print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON; NaN and infinity, which JSON does not have, as null."""
    print(json.dumps(_finite(value), indent=2))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def show_table(table: Table) -> None:
    """Print a table below its title and above its caption, which are lines of their own, so that neither is wrapped."""
    title, caption, table.title, table.caption = table.title, table.caption, None, None
    if title:
        say(str(title), style="bold")
    if is_plain(console):
        table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
        for column in table.columns:
            column.no_wrap = True
        Console(emoji=False, width=_NO_LIMIT).print(table)
    else:
        console.print(table)
    if caption:
        say(str(caption), style="dim")


_NO_LIMIT = 100_000  # characters of a line that nobody looks at on a terminal


def show_grid(
    title: str,
    axes: tuple[str, str],
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Mapping[tuple[str, str], str],
) -> None:
    """Print a table of two axes; one that is wider than the terminal is turned, or comes in parts that fit.

    Args:
        title: above it; the parts say which columns they have.
        axes: what the rows are, and what the columns.
        rows: labels.
        columns: labels.
        cells: {(row, column): text}; a row without any is left out.
    """
    rows = [row for row in rows if any((row, column) in cells for column in columns)]
    width = _NO_LIMIT if is_plain(console) else console.width
    turned = {(column, row): text for (row, column), text in cells.items()}
    ways = [(rows, columns, cells), (columns, rows, turned)]
    parts = [_parts(axes[way], *ways[way], width) for way in (0, 1)]
    best = 0 if len(parts[0]) <= len(parts[1]) else 1
    down, _, texts = ways[best]
    for number, across in enumerate(parts[best]):
        table = Table(title=title + (f" ({number + 1}/{len(parts[best])})" if len(parts[best]) > 1 else ""))
        table.add_column(axes[best], no_wrap=True)
        for column in across:
            table.add_column(column, justify="right", no_wrap=True)
        for row in down:
            table.add_row(row, *(texts.get((row, column), "") for column in across))
        show_table(table)


def _parts(
    corner: str, rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], str], width: int
) -> list[list[str]]:
    """Deal the columns out to as few tables as fit into the width; a column that is too wide has a table to itself."""
    first = max(map(len, [corner, *rows]), default=0) + _FRAME + 1
    parts: list[list[str]] = []
    left = 0
    for column in columns:
        needed = max([len(column), *(len(cells.get((row, column), "")) for row in rows)]) + _FRAME
        if not parts or needed > left:
            parts.append([])
            left = width - first
        parts[-1].append(column)
        left -= needed
    return parts


_FRAME = 3  # characters that a cell takes beside its text


_WIDE = 110  # characters of a terminal that has a place for a bar and the time left
_LONGEST_NAME = 30  # of a run, in characters


class RunProgress:
    """One line a run: round, accuracy, attack success, time left; for a pipe a line when a run has ended.

    Args:
        num_rounds: of the first run.
        name: of the first run, where there are several.
    """

    def __init__(self, num_rounds: int, name: str = ""):
        wide = errors.width >= _WIDE
        self._bar = Progress(
            TextColumn("{task.description}"),
            TextColumn("round"),
            MofNCompleteColumn(),
            *([BarColumn()] if wide else []),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            *([TextColumn("left"), TimeRemainingColumn()] if wide else []),
            console=errors,
            disable=is_plain(errors),
        )
        self._task = self._bar.add_task(_short(name), total=num_rounds, figures="starting")
        self._name, self._num_rounds = name, num_rounds

    def __enter__(self) -> "RunProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._bar.stop()

    def start(self, name: str, num_rounds: int) -> None:
        """Begin another run."""
        self._name, self._num_rounds = name, num_rounds
        self._bar.reset(self._task, total=num_rounds, description=_short(name), figures="starting")

    def resumed(self, done: int) -> None:
        """Say where a run goes on."""
        say(f"Resumed after round {done}." if done else "Begun again: no round had been saved.", errors)
        self._bar.update(self._task, completed=done)

    def __call__(self, record: dict[str, Any]) -> None:
        """Show a round's record."""
        figures = ""
        if record.get("accuracy") is not None:
            figures = f"accuracy {record['accuracy']:.3f}"
            for name, value in record["attack"].items():
                if value is not None:
                    figures += f"  {name.replace('_', ' ')} {value:.3f}"
            self._bar.update(self._task, figures=figures)
        self._bar.update(self._task, completed=record["round"])
        if self._bar.disable and record["round"] == self._num_rounds:
            say(f"{self._name} round {record['round']}/{self._num_rounds}  {figures}".strip(), errors)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..."
