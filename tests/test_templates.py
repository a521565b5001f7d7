"""The templates are Flower apps that work: they are built as Flower builds them, run, attacked and defended."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from examples._run import accuracy_of, apps_of, quiet, run_config_of

TEMPLATES = Path(__file__).parent.parent / "templates"
FOLDERS = sorted(path.parent for path in TEMPLATES.glob("*/pyproject.toml"))
each_template = pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])


def test_they_are_listed() -> None:
    listed = (TEMPLATES / "README.md").read_text()
    assert FOLDERS
    assert all(f"({folder.name}/README.md)" in listed for folder in FOLDERS)


@each_template
def test_it_survives_an_attack_that_ruins_it_undefended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [*sys.path])
    server_app, client_app = apps_of(folder)
    config = run_config_of(folder)

    def reached(**changes: int) -> float:
        with quiet():
            return accuracy_of(server_app, client_app, {**config, **changes})

    assert reached() > 0.85
    assert reached(**{"num-attackers": 3}) > 0.85
    assert reached(**{"num-attackers": 3, "num-byzantine": 0}) < 0.5


@each_template
def test_flower_builds_it(folder: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['flwr', 'build', '--app', sys.argv[1]]; from flwr.cli.app import app; app()"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    package = folder.name.replace("-", "_")
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        names = set(archive.namelist())
    assert {f"{package}/{module}.py" for module in ("server_app", "client_app", "task")} <= names


@each_template
def test_its_settings_are_those_of_a_flower_app(folder: Path) -> None:
    settings = tomllib.loads((folder / "pyproject.toml").read_text())
    assert {"name", "version", "description", "license", "dependencies"} <= set(settings["project"])
    assert any(wanted.startswith("flsec") for wanted in settings["project"]["dependencies"])
    assert set(settings["tool"]["flwr"]["app"]) == {"publisher", "components", "config"}
