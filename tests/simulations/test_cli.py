"""The command as a user types it: messages, exit codes, what is written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flsec.simulations import cli

SMALL = """
data: {name: digits}
model: {name: softmax}
training: {learning_rate: 0.1, epochs: 1, batch_size: 16}
defenses: [{name: median}]
attacks: [{name: sign_flipping}]
adversaries: {fraction: 0.2}
simulation: {engine: inprocess, num_clients: 5, num_rounds: 2}
"""


def flsec(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, "-c", "from flsec.simulations.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, env={**os.environ, "COLUMNS": "200"}
    )


def test_run_prints_a_table_and_the_plot_and_resume_goes_on(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    done = flsec("run", "small.yaml", "--set", "seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    assert (tmp_path / "runs/small/accuracy.png").stat().st_size > 1000
    assert "runs/small/accuracy.png" in done.stdout
    again = flsec("run", "--resume", "runs/small", "--from-round", "1", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len((tmp_path / "runs/small/rounds.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "bad_key.yaml"], "bad_key.yaml:2: "),
        (["run", "malformed.yaml"], "malformed.yaml:"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "too_many.yaml"], "num_byzantine"),
        (["run", "quickstrat"], "quickstart"),
        (["run"], "takes an experiment"),
        (["run", "--resume", "."], "is no run folder"),
        (
            ["run", "small.yaml", "--set", "adversaries.count=9", "--set", "adversaries.fraction=null"],
            "more adversaries than",
        ),
        (["describe", "multikrumm"], "multi_krum"),
        (["list", "defences"], "defenses"),
    ],
)
def test_a_wrong_setting_is_one_message_exit_code_2_and_nothing_written(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    (tmp_path / "bad_key.yaml").write_text(SMALL.replace("data: {name", "data: {nmae"))
    (tmp_path / "malformed.yaml").write_text("model: {name: softmax\nseed: 1")
    (tmp_path / "too_many.yaml").write_text(SMALL.replace("{name: median}", "{name: krum, num_byzantine: 3}"))
    before = sorted(path.name for path in tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["flsec", *arguments])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == 2
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_failed_run_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SMALL)
    code = (
        "from flsec.simulations import cli\n"
        "from flsec.simulations.engines import loop\n"
        "def explode(*a): raise RuntimeError('disk full')\n"
        "loop.ServerLoop._finish = explode\n"
        "cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "small.yaml"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert "disk full" in done.stderr


def test_ctrl_c_ends_cleanly_and_prints_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(SMALL.replace("num_rounds: 2", "num_rounds: 100000"))
    command = [sys.executable, "-c", "from flsec.simulations.cli import main; main()", "run", "long.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    records = tmp_path / "runs/long/rounds.jsonl"
    deadline = time.monotonic() + 90
    while not (records.is_file() and records.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "flsec run --resume runs/long" in printed
    assert "Traceback" not in printed
    assert list((tmp_path / "runs/long/checkpoints").glob("*.state"))


def test_list_and_describe_know_what_is_there() -> None:
    listed = CliRunner().invoke(cli.app, ["list"])
    assert listed.exit_code == 0
    for name in ("multi_krum", "label_flipping", "digits", "group_bias", "softmax", "quickstart"):
        assert name in listed.output
    described = CliRunner().invoke(cli.app, ["describe", "multi_krum"])
    assert "num_byzantine" in described.output
    assert "Blanchard" in described.output


def test_a_run_that_gets_nowhere_ends_with_one_sentence_and_exit_code_1(tmp_path, capsys, monkeypatch):
    settings = {
        "defenses": "[{name: fltrust, patience: 2}]",
        "attacks": "[{name: sign_flipping, scale: 50.0}]",
        "adversaries": "{fraction: 1.0}",
        "simulation": "{engine: inprocess, num_clients: 4, num_rounds: 5}",
        "output": f"{{folder: {tmp_path / 'out'}, plots: false}}",
    }
    file = tmp_path / "stuck.yaml"
    base = "data: {name: digits}\nmodel: {name: softmax}\ntraining: {learning_rate: 0.1, epochs: 1}\n"
    file.write_text(base + "".join(f"{key}: {value}\n" for key, value in settings.items()))
    monkeypatch.setattr("sys.argv", ["flsec", "run", str(file)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "2 rounds in a row gave no new model; the last because FLTrust: accepted no client" in said
    assert "Traceback" not in said
    (folder,) = (tmp_path / "out").iterdir()
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert [record.get("kept_previous_model") for record in rounds][1:] == ["FLTrust: accepted no client"] * 2
