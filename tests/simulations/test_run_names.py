"""No name leads out of the output folder, and a refused run leaves nothing behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flsec.errors import ConfigError
from flsec.simulations import engine
from flsec.simulations.config import load_config, make_config
from flsec.simulations.engines import own
from flsec.simulations.run_folder import RunFolder
from flsec.simulations.run_names import check_folder_name, check_output_folder
from flsec.simulations.studies.reconstruct import load_reconstruction
from flsec.simulations.studies.sweep import load_sweep
from flsec.simulations.yaml_lines import dump

SMALL: dict[str, Any] = {
    "model": {"name": "softmax"},
    "training": {"learning_rate": 0.1},
    "simulation": {"engine": "inprocess", "num_clients": 3, "num_rounds": 1},
    "output": {"plots": False},
}
HOSTILE = ["../evil", "/tmp/evil", "a/b", "a\\b", "..", ".", "C:evil", "C:\\evil", "a\nb", "a\x00b", "\x1b[2J",
           "x" * 201, "x" * 300, "é" * 101, "a\u202eb", "a:b", "a*b", 'a"b', "what?", "CON", "nul.txt", "Com1.tar.gz",
           "lpt¹", "con .x", "...", "end.", "end "]  # fmt: skip


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="<config>:1: name: must be the name of one folder") as caught:
        make_config({**SMALL, "name": name})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    assert caught.value.parameter == "name"
    with pytest.raises(ConfigError, match="must be the name of one folder"):
        RunFolder.create(Path("runs"), name, {"seed": 0})
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_from_the_command_line_is_refused_in_one_short_printable_line(tmp_path: Path, name: str) -> None:
    file = Path("small.yaml")
    file.write_text("model: {name: softmax}\ntraining: {learning_rate: 0.1}\n")
    bare = [f"name={name}"] if name == " ".join(name.split()) else []  # YAML folds spaces
    for written in (*bare, f"name={json.dumps(name)}"):
        with pytest.raises(ConfigError, match=r"^--set name=") as caught:
            load_config(file, [written])
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
    assert [path.name for path in tmp_path.rglob("*.yaml")] == ["small.yaml"]


@given(st.text(max_size=20) | st.text(alphabet="./\\ab:", max_size=6))
def test_an_accepted_name_is_one_folder_inside(name: str) -> None:
    try:
        check_folder_name(name)
    except ConfigError:
        return
    inside = Path("/somewhere/runs", name)
    assert inside.parent == Path("/somewhere/runs")
    assert Path(*inside.parts).resolve().parent == Path("/somewhere/runs").resolve()
    assert name.isprintable()


def test_usual_names_are_accepted() -> None:
    for name in (
        "quickstart",
        "krum, seed 3",
        "ε=0.1",
        "none-sign_flipping-1",
        "...a",
        "a..b",
        "x" * 200,
        "console",
        "com",
        "-x",
    ):
        assert check_folder_name(name) == name
    for name in ("", "\ud800"):  # which pydantic refuses as well
        with pytest.raises(ConfigError):
            check_folder_name(name)


def test_sweeps_and_studies_are_named_as_strictly(tmp_path: Path) -> None:
    sweep = Path("grid.sweep.yaml")
    sweep.write_text("name: ../evil\nexperiment: quickstart\nvary: {seed: [1, 2]}\n")
    with pytest.raises(ConfigError, match=r"grid.sweep.yaml:1: name: must be the name of one folder"):
        load_sweep(sweep)
    sweep.write_text("experiment: quickstart\nvary: {what: {..: {seed: 1}}}\n")
    with pytest.raises(ConfigError, match=r"must be the name of one folder"):
        load_sweep(sweep)
    study = Path("study.yaml")
    study.write_text("name: ../evil\nexperiment: quickstart\n")
    with pytest.raises(ConfigError, match=r"study.yaml:1: name: must be the name of one folder"):
        load_reconstruction(study)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["grid.sweep.yaml", "here", "study.yaml"]


def test_a_run_refused_by_its_data_leaves_no_folder() -> None:
    config = make_config({**SMALL, "name": "big", "simulation": {**SMALL["simulation"], "num_clients": 5000}})
    with pytest.raises(ConfigError, match="partitioner 'iid' needs a sample"):
        engine.run(config)
    assert not Path("runs").exists()


def refusing(loop: Any) -> None:
    loop.error = ConfigError("no Ray cluster can be joined")


def test_a_run_refused_when_its_engine_starts_leaves_no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config({**SMALL, "name": "small", "output": {"folder": "deep/er/runs", "plots": False}})
    monkeypatch.setitem(engine._ENGINES, "inprocess", refusing)
    with pytest.raises(ConfigError, match="no Ray"):
        engine.run(config)
    assert not Path("deep").exists()
    Path("deep").mkdir()
    with pytest.raises(ConfigError, match="no Ray"):
        engine.run(config)
    assert list(Path("deep").iterdir()) == []


def test_a_run_that_has_begun_keeps_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def late(loop: Any) -> None:
        own.run_in_process(loop)
        loop.error = ConfigError("too late")

    monkeypatch.setitem(engine._ENGINES, "inprocess", late)
    with pytest.raises(ConfigError, match="too late"):
        engine.run(make_config({**SMALL, "name": "small"}))
    assert Path("runs/small/rounds.jsonl").is_file()


def test_a_long_file_name_says_what_to_do() -> None:
    file = Path(f"{'x' * 220}.yaml")
    file.write_text("model: {name: softmax}\ntraining: {learning_rate: 0.1}\n")
    with pytest.raises(ConfigError, match="For example: name: krum_seed_3"):
        load_config(file)
    assert load_config(file, ["name=short"]).name == "short"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("defenses=[{name: krum, num_byzantine: 9}]", "--set defenses=.*krum needs at least"),
        ("data={name: mnist}", "data.name: data set 'mnist' not found"),
        ("simulation.device=cuda", "--set simulation.device=cuda: simulation.device: .*torch sees no GPU"),
    ],
)
def test_a_refused_run_says_where_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("FLSEC_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("small.yaml").write_text(dump(SMALL))
    with pytest.raises(ConfigError, match=message):
        engine.run(load_config("small.yaml", [override]))
    assert [path.name for path in Path.cwd().iterdir()] == ["small.yaml"]


def test_a_run_folder_goes_on_where_it_has_been_moved(tmp_path: Path) -> None:
    rounds = {**SMALL["simulation"], "num_rounds": 2}
    stayed = engine.run(make_config({**SMALL, "name": "stayed", "simulation": rounds}))
    moved = stayed.path.rename(tmp_path / "elsewhere")
    again = engine.resume(moved, from_round=1)
    assert again.path == moved
    assert [record["round"] for record in again.rounds()] == [0, 1, 2]
    assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize("folder", ["../runs", "runs/../../x", "a\\..\\..\\x", "runs\n", "a\0b"])
def test_an_output_folder_that_leads_out_is_refused(folder: str) -> None:
    with pytest.raises(ConfigError, match="below the current directory"):
        check_output_folder(folder)


@pytest.mark.parametrize("folder", ["runs", "a/b", "a/../b", "/tmp/x", "C:\\runs", "läufe"])
def test_an_output_folder_below_or_absolute_will_do(folder: str) -> None:
    assert check_output_folder(folder) == folder


def test_a_defense_s_own_folder_stays_below_as_well() -> None:
    """``eavesdrop`` writes observations; every parameter that takes a ``Path`` is held to this."""
    base = {"name": "n", "model": {"name": "softmax"}, "training": {"learning_rate": 0.1}}
    make_config({**base, "defenses": [{"name": "eavesdrop", "folder": "seen"}]})
    with pytest.raises(ConfigError, match=r"defenses\[0\].folder: must stay below"):
        make_config({**base, "defenses": [{"name": "eavesdrop", "folder": "../seen"}]})
