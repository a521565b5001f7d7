"""Names in experiments as users have them: old spellings, and classes of modules in the current directory."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flsec.errors import ConfigError
from flsec.registry import say_usual_name
from flsec.simulations.config import make_config, packaged_experiments, resolve_experiment
from flsec.simulations.describe import describe
from flsec.simulations.facts import KINDS

OLD = {
    ("defenses", "fed_inv"): "fedinv",
    ("defenses", "fools_gold"): "foolsgold",
    ("defenses", "fl_trust"): "fltrust",
    ("defenses", "sparse_fed"): "sparsefed",
    ("defenses", "fetch_sgd"): "fetchsgd",
    ("defenses", "diverse_fl"): "diversefl",
    ("attacks", "bad_nets"): "badnets",
    ("models", "dlg_le_net"): "dlg_lenet",
    ("models", "fed_inv_cnn"): "fedinv_cnn",
    ("models", "fed_inv_fcn"): "fedinv_fcn",
    ("models", "res_net_gn"): "resnet_gn",
}
OLD_FILES = {
    ("", "fedinv/paper_mnist_bad_nets"): "fedinv/paper_mnist_badnets",
    ("", "fedinv/paper_fashion_bad_nets"): "fedinv/paper_fashion_badnets",
    (".sweep", "baselines/fools_gold_sybils"): "baselines/foolsgold_sybils",
}
MODULE = """
import math

import torch
from flwr.serverapp.strategy import FedAvg

from flsec.client_apps import SignFlipping
from flsec.strategies import NormClipping


class Mine(FedAvg):
    pass


class Clip(NormClipping):
    pass


class Turned(SignFlipping):
    pass


class Linear(torch.nn.Sequential):
    def __init__(self, *, input_shape, num_classes):
        super().__init__(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), num_classes))
"""
FILE = """
model: {name: "mine_of_mine:Linear"}
training: {learning_rate: 0.1}
strategy: {name: "mine_of_mine:Mine"}
defenses: [{name: "mine_of_mine:Clip", max_norm: 3.0}]
attacks: [{name: "mine_of_mine:Turned"}]
adversaries: {count: 1}
simulation: {engine: inprocess, num_clients: 4, num_rounds: 1}
output: {plots: false}
"""


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    say_usual_name.cache_clear()


@pytest.mark.parametrize(("kind", "old"), OLD)
def test_an_old_spelling_works_with_one_hint(kind: str, old: str, caplog: pytest.LogCaptureFixture) -> None:
    registry, new = KINDS[kind].registry, OLD[kind, old]
    assert registry.get(old) is registry.get(new)
    with caplog.at_level(logging.WARNING, logger="flsec"):
        registry.get(old)
        registry.get(new)
        describe(old)
    assert [record.getMessage() for record in caplog.records] == [
        f"{registry.kind} {old!r} is now spelt {new!r}; the old name goes on working."
    ]


@pytest.mark.parametrize(("kind", "old"), OLD_FILES)
def test_a_renamed_experiment_works_with_one_hint(kind: str, old: str, caplog: pytest.LogCaptureFixture) -> None:
    new = OLD_FILES[kind, old]
    with caplog.at_level(logging.WARNING, logger="flsec"):
        assert resolve_experiment(old, kind) == resolve_experiment(old, kind) == packaged_experiments(kind)[new]
        assert resolve_experiment(new, kind) == packaged_experiments(kind)[new]
    assert [record.getMessage() for record in caplog.records] == [
        f"experiment {old!r} is now spelt {new!r}; the old name goes on working."
    ]


def test_no_experiment_has_an_old_spelling_in_its_name() -> None:
    names = [name for kind in ("", ".sweep", ".reconstruct") for name in packaged_experiments(kind)]
    assert [name for name in names for _, old in OLD if old in name] == []


def test_an_old_spelling_in_a_file_is_the_same_experiment() -> None:
    plain = {"name": "a", "training": {"learning_rate": 0.1}, "data": {"name": "mnist"}}
    configs = [
        make_config({**plain, "model": {"name": model}, "defenses": [{"name": defense}]})
        for model, defense in [("dlg_le_net", "fools_gold"), ("dlg_lenet", "foolsgold")]
    ]
    assert [[config.model.member, config.defenses[0].member] for config in configs[:1]] == [
        [config.model.member, config.defenses[0].member] for config in configs[1:]
    ]


def console_script(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``flsec`` as its console script does: without the current directory among the places for modules."""
    command = [sys.executable, "-P", "-c", "from flsec.simulations.cli import main; main()", *arguments]
    environment = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment)


def test_classes_of_the_current_directory_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "mine_of_mine.py").write_text(MODULE)
    (tmp_path / "file.yaml").write_text(FILE)
    done = console_script("run", "file.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "file" / "rounds.jsonl").is_file()


def test_elsewhere_the_message_says_where_to_go_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "mine_of_mine.py").write_text(MODULE)
    (tmp_path / "file.yaml").write_text(FILE)
    done = console_script("run", "../file.yaml", cwd=tmp_path / "here")
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "cannot be imported: No module named 'mine_of_mine'. It is looked for among installed packages, then in the "
        f"current directory, {tmp_path / 'here'}. Go to the folder that holds mine_of_mine, or put that into "
        "PYTHONPATH."
    )
    assert list((tmp_path / "here").iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        ("models", "model, which must be a subclass of torch.nn.Module; got the type 'ConfigError'."),
        (
            "defenses",
            "defense, which must be a subclass of flsec.strategies.RobustStrategy; got the type 'ConfigError'.",
        ),
        ("attacks", "attack, which must be a subclass of flsec.client_apps.Attack; got the type 'ConfigError'."),
    ],
)
def test_what_is_named_and_is_something_else_is_told_the_rule(kind: str, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KINDS[kind].registry.get("flsec.errors:ConfigError")
    assert str(caught.value) == f"'flsec.errors:ConfigError' is no {rule}"


def test_a_file_of_the_current_directory_hides_no_installed_package(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('hidden')\n")
    (tmp_path / "mine_of_mine.py").write_text(MODULE)
    (tmp_path / "file.yaml").write_text(FILE)
    done = console_script("run", "file.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_message_shows_what_was_written_and_no_pictures(tmp_path: Path) -> None:
    done = console_script("run", "quickstart", "--set", "name=a:b", cwd=tmp_path)
    assert done.stderr.startswith("error: --set name=a:b: name: must be the name of one folder")
    assert list(tmp_path.iterdir()) == []
