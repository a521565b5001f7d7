"""A leaderboard as a page: tables that sort and filter, every cell's accuracy, and the curve of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flsec.simulations.pages.page import Chart, Column, Data, Fold, Part, Section, Table, Text, altair, write_page
from flsec.simulations.studies.board import NO_ATTACK, Board
from flsec.simulations.studies.board_files import caption_of, settings_of, title_of
from flsec.simulations.studies.board_runs import Line
from flsec.simulations.studies.board_scores import Part as BoardPart
from flsec.simulations.studies.board_scores import Row, Score, parts, rows_of

__all__ = ["write_board_page"]

_SAYS = (
    "This board says how defenses fare, with settings by one stated rule, against the attacks of a fixed portfolio and "
    "some more, on one small model and data set. It does not say that no stronger attack exists, nor that the order is "
    "the same for other data, models, numbers of clients, or settings tuned for them. Where intervals overlap, the "
    "board does not tell two defenses apart."
)


def write_board_page(board: Board, lines: Sequence[Line], path: Path) -> None:
    """Write the page of a board.

    Args:
        board: says which rows and columns there are.
        lines: its cells.
        path: of the HTML file.

    Raises:
        ConfigError: the packages that make pages are not installed.
    """
    sections = [Section("What it shows, and what not", [Text(_SAYS)])]
    for number, part in enumerate(parts(board)):
        rows = rows_of(board, part, lines)
        found: list[Part] = [Text(caption_of(board, part) + "."), _ranking(board, part, rows), _every_cell(board, rows)]
        inside = [line for line in lines if (line["partition"], line["attackers"]) == part]
        found += [_heatmap(board, rows, number), _curves(board, inside, number)]
        found.append(Fold("Settings of every row", [_settings(board, part)]))
        sections.append(Section(title_of(board, part), found))
    write_page(path, f"Leaderboard: {board.file.title}", sections)


def _ranking(board: Board, part: BoardPart, rows: Sequence[Row]) -> Table:
    columns = [
        Column("rank", "Rank", 0, help="1 + how many rows are better with their whole interval"),
        Column("defense", "Defense"),
        Column("clean", "Clean", 3, help="accuracy where nobody attacks"),
        Column("worst", "Worst case", 3, help="strongest of our portfolio, over whole runs"),
        Column("half", "±", 3, help="half the 95 % interval of the worst case"),
        Column("strongest", "By", choose=True),
        Column("damage", "Damage", 3),
        Column("cost", "Cost of defense", 3),
        Column("backdoor", "Backdoor success", 3),
        Column("recall", "Hostile dropped", 2),
        Column("false_positive_rate", "Honest dropped", 2),
        Column("ms", "ms a round", 2, help="of the defense on the server; depends on the machine"),
        Column("peak_mib", "MiB", 0, help="peak of the process beyond the undefended runs'; depends on the machine"),
        Column("needs", "Needs", choose=True),
        Column("note", "Note"),
    ]
    return Table("Defenses, best worst case first", columns, [_flat(row) for row in rows])


def _flat(row: Row) -> dict[str, Any]:
    flat: dict[str, Any] = {
        "rank": row.rank,
        "defense": row.defense,
        "strongest": row.strongest,
        "recall": row.recall,
        "false_positive_rate": row.false_positive_rate,
        "ms": None if row.server_seconds is None else 1000 * row.server_seconds,
        "peak_mib": row.peak_mib,
        "needs": "; ".join(row.needs) or "nothing",
        "note": row.refused or (f"failed under {', '.join(row.failed)}" if row.failed else ""),
    }
    if row.missing and not flat["note"]:
        flat["note"] = f"{row.missing} runs missing"
    flat |= {key: _mean(getattr(row, key)) for key in ("clean", "worst", "damage", "cost", "backdoor")}
    flat["half"] = None if row.worst is None else (row.worst.high - row.worst.low) / 2
    return flat


def _mean(score: Score | None) -> float | None:
    return None if score is None else score.mean


def _every_cell(board: Board, rows: Sequence[Row]) -> Fold:
    columns = [Column("defense", "Defense"), Column(NO_ATTACK, "No attack", 3)]
    columns += [Column(attack, attack, 3) for attack in board.file.attacks]
    cells = [
        {"defense": row.defense, NO_ATTACK: _mean(row.clean), **{a: s.mean for a, s in row.attacks.items()}}
        for row in rows
    ]
    return Fold("Accuracy of every cell", [Table("Accuracy, mean over the seeds", columns, cells, sort="defense")])


def _heatmap(board: Board, rows: Sequence[Row], number: int) -> Chart:
    alt = altair()
    cells = [
        {"defense": row.defense, "attack": attack, "accuracy": score.mean}
        for row in rows
        for attack, score in ((NO_ATTACK, row.clean), *row.attacks.items())
        if score is not None
    ]
    data = Data(f"cells-{number}", cells)
    chart = (
        alt.Chart(data.named)
        .mark_rect()
        .encode(
            x=alt.X("attack:N", sort=[NO_ATTACK, *board.file.attacks], title="attack", axis=alt.Axis(labelAngle=-40)),
            y=alt.Y("defense:N", sort=[row.defense for row in rows], title="defense"),
            color=alt.Color("accuracy:Q", scale=alt.Scale(scheme="viridis", domain=[0, 1])),
            tooltip=["defense:N", "attack:N", alt.Tooltip("accuracy:Q", format=".3f")],
        )
        .properties(height=14 * max(1, len(rows)))
    )
    columns = [Column("defense", "Defense"), Column("attack", "Attack"), Column("accuracy", "Accuracy", 3)]
    return Chart(
        "Final accuracy of every defense under every attack.",
        "A square a cell: defenses, best first, against attacks; the lighter, the more accurate, from 0 to 1.",
        chart,
        [data],
        columns,
    )


def _curves(board: Board, lines: Sequence[Line], number: int) -> Chart:
    """Return the chart of the curve of one cell at a time, chosen by defense and attack."""
    alt = altair()
    data = Data(f"curves-{number}", list(_points(lines)))
    chosen = []
    for key, values in (("defense", list(board.rows)), ("attack", [NO_ATTACK, *board.file.attacks])):
        binding = alt.binding_select(options=values, name=f"{key}: ")
        chosen.append(alt.param(name=f"{key}_{number}", bind=binding, value=values[min(1, len(values) - 1)]))
    chart = alt.Chart(data.named).add_params(*chosen)
    for key in ("defense", "attack"):
        chart = chart.transform_filter(f"datum.{key} == {key}_{number}")
    chart = (
        chart.mark_line()
        .encode(
            x=alt.X("round:Q", title="round"),
            y=alt.Y("accuracy:Q", title="accuracy", scale=alt.Scale(domain=[0, 1])),
            color=alt.Color("seed:N", title="seed"),
            tooltip=["defense:N", "attack:N", "seed:N", "round:Q", alt.Tooltip("accuracy:Q", format=".3f")],
        )
        .properties(height=260)
    )
    return Chart(
        "Accuracy over the rounds of the cell chosen above, a line a seed.",
        "Test accuracy from 0 to 1 over the rounds, one line a seed, of one defense and attack at a time.",
        chart,
        [data],
    )


def _points(lines: Sequence[Line]) -> list[Mapping[str, Any]]:
    return [
        {
            "defense": line["defense"],
            "attack": line["attack"],
            "seed": str(int(line["seed"])),
            "round": round_,
            "accuracy": value / 1000,
        }
        for line in lines
        for round_, value in enumerate(line["curve"])
    ]


def _settings(board: Board, part: BoardPart) -> Table:
    rows = [{"row": label, "settings": text} for label, text in settings_of(board, part).items()]
    return Table("All that is not stated has its default", [Column("row", "Row"), Column("settings", "Settings")], rows)
