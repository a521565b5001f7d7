"""A board for people: its table in a terminal, as CSV with one row a cell and seed, as Markdown, and as a page."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from flsec._files import replacing
from flsec.errors import ConfigError
from flsec.simulations.studies.board import NO_ATTACK, Board, Place
from flsec.simulations.studies.board_runs import LAST_ROUNDS, Line
from flsec.simulations.studies.board_scores import Part, Row, Score, parts, rows_of

__all__ = [
    "as_data",
    "caption_of",
    "markdown",
    "read_csv",
    "settings_of",
    "table_of",
    "title_of",
    "write_csv",
]

_NUMBERS = (
    "accuracy",
    "success",
    "precision",
    "recall",
    "false_positive_rate",
    "kept_previous",
    "server_seconds",
    "seconds",
    "peak_mib",
)
_TEXTS = ("refused", "failed")
_CURVES = ("curve", "success_curve")
_COLUMNS = (*Place.__dataclass_fields__, *_NUMBERS, *_TEXTS, "defenses", "measures", *_CURVES)


def write_csv(board: Board, lines: Iterable[Line], path: Path) -> None:
    """Write one row a cell and seed; ``defenses`` are the row's stated settings, curves are in thousandths."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for line in sorted(lines, key=_order):
        settings = board.row(line["defense"], line["attackers"]) if line["defense"] in board.rows else []
        row = {key: line[key] for key in _COLUMNS if key in line}
        row |= {key: " ".join("" if v is None else str(v) for v in line[key]) for key in _CURVES}
        row |= {"defenses": json.dumps(settings), "measures": json.dumps(line["measures"]) if line["measures"] else ""}
        writer.writerow(row)
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _order(line: Line) -> tuple[Any, ...]:
    return tuple(line[key] for key in Place.__dataclass_fields__)


def read_csv(path: Path) -> list[Line]:
    """Return the cells in a file that ``write_csv`` wrote.

    Raises:
        ConfigError: it is no such file.
    """
    try:
        with path.open(newline="") as file:
            return [_line(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(
            f"{path} is no recorded board ({type(error).__name__}: {error}). Give a board's CSV."
        ) from None


def _line(row: Mapping[str, str]) -> Line:
    line: Line = {"partition": row["partition"], "attackers": float(row["attackers"]), "seed": int(row["seed"])}
    line |= {key: row[key] for key in ("defense", "attack")}
    line |= {key: float(row[key]) if row[key] else None for key in _NUMBERS}
    line |= {key: row[key] or None for key in _TEXTS}
    line |= {key: [int(value) for value in row[key].split()] for key in _CURVES}
    line["defenses"] = row["defenses"]
    line["measures"] = json.loads(row["measures"]) if row["measures"] else {}
    return line


# --- the terminal and Markdown ----------------------------------------------------------------------------------

_HEAD = (
    "rank", "defense", "clean", "worst case", "by", "damage", "cost", "backdoor", "dropped: hostile", "honest", "needs"
)  # fmt: skip


def _cells(row: Row) -> list[str]:
    found = [row.clean, row.worst, row.strongest, row.damage, row.cost, row.backdoor]
    shares = ["" if share is None else f"{100 * share:.0f} %" for share in (row.recall, row.false_positive_rate)]
    needs = list(row.needs)
    if row.refused:
        needs = [f"cannot run here: {row.refused}"]
    elif row.failed:
        needs = [f"failed under {', '.join(row.failed)}", *needs]
    elif row.missing:
        needs = [f"{row.missing} runs missing", *needs]
    numbers = [_text(value) for value in found]
    return ["" if row.rank is None else str(row.rank), row.defense, *numbers, *shares, "; ".join(needs)]


def _text(value: Score | str | None) -> str:
    return "" if value is None else str(value)


def table_of(board: Board, part: Part, rows: Sequence[Row], width: int = 200) -> Table:
    """Return the table of a part of a board for a terminal.

    Args:
        board: the board.
        part: which of its parts.
        rows: best first.
        width: of the terminal, in characters; a narrow one gets the most telling columns.
    """
    shown = [column for column, least in _LEAST_WIDTH.items() if width >= least]
    table = Table(title=title_of(board, part), caption=caption_of(board, part))
    for name in shown:
        table.add_column(name, justify="left" if name in _TEXT_COLUMNS else "right", no_wrap=name != "needs")
    for row in rows:
        cells = dict(zip(_HEAD, _cells(row), strict=True))
        table.add_row(*(cells[name] for name in shown))
    return table


_TEXT_COLUMNS = ("defense", "by", "needs")
_LEAST_WIDTH = {  # of the terminal at which a column is shown
    "rank": 0, "defense": 0, "clean": 100, "worst case": 0, "by": 0, "damage": 190, "cost": 190, "backdoor": 120,
    "dropped: hostile": 160, "honest": 160, "needs": 160,
}  # fmt: skip


def as_data(part: Part, row: Row) -> dict[str, Any]:
    """Return a row as JSON has it."""
    data = {"partition": part[0], "attackers": part[1], **asdict(row)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}


def title_of(board: Board, part: Part) -> str:
    """Return the headline of a part of a board."""
    return f"{board.file.title}: {part[0]}, {100 * part[1]:.0f} % attackers"


def caption_of(board: Board, part: Part) -> str:
    """Return how the numbers of a part of a board are to be read."""
    numbers = board.numbers(part[1])
    return (
        f"n = {numbers['n']}, f = {numbers['f']}; accuracy is the mean of the last {LAST_ROUNDS} rounds, ± half the 95 "
        f"% interval over {len(board.file.seeds)} seeds; worst case: strongest of our portfolio over whole runs"
    )


def markdown(board: Board, lines: Sequence[Line]) -> str:
    """Return what the documentation shows of a board."""
    text = []
    for part in parts(board):
        rows = rows_of(board, part, lines)
        text += [f"### {title_of(board, part)}", "", f"{caption_of(board, part)}.", ""]
        text += [f"| {' | '.join(_HEAD)} |", f"|{' --- |' * len(_HEAD)}"]
        text += [f"| {' | '.join(_cells(row))} |" for row in rows]
        text += ["", *(_matrix(board, rows) if len(rows) <= _MOST_COLUMNS else []), *_settings_table(board, part), ""]
    return "\n".join(text)


_MOST_COLUMNS = 8  # of defenses side by side


def _matrix(board: Board, rows: Sequence[Row]) -> list[str]:
    """Return the table of every attack against a few defenses: accuracy, and a backdoor's success behind it."""
    labels = [label for label in board.rows if any(row.defense == label for row in rows)]
    found = {row.defense: row for row in rows}
    text = ["Accuracy; behind it the success, where the attack has a goal beyond harm:", ""]
    text += [f"| attack | {' | '.join(labels)} |", f"|{' --- |' * (len(labels) + 1)}"]
    text.append(f"| {NO_ATTACK} | {' | '.join(_text(found[label].clean) for label in labels)} |")
    for attack in board.file.attacks:
        cells = [_both(found[label].attacks.get(attack), found[label].success.get(attack)) for label in labels]
        text.append(f"| {attack} | {' | '.join(cells)} |")
    return [*text, ""]


def _both(accuracy: Score | None, success: Score | None) -> str:
    return _text(accuracy) + ("" if success is None else f"; {success}")


def settings_of(board: Board, part: Part) -> dict[str, str]:
    """Return {row: the settings that the board states for it in this part, or why there is no such row}."""
    found = {}
    for label in board.rows:
        entries = [
            " ".join([entry["name"], *(f"{key}={value}" for key, value in entry.items() if key != "name")])
            for entry in board.row(label, part[1])
        ]
        found[label] = " around ".join(entries) or "plain averaging"
    return {**found, **{name: f"no row: {why}" for name, why in board.file.left_out.items()}}


def _settings_table(board: Board, part: Part) -> list[str]:
    head = ["Settings; all that is not stated has its default:", "", "| row | settings |", "| --- | --- |"]
    return [*head, *(f"| {label} | {text} |" for label, text in settings_of(board, part).items())]
