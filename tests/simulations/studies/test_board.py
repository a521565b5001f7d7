"""Boards: which runs a file comes to, that they are run once and resumed, and what scores and ranks mean."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from flsec.client_apps import ATTACKS
from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.cli import app
from flsec.simulations.config import make_config
from flsec.simulations.studies import board_runs
from flsec.simulations.studies.board import NO_ATTACK, UNDEFENDED, Board, load_board, packaged_boards
from flsec.simulations.studies.board_files import read_csv, write_csv
from flsec.simulations.studies.board_runs import estimated, lines_at, lines_of, missing_cells, run_cells
from flsec.simulations.studies.board_scores import Score, parts, rank, rows_of
from flsec.simulations.studies.board_tuning import candidates, tuned
from flsec.strategies import DEFENSES

FILE = """
base: digits
title: Small
experiment:
  data: {name: digits, subset: 200, root_samples: 20}
  model: {name: softmax}
  training: {learning_rate: 0.2, steps: 2, batch_size: 16}
  simulation: {num_clients: 6, num_rounds: 4}
seeds: [1, 2]
attackers: [0.2]
partitions:
  iid: {name: iid}
attacks:
  sign_flipping_4: [{name: sign_flipping, scale: 4.0}]
  badnets: [{name: badnets, fraction: 0.5}]
portfolio: [sign_flipping_4]
backdoors: [badnets]
stacks:
  clipped_median: [{name: median_norm_clipping}, {name: median}]
tuning:
  norm_clipping: {max_norm: [0.001, 1.0]}
"""
ROWS = ["undefended", "median", "multi_krum", "clipped_median"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("boards") / "small.board.yaml"
    file.write_text(FILE)
    return file


@pytest.fixture(scope="module")
def board(path) -> Board:
    return load_board(path).chosen(defenses=ROWS)


@pytest.fixture(scope="module")
def cells_file(board, tmp_path_factory):
    file = tmp_path_factory.mktemp("cells") / "small.jsonl"
    run_cells(list(board.cells()), file)
    return file


# --- the file -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", packaged_boards())
def test_every_registered_defense_has_a_row_or_a_reason(name):
    board = load_board(name)
    for defense in DEFENSES.names() if not board.file.rows else []:
        assert (defense in board.rows) != (defense in board.file.left_out), defense
    refused = [cell for cell in board.chosen(attacks=[NO_ATTACK]).cells([1]) if cell.refused]
    assert not refused, refused[0].refused


def test_every_registered_attack_has_a_column_or_a_reason():
    board = load_board("attacks")
    tried = {entry["name"] for entries in board.file.attacks.values() for entry in entries}
    for attack in ATTACKS.names():
        assert (attack in tried) != (attack in board.file.attacks_left_out), attack


def test_f_and_n_are_numbers_of_the_run(board):
    whole = load_board("digits", ["attackers=[0.1,0.4]"])
    assert whole.row("multi_krum", 0.4) == [{"name": "multi_krum", "num_byzantine": 8}]
    assert whole.row("robust_learning_rate", 0.1) == [{"name": "robust_learning_rate", "threshold": 3}]
    assert board.row("multi_krum", 0.2) == [{"name": "multi_krum", "num_byzantine": 1}]  # of 6


def test_a_defense_that_cannot_have_so_many_attackers_is_refused_with_the_reason():
    cells = load_board("digits", ["attackers=[0.4]"]).chosen(defenses=["bulyan"]).cells([1])
    assert {cell.refused is not None for cell in cells} == {True}


def test_a_cell_differs_from_its_neighbours_in_what_its_place_says(board):
    by_place = {cell.place: cell.config for cell in board.cells()}
    assert len(by_place) == len(ROWS) * 3 * 2
    for place, config in by_place.items():
        assert config.seed == place.seed
        assert bool(config.attacks) == (place.attack != NO_ATTACK)
        assert [entry.name for entry in config.defenses] == [entry["name"] for entry in board.rows[place.defense]]
        plain = by_place[type(place)(place.partition, place.attackers, UNDEFENDED, place.attack, place.seed)]
        assert plain.data == config.data
        assert plain.adversaries == config.adversaries


def test_an_oracle_averages_where_nobody_attacks(path):
    cells = {cell.place.attack: cell.config for cell in load_board(path).chosen(defenses=["oracle_sgd"]).cells([1])}
    assert cells[NO_ATTACK].defenses == ()
    assert [entry.name for entry in cells["badnets"].defenses] == ["oracle_sgd"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("portfolio=[nothing]", "no attack 'nothing'"),
        ("left_out={krumm: no}", "no defense 'krumm'.*krum"),
        ("seeds=[1,1]", "has a value twice"),
        ("seeds=[1000]", "none of the board's seeds"),
        ("attacks.none=[]", "in which nobody attacks"),
        ("stacks.krum=[{name: krum}]", "a defense already"),
        ("settings={}", "has no default.*left_out"),
        ("attackers=[1.5]", "attackers"),
        ("rows=[medina]", r"no row 'medina'.*median"),
        ("attacks_left_out={alei: no}", r"no attack 'alei'.*alie"),
        ("base=nowhere", "no board has this name"),
        ("experiment.model.name=lstmm", "lstmm"),
    ],
)
def test_what_is_wrong_with_a_board_is_said_before_anything_runs(path, change, words, tmp_path):
    if change.startswith("base"):
        (tmp_path / "bad.yaml").write_text(FILE.replace("base: digits", change.replace("=", ": ")))
        path, change = tmp_path / "bad.yaml", "seeds=[1]"
    with pytest.raises(ConfigError, match=words):
        list(load_board(path, [change]).cells())


def test_a_row_or_column_that_is_not_there_is_refused(board):
    with pytest.raises(ConfigError, match=r"no row 'medina'.*median"):
        board.chosen(defenses=["medina"])
    with pytest.raises(ConfigError, match=r"no attack 'badnet'.*badnets"):
        board.chosen(attacks=["badnet"])


# --- the runs -----------------------------------------------------------------------------------------------------


def test_a_cell_is_the_run_that_its_settings_describe(board, cells_file, tmp_path):
    cell = next(c for c in board.cells() if c.place.defense == "multi_krum" and c.place.attack == "badnets")
    line = lines_of(cells_file)[cell.place, cell.settings]
    settings = cell.config.to_dict()
    folder = engine.run(make_config({**settings, "output": {**settings["output"], "folder": str(tmp_path)}}))
    rounds, summary = folder.rounds(), json.loads((folder.path / "summary.json").read_text())
    assert line["accuracy"] == pytest.approx(np.mean([r["accuracy"] for r in rounds[-3:]]), abs=1e-5)
    assert line["curve"] == [round(1000 * r["accuracy"]) for r in rounds]
    last = [r["attack"]["attack_success"] for r in rounds[-3:]] if "attack_success" in rounds[1]["attack"] else None
    if last is not None:
        assert line["success"] == pytest.approx(np.mean(last), abs=1e-5)
    assert line["success"] is not None
    assert line["recall"] == summary["detection"]["MultiKrum"]["recall"]


def test_the_same_command_runs_nothing_twice_and_any_number_of_jobs_gives_the_same(board, cells_file, tmp_path):
    cells = list(board.cells())
    assert missing_cells(cells, lines_of(cells_file)) == []
    some = [cell for cell in cells if cell.place.seed == 1 and cell.place.attack == "sign_flipping_4"]
    run_cells(some, tmp_path / "two" / "cells.jsonl", jobs=2)
    one, two = lines_of(cells_file), lines_of(tmp_path / "two" / "cells.jsonl")
    for cell in some:
        a, b = one[cell.place, cell.settings], two[cell.place, cell.settings]
        assert {k: v for k, v in a.items() if k not in _TIMES} == {k: v for k, v in b.items() if k not in _TIMES}


_TIMES = ("seconds", "server_seconds", "peak_mib")


def test_a_cut_off_line_is_run_again_and_a_damaged_one_refused(board, cells_file, tmp_path):
    cells = list(board.cells())
    text = cells_file.read_text()
    file = tmp_path / "cells.jsonl"
    file.write_text(text[: len(text) - 40])
    missing = missing_cells(cells, lines_of(file))
    assert len(missing) == 1
    run_cells(missing, file)
    assert missing_cells(cells, lines_of(file)) == []
    file.write_text("{}\n" + text)
    with pytest.raises(ConfigError, match=r"cells\.jsonl:1 is no cell"):
        lines_of(file)


def test_cells_with_other_settings_do_not_count(path, cells_file):
    changed = load_board(path, ["experiment.training.steps=3"]).chosen(defenses=ROWS)
    assert len(missing_cells(changed.cells(), lines_of(cells_file))) == len(list(changed.cells()))
    assert lines_at(changed.cells(), lines_of(cells_file)) == []


def test_a_run_that_fails_is_its_own_line_and_stops_no_other(board, tmp_path, monkeypatch):
    def broken(config):
        if config.seed == 1:
            raise RuntimeError("no memory")
        return run(config)

    run = engine.run
    monkeypatch.setattr(board_runs.engine, "run", broken)
    cells = list(board.chosen(defenses=["median"]).cells())
    run_cells(cells, tmp_path / "cells.jsonl")
    lines = lines_at(cells, lines_of(tmp_path / "cells.jsonl"))
    assert [line["failed"] for line in lines if line["seed"] == 1] == ["RuntimeError: no memory"] * 3
    assert all(line["accuracy"] is not None for line in lines if line["seed"] == 2)
    (row,) = rows_of(board.chosen(defenses=["median"]), ("iid", 0.2), lines)
    assert (row.clean, row.worst, row.rank) == (None, None, None)
    assert row.failed["badnets"] == "RuntimeError: no memory"


def test_a_run_that_an_attack_ended_counts_with_the_model_that_was_left(path, tmp_path):
    board = load_board(path, ["experiment.simulation.num_rounds=15"]).chosen(defenses=["undefended"])
    board.file.attacks["sign_flipping_4"][0]["scale"] = 1e38
    (cell,) = (cell for cell in board.cells([1]) if cell.place.attack == "sign_flipping_4")
    run_cells([cell], tmp_path / "cells.jsonl")
    (line,) = lines_at([cell], lines_of(tmp_path / "cells.jsonl"))
    assert line["failed"] is None
    assert len(line["curve"]) == 16
    assert len(set(line["curve"][-10:])) == 1
    assert line["accuracy"] < 0.5


def test_the_estimate_takes_what_is_known_and_tries_the_rest(board, cells_file, path):
    known = lines_of(cells_file)
    cells = [cell for cell in load_board(path).chosen(defenses=["median", "rfa"]).cells() if cell.place.seed == 2]
    seconds = estimated(cells, known)
    for cell in cells:
        if cell.place.defense == "median":
            assert seconds[cell.place] == known[cell.place, cell.settings]["seconds"]
        else:
            assert seconds[cell.place] > 0


# --- scores -------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_cells(board, cells_file):
    lines = lines_at(board.cells(), lines_of(cells_file))
    (part,) = parts(board)
    rows = {row.defense: row for row in rows_of(board, part, lines)}

    def accuracy(defense, attack):
        found = {
            line["seed"]: line["accuracy"] for line in lines if (line["defense"], line["attack"]) == (defense, attack)
        }
        return np.array([found[1], found[2]])

    median = rows["median"]
    assert median.clean.mean == pytest.approx(accuracy("median", NO_ATTACK).mean())
    assert median.worst.mean == pytest.approx(accuracy("median", "sign_flipping_4").mean())
    assert median.damage.mean == pytest.approx(
        (accuracy("median", NO_ATTACK) - accuracy("median", "sign_flipping_4")).mean()
    )
    assert median.cost.mean == pytest.approx((accuracy(UNDEFENDED, NO_ATTACK) - accuracy("median", NO_ATTACK)).mean())
    assert median.strongest == "sign_flipping_4"
    assert median.recall is None  # the median judges nobody
    assert rows["multi_krum"].recall is not None
    assert rows["multi_krum"].needs == ("f",)
    assert rows[UNDEFENDED].cost is None
    assert [row.worst.mean for row in rows_of(board, part, lines)] == sorted(
        (r.worst.mean for r in rows.values()), reverse=True
    )


def test_a_row_that_lacks_a_run_has_no_worst_case(board, cells_file):
    lines = [
        line
        for line in lines_at(board.cells(), lines_of(cells_file))
        if (line["defense"], line["attack"], line["seed"]) != ("median", "sign_flipping_4", 2)
    ]
    rows = {row.defense: row for row in rows_of(board, ("iid", 0.2), lines)}
    assert (rows["median"].worst, rows["median"].rank, rows["median"].missing) == (None, None, 1)
    assert rows["multi_krum"].rank is not None


intervals = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=12)


@given(intervals)
def test_ranks_tell_apart_only_what_intervals_tell_apart(found):
    scores = [Score(middle, middle - half, middle + half) for middle, half in found]
    ranks = rank(scores)
    for own, place in zip(scores, ranks, strict=True):
        assert place == 1 + sum(other.low > own.high for other in scores)
    assert min(ranks) == 1
    for a, b in zip(scores, ranks, strict=True):
        for c, d in zip(scores, ranks, strict=True):
            if a.low > c.high:
                assert b < d


def test_one_seed_has_no_interval():
    assert Score.of([0.25]) == Score(0.25, 0.25, 0.25)
    assert math.isclose(Score.of([0.1, 0.3]).mean, 0.2)


# --- tuning -------------------------------------------------------------------------------------------------------


def test_tuned_settings_are_the_best_on_the_validation_seed(path):
    whole = load_board(path).chosen(defenses=["undefended", "norm_clipping"])
    tried = candidates(whole)
    assert {cell.place.seed for cell in tried.cells()} == {1000}
    assert set(tried.rows) == {"norm_clipping(max_norm=0.001)", "norm_clipping(max_norm=1.0)"}

    def run(cells):
        return [{**vars(c.place), "accuracy": 0.9 if "=1.0" in c.place.defense else 0.2} for c in cells]

    chosen = tuned(whole, run)
    assert chosen.rows["norm_clipping"] == [{"name": "norm_clipping", "max_norm": 1.0}]
    assert chosen.rows["undefended"] == []
    assert chosen.name == "small-tuned"
    with pytest.raises(ConfigError, match="names nothing to tune"):
        candidates(load_board(path).chosen(defenses=["median"]))


# --- files and the command ----------------------------------------------------------------------------------------


def test_what_is_recorded_tells_the_same_again(board, cells_file, tmp_path):
    lines = lines_at(board.cells(), lines_of(cells_file))
    write_csv(board, lines, tmp_path / "small.csv")
    (part,) = parts(board)
    assert rows_of(board, part, read_csv(tmp_path / "small.csv")) == rows_of(board, part, lines)
    with (tmp_path / "small.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines)
    assert {row["defenses"] for row in rows if row["defense"] == "multi_krum"} == {
        '[{"name": "multi_krum", "num_byzantine": 1}]'
    }
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="is no recorded board"):
        read_csv(tmp_path / "other.csv")


def command(*arguments):
    result = CliRunner().invoke(app, ["leaderboard", *map(str, arguments)])
    if isinstance(result.exception, ConfigError):
        raise result.exception
    return result


def test_the_command_estimates_runs_records_and_goes_on(path, tmp_path):
    common = [
        path,
        "--output",
        tmp_path / "cells",
        "--defense",
        "median",
        "--defense",
        "undefended",
        "--set",
        "seeds=[1]",
    ]
    told = command(*common, "--estimate")
    assert "6 runs, about" in told.output
    assert not (tmp_path / "cells" / "small.jsonl").exists()
    first = command(*common, "--record", tmp_path / "kept")
    assert first.exit_code == 0, first.output
    assert {file.name for file in (tmp_path / "kept").iterdir()} == {"small.csv", "small.md", "small.html"}
    again = command(*common, "--json")
    rows = json.loads(again.stdout)
    assert "runs, about" not in again.output
    assert {row["defense"] for row in rows if row["worst"]} == {"median", "undefended"}


def test_a_row_of_ones_own_stands_beside_the_stored_ones(path, tmp_path, monkeypatch):
    stored = tmp_path / "kept"
    common = [
        path,
        "--output",
        tmp_path / "cells",
        "--set",
        "seeds=[1]",
        "--attack",
        "sign_flipping_4",
        "--attack",
        "none",
    ]
    command(*common, "--defense", "undefended", "--record", stored)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rules.py").write_text(MY_RULE)
    told = command(*common, "--defense", "my_rules:Coordinatewise", "--against", stored / "small.csv", "--json")
    rows = {row["defense"]: row for row in json.loads(told.stdout)}
    assert rows["coordinatewise"]["worst"]["mean"] > rows["undefended"]["worst"]["mean"]
    with pytest.raises(ConfigError, match="fails the contract tests"):
        command(*common, "--defense", "my_rules:Silent")
    with pytest.raises(ConfigError, match="Nobody"):
        command(*common, "--defense", "my_rules:Nobody")


MY_RULE = '''
"""Rules of somebody else's."""

from flsec.aggregation import median
from flsec.strategies import RobustStrategy


class Coordinatewise(RobustStrategy):
    """The median of each coordinate.

    Args:
        strategy: the strategy to protect.
        options: see ``RobustStrategy``.

    Source: everybody's.
    """

    def on_aggregation(self, cohort):
        """Return the median."""
        return median(cohort.updates)


class Silent(RobustStrategy):
    """Changes nothing, whoever sends what.

    Args:
        strategy: the strategy to protect.
        options: see ``RobustStrategy``.

    Source: nobody's.
    """

    def on_aggregation(self, cohort):
        """Return nothing new."""
        return 0 * cohort.updates[0]
'''


def test_options_that_do_not_go_together_are_refused(path):
    with pytest.raises(ConfigError, match="--engine must be"):
        command(path, "--engine", "spark")
    with pytest.raises(ConfigError, match="--engine must be"):
        command(path, "--ray-address", "auto")
