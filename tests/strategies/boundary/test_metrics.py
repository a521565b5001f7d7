"""Issue point B2: only what a client sends can cost it its place, and metrics never do."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from flwr.app import MetricRecord

from flsec._contracts.server import MODEL, honest
from flsec.strategies import Krum, Median, MultiKrum, NormClipping
from tests.support.boundary import assert_bounded, assert_moved, both_apis, fedavg, play, quarantined, report, sends
from tests.support.hostile import KINDS

NUM_CLIENTS = 9
DEFENSES = {
    "Median": Median,
    "MultiKrum": lambda s: MultiKrum(s, num_byzantine=3),
    "Krum": lambda s: Krum(s, num_byzantine=3),
    "NormClipping(MultiKrum)": lambda s: NormClipping(MultiKrum(s, num_byzantine=3), max_norm=2.0),
}
every_defense = pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)
# Kinds of replies whose only oddity is their metrics.
ODD = {
    name: kind
    for name, kind in KINDS.items()
    if kind.fate == "fine"
    and list(KINDS).index("no metrics") <= list(KINDS).index(name) < list(KINDS).index("other array names")
}


def strategy(api, make, function=None):
    """A strategy whose users average metrics as Flower's tutorials do."""
    if api == "classic":
        return make(fedavg(api, NUM_CLIENTS, fit_metrics_aggregation_fn=function or average))
    return make(fedavg(api, NUM_CLIENTS, **({"train_metrics_aggr_fn": function} if function else {})))


def average(pairs):
    total = sum(count for count, _ in pairs)
    return {key: sum(count * metrics[key] for count, metrics in pairs) / total for key in pairs[0][1]}


def odd(kind):
    rng = np.random.default_rng(0)
    return lambda reply: kind.make(reply, rng)[0]


def metrics_of(client_id):
    """What the client reports in round 1."""
    return honest(1, client_id, list(MODEL.values()))[0].metrics["train-loss"]


def left_out(played):
    return report(played).metrics_left_out


def same_metrics(reply):
    return replace(reply, metrics={"train-loss": 0.5})


@both_apis
@every_defense
@pytest.mark.parametrize("what", ODD)
def test_odd_metrics_cost_no_update(api, make, what):
    """Three of nine send odd metrics: the model is the one of the same updates with the usual metrics."""
    kind = ODD[what]
    if api not in kind.apis:
        pytest.skip(f"not in the {api} API")
    hostile = dict.fromkeys((2, 5, 7), odd(kind))
    played = play(api, strategy(api, make), NUM_CLIENTS, [1, 2], sends(hostile))
    plain = play(api, strategy(api, make), NUM_CLIENTS, [1, 2])
    assert_moved(played)
    for a, b in zip(played.arrays, plain.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    assert quarantined(played) == {}
    assert_bounded(played)


@both_apis
def test_what_can_be_averaged_is_averaged_and_the_rest_reported(api):
    changes = {
        2: lambda r: replace(r, metrics={"train-loss": float("nan")}),
        5: lambda r: replace(r, metrics={"train-loss": [0.5, 0.5]}),
        7: lambda r: replace(r, metrics={"train-loss": 1e16}),
    }
    played = play(api, strategy(api, Median), NUM_CLIENTS, answer=sends(changes))
    usual = [metrics_of(i) for i in range(1, NUM_CLIENTS + 1) if i not in changes]
    assert played.metrics["train-loss"] == pytest.approx(sum(usual) / len(usual))
    assert set(left_out(played)) == set(changes)
    assert all(isinstance(reason, str) and reason for reason in left_out(played).values())


@both_apis
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e307, -1e16, 2**62])
def test_no_absurd_value_reaches_an_aggregate(api, value):
    """A single one, or every client's."""
    for hostile in ((4,), tuple(range(1, NUM_CLIENTS + 1))):
        changes = dict.fromkeys(hostile, lambda r: replace(r, metrics={"train-loss": value}))
        played = play(api, strategy(api, Median), NUM_CLIENTS, answer=sends(changes))
        assert_moved(played)
        assert_bounded(played)
        assert set(hostile) <= set(left_out(played))


@both_apis
def test_no_absurd_value_reaches_the_users_function(api):
    seen = []

    def classic(pairs):
        seen.extend(value for _, metrics in pairs for value in metrics.values())
        return {}

    def message(contents, weight_key):
        for content in contents:
            seen.extend(v for record in content.metric_records.values() for k, v in record.items() if k != weight_key)
        return MetricRecord()

    values = [float("nan"), float("inf"), 1e307]
    changes = {i: lambda r, v=v: replace(r, metrics={"train-loss": v}) for i, v in enumerate(values, start=2)}
    played = play(
        api,
        strategy(api, Median, classic if api == "classic" else message),
        NUM_CLIENTS,
        answer=sends(changes),
    )
    assert_moved(played)
    assert len(seen) >= NUM_CLIENTS - len(values), "the others' metrics do not reach the function"
    assert all(np.isfinite(v) and abs(v) <= 1e15 for v in seen), seen


@both_apis
@every_defense
def test_case_03_four_of_nine_honest_clients_report_one_metric_more(api, make):
    more = dict.fromkeys((6, 7, 8, 9), lambda r: replace(r, metrics={**r.metrics, "acc-7": 0.9}))
    played = play(api, strategy(api, make), NUM_CLIENTS, [1, 2], sends(more))
    plain = play(api, strategy(api, make), NUM_CLIENTS, [1, 2])
    assert quarantined(played) == {}
    for a, b in zip(played.arrays, plain.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_tolerant_function_of_the_users_sees_all_metrics():
    """Case 03: who can average metrics that differ is given them."""

    def tolerant(pairs):
        return {"n7": sum("acc-7" in metrics for _, metrics in pairs), "clients": len(pairs)}

    more = dict.fromkeys((6, 7, 8, 9), lambda r: replace(r, metrics={**r.metrics, "acc-7": 0.9}))
    played = play("classic", strategy("classic", Median, tolerant), NUM_CLIENTS, answer=sends(more))
    assert played.metrics["clients"] >= NUM_CLIENTS - 4
    assert_moved(played)


@both_apis
@every_defense
def test_colluders_cannot_choose_what_is_usual(api, make):
    """Two agree on keys while each honest client has its own: nobody loses its place."""
    changes = {i: lambda r, i=i: replace(r, metrics={f"own-{i}": 1.0}) for i in range(1, 8)}
    changes |= dict.fromkeys((8, 9), lambda r: replace(r, metrics={"ours": 1.0}))
    played = play(api, strategy(api, make), NUM_CLIENTS, [1, 2], sends(changes))
    assert quarantined(played) == {}
    assert_moved(played)
    assert set(report(played).verdicts[0].participants) == set(range(1, NUM_CLIENTS + 1))


@both_apis
@every_defense
def test_a_users_function_that_raises_loses_the_metrics_and_not_the_round(api, make, caplog):
    def broken(*_):
        raise ZeroDivisionError("no clients today")

    with caplog.at_level(logging.WARNING, "flsec"):
        played = play(api, strategy(api, make, broken), NUM_CLIENTS, [1, 2])
    plain = play(api, strategy(api, make), NUM_CLIENTS, [1, 2])
    for a, b in zip(played.arrays, plain.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    assert_moved(played)
    assert "train-loss" not in played.metrics
    assert "flsec-kept" in played.metrics
    assert "ZeroDivisionError" in caplog.text or "no clients today" in caplog.text, "nobody is told"


@both_apis
@pytest.mark.parametrize("returned", [None, 3, {"x": float("nan")}, {"y": 1e300}])
def test_what_a_users_function_returns_is_screened_too(api, returned):
    """A mean that overflows to NaN, or a function without return."""

    def function(*_):
        if api == "Message" and isinstance(returned, dict):
            return MetricRecord(returned)
        return returned

    played = play(api, strategy(api, Median, function), NUM_CLIENTS)
    assert_moved(played)
    assert "flsec-kept" in played.metrics


@both_apis
def test_one_metric_more_leaves_out_no_honest_clients_usual_one(api):
    """At most the odd metric is left out where the others can be averaged, or the odd client's metrics."""
    changes = {4: lambda r: replace(r, metrics={**r.metrics, "more": 1.0})}
    played = play(api, strategy(api, Median), NUM_CLIENTS, answer=sends(changes))
    everybody = [metrics_of(i) for i in range(1, NUM_CLIENTS + 1)]
    others = [metrics_of(i) for i in range(1, NUM_CLIENTS + 1) if i != 4]
    assert played.metrics["train-loss"] in (
        pytest.approx(sum(everybody) / len(everybody)),
        pytest.approx(sum(others) / len(others)),
    )


@both_apis
def test_usual_metrics_leave_nobody_out(api):
    played = play(api, strategy(api, Median), NUM_CLIENTS)
    assert dict(left_out(played)) == {}
    assert played.metrics["train-loss"] == pytest.approx(np.mean([metrics_of(i) for i in range(1, NUM_CLIENTS + 1)]))


@both_apis
def test_what_is_left_out_is_a_bounded_mapping(api):
    """All clients differ: the report stays of the size of the cohort."""
    changes = {
        i: lambda r, i=i: replace(r, metrics={f"{'k' * 5000}{i}-{j}": 1.0 for j in range(50)})
        for i in range(1, NUM_CLIENTS + 1)
    }
    played = play(api, strategy(api, Median), NUM_CLIENTS, answer=sends(changes))
    assert_moved(played)
    assert set(left_out(played)) <= set(range(1, NUM_CLIENTS + 1))
    assert_bounded(played)


def test_the_odd_kinds_are_those_of_metrics():
    assert {"no metrics", "NaN metric", "3000 metrics", "None for metrics"} <= set(ODD)
    assert not {"1e4", "two replies", "num_examples 1", "other record names"} & set(ODD)
