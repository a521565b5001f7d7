"""A new defense or attack runs at once, and passes what every other one must pass."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flsec import _exports, _new

ROOT = _exports.ROOT.parent
LONG = "MeanOfTheMiddleValuesOfEachCoordinate"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is tested, to which a test may add files."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in ("flsec", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def run(checkout: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_a_new_defense_and_a_new_attack_pass_everything_at_once(checkout: Path) -> None:
    files = []
    for kind, name in (("defense", "MyRule"), ("attack", "MyAttack"), ("defense", LONG), ("attack", "Attack9")):
        result = run(checkout, "flsec._new", kind, name)
        assert result.returncode == 0, result.stderr
        files += [line for line in result.stdout.splitlines() if line.endswith(".py")]
    assert len(files) == 12
    for command in (
        ["flsec._exports", "--check"],
        ["ruff", "check", *files, "flsec/aggregation/__init__.py", "flsec/client_apps/__init__.py"],
        ["ruff", "format", "--check", *files, "flsec/aggregation/__init__.py", "flsec/client_apps/__init__.py"],
        ["mypy", "--cache-dir", str(ROOT / ".mypy_cache"), *(file for file in files if file.startswith("flsec"))],
        ["pytest", "-q", "-k", "my_rule or my_attack", *files, "tests/test_contracts.py"],
    ):
        result = run(checkout, *command)
        assert result.returncode == 0, result.stdout + result.stderr
    collected = run(checkout, "pytest", "-q", "--collect-only", "-k", "my_rule or my_attack", "tests/test_contracts.py")
    for test in ("test_strategy[my_rule]", "test_rule[my_rule]", "test_attack[my_attack]"):
        assert test in collected.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["defense", "my_rule"], "write it like MyRule"),
        (["defense", "Krum"], "flsec/aggregation/krum.py exists"),
        (["defense", "KrumScores"], "both export 'krum_scores'"),
        (["rule", "MyRule"], "usage:"),
        (["defense"], "usage:"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(checkout: Path, arguments: list[str], says: str) -> None:
    before = sorted(checkout.rglob("*.py"))
    result = run(checkout, "flsec._new", *arguments)
    assert result.returncode == 1
    assert says in result.stderr
    assert sorted(checkout.rglob("*.py")) == before


def test_every_template_says_what_to_replace() -> None:
    for files in _new.FILES.values():
        for path, text in files.items():
            assert "SNAKE" in text
            assert path.startswith("tests") or "replace th" in text or "replace this" in text
