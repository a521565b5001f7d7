"""The line that an operator reads after each round."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import MetricRecord
from hypothesis import given
from hypothesis import strategies as st

from flsec._contracts.faults import first_array
from flsec._contracts.server import APIS, honest, identify
from flsec.strategies import MultiKrum, NormClipping, Quarantined, RoundReport, Threshold, Verdict
from flsec.strategies._round_line import round_line
from flsec.strategies._summary import _ids
from tests.support.boundary import both_apis, fedavg, play, sends, server

N = 9
LONGEST = 5000


@pytest.fixture(autouse=True)
def _identity():
    identify()


def lines(caplog):
    return [record for record in caplog.records if record.name == "flsec" and record.getMessage().startswith("round ")]


def cut(reply):
    return first_array(reply, lambda a: a[:, 1:])


def far(reply):
    return first_array(reply, lambda a: a + np.float32(50.0))


@both_apis
def test_a_quiet_round_is_one_line_of_information(api, caplog):
    with caplog.at_level(logging.INFO, "flsec"):
        play(api, NormClipping(MultiKrum(fedavg(api, N), num_byzantine=2), max_norm=9.0), N, [1, 2, 3])
    assert [record.levelno for record in lines(caplog)] == [logging.INFO] * 3
    for number, record in enumerate(lines(caplog), start=1):
        start = rf"round {number}: 9 of 9 replies usable, 7 kept, \d+\.\d\d s \| MultiKrum dropped 2: "
        assert re.match(start + r"client \d \([\d.]+ [>=] [\d.]+\), client \d \(.*\)$", record.getMessage())


@both_apis
def test_an_eventful_round_is_one_warning(api, caplog):
    hostile = sends({2: cut, 4: cut, 5: cut, 6: lambda reply: None, 8: far})
    strategy = MultiKrum(fedavg(api, N), num_byzantine=4, unsafe=True)
    strategy.partition_ids = {2: 70, 8: 10}
    with caplog.at_level(logging.INFO, "flsec"):
        play(api, strategy, N, [1], hostile)
    (record,) = lines(caplog)
    assert record.levelno == logging.WARNING
    (verdict,) = strategy.last_report.verdicts
    score, most = verdict.scores[8], verdict.threshold.at_most
    told = " | ".join(re.sub(r", [\d.]+ s", "", record.getMessage()).split(" | ")[:2])
    assert told == (
        "round 1: 5 of 9 replies usable, 4 kept | quarantined 4: "
        "3 x array 'weight' has shape (3, 3) where the model has (3, 4) [partition 70, client 4, client 5]; "
        "sent no reply [client 6]"
    ).replace("'weight'", "'weight'" if api == "Message" else "'0'")
    assert record.getMessage().endswith(f"MultiKrum dropped 1: partition 10 ({score:.4g} > {most:.4g})")


@both_apis
def test_a_round_without_a_new_model_says_why(api, caplog):
    with caplog.at_level(logging.INFO, "flsec"):
        play(api, MultiKrum(fedavg(api, N), num_byzantine=3), N, [1], sends({i: lambda r: None for i in (1, 2, 3)}))
    (record,) = lines(caplog)
    assert record.levelno == logging.WARNING
    assert "6 of 9 replies usable, 0 kept" in record.getMessage()
    assert "previous global model kept: MultiKrum needs at least 9 usable replies; there are 6" in record.getMessage()


@both_apis
def test_usable_counts_replies_also_where_no_rule_saw_them(api):
    played = play(api, MultiKrum(fedavg(api, N), num_byzantine=3), N, [1], sends({1: lambda r: None}))
    report = played.strategy.last_report
    assert (report.asked, report.usable, report.verdicts) == (9, 8, ())
    assert played.metrics["flsec-usable"] == 8


@both_apis
def test_evaluations_that_do_not_count_are_one_line(api, caplog):
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [replace(reply, loss=float("nan")) if client_id in (3, 4) else reply]

    with caplog.at_level(logging.INFO, "flsec"):
        server(api, MultiKrum(fedavg(api, N), num_byzantine=2), N).evaluate(5, answer)
    (record,) = lines(caplog)
    expected = "round 5, evaluation | quarantined 2: 2 x loss is NaN or infinite [client 3, client 4]"
    assert record.getMessage() == expected


def test_reasons_of_a_rules_own_are_told():
    verdict = Verdict("Siren", (1, 2, 3), (1,), notes={"dropped": {2: "accuracy", 3: "a\nlong " + "x" * 999}})
    line = round_line(RoundReport(4, (), (verdict,), None, {}, asked=3, usable=3), {})
    assert "Siren dropped 2: client 2 (accuracy), client 3 (... x" in line
    assert line.isprintable()
    assert len(line) < 400


def test_weights_are_told_where_there_are_no_scores():
    verdict = Verdict("FoolsGold", (1, 2), (1,), weights={1: 1.0, 2: 0.0})
    assert round_line(RoundReport(4, (), (verdict,), None, {}), {}).endswith("FoolsGold dropped 1: client 2 (weight 0)")


TEXTS = st.text(max_size=400) | st.sampled_from(["\x1b[2J", "a\nround 9: all well", "\u202e", "x" * 10**5, "'; ["])
IDS = st.integers(0, 2**64 - 1)


@st.composite
def reports(draw):
    ids = tuple(draw(st.lists(IDS, unique=True, max_size=60)))
    kept = tuple(i for i in ids if draw(st.booleans()))
    scores = {i: draw(st.floats()) for i in ids}
    bounds = [draw(st.none() | st.floats(allow_nan=False)) for _ in range(2)]
    verdict = Verdict("Krum", ids, kept, scores=scores, threshold=Threshold(*bounds), notes={"dropped": draw(TEXTS)})
    quarantined = tuple(Quarantined(i, draw(TEXTS)) for i in draw(st.lists(IDS, max_size=60)))
    left_out = draw(st.dictionaries(IDS, TEXTS.map(lambda text: Quarantined(0, text).reason), max_size=30))
    return RoundReport(draw(st.integers(0, 10**6)), quarantined, (verdict,), None, {"parse": 0.1}, left_out)


@given(reports())
def test_whatever_clients_send_the_line_is_one_line_of_bounded_length(report):
    line = round_line(report, {})
    assert line.isprintable()
    assert len(line) <= LONGEST
    named = len(re.findall(r"(?:client|partition) \d+", line))
    assert named <= 5 * (5 + 5 + 1) + len(report.quarantined)  # a text may hold such words


@given(st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]), min_size=1, max_size=60))
def test_repeated_reasons_are_counted(reasons):
    quarantined = tuple(Quarantined(i, reason) for i, reason in enumerate(reasons))
    line = round_line(RoundReport(1, quarantined, (), None, {}), {})
    assert f"quarantined {len(reasons)}: " in line
    groups = re.findall(r"(?:(\d+) x )?([a-g]) \[", line)
    others = re.search(r"(\d+) for other reasons", line)
    assert len(groups) == min(5, len(set(reasons)))
    for number, reason in groups:
        assert int(number or 1) == reasons.count(reason)
    assert sum(int(number or 1) for number, _ in groups) + int(others[1] if others else 0) == len(reasons)


# --- what Flower prints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("api", APIS)
def test_the_metrics_hold_all_ids_and_print_none(api):
    """Flower logs the metrics after every round, and those of all rounds at the end."""
    strategy = MultiKrum(fedavg(api, 100), num_byzantine=10)
    metrics = server(api, strategy, 100, first=2**63).play([1]).metrics
    kept = metrics["flsec-kept-ids"]
    read = [int(i) for i in kept.split(",")] if api == "classic" else list(kept)
    assert read == list(strategy.last_report.verdicts[0].kept)
    assert len(read) == 90
    assert "'flsec-kept-ids': '90 ids'" in repr(metrics) or "'flsec-kept-ids': [90 ids]" in repr(metrics)
    assert len(repr(metrics)) < 400


def test_the_ids_go_through_flowers_records():
    record = MetricRecord({"flsec-kept-ids": _ids([2**63 + 1, 5], lists=True)})
    assert MetricRecord.inflate(record.deflate())["flsec-kept-ids"] == [2**63 + 1, 5]
