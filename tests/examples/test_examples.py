"""The examples have the shape that they promise, and what runs them notices when a claim does not hold.

The examples themselves are run by ``python -m examples.run_all``.
"""

import ast
import sys
import tomllib
from pathlib import Path

import pytest

from examples import run_all
from examples._run import compare

EXAMPLES = Path(run_all.__file__).parent
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/pyproject.toml"))
each_example = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])

AS_CLAIMED = {(False, False): 0.95, (True, False): 0.93, (False, True): 0.1, (True, True): 0.92}  # (defense, attack)

APP = """
from flwr.app import MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

server, client = ServerApp(), ClientApp()

@server.main()
def main(grid, context):
    nan = float("nan")
    accuracy = {accuracies}[context.run_config["defense"], context.run_config["attack"]]
    if accuracy is None:
        raise ValueError("this app does not work")
    context.state["result"] = MetricRecord({{"accuracy": accuracy}})
"""


@pytest.fixture
def app_that_reaches(tmp_path, monkeypatch):
    """Write an app whose accuracy is given for each setting; None: it raises."""
    monkeypatch.setattr("sys.path", [*sys.path])  # undone afterwards

    def write(accuracies):
        name = f"app_in_{tmp_path.name}".replace("-", "_")  # modules stay imported: a name for each test
        (tmp_path / f"{name}.py").write_text(APP.format(accuracies=accuracies))
        (tmp_path / "pyproject.toml").write_text(
            f'[tool.flwr.app.components]\nserverapp = "{name}:server"\nclientapp = "{name}:client"\n'
            "[tool.flwr.app.config]\nnum-clients = 2\ndefense = false\nattack = false\n"
        )
        return tmp_path

    return write


def test_there_are_six():
    assert len(FOLDERS) == 6


@each_example
def test_flsec_is_one_import_and_one_call_in_the_server(folder):
    (source,) = folder.glob("*_app/server_app.py")
    tree = ast.parse(source.read_text())
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").split(".")[0] == "flsec"]
    assert [entry.module for entry in imports] == ["flsec.strategies"]
    (defense,) = (alias.name for alias in imports[0].names)
    assert sum(isinstance(node, ast.Name) and node.id == defense for node in ast.walk(tree)) == 1
    assert not any(isinstance(n, ast.Import) and n.names[0].name.startswith("flsec") for n in ast.walk(tree))
    readme = (folder / "README.md").read_text()
    assert f"from flsec.strategies import {defense}\n" in readme
    assert f"strategy = {defense}(strategy" in readme


@each_example
def test_each_is_a_flower_app_that_is_run_and_listed(folder):
    settings = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert settings["config"]["defense"] is False
    for name in settings["components"].values():
        assert (folder / (name.partition(":")[0].replace(".", "/") + ".py")).is_file()
    assert [f"examples.{folder.name}"] in run_all.commands()
    assert f"({folder.name}/README.md)" in (EXAMPLES / "README.md").read_text()


def test_what_holds_its_claims_passes(app_that_reaches, capsys):
    assert compare(app_that_reaches(AS_CLAIMED)) == 0
    assert "0.950" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "accuracy", "complaint"),
    [
        ((True, False), 0.85, "defended: loses 0.100"),
        ((False, True), 0.8, "attacked: loses 0.150"),
        ((True, True), 0.5, "attacked, defended: loses 0.450"),
        ((True, True), float("nan"), "attacked, defended: loses nan"),
        ((True, False), None, "defended: ValueError: this app does not work"),
        ((False, False), None, "bare: ValueError: this app does not work"),
    ],
)
def test_a_claim_that_does_not_hold_is_noticed(app_that_reaches, capsys, setting, accuracy, complaint):
    assert compare(app_that_reaches({**AS_CLAIMED, setting: accuracy})) == 1
    assert complaint in capsys.readouterr().out


def test_an_example_can_check_more_after_each_run(app_that_reaches, capsys):
    seen = []

    def after(run, accuracy):
        seen.append((run, accuracy))
        return "nothing was saved" if run == "attacked" else None

    assert compare(app_that_reaches(AS_CLAIMED), after=after) == 1
    assert seen == [("bare", 0.95), ("defended", 0.93), ("attacked", 0.1), ("attacked, defended", 0.92)]
    assert "attacked: nothing was saved" in capsys.readouterr().out


def test_an_example_that_hangs_is_ended_and_has_failed(monkeypatch, capsys):
    monkeypatch.setattr(run_all, "LONGEST", 0.5)
    assert run_all._exit_code([sys.executable, "-c", "import time; time.sleep(60)"]) != 0
    assert "stopped after" in capsys.readouterr().out
