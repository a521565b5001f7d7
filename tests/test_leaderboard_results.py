"""What is kept of the leaderboards was measured with the settings that they state, and the tables say the same."""

import json
from pathlib import Path

import pytest

from flsec.simulations.studies.board import NO_ATTACK, load_board
from flsec.simulations.studies.board_files import markdown, read_csv
from flsec.simulations.studies.board_scores import parts, rows_of

FOLDER = Path(__file__).parents[1] / "results" / "leaderboard"
FILES = sorted(FOLDER.glob("*.csv"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path):
    return load_board(path.stem), read_csv(path)


def test_there_is_a_board():
    assert FILES


@each_file
def test_no_row_has_a_setting_that_the_board_does_not_state(path):
    board, lines = read(path)
    for line in lines:
        stated = board.row(line["defense"], line["attackers"])
        assert json.loads(line["defenses"]) == stated, line["defense"]


@each_file
def test_the_table_is_that_of_the_cells(path):
    board, lines = read(path)
    assert path.with_suffix(".md").read_text() == markdown(board, lines)


@each_file
def test_a_curve_ends_in_the_accuracy_and_places_are_the_boards(path):
    board, lines = read(path)
    columns, rounds = {NO_ATTACK, *board.file.attacks}, board.file.experiment["simulation"]["num_rounds"]
    for line in lines:
        assert line["defense"] in board.rows
        assert line["attack"] in columns
        assert line["seed"] in board.file.seeds
        if line["accuracy"] is not None:
            assert len(line["curve"]) == rounds + 1
            assert sum(line["curve"][-3:]) / 3000 == pytest.approx(line["accuracy"], abs=6e-4)
    assert len({(*map(line.get, ("partition", "attackers", "defense", "attack", "seed")),) for line in lines}) == len(
        lines
    )


@each_file
def test_nobody_beats_the_oracle_by_more_than_the_seeds_tell(path):
    """It averages the honest updates: a row far above it would show an attack that was not on."""
    board, lines = read(path)
    for part in parts(board):
        rows = {row.defense: row for row in rows_of(board, part, lines)}
        oracle = rows["oracle_sgd"].worst if "oracle_sgd" in rows else None
        for row in rows.values():
            if oracle is not None and row.worst is not None:
                assert row.worst.low <= oracle.high + 0.01, row.defense
