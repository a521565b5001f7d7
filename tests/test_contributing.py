"""CONTRIBUTING.md tells what is there: the house that stands, files and commands that exist, code that works."""

import ast
import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flsec import _exports, parameters, testing
from flsec.client_apps.base import Attack
from flsec.strategies.base import RobustStrategy
from flsec.tasks import Task

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
MADE_BY_RECIPES = re.compile(
    r"_?(my_rule|my_attack|my_task|wine|low_rank|focal|fedlion|try)\b"
)  # files that a reader writes


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


# --- the house ---


def rows(title: str) -> list[list[str]]:
    """The cells of the table whose first column has this title."""
    table = re.search(rf"^\| {title} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, flags=re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def drawn() -> dict[str, list[str]]:
    """{room: the rooms that it may import from} without the ground floor, as drawn and in that order."""
    found = {room.strip("`").removeprefix("flsec/"): re.findall(r"`(.*?)`", arrows) for room, _, arrows in rows("room")}
    assert found.pop("*.py") == []
    return found


YAML_ROOMS = ("simulations/experiments", "simulations/claims")


@functools.cache
def standing() -> frozenset[str]:
    """The folders of the package that hold files; experiments and claims with all folders below them are one each."""
    files = [*(ROOT / "flsec").rglob("*.py"), *(ROOT / "flsec").rglob("*.yaml")]
    folders = {file.parent.relative_to(ROOT / "flsec").as_posix() for file in files} - {"."}
    return frozenset(next((room for room in YAML_ROOMS if folder.startswith(room)), folder) for folder in folders)


def room_of(module: str) -> str | None:
    """The innermost room of a module of flsec; None for the ground floor."""
    path = "/".join(module.split(".")[1:])
    inside = [room for room in standing() if f"{path}/".startswith(f"{room}/")]
    return max(inside, key=len, default=None)


def imports(tree: ast.Module) -> Iterator[str]:
    """The modules that a file imports, at whatever place in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            yield from (f"{base}.{alias.name}" for alias in node.names) if base == "flsec" else [base]


def arrows() -> dict[str, set[str]]:
    """{room: the other rooms that its files import from}; a package's lists of exports do not count."""
    found: dict[str, set[str]] = {room: set() for room in standing()}
    for file in (ROOT / "flsec").rglob("*.py"):
        room = room_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        if room is None:
            continue
        text = re.sub(f"{re.escape(_exports.BEGIN)}.*?{_exports.END}", "", file.read_text(), flags=re.DOTALL)
        modules = [name for name in imports(ast.parse(text)) if name.partition(".")[0] == "flsec"]
        found[room] |= {other for name in modules if (other := room_of(name)) is not None} - {room}
    return found


def test_the_rooms_drawn_are_the_folders_that_stand() -> None:
    assert set(drawn()) == standing()


def test_the_arrows_drawn_are_those_that_stand() -> None:
    real = arrows()
    for room, others in drawn().items():
        inside = {other for other in real[room] if other.startswith(f"{room}/")}  # a room's own: see test_rooms.py
        assert set(others) == real[room] - inside, room


def test_the_ground_floor_knows_no_room() -> None:
    for file in (ROOT / "flsec").glob("*.py"):
        rooms = {room_of(name) for name in imports(ast.parse(file.read_text())) if name.startswith("flsec.")} - {None}
        known = {"training.py": {"tasks"}}.get(file.name, set())  # whose loss it is told
        assert rooms <= known or file.name == "testing.py", file  # the contracts' public face


def test_every_arrow_drawn_points_upwards() -> None:
    order = list(drawn())
    for room, others in drawn().items():
        assert [other for other in others if order.index(other) >= order.index(room)] == [], room


def test_rooms_have_their_tests() -> None:
    for room in {room.partition("/")[0] for room in drawn()} - {"_contracts"}:
        assert list((ROOT / "tests" / room).rglob("test_*.py")), room


def test_only_the_rooms_said_to_know_flower_do() -> None:
    assert "The first ten rooms know neither Flower nor Ray" in TEXT
    pure = [None, *list(drawn())[:9]]  # the ground floor is the first of the ten
    for file in (ROOT / "flsec").rglob("*.py"):
        name = file.relative_to(ROOT).with_suffix("")
        if room_of(".".join(name.parts)) in pure and name.name != "testing":
            known = {module.partition(".")[0] for module in imports(ast.parse(file.read_text()))}
            assert not known & {"flwr", "ray"}, file


# --- paths, commands, names ---


def test_every_path_exists() -> None:
    named = set(re.findall(r"(?<![\w/])((?:flsec|tests|docs|benchmarks|examples|\.ci)/[\w./-]*[\w/])", TEXT))
    named = {path for path in named if not MADE_BY_RECIPES.search(path)} - {"flsec/"}
    assert len(named) > 30
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, flags=re.MULTILINE))
    assert {"install", "check", "quick", "test", "docs", "exports", "index", "new-defense", "new-attack"} == targets
    written = (ROOT / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}:", written, flags=re.MULTILINE)] == []


HOOKS = {
    RobustStrategy: "before_aggregation on_aggregation after_aggregation num_tolerated clients_needed faults most_kept "
    "state_names report",
    Attack: "poison_update poison poison_metrics poison_cohort success",
    testing: "check_rule check_strategy check_attack check_server_optimizer EXAMPLE_PARAMETERS check_model check_task",
    Task: "batch_loss loss predictions tallies summary outputs check_model labels",
    parameters: "Count Positive",
}


@pytest.mark.parametrize(("owner", "names"), HOOKS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_the_hooks_that_it_names_exist(owner: Any, names: str) -> None:
    for name in names.split():
        assert re.search(rf"[`.]{name}\b", TEXT), f"{name} is not in the text"
        assert hasattr(owner, name)


# --- recipes ---


def test_every_block_is_valid() -> None:
    for text in blocks("python"):
        ast.parse(text)
    for text in blocks("yaml"):
        assert isinstance(yaml.safe_load(text), dict)
    assert (len(blocks("python")), len(blocks("yaml"))) == (6, 2)


def commands(name: str) -> list[list[str]]:
    """The shell commands in the text's plain blocks that call this program."""
    lines = [shlex.split(line) for text in blocks("") for line in text.splitlines()]
    return [words[1:] for words in lines if words[:1] == [name]]


def write_what_recipes_say(checkout: Path) -> None:
    """Write a reader's files, where the blocks say that they go."""
    for text in blocks("python"):
        path = text.partition("\n")[0].removeprefix("# ")
        if "STRATEGIES" in path:
            file = checkout / path.partition(":")[0]
            _, line, _, _, function = text.split("\n", 4)
            before = file.read_text().replace("__all__ = [", '__all__ = ["fedlion", ', 1)
            before = before.replace("\n\n__all__", f"\n{line}\n\n__all__", 1)
            file.write_text(before.replace("STRATEGIES = Registry", f"{function}\n\nSTRATEGIES = Registry"))
        else:
            (checkout / path).write_text(text)
    own, experiment = blocks("yaml")
    (checkout / "try.yaml").write_text(own)
    (path := checkout / "flsec/simulations/experiments/wine/low_rank.yaml").parent.mkdir()
    path.write_text(experiment)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in which all six recipes were followed."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("flsec", "tests/aggregation", "tests/attacks"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    write_what_recipes_say(copy)
    for kind, name in (("defense", "MyRule"), ("attack", "MyAttack")):
        assert f"`make new-{kind} NAME={name}`" in TEXT
        in_copy(copy, "-m", "flsec._new", kind, name)
    return copy


def in_copy(checkout: Path, *arguments: str) -> str:
    """Run Python in the copy, on the copy; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_files_of_the_recipes_pass_make_check(checkout: Path) -> None:
    files = [
        "flsec/data/datasets/wine.py",
        "flsec/models/low_rank.py",
        "flsec/tasks/focal.py",
        "flsec/simulations/_fedlion.py",
    ]
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy", "--cache-dir", str(ROOT / ".mypy_cache")]):
        in_copy(checkout, "-m", *tool, *files)
    in_copy(checkout, "-m", "flsec._exports", "--check")


RUN_ALL = """
import json, sys
from flsec.simulations.cli import app
for arguments in json.load(open("commands.json")):
    app(arguments, standalone_mode=False)
"""


def test_the_commands_of_the_recipes_run(checkout: Path) -> None:
    runs = [words for words in commands("flsec") if words[0] == "run"]
    said = " ".join(word for words in runs for word in words)
    for name in ("my_rule", "my_attack", "wine", "low_rank", "focal", "fedlion"):
        assert f"name: {name}" in said
    assert ["run", "wine/low_rank"] in runs
    own = ["run", "try.yaml", "--set", "strategy={name: 'flsec.simulations._fedlion:FedLion', eta: 0.01}"]
    (checkout / "commands.json").write_text(json.dumps([*runs, own]))
    said = in_copy(checkout, "-c", RUN_ALL)
    assert said.count("test accuracy") - said.count("best test accuracy") == len(runs) + 1


def test_the_task_of_ones_own_runs(checkout: Path) -> None:
    before, after = map(float, in_copy(checkout, "my_task.py").split("->"))
    assert after > 2 * before > 0
