"""What commands print: nothing is cut off, nothing wraps that need not, and a pipe gets plain text."""

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from flsec.simulations import terminal

FRAMES = "┃│━─┏┡└"


def shown_on(monkeypatch, show, width=80, **options):
    """What ``show`` prints on a console of a width; by default a terminal without colours."""
    out = io.StringIO()
    settings = {"force_terminal": True, "color_system": None, "emoji": False, **options}
    monkeypatch.setattr(terminal, "console", Console(file=out, width=width, **settings))
    show()
    return out.getvalue()


def grid(rows, columns):
    return rows, columns, {(r, c): f"{i}.{j} ± 0.1" for i, r in enumerate(rows) for j, c in enumerate(columns)}


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("shape", [(2, 20), (20, 2), (20, 20), (1, 1), (3, 5)])
def test_a_grid_of_any_shape_is_whole_within_the_width(monkeypatch, width, shape):
    rows, columns, cells = grid([f"defense_{i}" for i in range(shape[0])], [f"attack_{j}" for j in range(shape[1])])
    text = shown_on(monkeypatch, lambda: terminal.show_grid("many", ("d", "a"), rows, columns, cells), width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text
    for value in [*rows, *columns, *cells.values()]:
        assert value in text


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30), st.integers(1, 30), st.integers(50, 150))
def test_parts_hold_every_column_once_and_fit(num_rows, num_columns, row_length, column_length, width):
    rows, columns, cells = grid(
        [f"{i:>{row_length}}" for i in range(num_rows)], [f"{j:>{column_length}}" for j in range(num_columns)]
    )
    parts = terminal._parts("corner", rows, columns, cells, width)
    assert [column for part in parts for column in part] == columns
    first = max(len("corner"), *map(len, rows)) + 4
    for part in parts:
        needed = first + sum(max(len(c), *(len(cells[r, c]) for r in rows)) + 3 for c in part)
        assert needed <= width or len(part) == 1


def test_a_narrow_terminal_gets_the_grid_turned_if_that_is_one_table(monkeypatch):
    rows, columns, cells = grid(["none", "median"], [f"rate_{j}" for j in range(20)])
    show = lambda: terminal.show_grid("turned", ("defense", "rate"), rows, columns, cells)  # noqa: E731
    lines = shown_on(monkeypatch, show).splitlines()
    assert lines[2].strip("┃ ").startswith("rate ")
    assert sum("rate_" in line for line in lines) == 20


def test_a_title_is_one_line_however_small_the_table_is(monkeypatch):
    title = "a title that is a great deal longer than the table below it, and longer than the terminal is wide " * 2

    def show():
        table = Table("x", title=title, caption=title)
        table.add_row("1")
        terminal.show_table(table)

    assert shown_on(monkeypatch, show).splitlines().count(title) == 2


@pytest.mark.parametrize("options", [{"force_terminal": False}, {"force_terminal": True, "_environ": {"TERM": "dumb"}}])
def test_a_pipe_and_a_dumb_terminal_get_plain_lines_that_are_not_wrapped(monkeypatch, capsys, options):
    rows, columns, cells = grid(["none", "median"], [f"a_long_name_of_a_column_{j}" for j in range(20)])
    monkeypatch.setattr(terminal, "console", Console(width=80, **options))
    terminal.show_grid("wide", ("defense", "rate"), rows, columns, cells)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "wide"
    assert [line.split()[0] for line in lines[1:]] == ["defense", "none", "median"]
    assert lines[1].split()[1:] == columns
    assert not set("".join(lines)) & {*FRAMES, "\x1b"}


def test_json_has_no_numbers_that_json_does_not_have(capsys):
    terminal.print_json({"a": [float("nan"), float("inf"), 1.5], "b": {"c": (1, None)}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": {"c": [1, None]}}


def test_a_pipe_gets_one_line_for_each_run(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(terminal, "errors", Console(file=out, force_terminal=False, width=80))
    with terminal.RunProgress(2, "first") as progress:
        for round_ in range(3):
            progress({"round": round_, "accuracy": 0.5, "attack": {"attack_success": 0.25}})
        progress.start("second", 1)
        progress({"round": 1})
    assert out.getvalue().splitlines() == ["first round 2/2  accuracy 0.500  attack success 0.250", "second round 1/1"]
