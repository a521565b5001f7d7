"""Files written whole or not at all; each cut and each flipped bit is noticed; one process at a time in a folder."""

import errno
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flsec._checkpoints import Checkpoints
from flsec._files import Damaged, append_line, read_checked, remove_leftovers, replacing, write_checked
from flsec._lock import FolderLock
from flsec._state_files import load_state, save_state
from flsec.errors import ConfigError, SaveError

STATE = {"weights": [np.arange(6.0), np.float32(2)], "by id": {3: "x", -1: None}, "text": "é"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s.state"
    save_state(path, STATE, "checkpoint")
    return path.read_bytes()


def damage(path, data):
    path.write_bytes(data)
    with pytest.raises(Damaged, match=r"s\.state ") as refused:
        load_state(path, "checkpoint")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_every_flipped_bit_and_every_cut_is_noticed(whole, tmp_path):
    """All of them, not a sample: the file is small."""
    path = tmp_path / "s.state"
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        damage(path, bytes(changed))
        damage(path, whole[:place])
    for more in (b"\0", b"\n", whole):
        damage(path, whole + more)
    path.write_bytes(whole)
    assert load_state(path, "checkpoint")["text"] == "é"


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_other_bytes_are_refused_too(whole, tmp_path, data):
    path = tmp_path / "s.state"
    edits = data.draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=8))
    changed = bytearray(whole)
    for place, value in edits:
        changed[place] = value
    if bytes(changed) != whole:
        damage(path, bytes(changed))
    damage(path, data.draw(st.binary(max_size=200)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda whole: b"", "none of flsec's files"),
        (lambda whole: b"\x08\0\0\0\0\0\0\0{}", "none of flsec's files"),
        (lambda whole: whole[:-1], "it is cut off"),
        (lambda whole: whole.replace(b"flsec checkpoint 1", b"flsec checkpoint 2"), "of the kind 'checkpoint 2'"),
        (lambda whole: whole.replace(b"flsec checkpoint 1", b"flsec client-state 1"), "of the kind 'client-state 1'"),
        (lambda whole: whole[:-1] + b"\xff", "its SHA-256 differs"),
    ],
)
def test_the_reason_is_said(whole, tmp_path, make, words):
    assert words in damage(tmp_path / "s.state", make(whole))


def test_a_whole_file_without_a_state_is_refused(tmp_path):
    path = tmp_path / "s.state"
    for payload in (b"", b"x" * 100, (2**63).to_bytes(8, "little")):
        write_checked(path, "checkpoint", payload)
        with pytest.raises(Damaged, match="holds no state"):
            load_state(path, "checkpoint")


def test_a_file_that_is_not_there_is_no_traceback(tmp_path):
    with pytest.raises(Damaged, match=r"gone\.state cannot be read: No such file"):
        read_checked(tmp_path / "gone.state", "checkpoint")


# --- writing ----------------------------------------------------------------------------------------------------


def test_what_fails_half_way_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"old")

    def fail(error):
        with replacing(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(SaveError, match="could not be written: No space left on device"):
        fail(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"f": b"old"}


def test_a_temporary_name_is_the_processs_own(tmp_path):
    with replacing(tmp_path / "f") as first, replacing(tmp_path / "f") as second:
        first.write(b"1")
        second.write(b"2")
        assert len(list(tmp_path.iterdir())) == 2
        assert all(f".f.{os.getpid()}-" in path.name for path in tmp_path.iterdir())
    assert (tmp_path / "f").read_bytes() == b"1"  # the last to be renamed, whole


def test_leftovers_go_and_nothing_else(tmp_path):
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    for name in (".f.12-ab.partial", "f", "my.partial"):
        (below / name).write_text("")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in below.iterdir()) == ["f", "my.partial"]


@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
@pytest.mark.parametrize("room", [0, 1, 150, 400])
def test_a_disk_without_room_is_one_error_and_no_half_file(tmp_path, room):
    """The kernel refuses to let a file grow beyond ``room`` bytes."""
    append_line(tmp_path / "lines", "first")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from flsec._files import *; from flsec.errors import SaveError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
        "folder = Path(sys.argv[1])\n"
        "for write in (lambda: write_checked(folder / 'state', 'checkpoint', b'x' * 1000),\n"
        "              lambda: append_line(folder / 'lines', 'y' * 1000)):\n"
        "    try: write()\n"
        "    except SaveError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.count("could not be written: File too large.") == 2, done.stdout
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"lines": b"first\n"}


def test_modes(tmp_path):
    before = os.umask(0o022)
    try:
        Checkpoints(tmp_path / "c", "checkpoint").save(1, STATE, None)
        with replacing(tmp_path / "public") as file:
            file.write(b"")
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.rglob("*")}
    assert modes == {"c": 0o700, "round-000001.state": 0o600, "public": 0o644}


# --- checkpoints ------------------------------------------------------------------------------------------------


def test_the_newest_that_is_whole_counts_and_what_is_lost_is_said(tmp_path):
    checkpoints = Checkpoints(tmp_path, "checkpoint", "me")
    for round_ in range(1, 6):
        checkpoints.save(round_, {"n": round_}, keep=4)
    assert checkpoints.rounds() == [2, 3, 4, 5]
    (tmp_path / "round-000005.state").write_bytes(b"")
    (tmp_path / "round-000004.state").write_bytes((tmp_path / "round-000003.state").read_bytes())
    found = checkpoints.newest()
    assert (found.round, found.state) == (3, {"n": 3})
    assert [reason.split(":")[0] for reason in found.lost] == ["round 5", "round 4"]
    assert "is of round 3" in found.lost[1]
    with pytest.raises(ConfigError, match=r"round 2: round-000002\.state is another run's"):
        Checkpoints(tmp_path, "checkpoint", "other").newest()
    with pytest.raises(ConfigError, match="is of the kind 'checkpoint 1', not 'defense-state 1'"):
        Checkpoints(tmp_path, "defense-state", "me").newest()
    checkpoints.forget_after(3)
    assert checkpoints.rounds() == [2, 3]


def test_files_of_an_earlier_version_are_refused_by_name(tmp_path):
    (tmp_path / "round-000003.safetensors").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"round-000003.safetensors is of another version of flsec"):
        Checkpoints(tmp_path, "checkpoint").newest()


def test_where_nothing_was_saved_there_is_nothing(tmp_path):
    found = Checkpoints(tmp_path / "none", "checkpoint").newest()
    assert (found.round, found.state, found.lost) == (0, None, ())


# --- the lock ---------------------------------------------------------------------------------------------------

HOLD = "import sys, time; from flsec._lock import FolderLock; from pathlib import Path\n"
HOLD += "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True)\n"


def held_elsewhere(folder, then):
    process = subprocess.Popen([sys.executable, "-c", HOLD + then, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_told_of_the_first_and_a_dead_one_is_no_obstacle(tmp_path):
    process = held_elsewhere(tmp_path, "time.sleep(600)")
    with pytest.raises(ConfigError, match=rf"^process {process.pid} on \S+ is at work in .*\. Wait until"):
        FolderLock(tmp_path).acquire()
    process.kill()
    process.wait()
    with FolderLock(tmp_path).held():
        pass


def test_a_forked_child_does_not_keep_it(tmp_path):
    """As a data loader's worker would, which may outlive the process that was killed."""
    then = "import os\nif os.fork() == 0: print(os.getpid(), flush=True)\ntime.sleep(600)"
    process = held_elsewhere(tmp_path, then)
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    try:
        os.kill(child, 0)  # it is there
        FolderLock(tmp_path).acquire()
    finally:
        os.kill(child, 9)


def test_who_has_it_may_take_it_again_and_another_object_may_not(tmp_path):
    lock = FolderLock(tmp_path)
    with lock.held():
        with lock.held():
            pass
        with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
            FolderLock(tmp_path).acquire()
    with FolderLock(tmp_path).held():
        assert not lock.is_held


def test_a_file_system_without_locks_is_refused_and_a_system_without_flock_is_said(tmp_path, monkeypatch, caplog):
    import fcntl

    def no_locks(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(ConfigError, match=r"cannot be locked: No locks available. Use a folder"):
            FolderLock(tmp_path).acquire()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with caplog.at_level("WARNING", "flsec"), FolderLock(tmp_path).held():
        assert "has no flock" in caplog.text
