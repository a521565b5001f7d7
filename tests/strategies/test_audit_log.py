"""The audit log: what it holds, what it survives, and what it shows of changes."""

import hashlib
import json
import math
import os
import stat
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flsec._contracts.faults import first_array
from flsec._contracts.server import identify
from flsec.errors import ConfigError
from flsec.strategies import (
    AuditLog,
    KeepPreviousModel,
    Median,
    MultiKrum,
    Quarantined,
    RoundReport,
    Threshold,
    Verdict,
    read_audit,
)
from flsec.strategies._report_record import as_json, record_of, report_of
from flsec.strategies.audit_log import _signed
from flsec.strategies.report import KINDS
from tests.support.boundary import both_apis, fedavg, play, sends

IDS = st.integers(0, 2**64 - 1)
TEXTS = st.text(max_size=50) | st.sampled_from(['"}\n{"flsec_audit":1', "\u2028\u0085\x0b\x1c", "\ud800", "NaN"])
NUMBERS = st.floats() | st.sampled_from([math.inf, -math.inf, math.nan, 5e-324, 1.7976931348623157e308])
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
thresholds = st.none() | st.builds(Threshold, *[st.none() | st.floats(allow_nan=False)] * 2)
verdicts = st.builds(
    Verdict,
    defense=TEXTS,
    participants=st.lists(IDS, max_size=4).map(tuple),
    kept=st.lists(IDS, max_size=4).map(tuple),
    weights=st.none() | st.dictionaries(IDS, NUMBERS, max_size=3),
    scores=st.none() | st.dictionaries(IDS, NUMBERS, max_size=3),
    notes=st.dictionaries(TEXTS, PLAIN, max_size=3),
    seconds=st.floats(0, 1e9),
    judges=st.booleans(),
    threshold=thresholds,
    accused=st.lists(IDS, max_size=4).map(tuple),
)
reports = st.builds(
    RoundReport,
    round=st.integers(0, 10**6),
    quarantined=st.lists(st.builds(Quarantined, IDS, TEXTS, st.sampled_from(KINDS)), max_size=3).map(tuple),
    verdicts=st.lists(verdicts, max_size=3).map(tuple),
    kept_previous_model=st.none() | TEXTS,
    seconds=st.dictionaries(TEXTS, st.floats(0, 1e9), max_size=3),
    metrics_left_out=st.dictionaries(IDS, TEXTS, max_size=3),
    asked=st.integers(0, 10**5),
    usable=st.integers(0, 10**5),
    rejected=st.lists(IDS, max_size=4).map(tuple),
)


def same(a, b):
    """Whether two reports are equal, NaN counted as equal to itself."""
    return repr(a) == repr(b)


def plain(number=1, **changes):
    return replace(RoundReport(number, (), (), None, {"parse": 0.5}, asked=3, usable=3), **changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def write(path, numbers):
    with AuditLog(path) as audit:
        for number in numbers:
            audit(plain(number))
    return path.read_bytes().splitlines(keepends=True)


def rounds(path):
    return [report.round for report in read_audit(path).reports]


# --- what it holds ----------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(told=st.lists(reports, max_size=4), restart=st.integers(0, 4))
def test_what_is_written_is_read_back(told, restart, tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    for part in (told[:restart], told[restart:]):
        with AuditLog(path) as audit:
            for report in part:
                audit(report)
    read = read_audit(path)
    assert read.problems == ()
    assert same(read.reports, tuple(told))
    assert len(path.read_bytes().split(b"\n")) == len(told) + 1, "a text of a client's has ended a line"
    assert audit.head == read.head


@given(reports)
def test_a_record_is_strict_json_and_becomes_the_report_again(report):
    text = json.dumps(record_of(report), allow_nan=False)
    assert same(report_of(json.loads(text)), report)


def test_notes_that_json_has_not_are_told_in_its_types():
    class Odd:
        def __str__(self):
            raise RuntimeError

    notes = {"a": torch.tensor([1.5, math.nan]), 3: np.float32(2), "s": {2, 1}, "b": b"x", "o": Odd(), "t": (np.True_,)}
    expected = {"a": [1.5, "nan"], "3": 2.0, "s": [1, 2], "b": "b'x'", "o": "a Odd", "t": [True]}
    assert as_json(notes) == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.pop("round"),
        lambda r: r.update(quarantined=[{"client_id": "x", "reason": 1, "kind": "other"}]),
        lambda r: r.update(defenses=[1]),
        lambda r: r.update(stages=None),
        lambda r: r.update(round=math.inf),
        lambda r: r.update(round=[]),
    ],
)
def test_what_is_no_record_is_said(damage):
    record = record_of(plain())
    damage(record)
    with pytest.raises(ValueError, match=r"no record of a round|invalid literal"):
        report_of(record)


@both_apis
def test_it_holds_what_the_server_saw(api, path):
    """Played through a strategy: hostile replies, a round that keeps the model, and the reports are those told."""
    identify()
    told = []

    class Refuses(Median):
        def before_aggregation(self, cohort):
            if cohort.round == 2:
                raise KeepPreviousModel("a\nbad day")
            return cohort

    hostile = sends({2: lambda r: first_array(r, lambda a: a[:, 1:]), 3: lambda r: None})
    with AuditLog(path) as audit:
        for defense in (MultiKrum(fedavg(api, 9), num_byzantine=2), Refuses(fedavg(api, 9))):
            defense.on_verdict = [audit, told.append]
            play(api, defense, 9, [1, 2, 3], hostile)
    assert rounds(path) == [1, 2, 3] * 2
    for read, report in zip(read_audit(path).reports, told, strict=True):
        assert same(record_of(read), record_of(report))
    assert read_audit(path).reports[4].kept_previous_model == "Refuses: a\nbad day"
    assert {q.kind for q in read_audit(path).reports[0].quarantined} == {"shape", "no_reply"}


def test_each_line_carries_the_digest_of_the_line_before(path):
    """As anybody can check without flsec."""
    lines = write(path, [1, 2, 3])
    entries = [json.loads(line) for line in lines]
    digests = [hashlib.sha256(line.rstrip(b"\n")).hexdigest() for line in lines]
    assert [entry["previous"] for entry in entries] == [None, *digests[:2]]
    assert read_audit(path).head == digests[-1]
    assert all(entry["flsec_audit"] == 1 and entry["time"].endswith("+00:00") for entry in entries)


def test_a_hash_of_the_model_is_kept_where_it_is_told(path):
    with AuditLog(path) as audit:
        audit(plain(1), model_sha256="ab" * 32)
        audit(plain(2))
    assert [entry.model_sha256 for entry in read_audit(path).entries] == ["ab" * 32, None]


# --- the file ---------------------------------------------------------------------------------------------------


def test_it_is_its_owners_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        write(path, [1])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_it_is_only_ever_appended_to(path):
    written = b""
    for number in range(1, 6):
        write(path, [number])
        assert path.read_bytes().startswith(written)
        assert len(path.read_bytes()) > len(written)
        written = path.read_bytes()
    assert rounds(path) == [1, 2, 3, 4, 5]
    assert read_audit(path).problems == ()


def test_each_line_is_on_the_disk_before_the_next_round(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    with AuditLog(path) as audit:
        synced.clear()
        for number in (1, 2):
            audit(plain(number))
            assert synced[-1] == path.stat().st_size
    assert len(synced) == 2


def test_two_cannot_write_one_file(path):
    with AuditLog(path) as audit:
        audit(plain(1))
        with pytest.raises(ConfigError, match="being written by another AuditLog"):
            AuditLog(path)
        audit(plain(2))
    write(path, [3])
    assert rounds(path) == [1, 2, 3]


def test_a_killed_server_leaves_no_lock(path):
    code = (
        "import os, sys; from flsec.strategies import AuditLog, RoundReport\n"
        "audit = AuditLog(sys.argv[1]); audit(RoundReport(1, (), (), None, {})); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    write(path, [2])
    assert rounds(path) == [1, 2]
    assert read_audit(path).problems == ()


@pytest.mark.parametrize("content", [b"{}\n", b"round 1\n", b"\n", b'{"round": 1}\n', b"\x00" * 9, b'{\n "a": 1}\n'])
def test_another_file_is_neither_continued_nor_read(path, content):
    path.write_bytes(content)
    for use in (AuditLog, read_audit):
        with pytest.raises(ConfigError, match="is no audit log"):
            use(path)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    for where in (tmp_path, tmp_path / "missing" / "audit.jsonl"):
        with pytest.raises(ConfigError, match="cannot write to"):
            AuditLog(where)
        with pytest.raises(ConfigError, match="cannot read"):
            read_audit(where)


def test_a_file_that_is_removed_ends_the_run(path):
    with AuditLog(path) as audit:
        audit(plain(1))
        path.unlink()
        with pytest.raises(OSError, match="audit log was removed"):
            audit(plain(2))
    with pytest.raises(ValueError, match="closed"):
        audit(plain(3))


class FullDisk:
    """A file whose disk has room for so many bytes more."""

    def __init__(self, file, room):
        self._file, self.room = file, room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        written = self._file.write(data[: self.room])
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 1, 100, 10**3 - 1])
def test_a_full_disk_ends_the_run_and_the_log_goes_on_once_there_is_room(path, room):
    size = len(write(path, [1])[0])
    audit = AuditLog(path)
    audit._file = FullDisk(audit._file, min(room, size - 1))
    with pytest.raises(OSError, match="No space left"):
        audit(plain(2))
    audit._file.room = 10**9
    audit(plain(3))
    audit.close()
    assert rounds(path) == [1, 3]
    assert ["line 2: cannot be read" in problem for problem in read_audit(path).problems] == [True] * bool(room)


# --- what it shows ----------------------------------------------------------------------------------------------


def test_a_last_line_that_was_cut_off_is_said_and_costs_itself_alone(path):
    first, second, third = write(path, [1, 2, 3])
    for length in range(1, len(third) - 1):
        path.write_bytes(first + second + third[:length])
        read = read_audit(path)
        assert [report.round for report in read.reports] == [1, 2]
        (problem,) = read.problems
        assert problem.startswith("line 3: cannot be read; it is the last one, and may have been cut off")
        if length % 50 == 1:  # and a server that begins anew goes on behind it
            write(path, [4, 5])
            assert path.read_bytes().startswith(first + second + third[:length])
            assert rounds(path) == [1, 2, 4, 5]
            assert [problem.partition(":")[0] for problem in read_audit(path).problems] == ["line 3"]
    path.write_bytes(first + second + third[:-1])  # nothing but the line's end is lost
    assert rounds(path) == [1, 2, 3]
    write(path, [4])
    assert rounds(path) == [1, 2, 3, 4]
    assert read_audit(path).problems == ()


def test_a_log_cut_off_in_its_first_line_goes_on(path):
    (line,) = write(path, [1])
    for length in (1, 5, 20, 100):
        path.write_bytes(line[:length])
        write(path, [2])
        assert rounds(path) == [2]
        assert len(read_audit(path).problems) == 1


def test_every_changed_byte_shows(path):
    content = b"".join(write(path, [1, 2, 3]))
    end = len(content) - 1  # of the file's last line end, see below
    for position in range(end):
        for flip in (1,) if position % 16 else (1, 8, 128):
            changed = bytearray(content)
            changed[position] ^= flip
            path.write_bytes(changed)
            if position < len(b'{"flsec_audit":'):
                with pytest.raises(ConfigError, match="is no audit log"):
                    read_audit(path)
            else:
                assert read_audit(path).problems, f"byte {position}: {content[position : position + 1]!r}"


@settings(max_examples=40)
@given(data=st.data())
def test_lines_taken_out_put_elsewhere_or_doubled_show(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("audit") / "audit.jsonl"
    lines = write(path, [1, 2, 3, 4, 5])
    chosen = data.draw(st.lists(st.sampled_from(range(5)), min_size=1, max_size=7))
    path.write_bytes(b"".join(lines[i] for i in chosen))
    untouched = chosen == list(range(len(chosen)))  # what cuts the end cannot show in the file itself
    read = read_audit(path)
    assert bool(read.problems) != untouched
    assert [report.round for report in read.reports] == [i + 1 for i in chosen]
    if untouched:
        cut = chosen != list(range(5))
        assert (read.head != hashlib.sha256(lines[-1].rstrip(b"\n")).hexdigest()) == cut


def test_a_line_written_anew_with_a_digest_of_its_own_breaks_the_chain(path, tmp_path):
    lines = write(path, [1, 2, 3])
    forged = write(tmp_path / "forged.jsonl", [1, 9])
    path.write_bytes(lines[0] + forged[1] + lines[2])
    assert any(problem.startswith("line 3: the chain breaks") for problem in read_audit(path).problems)


def test_a_line_of_another_version_is_said(path):
    write(path, [1])
    with path.open("ab") as file:
        file.write(_signed({"flsec_audit": 2, "previous": None, "more": True}) + b"\n")
    assert read_audit(path).problems == ("line 2: cannot be read: it is of version 2, and this flsec reads version 1",)


def test_a_log_can_be_read_while_it_is_written(path):
    with AuditLog(path) as audit:
        for number in (1, 2, 3):
            audit(plain(number))
            assert rounds(path) == list(range(1, number + 1))
