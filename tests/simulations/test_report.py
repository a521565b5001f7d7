"""Runs and audit logs, replayed from what they left behind."""

import json

import pytest
from typer.testing import CliRunner

from flsec.errors import ConfigError
from flsec.simulations.cli import app
from flsec.simulations.config import make_config
from flsec.simulations.engine import run
from flsec.simulations.report import told_by
from flsec.strategies import AuditLog, Quarantined, RoundReport, Verdict


@pytest.fixture
def folder(tmp_path):
    config = {
        "name": "trial",
        "data": {"name": "digits"},
        "model": {"name": "softmax"},
        "training": {"learning_rate": 0.1, "batch_size": 16},
        "defenses": [{"name": "multi_krum", "num_byzantine": 1}],
        "simulation": {"engine": "inprocess", "num_clients": 6, "num_rounds": 3},
        "output": {"folder": str(tmp_path), "plots": False, "evaluate_every": 3},
    }
    return run(make_config(config)).path


@pytest.fixture
def audit(tmp_path):
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        for number in (1, 2, 3):
            report = RoundReport(
                number,
                (Quarantined(2**63 + 5, "[red]NaN[/red]"),),
                (Verdict("Krum", (1, 2), (1,), scores={1: 0.5, 2: 9.0}, judges=True),),
                None,
                {"parse": 0.1},
                asked=3,
                usable=2,
            )
            log(report)
    return path


def printed(*paths):
    done = CliRunner().invoke(app, ["report", *map(str, paths)])
    return done.exit_code, done.output


def test_a_folder_has_a_line_for_each_round(folder):
    code, text = printed(folder)
    assert code == 0
    lines = text.splitlines()[-3:]
    assert [line.split(":")[0].strip() for line in lines] == ["round 1", "round 2", "round 3"]
    assert all("6 of 6 replies usable, 5 kept" in line and "MultiKrum dropped 1" in line for line in lines)
    last = json.loads((folder / "rounds.jsonl").read_text().splitlines()[-1])
    assert lines[-1].endswith(f"test accuracy {last['accuracy']:.4f}")
    assert "accuracy" not in lines[0]


def test_an_audit_log_is_replayed_and_clients_texts_are_no_markup(audit):
    code, text = printed(audit)
    assert code == 0
    assert text.count("quarantined 1") == 3
    assert "[red]NaN[/red]" in text
    assert text.count("Krum dropped 1: client 2") == 3


def test_a_broken_chain_is_said_and_fails(audit, folder):
    lines = audit.read_bytes().splitlines(keepends=True)
    audit.write_bytes(b"".join(lines[::2]))
    code, text = printed(folder, audit)
    assert code == 1
    assert len(told_by(audit).lines) == 2
    assert "the chain breaks" in text.replace("\n", " ")


def test_what_is_neither_is_refused(tmp_path, folder):
    (tmp_path / "notes.txt").write_text("nothing\n")
    for path in (tmp_path / "notes.txt", tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError):
            told_by(path)
    records = folder / "rounds.jsonl"
    first, second, *_ = records.read_text().splitlines(keepends=True)
    records.write_text(first + second.replace('"stages"', '"stage"'))
    with pytest.raises(ConfigError, match=r"round 1: this is no record.*'stages'.*earlier flsec"):
        told_by(folder)
