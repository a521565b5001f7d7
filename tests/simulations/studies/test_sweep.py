"""Sweeps: the grid, its checks, resumption, the table and what it takes from twins."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from flsec._lock import FolderLock
from flsec.errors import ConfigError
from flsec.metrics import cost_of_defense, damage, l1_distance
from flsec.simulations import engine
from flsec.simulations.cli import app
from flsec.simulations.config import load_config, packaged_experiments
from flsec.simulations.plots import plot_curves
from flsec.simulations.studies.sweep import load_sweep, run_sweep

GRID = """
experiment:
  seed: 3
  data: {name: digits}
  model: {name: mlp, hidden: [8]}
  training: {learning_rate: 0.1, epochs: 1}
  attacks: [{name: sign_flipping, scale: 4.0}]
  adversaries: {fraction: 0.2}
  simulation: {engine: inprocess, num_clients: 10, num_rounds: 2}
  output: {plots: false}
vary:
  defense:
    none: {defenses: []}
    median: {defenses: [{name: median}]}
  attack:
    none: {attacks: [], adversaries: null}
    flip: {}
"""


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def write(*changes: tuple[str, str]) -> Path:
        text = GRID
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "grid.yaml"
        file.write_text(text)
        return file

    return write


def test_every_combination_is_the_experiment_with_its_settings(grid: Any) -> None:
    sweep = load_sweep(grid(("  attack:", "  seed: [5, 6]\n  attack:")), ["training.learning_rate=0.2"])
    assert sweep.axes == {"defense": ("none", "median"), "seed": ("5", "6"), "attack": ("none", "flip")}
    assert [cell.name for cell in sweep.cells[:3]] == ["none-5-none", "none-5-flip", "none-6-none"]
    for cell in sweep.cells:
        assert cell.config.training.learning_rate == 0.2
        assert cell.config.seed == int(cell.labels["seed"])
        assert bool(cell.config.attacks) == (cell.labels["attack"] == "flip")
        assert [entry.name for entry in cell.config.defenses] == ["median"] * (cell.labels["defense"] == "median")
        assert cell.config.output.folder == "runs/grid"


def test_an_axis_can_be_any_setting_and_the_experiment_a_packaged_one(grid: Any, tmp_path: Path) -> None:
    file = tmp_path / "packaged.yaml"
    file.write_text("experiment: quickstart\nvary: {simulation.num_rounds: [1, 2], defenses.0.num_byzantine: [1, 3]}\n")
    found = [
        (c.config.simulation.num_rounds, c.config.defenses[0].params["num_byzantine"]) for c in load_sweep(file).cells
    ]
    assert found == [(1, 1), (1, 3), (2, 1), (2, 3)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vary:", "varied:", "grid.yaml:11: varied: no such key. Did you mean 'vary'?"),
        ("    flip: {}", "    flip: 3", "grid.yaml:15: vary.attack: must be a list of values, or a mapping of labels"),
        ("name: median}", "name: medium}", "grid.yaml: the runs median-none, median-flip: --set defenses"),
        (
            "learning_rate: 0.1",
            "learning_rate: -1",
            "grid.yaml: all 4 runs: grid.yaml:6: training.learning_rate",
        ),
        ("median: {def", "none : {def", "none"),
    ],
)
def test_mistakes_are_found_before_anything_runs(grid: Any, tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_sweep(grid((old, new)))
    assert message in str(error.value).replace(f"{tmp_path}/", "")
    assert not (tmp_path / "runs").exists()


def test_two_runs_of_one_name_are_refused(grid: Any) -> None:
    with pytest.raises(ConfigError, match="two runs would be called 'a_b-none'"):
        load_sweep(grid(("    none: {defenses: []}", "    a b: {defenses: []}"), ("median: {", '"a/b": {')))


def test_the_table_has_a_row_a_run_and_what_twins_tell(grid: Any, tmp_path: Path) -> None:
    rows = run_sweep(load_sweep(grid()))
    with (tmp_path / "runs/grid/results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [{k: v for k, v in row.items() if v != ""} for row in table] == [
        {k: str(v) for k, v in row.items() if v is not None} for row in rows
    ]
    found = {(row["defense"], row["attack"]): row for row in rows}
    models = {
        labels: load_file(tmp_path / "runs/grid" / row["folder"] / "model.safetensors") for labels, row in found.items()
    }
    for defense in ("none", "median"):
        free, hit = found[defense, "none"], found[defense, "flip"]
        assert hit["damage"] == free["accuracy"] - hit["accuracy"]
        distance = sum(np.abs(models[defense, "flip"][n] - a).sum() for n, a in models[defense, "none"].items())
        assert hit["l1_to_attack_free"] == pytest.approx(distance, rel=1e-5)
        assert distance > 0
        assert "damage" not in free
    assert found["median", "none"]["cost_of_defense"] == (
        found["none", "none"]["accuracy"] - found["median", "none"]["accuracy"]
    )
    assert "cost_of_defense" not in found["none", "none"] | found["median", "flip"]
    assert (tmp_path / "runs/grid/accuracy.png").stat().st_size > 5000


def test_each_run_equals_the_same_experiment_run_alone(grid: Any, tmp_path: Path) -> None:
    sweep = load_sweep(grid())
    rows = run_sweep(sweep)
    alone = engine.run(
        sweep.cells[-1].config.model_copy(
            update={"output": sweep.cells[-1].config.output.model_copy(update={"folder": "alone"})}
        )
    )
    assert alone.rounds()[-1]["accuracy"] == rows[-1]["accuracy"]


def test_it_goes_on_where_it_stopped(grid: Any, tmp_path: Path) -> None:
    sweep = load_sweep(grid())
    expected = run_sweep(sweep)
    runs = tmp_path / "runs/grid"
    untouched = (runs / "none-none/rounds.jsonl").stat().st_mtime_ns
    (runs / "median-flip/summary.json").unlink()  # as if it had been stopped after round 2, and after round 1
    (runs / "median-none/summary.json").unlink()
    (runs / "median-none/checkpoints/round-000002.state").unlink()
    (runs / "none-flip/summary.json").unlink()  # and before any checkpoint
    for checkpoint in (runs / "none-flip/checkpoints").iterdir():
        checkpoint.unlink()
    again = run_sweep(load_sweep(grid()))
    for row in (*expected, *again):
        row.pop("seconds")
    assert again == expected
    assert (runs / "none-none/rounds.jsonl").stat().st_mtime_ns == untouched


def test_a_folder_that_was_stopped_while_it_was_made_is_made_again(grid: Any, tmp_path: Path) -> None:
    made = tmp_path / "runs/grid/none-none"
    made.mkdir(parents=True)
    (made / ".config.yaml.12-ab.partial").write_text("na")
    (made / "environment.json").write_text("{}")
    run_sweep(load_sweep(grid()))
    assert (made / "summary.json").is_file()


def test_a_run_that_another_process_is_at_work_on_is_refused_and_left(grid: Any, tmp_path: Path) -> None:
    run_sweep(load_sweep(grid()))
    run = tmp_path / "runs/grid/none-flip"
    (run / "summary.json").unlink()
    for checkpoints in (True, False):
        with FolderLock(run).held(), pytest.raises(ConfigError, match=r"is at work in .*none-flip"):
            run_sweep(load_sweep(grid()))
        assert (run / "rounds.jsonl").is_file()
        for path in (run / "checkpoints").iterdir() if checkpoints else ():
            path.unlink()


def test_other_settings_in_the_same_folder_are_refused(grid: Any) -> None:
    run_sweep(load_sweep(grid(("vary:", "vary:\n  seed: [3]"), ("    flip: {}\n", ""))))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        run_sweep(
            load_sweep(grid(("vary:", "vary:\n  seed: [3]"), ("    flip: {}\n", "")), ["training.learning_rate=0.5"])
        )


def test_the_command_prints_a_table_for_each_measure(grid: Any) -> None:
    result = CliRunner().invoke(app, ["sweep", str(grid(("name: sign_flipping, scale: 4.0", "name: badnets")))])
    assert result.exit_code == 0, result.output
    assert "grid: accuracy" in result.output
    assert "grid: attack success" in result.output
    assert "results.csv" in result.output


def test_packaged_sweeps_load_and_are_no_experiments() -> None:
    sweeps = packaged_experiments(".sweep")
    assert not set(sweeps) & set(packaged_experiments())
    for path in sweeps.values():
        assert len(load_sweep(path).cells) > 1
        with pytest.raises(ConfigError):
            load_config(path)


def test_paired_measures() -> None:
    assert damage(0.4, attack_free=0.9) == pytest.approx(0.5)
    assert cost_of_defense(0.85, undefended=0.9) == pytest.approx(0.05)
    random = np.random.default_rng(0)
    a, b = ({"w": random.normal(size=(3, 4)), "n": np.array(k)} for k in (1, 9))
    assert l1_distance(a, b) == pytest.approx(sum(abs(x - y) for x, y in zip(a["w"].flat, b["w"].flat, strict=True)))
    with pytest.raises(ConfigError, match="same arrays"):
        l1_distance(a, {"w": b["w"]})
    ones, twos = ({"w": np.full(2, x), "bn.running_var": np.full(2, x)} for x in (1.0, 2.0))
    assert l1_distance(ones, twos) == 2.0  # statistics are no weights


def test_one_axis_of_numbers_is_drawn_with_its_marks(
    grid: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        "flsec.simulations.studies.sweep.plot_curves", lambda *args: drawn.update(zip("spxam", args, strict=True))
    )
    file = tmp_path / "curve.yaml"
    text = GRID[: GRID.index("vary:")] + "vary: {attacks.0.scale: [1.0, 4.0]}\nmarks: {here: 2}\n"
    file.write_text(text)
    rows = run_sweep(load_sweep(file))
    assert drawn["s"] == {"accuracy": {"1.0": rows[0]["accuracy"], "4.0": rows[1]["accuracy"]}}
    assert (drawn["a"], drawn["m"]) == ("attacks.0.scale", {"here": 2})
    file.write_text(text.replace("{here: 2}", "{here: there}"))
    with pytest.raises(ConfigError, match="marks: must map names to numbers"):
        load_sweep(file)


def test_curves_are_drawn_for_numbers_and_for_names(tmp_path: Path) -> None:
    for labels in (["0.001", "0.1", "1.0"], ["none", "median"]):
        path = tmp_path / f"{labels[0]}.png"
        plot_curves({"accuracy": dict.fromkeys(labels, 0.5)}, path, "title", "axis", {"here": 0.05})
        assert path.stat().st_size > 5000


def test_the_name_of_a_sweep_can_be_set(grid: Any) -> None:
    sweep = load_sweep(grid(), ["name=other", "training.learning_rate=0.3"])
    assert sweep.name == "other"
    assert sweep.folder == Path("runs/other")
    assert [cell.name for cell in sweep.cells[:2]] == ["none-none", "none-flip"]
    assert {cell.config.training.learning_rate for cell in sweep.cells} == {0.3}
    with pytest.raises(ConfigError, match=r"--set name=../up: name: must be the name of one folder"):
        load_sweep(grid(), ["name=../up"])


def test_the_command_shows_the_spread_over_seeds_and_gives_json(grid: Any) -> None:
    file = str(grid(("  attack:", "  seed: [5, 6]\n  attack:"), ("num_rounds: 2", "num_rounds: 1")))
    shown = CliRunner().invoke(app, ["sweep", file]).stdout
    told = json.loads(CliRunner().invoke(app, ["sweep", file, "--json"]).stdout)
    assert "grid: accuracy, mean ± standard deviation (n = 2, over seed)" in shown
    values = [row["accuracy"] for row in told["runs"] if (row["defense"], row["attack"]) == ("median", "flip")]
    assert len(values) == 2
    assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in shown
    assert told["folder"] == "runs/grid"


def test_a_finished_sweep_whose_folder_was_named_in_another_way_is_not_run_again(grid: Any, tmp_path: Path) -> None:
    rows = run_sweep(load_sweep(grid(), ["output.folder=runs"]))
    absolute = load_sweep(grid(), [f"output.folder={tmp_path / 'runs'}"])
    again = run_sweep(absolute, on_cell=lambda number, cell: lambda record: pytest.fail("it ran again"))
    assert [row["accuracy"] for row in again] == [row["accuracy"] for row in rows]
