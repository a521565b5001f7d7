"""The records of a run: strict JSON, from which the round's report can be read."""

import json
from pathlib import Path

from flsec.simulations import engine
from flsec.simulations.config import load_config
from flsec.strategies._report_record import record_of, report_of
from flsec.strategies.report import Quarantined, RoundReport, Threshold, Verdict

EXPERIMENT = """
data: {name: digits}
model: {name: softmax}
training: {learning_rate: 0.1, batch_size: 16}
defenses: [{name: norm_clipping, max_norm: 5.0}, {name: multi_krum, num_byzantine: 2}]
attacks: [{name: alie}]
adversaries: {count: 2}
simulation: {engine: inprocess, num_clients: 10, num_rounds: 2}
"""


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def test_one_reader_serves_audit_logs_and_run_folders(tmp_path: Path) -> None:
    (tmp_path / "try.yaml").write_text(EXPERIMENT)
    folder = engine.run(load_config(tmp_path / "try.yaml", [f"output.folder={tmp_path}"]))
    records = [
        json.loads(line, parse_constant=refuse) for line in (folder.path / "rounds.jsonl").read_text().split("\n")[:-1]
    ]
    assert [record["round"] for record in records] == [0, 1, 2]
    for record in records[1:]:
        report = report_of(record)
        assert (report.round, report.asked, report.usable) == (record["round"], 10, 10)
        clip, krum = report.verdicts
        assert (clip.defense, clip.judges, clip.threshold) == ("NormClipping", False, None)
        assert krum.participants == tuple(record["sampled"])
        assert krum.threshold == Threshold(at_most=max(krum.scores[i] for i in krum.kept))
        assert len(krum.dropped) == 2
        again = record_of(report)
        assert {name: value for name, value in record.items() if name in again} == {
            **again,
            "defenses": [
                {**d, "detection": r["detection"]} for d, r in zip(again["defenses"], record["defenses"], strict=True)
            ],
        }


def test_each_round_is_a_line_of_the_run_s_log(tmp_path: Path, capfd) -> None:
    (tmp_path / "try.yaml").write_text(EXPERIMENT)
    folder = engine.run(load_config(tmp_path / "try.yaml", [f"output.folder={tmp_path}"]))
    told = [
        line.partition("INFO flsec: ")[2] for line in folder.log.read_text().splitlines() if " flsec: round " in line
    ]
    assert [line.partition(":")[0] for line in told] == ["round 1", "round 2"]
    assert "10 of 10 replies usable" in told[0]
    assert "MultiKrum dropped 2: client" in told[0]
    assert "round 1:" not in "".join(capfd.readouterr())


def test_what_a_client_wrote_is_data() -> None:
    quarantined = (Quarantined(3, 'failed: "}\n{"round": 9}', "failed"),)
    report = RoundReport(1, quarantined, (Verdict("Krum", (1,), (1,), scores={1: float("inf")}),), None, {})
    text = json.dumps(record_of(report), allow_nan=False)
    assert "\n" not in text
    assert report_of(json.loads(text)) == report
