"""Runs that are killed, on a full disk, or with damaged files: they go on to the same numbers, or say what is lost."""

import functools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flsec._lock import FolderLock
from flsec.errors import ConfigError, SaveError
from flsec.simulations import engine
from flsec.simulations.checks import check_data
from flsec.simulations.config import Config, load_config
from flsec.simulations.engines.loop import ServerLoop
from flsec.simulations.run_folder import RunFolder
from tests.support.figures import figures
from tests.support.killed import MAIN, Started, killed_at

EXPERIMENT = """
name: trial
seed: 5
data: {name: digits}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 16, steps: 3}
strategy: {name: scaffold}
defenses: [{name: norm_clipping, max_norm: 2.0}, {name: multi_krum, num_byzantine: 1}]
attacks: [{name: sign_flipping, scale: 3.0}]
adversaries: {count: 1, redraw: every_round}
simulation: {engine: inprocess, num_clients: 8, clients_per_round: 6, num_rounds: 5}
output: {plots: false}
"""

Load = Any


@pytest.fixture
def load(tmp_path: Path) -> Load:
    (tmp_path / "trial.yaml").write_text(EXPERIMENT)

    def loaded(*settings: str) -> Config:
        return load_config(tmp_path / "trial.yaml", [f"output.folder={tmp_path / 'runs'}", *settings])

    return loaded


def outcome(folder: RunFolder) -> tuple[Any, bytes]:
    return figures(folder), (folder.path / "model.safetensors").read_bytes()


@functools.cache
def expected(rounds: int = 5) -> tuple[Any, bytes]:
    """What a run comes to that nobody disturbs; the same for all engines."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "trial.yaml"
        file.write_text(EXPERIMENT)
        return outcome(engine.run(load_config(file, [f"output.folder={place}", f"simulation.num_rounds={rounds}"])))


def partials(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial"))


# --- SIGKILL ----------------------------------------------------------------------------------------------------


def check_killed_at(tmp_path: Path, access: int) -> bool:
    """Kill a run before an access to its folder, resume it, and compare; return whether it came that far."""
    runs = tmp_path / f"runs-{access}"
    runs.mkdir()
    killed = killed_at(tmp_path / "trial.yaml", [f"output.folder={runs}"], runs / "trial", access)
    if killed and not (runs / "trial/config.yaml").is_file():
        with pytest.raises(ConfigError, match="is no run folder"):
            engine.resume(runs / "trial")
        return True
    folder = engine.resume(runs / "trial")
    assert outcome(folder) == expected()
    assert not partials(folder.path)
    return killed


@pytest.mark.usefixtures("load")
def test_killed_at_any_access_to_its_folder_it_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    chance = random.Random(1)
    for access in [2, *chance.sample(range(3, 150), 5)]:
        assert check_killed_at(tmp_path, access)
    assert not check_killed_at(tmp_path, 10_000)  # what is never killed is compared in the same way


@pytest.mark.slow
@pytest.mark.usefixtures("load")
def test_killed_at_30_accesses(tmp_path: Path) -> None:
    for access in random.Random(2).sample(range(1, 170), 30):
        check_killed_at(tmp_path, access)


def check_killed_by_the_clock(tmp_path: Path, load: Load, name: str, moments: int, seed: int) -> float:
    """Kill runs of an engine at random moments, each several times in a row; return the longest that one was left."""
    chance, longest = random.Random(f"{name} {seed}"), 0.0
    rounds = 40 if name == "inprocess" else 12
    load(f"name={name}", f"simulation.engine={name}", f"simulation.num_rounds={rounds}")
    folder = tmp_path / "runs" / "trial"
    shutil.rmtree(folder, ignore_errors=True)
    arguments = ["trial.yaml", "--set", f"simulation.engine={name}", "--set", f"simulation.num_rounds={rounds}"]
    for _ in range(moments):
        started = Started(*arguments, cwd=tmp_path)
        before = len(RunFolder(folder).rounds()) if folder.exists() else 0
        started.wait_for_rounds(folder / "rounds.jsonl", min(before + chance.randint(0, 3), rounds - 1))
        time.sleep(chance.uniform(0, 0.3))
        started.end()
        longest = max(longest, started.seconds_until_nothing_is_left())
        arguments = ["--resume", "runs/trial"]
    printed = Started(*arguments, cwd=tmp_path)
    text = printed.finish()
    assert printed.process.returncode == 0, text
    assert re.search(r"Resumed after round \d+|Begun again", text)
    assert printed.seconds_until_nothing_is_left() < 30
    assert outcome(RunFolder(folder)) == expected(rounds)
    return longest


@pytest.mark.parametrize("name", ["inprocess", "pooled", "flower"])
def test_killed_by_the_clock_it_goes_on_and_leaves_no_process(tmp_path: Path, load: Load, name: str) -> None:
    assert check_killed_by_the_clock(tmp_path, load, name, moments=1, seed=1) < 30


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inprocess", "pooled", "flower"])
def test_killed_by_the_clock_at_30_moments(tmp_path: Path, load: Load, name: str) -> None:
    for seed in range(10):
        assert check_killed_by_the_clock(tmp_path, load, name, moments=3, seed=seed) < 30


# --- SIGTERM, and two at once -----------------------------------------------------------------------------------


def check_stopped(tmp_path: Path, name: str) -> None:
    (tmp_path / "trial.yaml").write_text(EXPERIMENT.replace("num_rounds: 5", "num_rounds: 100000"))
    started = Started("trial.yaml", "--set", f"simulation.engine={name}", cwd=tmp_path)
    folder = tmp_path / "runs/trial"
    started.wait_for_rounds(folder / "rounds.jsonl", 3)
    with pytest.raises(ConfigError, match=rf"process {started.process.pid} on \S+ is at work in .*runs/trial"):
        engine.resume(folder)
    printed = started.end(signal.SIGTERM)
    assert started.process.returncode == 130, printed
    assert "flsec run --resume runs/trial" in printed
    assert "Traceback" not in printed
    done, state = RunFolder.open(folder).load_checkpoint()
    assert state is not None
    assert done == RunFolder(folder).rounds()[-1]["round"]
    assert started.seconds_until_nothing_is_left() < 30


def test_sigterm_ends_cleanly_and_meanwhile_nobody_else_is_let_in(tmp_path: Path) -> None:
    check_stopped(tmp_path, "inprocess")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pooled", "flower"])
def test_sigterm_ends_cleanly_on_ray(tmp_path: Path, name: str) -> None:
    check_stopped(tmp_path, name)


def test_a_second_run_in_a_folder_is_refused_and_changes_nothing(tmp_path: Path, load: Load) -> None:
    folder = engine.run(load())
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file() and path.name != "run.log"}
    with FolderLock(folder.path).held():
        with pytest.raises(ConfigError, match="is at work in"):
            engine.resume(folder.path, from_round=3)
        loop = ServerLoop(check_data(load()), RunFolder(folder.path), resume_from=3)
        with pytest.raises(ConfigError, match="is at work in"):  # whoever drives it
            loop(None, None)  # type: ignore[arg-type]
        loop.folder.remove_unless_begun()  # it is not this process's to remove
        assert {path: path.read_bytes() for path in before} == before
    assert outcome(engine.resume(folder.path, from_round=3)) == expected()


# --- damaged files ----------------------------------------------------------------------------------------------


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def newest(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.state"), key=lambda path: path.name.rpartition("-")[2])


@pytest.mark.parametrize("harm", [flip, cut])
def test_damaged_checkpoints_and_client_states_are_passed_over_and_said(
    tmp_path: Path, load: Load, harm: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, chance = engine.run(load()), random.Random(3)
    for count, place in ((1, "checkpoints"), (2, "checkpoints"), (1, "client_states")):
        for path in newest(folder.path / place)[-count:]:
            harm(path, chance)
        again: list[int] = []
        assert outcome(engine.resume(folder.path, on_start=again.append)) == expected()
        assert again == [5 - count]
        told = capsys.readouterr().err
        assert told.count("lost, and run again: round ") == count
        assert ("what client" in told) == (place == "client_states")
        assert "lost, and run again" in folder.log.read_text()


def test_where_none_is_whole_all_reasons_are_said(load: Load) -> None:
    folder = engine.run(load())
    for path in newest(folder.path / "checkpoints"):
        path.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"none of .* round 5: .*; round 4: .*; round 3: .*none of flsec"):
        engine.resume(folder.path)
    with pytest.raises(ConfigError, match=r"the checkpoint of round 4 cannot be used: round-000004\.state"):
        engine.resume(folder.path, from_round=4)


def test_another_runs_checkpoint_is_refused(load: Load) -> None:
    folder, other = engine.run(load()), engine.run(load("seed=6"))
    for path in (other.path / "checkpoints").iterdir():
        shutil.copy(path, folder.path / "checkpoints")
    with pytest.raises(ConfigError, match=r"round 5: round-000005\.state is another run's"):
        engine.resume(folder.path)
    (folder.path / "environment.json").unlink()
    with pytest.raises(ConfigError, match="does not say which run this is"):
        engine.resume(folder.path)


@pytest.mark.parametrize("torn", [b'{"round": 6, "acc', b'{"round": 6}garbage\n', b"\0" * 4096])
def test_a_torn_last_line_is_cut_off(load: Load, torn: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    folder = engine.run(load())
    records = folder.path / "rounds.jsonl"
    records.write_bytes(records.read_bytes() + torn)
    assert len(folder.rounds()) == 6
    assert outcome(engine.resume(folder.path)) == expected()
    assert "the last line of rounds.jsonl was cut off" in capsys.readouterr().err
    assert records.read_bytes().count(b"\n") == 6


def test_a_round_without_its_record_is_run_again(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    folder = engine.run(load())
    records = folder.path / "rounds.jsonl"
    records.write_bytes(records.read_bytes()[:-20])
    assert outcome(engine.resume(folder.path)) == expected()
    assert "round 5: rounds.jsonl has no record of round 5" in capsys.readouterr().err


def test_a_damaged_line_in_the_middle_is_refused_by_number(load: Load) -> None:
    folder = engine.run(load())
    records = folder.path / "rounds.jsonl"
    lines = records.read_bytes().split(b"\n")
    records.write_bytes(b"\n".join([*lines[:2], lines[2][:30], *lines[3:]]))
    with pytest.raises(ConfigError, match=r"line 3 of .*rounds\.jsonl' is damaged"):
        engine.resume(folder.path)


def test_going_back_forgets_what_came_later_there_too(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else checkpoints of an earlier going would be newer than those of the present one."""
    folder = engine.run(load("output.keep_checkpoints=null"))
    with monkeypatch.context() as patch:
        patch.setattr(ServerLoop, "_round", lambda *_: (_ for _ in ()).throw(RuntimeError("stopped at once")))
        with pytest.raises(RuntimeError, match="stopped at once"):
            engine.resume(folder.path, from_round=2)
    assert folder.checkpoint_rounds() == [1, 2]
    assert [record["round"] for record in folder.rounds()] == [0, 1, 2]
    assert outcome(engine.resume(folder.path)) == expected()


def test_what_only_flsec_reads_only_the_owner_may_read(load: Load) -> None:
    before = os.umask(0o022)
    try:
        folder = engine.run(load())
    finally:
        os.umask(before)
    modes = {path: path.stat().st_mode & 0o777 for path in folder.path.rglob("*")}
    private = {path for path in modes if {"checkpoints", "client_states"} & set(path.relative_to(folder.path).parts)}
    assert len(private) > 10
    assert {modes[path] for path in private if path.is_dir()} == {0o700}
    assert {modes[path] for path in private if path.is_file()} == {0o600}
    assert modes[folder.path / "summary.json"] == 0o644


# --- a full disk ------------------------------------------------------------------------------------------------


def flsec(*arguments: str, cwd: Path, **options: Any) -> Any:
    return subprocess.run([sys.executable, "-c", MAIN, *arguments], cwd=cwd, capture_output=True, text=True, **options)


def check_one_clear_error(done: Any, why: str) -> None:
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert why in line
    assert re.search(r"could not be written: .*\. Saved is all until round \d+; go on with: flsec run --resume ", line)
    assert "Traceback" not in done.stderr
    assert "Logging error" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("load")
def test_where_files_may_not_grow_it_says_how_to_go_on(tmp_path: Path) -> None:
    """Without a disk of one's own: the kernel lets no file grow beyond some kilobytes."""
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_FSIZE, (9000, 9000))
    small = ["--set", "model={name: mlp, hidden: [2]}", "--set", "strategy={name: fedavg}"]
    done = flsec("run", "trial.yaml", *small, "--set", "simulation.num_rounds=30", cwd=tmp_path, preexec_fn=limit)
    check_one_clear_error(done, "File too large")
    folder = RunFolder(tmp_path / "runs/trial")
    assert not partials(folder.path)
    assert 0 < folder.load_checkpoint()[0] < 30
    done = flsec("run", "--resume", "runs/trial", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert folder.rounds()[-1]["round"] == 30


def can_mount() -> bool:
    command = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=64k tmpfs /mnt"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="this user may mount nothing")
@pytest.mark.usefixtures("load")
def test_a_full_disk_ends_it_with_one_error_and_with_room_it_goes_on(tmp_path: Path) -> None:
    """A disk in memory, in a name space of its own, that is full after some rounds and then larger."""
    (tmp_path / "disk").mkdir()
    flsec_run = f'"{sys.executable}" -c "{MAIN}" run'
    script = f"""
        mount -t tmpfs -o size=160k tmpfs disk
        {flsec_run} trial.yaml --set output.folder=disk 2> full.txt; echo $? > full.code
        find disk -name '*.partial' > left.txt
        mount -o remount,size=20m disk
        {flsec_run} --resume disk/trial 2> resumed.txt; echo $? > resumed.code
        cp -r disk/trial trial
    """
    subprocess.run(["unshare", "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    code, text = int((tmp_path / "full.code").read_text()), (tmp_path / "full.txt").read_text()
    check_one_clear_error(subprocess.CompletedProcess([], code, "", text), "No space left on device")
    assert (tmp_path / "left.txt").read_text() == ""
    assert (tmp_path / "resumed.code").read_text() == "0\n", (tmp_path / "resumed.txt").read_text()
    assert "Resumed after round" in (tmp_path / "resumed.txt").read_text()
    assert outcome(RunFolder(tmp_path / "trial")) == expected()


@pytest.mark.parametrize("name", ["summary.json", "model.safetensors", "accuracy.png"])
def test_what_finds_no_place_at_the_end_is_written_by_a_resumed_run(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        renamed(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(SaveError, match=rf"{name}' could not be written: No space.*(Saved is all|All else)"):
            engine.run(load("output.plots=true"))
    (path,) = Path(load().output.folder).iterdir()
    assert not partials(path)
    assert outcome(engine.resume(path)) == expected()
    assert (path / name).is_file()
