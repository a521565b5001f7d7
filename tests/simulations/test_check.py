"""``flsec check``: every mistake is named, however many there are, and nothing that follows from another."""

import functools
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec.errors import ConfigError
from flsec.simulations.check import check_file
from flsec.simulations.problems import SettingsError

SOUND = """\
data:
  name: digits
  partition: {name: group_bias, bias: 0.5}
model: {name: mlp, hidden: [8]}
training: {learning_rate: 0.1, epochs: 1, batch_size: 16}
defenses:
  - {name: multi_krum, num_byzantine: 4}
  - {name: median}
  - {name: norm_clipping, max_norm: 1.0}
attacks:
  - {name: sign_flipping, scale: 4.0}
  - {name: label_flipping, source: 3, target: 5}
adversaries: {fraction: 0.2}
simulation: {engine: inprocess, num_clients: 20, num_rounds: 3}
"""
MISTAKES = [
    "seeed=1",
    "name=../evil",
    "data.subset=-3",
    "data.zzz=1",
    "model.name=mlpp",
    "training.learning_rate=-1",
    "training.foo=1",
    "strategy.name=fedprux",
    "defenses.0.num_byzantine=18",
    "defenses.0.zzz=1",
    "defenses.1.name=nonsense",
    "data.partition.bias=7",
    "defenses.2.max_norm=-1",
    "attacks.0.scale=x",
    "attacks.1.target=44",  # only the data tell
    "adversaries.redraw=daily",
    "simulation.num_roundz=3",
    "simulation.device=tpu",
    "simulation.client_timeout=0",
    "output.folder=../evil",
    "output.plots=maybe",
]


def messages(file: Path, overrides: list[str]) -> set[str]:
    try:
        check_file(str(file), overrides)
    except SettingsError as error:
        return set(error.messages)
    return set()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("check") / "sound.yaml"
    path.write_text(SOUND)
    return path


@functools.cache
def alone(file: Path, mistake: str) -> frozenset[str]:
    return frozenset(messages(file, [mistake]))


def test_a_sound_file_is_fine(file: Path) -> None:
    assert check_file(str(file)) == "3 rounds, 20 clients, about 300 steps of training in all on digits"


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_that_says_where(file: Path, mistake: str) -> None:
    (message,) = alone(file, mistake)
    assert message.startswith(f"--set {mistake}: ")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(MISTAKES), min_size=2, max_size=5, unique=True))
def test_each_of_several_mistakes_is_named_and_nothing_else(file: Path, mistakes: list[str]) -> None:
    assert messages(file, mistakes) == frozenset().union(*(alone(file, mistake) for mistake in mistakes))


def test_all_mistakes_at_once(file: Path) -> None:
    assert messages(file, MISTAKES) == frozenset().union(*(alone(file, mistake) for mistake in MISTAKES))


def test_messages_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    text = (
        SOUND.replace("bias: 0.5", "bias: 7").replace("target: 5", "target: 44").replace("max_norm: 1.0", "max_norm: x")
    )
    file.write_text(text.replace("num_rounds", "num_round").replace("median", "nonsense") + "zzz: 1\n")
    with pytest.raises(SettingsError) as caught:
        check_file(str(file))
    places = [message.partition(": ")[0] for message in caught.value.messages]
    assert places == [f"{file}:{line}" for line in (3, 8, 9, 12, 14, 15)]


def test_missing_data_are_named_beside_the_rest(file: Path, tmp_path: Path) -> None:
    lost = ["data={name: npz, file: nowhere.npz}", "defenses.0.num_byzantine=18", "output.plots=maybe"]
    found = messages(file, lost)
    assert any("data.file" in message and "nowhere.npz" in message for message in found)
    assert {*alone(file, lost[1]), *alone(file, lost[2])} < found
    assert len(found) == 3


def test_without_a_name_nothing_is_said_of_parameters(file: Path) -> None:
    for mistake in ("defenses.0.name=null", "model.name=1", "data.partition.name=[]"):
        (message,) = messages(file, [mistake])
        assert "name" in message
        assert "no such key" not in message


def test_what_depends_on_something_unreadable_is_left_out(file: Path) -> None:
    """18 attackers of 20 clients are too many; of how many there are is not known here."""
    assert messages(file, ["defenses.0.num_byzantine=18", "simulation.num_clients=x"]) == alone(
        file, "simulation.num_clients=x"
    )
    assert messages(file, ["attacks.1.target=44", "data.name=digitz"]) == alone(file, "data.name=digitz")


def test_a_misspelt_key_stands_for_the_one_that_is_missing(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(SOUND.replace("num_byzantine: 4", "num_byzantin: 4").replace("model:", "modle:"))
    with pytest.raises(SettingsError) as caught:
        check_file(str(file))
    assert ["no such key" in message for message in caught.value.messages] == [True, True]


def sweep(tmp_path: Path, vary: str) -> Path:
    file = tmp_path / "grid.yaml"
    inside = "".join(f"  {line}\n" for line in SOUND.splitlines())
    file.write_text(f"experiment:\n{inside}vary: {vary}\n")
    return file


def test_a_sweep_says_once_what_is_wrong_in_several_runs(tmp_path: Path) -> None:
    file = sweep(tmp_path, "{defenses.0.num_byzantine: [4, 18], seed: [1, 2]}")
    assert check_file(str(sweep(tmp_path, "{seed: [1, 2]}"))).startswith("2 runs; the first has 3 rounds, 20 clients")
    sweep(tmp_path, "{defenses.0.num_byzantine: [4, 18], seed: [1, 2]}")
    with pytest.raises(SettingsError) as caught:
        check_file(str(file), ["attacks.1.target=44"])
    everywhere, some = sorted(caught.value.messages)
    assert ": all 4 runs: --set attacks.1.target=44: attacks[1].target: " in everywhere
    assert ": the runs 18-1, 18-2: " in some
    assert "needs at least 39 clients" in some
    assert not list(tmp_path.glob("runs"))


def test_a_reconstruction_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    inside = "".join(f"  {line}\n" for line in SOUND.splitlines())
    file.write_text(f"experiment:\n{inside}clients: [0]\n")
    assert check_file(str(file)) == "images of clients rebuilt 1 times, 1 at a time"
    with pytest.raises(SettingsError) as caught:
        check_file(str(file), ["clients=[99]", "experiment.attacks.1.target=44", "imagez=2"])
    assert len(caught.value.messages) == 2  # how many clients there are, only a sound experiment tells
    assert "imagez" in str(caught.value)
    assert "attacks[1].target" in str(caught.value)


def test_what_is_no_file_at_all_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        check_file(str(tmp_path / "nowhere.yaml"))


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_commands_print_each_mistake_and_exit_with_2(file: Path, tmp_path: Path, command: str) -> None:
    mistakes = ["data.zzz=1", "attacks.1.target=44"]
    told = [part for mistake in mistakes for part in ("--set", mistake)]
    done = subprocess.run(
        [sys.executable, "-m", "flsec.simulations.cli", command, str(file), *told],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert {line.removeprefix("error: ") for line in done.stderr.splitlines()} == messages(file, mistakes)
    assert not list(tmp_path.iterdir())
