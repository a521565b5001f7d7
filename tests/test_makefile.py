"""The Makefile, the workflow and .ci/run ask for the same."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def commands(*target: str) -> list[str]:
    """What `make target` would run, without the path of Python."""
    result = subprocess.run(["make", "-n", *target], cwd=ROOT, capture_output=True, text=True, check=True)
    return [line.partition("/bin/python ")[2] for line in result.stdout.splitlines()]


@pytest.mark.parametrize("target", ["install", "check", "quick", "test", "docs", "new-defense", "new-attack"])
def test_target_exists_and_is_explained(target: str) -> None:
    assert commands(target, "NAME=MyName")
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"make {target}: " in said


def test_the_workflow_calls_targets_that_exist() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]["steps"]
    targets = [step["run"].split()[1] for step in steps if step.get("run", "").startswith("make ")]
    assert targets == ["install", "check", "test", "docs"]
    assert all(commands(target) for target in targets)


def test_ci_runs_all_that_make_check_and_make_test_do() -> None:
    run = (ROOT / ".ci/run").read_text().splitlines()
    for command in commands("check") + commands("test")[-1:]:
        tool = command.removeprefix("-m ")
        assert any(line.split() and line.startswith((tool, f"python -m {tool}")) for line in run)


def test_ci_leaves_no_test_out_where_it_runs_them_in_two_processes() -> None:
    run = (ROOT / ".ci/run").read_text()
    (apart,) = re.findall(r'^apart="(.*)"$', run, flags=re.MULTILINE)
    assert "\npytest $apart " in run
    assert set(re.findall(r"--ignore=(\S+)", run)) == set(apart.split())
    assert all((ROOT / folder).is_dir() for folder in apart.split())
