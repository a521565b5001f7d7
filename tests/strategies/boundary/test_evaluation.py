"""Issue point B3: evaluation is as robust as training."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from flsec._contracts.faults import FAILURES
from flsec._contracts.server import Reply, npy_bytes
from flsec.errors import ConfigError
from flsec.strategies import Krum, Median, MultiKrum, NormClipping, RobustStrategy
from tests.support.boundary import both_apis, fedavg, server

LOSSES = {1: 0.2, 2: 0.3, 3: 0.45, 4: 0.7, 5: 0.8, 6: 1.1, 7: 1.3}
COUNTS = {i: 10 * i for i in LOSSES}
DEFENSES = {
    "RobustStrategy": RobustStrategy,
    "Median": Median,
    "MultiKrum": lambda s, **o: MultiKrum(s, num_byzantine=2, **o),
    "NormClipping(Krum)": lambda s, **o: NormClipping(Krum(s, num_byzantine=2, **o), max_norm=1.0, **o),
}
every_defense = pytest.mark.parametrize("make", DEFENSES.values(), ids=DEFENSES)


def mean(values):
    return sum(values) / len(values)


def answers(changes=None):
    """Each client reports its loss, and its accuracy as 1 - loss / 2; some replies are changed or left out."""

    def answer(round, client_id, arrays):
        loss = LOSSES[client_id]
        reply = Reply((npy_bytes(np.zeros(1)),), COUNTS[client_id], {"accuracy": 1 - loss / 2}, loss=loss)
        change = (changes or {}).get(client_id)
        changed = reply if change is None else change(reply)
        return changed if isinstance(changed, list) else [changed]

    return answer


def accuracy(pairs):
    total = sum(count for count, _ in pairs)
    return {"accuracy": sum(count * metrics["accuracy"] for count, metrics in pairs) / total}


def evaluated(api, make, changes=None, number=1, function=accuracy, **options):
    """Return (loss, metrics) of one evaluation."""
    extra = {"evaluate_metrics_aggregation_fn": function} if api == "classic" and function else {}
    played = server(api, make(fedavg(api, 7, **extra), **options), 7)
    loss = played.evaluate(number, answers(changes))
    return loss, dict(played.metrics)


@both_apis
@every_defense
def test_clients_count_alike_by_default(api, make):
    loss, metrics = evaluated(api, make)
    assert loss == pytest.approx(mean(LOSSES.values()))
    assert metrics["accuracy"] == pytest.approx(1 - mean(LOSSES.values()) / 2)


@both_apis
@every_defense
def test_who_trusts_counts_of_examples_gets_them_in_evaluation_too(api, make):
    loss, metrics = evaluated(api, make, weighting="examples")
    expected = sum(COUNTS[i] * LOSSES[i] for i in LOSSES) / sum(COUNTS.values())
    assert loss == pytest.approx(expected)
    assert metrics["accuracy"] == pytest.approx(1 - expected / 2)


@both_apis
def test_the_largest_weight_ratio_holds_in_evaluation(api):
    claims = {7: lambda reply: replace(reply, num_examples=10**8)}
    loss, _ = evaluated(api, Median, claims, weighting="examples", max_weight_ratio=1)
    counts = {**COUNTS, 7: 10**8}
    capped = {i: min(count, 40) for i, count in counts.items()}  # the median count is 40
    assert loss == pytest.approx(sum(capped[i] * LOSSES[i] for i in LOSSES) / sum(capped.values()))


@both_apis
@every_defense
def test_case_07_a_billion_examples_do_not_decide_the_aggregate(api, make):
    def lie(reply):
        return replace(reply, num_examples=10**9, loss=0.0, metrics={"accuracy": 1.0})

    loss, metrics = evaluated(api, make, {7: lie})
    honest = [LOSSES[i] for i in range(1, 7)]
    assert loss == pytest.approx(mean([*honest, 0.0]))
    assert metrics["accuracy"] == pytest.approx(mean([*(1 - x / 2 for x in honest), 1.0]))


@both_apis
@every_defense
@pytest.mark.parametrize("lie", [1e300, -1e14, 1e6])
def test_the_median_withstands_values_that_the_mean_cannot(api, make, lie):
    """Three of seven report nonsense: the median loss stays within the honest range, and so does each metric."""

    def change(reply):
        return replace(reply, loss=lie, metrics={"accuracy": lie})

    loss, metrics = evaluated(api, make, dict.fromkeys((2, 5, 6), change), evaluation="median")
    honest = [LOSSES[i] for i in (1, 3, 4, 7)]
    assert min(honest) <= loss <= max(honest)
    accuracies = [1 - x / 2 for x in honest]
    if "accuracy" in metrics:  # the users' own function averages as it likes in the classic API
        assert api == "classic" or min(accuracies) <= metrics["accuracy"] <= max(accuracies)


@both_apis
@every_defense
def test_the_median_of_honest_losses_is_their_median(api, make):
    loss, _ = evaluated(api, make, evaluation="median")
    assert loss == pytest.approx(0.7)
    without_one, _ = evaluated(api, make, {7: lambda reply: []}, evaluation="median")
    assert without_one == pytest.approx((0.45 + 0.7) / 2)  # of an even number: the mean of the middle two


@pytest.mark.parametrize("value", ["mode", 1, None])
def test_another_evaluation_is_refused(value):
    with pytest.raises(ConfigError, match="evaluation"):
        Median(fedavg("classic", 2), evaluation=value)


BAD = {
    "loss NaN": {"loss": float("nan")},
    "loss infinite": {"loss": float("-inf")},
    "loss a list": {"loss": [0.5]},
    "num_examples 0": {"num_examples": 0},
    "num_examples -5": {"num_examples": -5},
    "num_examples 1e12": {"num_examples": 10**12},
    "num_examples NaN": {"num_examples": float("nan")},
    "num_examples a list": {"num_examples": [3]},
}
BAD_CLASSIC = {
    "loss text": {"loss": "low\x1b[2J"},
    "loss None": {"loss": None},
    "loss complex": {"loss": 1j},
    "loss a huge integer": {"loss": 10**400},
    "num_examples None": {"num_examples": None},
    "num_examples text": {"num_examples": "7"},
    "num_examples a huge integer": {"num_examples": 10**400},
}


@both_apis
@pytest.mark.parametrize("what", {**BAD, **BAD_CLASSIC})
def test_a_malformed_evaluation_is_dropped_and_logged(api, what, caplog):
    if api == "Message" and what in BAD_CLASSIC:
        pytest.skip("a MetricRecord cannot hold it")
    with caplog.at_level(logging.INFO, "flsec"):
        loss, metrics = evaluated(api, Median, {5: lambda reply: replace(reply, **{**BAD, **BAD_CLASSIC}[what])})
    others = [LOSSES[i] for i in LOSSES if i != 5]
    assert loss == pytest.approx(mean(others))
    expected = [pytest.approx(1 - mean(others) / 2)]
    if api == "Message" and "loss" in what:  # there the loss is one of the metrics, and the others can be averaged
        expected.append(pytest.approx(1 - mean(LOSSES.values()) / 2))
    assert metrics["accuracy"] in expected
    assert "client 5" in caplog.text
    assert all(message.isprintable() for message in caplog.messages)


METRICS = {
    "none": {},
    "one more": {"accuracy": 0.5, "more": 1.0},
    "another": {"other": 1.0},
    "NaN": {"accuracy": float("nan")},
    "1e307": {"accuracy": 1e307},
    "a list": {"accuracy": [0.5, 0.5]},
    "3000 more": {"accuracy": 0.5, **{f"k{i}": 1.0 for i in range(3000)}},
    "control characters": {"accuracy": 0.5, "\x1b[2J": 1.0},
}


@both_apis
@pytest.mark.parametrize("what", METRICS)
def test_metrics_cost_no_evaluation_of_others(api, what, caplog):
    """The loss of the odd client may count or not; the others' do, and their accuracy is averaged."""
    with caplog.at_level(logging.WARNING, "flsec"):
        loss, metrics = evaluated(api, Median, {5: lambda reply: replace(reply, metrics=METRICS[what])})
    with_it, without_it = mean(LOSSES.values()), mean([LOSSES[i] for i in LOSSES if i != 5])
    if api == "classic":  # the loss is no metric
        assert loss == pytest.approx(with_it)
    else:
        assert loss in (pytest.approx(with_it), pytest.approx(without_it))
    accuracies = [1 - LOSSES[i] / 2 for i in LOSSES if i != 5]
    assert metrics["accuracy"] in (pytest.approx(mean(accuracies)), pytest.approx(mean([*accuracies, 0.5])))
    assert len(metrics) < 20
    assert all(key.isprintable() for key in metrics)
    assert not any(f"client {i} " in caplog.text for i in LOSSES if i != 5), caplog.text


@both_apis
def test_colluders_cannot_choose_which_metrics_are_usual(api):
    """Two of seven agree on other keys while the honest ones differ among themselves."""
    changes = {i: lambda reply, i=i: replace(reply, metrics={f"own-{i}": 0.5}) for i in range(1, 6)}
    changes |= dict.fromkeys((6, 7), lambda reply: replace(reply, metrics={"colluders": 1.0}, loss=0.0))
    loss, _ = evaluated(api, Median, changes, function=None)
    honest = [LOSSES[i] for i in range(1, 6)]
    assert loss == pytest.approx(mean([*honest, 0.0, 0.0]))


@both_apis
def test_a_users_function_that_raises_loses_the_metrics_only(api):
    def broken(*_):
        raise KeyError("accuracy")

    extra = {"evaluate_metrics_aggregation_fn" if api == "classic" else "evaluate_metrics_aggr_fn": broken}
    played = server(api, Median(fedavg(api, 7, **extra)), 7)
    loss = played.evaluate(1, answers())
    if api == "classic":  # in the Message API the loss is one of the metrics
        assert loss == pytest.approx(mean(LOSSES.values()))
    assert "accuracy" not in played.metrics


@both_apis
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failed_evaluation_is_silence(api, failure):
    loss, _ = evaluated(api, Median, {3: FAILURES[failure]})
    assert loss == pytest.approx(mean([LOSSES[i] for i in LOSSES if i != 3]))


@both_apis
def test_strangers_and_second_replies_do_not_count(api):
    def twice(reply):
        return [reply, replace(reply, loss=1e9)]

    changes = {2: twice, 4: lambda reply: replace(reply, sender=77, loss=1e9)}
    loss, _ = evaluated(api, Median, changes)
    assert loss == pytest.approx(mean([LOSSES[i] for i in LOSSES if i != 4]))


@both_apis
def test_nobody_who_evaluates_gives_no_loss(api):
    loss, _ = evaluated(api, Median, dict.fromkeys(LOSSES, lambda reply: []))
    assert loss is None
    loss, _ = evaluated(api, Median, dict.fromkeys(LOSSES, lambda reply: replace(reply, loss=float("nan"))))
    assert loss is None


@both_apis
def test_everybody_may_differ_and_the_loss_is_still_there(api):
    changes = {i: lambda reply, i=i: replace(reply, metrics={f"metric-{i}": [0.5] * i}) for i in LOSSES}
    loss, _ = evaluated(api, NormClipping, changes, function=None)
    assert loss == pytest.approx(mean(LOSSES.values()))
