"""The submitting command: what it refuses before anything starts, what it hands to Flower, and its exit code."""

import json
import stat
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from typer.testing import CliRunner

from flsec.errors import ConfigError
from flsec.simulations import cli, submit
from flsec.simulations.config import load_config
from flsec.simulations.engine import run
from flsec.simulations.engines import flower_app

SMALL = """
data: {name: digits}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 16}
simulation: {engine: inprocess, num_clients: 3, num_rounds: 2}
"""
FLWR = """#!{python}
import json, sys
from pathlib import Path
notes = Path({notes!r})
with notes.open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
command = sys.argv[1]
if command == "run":
    settings = sys.argv[sys.argv.index("-c") + 1]
    notes.with_suffix(".toml").write_bytes(Path(settings).read_bytes())
    notes.with_suffix(".app").write_text((Path(sys.argv[2]) / "pyproject.toml").read_text())
    print({started!r})
elif command == "ls":
    print(json.dumps({{"success": True, "runs": [{{"run-id": "77", "status": {status!r}, "status-details": "why"}}]}}))
else:
    print("what the run says")
"""


@pytest.fixture
def flwr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for Flower's command, which notes how it is called."""

    def make(status: str = "finished:completed", started: str = '{"success": true, "run-id": "77"}') -> Path:
        notes, command = tmp_path / "calls", tmp_path / "flwr"
        command.write_text(FLWR.format(python=sys.executable, notes=str(notes), status=status, started=started))
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(submit, "_command", lambda: str(command))
        return notes

    return make


def calls(notes: Path) -> list[list[str]]:
    return [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "small.yaml").write_text(SMALL)
    return tmp_path / "small.yaml"


def go(*arguments: Any) -> Any:
    return CliRunner().invoke(cli.app, ["submit", *map(str, arguments)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["simulation.num_clients=0"], "simulation.num_clients: must be at least 1"),
        (["model={name: lenat}"], "lenat"),
        (["defenses=[{name: krum, num_byzantine: 2}]"], "krum needs at least 7 clients"),
        (["attacks=[{name: alie}]", "adversaries={count: 1}"], "alie needs several clients' updates"),
        (["simulation.num_clients=2000"], "needs a sample for every client"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(flwr: Any, small: Path, settings: list[str], words: str) -> None:
    notes = flwr()
    result = go(small, *[part for setting in settings for part in ("--set", setting)])
    assert isinstance(result.exception, ConfigError)
    assert words in str(result.exception)
    assert calls(notes) == []


def test_settings_travel_whole_and_mean_the_same(flwr: Any, small: Path) -> None:
    notes = flwr()
    alone = ["--set", "attacks=[{name: sign_flipping}]", "--set", "adversaries={count: 1}"]
    result = go(small, "--set", "name=it's one", "--set", "seed=3", *alone, "--superlink", "theirs")
    assert result.exit_code == 0, result.output
    told = tomllib.loads(notes.with_suffix(".toml").read_text())
    context = Context(1, 1, {}, RecordDict(), told)
    assert flower_app._config_of(context) == load_config(small, ["name=it's one", "seed=3", *alone[1::2]])
    app = tomllib.loads(notes.with_suffix(".app").read_text())["tool"]["flwr"]["app"]
    assert set(app["config"]) == set(told)  # Flower takes no key that the app does not list
    ours = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app == ours | {"config": app["config"]}
    assert set(ours["config"]) == set(told)
    assert [call[0] for call in calls(notes)] == ["run", "ls", "log"]
    assert all("theirs" in call for call in calls(notes))


@pytest.mark.parametrize("status", ["finished:failed", "finished:stopped"])
def test_a_run_that_fails_fails_the_command(flwr: Any, small: Path, status: str) -> None:
    flwr(status)
    result = go(small)
    assert result.exit_code == 1
    assert f"run 77 is {status}: why" in result.output


@pytest.mark.parametrize("answer", ['{"success": false, "error-message": "no SuperLink"}', "no SuperLink", ""])
def test_what_flower_says_where_nothing_starts_is_passed_on(flwr: Any, small: Path, answer: str) -> None:
    flwr(started=answer)
    result = go(small)
    assert isinstance(result.exception, ConfigError)
    assert "flwr run failed" in str(result.exception)
    assert "no SuperLink" in str(result.exception) or not answer


def test_settings_can_be_checked_where_there_are_no_data(flwr: Any, small: Path, tmp_path: Path) -> None:
    notes = flwr()
    elsewhere = ["--set", f"data={{name: npz, file: {tmp_path / 'nothing.npz'}}}"]
    assert isinstance(go(small, *elsewhere).exception, ConfigError)
    assert calls(notes) == []
    assert go(small, *elsewhere, "--no-data").exit_code == 0


def test_resuming_names_the_folder_and_changes_nothing(flwr: Any, small: Path, tmp_path: Path) -> None:
    notes = flwr()
    folder = run(load_config(small, [f"output.folder={tmp_path / 'runs'}"])).path
    assert go("--resume", folder).exit_code == 0
    told = tomllib.loads(notes.with_suffix(".toml").read_text())
    assert told["resume"] == str(folder)
    for arguments, words in (
        ([small, "--resume", folder], "takes an experiment, such as quickstart, or --resume"),
        ([], "takes an experiment"),
        (["--resume", folder, "--set", "seed=1"], "--set cannot change a run that is resumed"),
        (["--resume", tmp_path / "nothing"], "no run folder"),
        ([small, "--app", tmp_path / "nothing"], "has no pyproject.toml"),
    ):
        result = go(*arguments)
        assert isinstance(result.exception, ConfigError)
        assert words in str(result.exception)
