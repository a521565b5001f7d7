"""What every defense inherits: reports, failures, metrics, evaluation, state, settings."""

import copy
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import MetricRecord
from flwr.common import Parameters
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp.strategy import FedAvg as MessageFedAvg

from flsec._contracts.faults import first_array
from flsec._contracts.server import MODEL, ClassicServer, MessageServer, flower_strategy, honest, identify, only_honest
from flsec._state_files import load_state, save_state
from flsec.aggregation._device import device_of_blocks
from flsec.errors import ConfigError
from flsec.strategies import CenteredClipping, KeepPreviousModel, Krum, Median, NormClipping, RobustStrategy

CLIENTS = (3, 5, 8, 12, 2**63 + 1)
SERVERS = {"classic": ClassicServer, "Message": MessageServer}
both_apis = pytest.mark.parametrize("api", SERVERS)


@pytest.fixture(autouse=True)
def _identity():
    identify()


def fedavg(api, **options):
    n = len(CLIENTS)
    if api == "classic":
        return ClassicFedAvg(min_fit_clients=n, min_available_clients=n, min_evaluate_clients=n, **options)
    return MessageFedAvg(min_train_nodes=n, min_available_nodes=n, min_evaluate_nodes=n, **options)


def play(api, strategy, rounds=(1,), answer=only_honest):
    return SERVERS[api](strategy, CLIENTS).play(rounds, answer)


def assert_unmoved(server):
    for array, start in zip(server.arrays, MODEL.values(), strict=True):
        np.testing.assert_array_equal(array, start)


class Where(RobustStrategy):
    """Notes where blocks of updates are computed on."""

    def before_aggregation(self, cohort):
        self.seen = device_of_blocks(cohort.updates)
        return cohort.keep([])  # nothing is to be computed where there is no GPU


@both_apis
def test_a_round_computes_where_the_user_says(api, monkeypatch):
    with monkeypatch.context() as without:
        without.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigError, match="torch sees no GPU"):
            Where(fedavg(api), device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device, seen in (("cpu", None), ("cuda", torch.device("cuda"))):
        strategy = Where(fedavg(api), device=device)
        play(api, strategy)
        assert strategy.seen == seen
    assert device_of_blocks(torch.empty(1, 1)) is None


# --- reports ----------------------------------------------------------------------------------------------------


class Verbose(RobustStrategy):
    """Says something in each stage."""

    def before_aggregation(self, cohort):
        self.report(scores=torch.arange(len(cohort)) / 2, first=1)
        return cohort.keep([0, 2, 3])

    def on_aggregation(self, cohort):
        self.report(weights=torch.tensor([0.5, 0.25, 0.25]), second=2)
        return cohort.updates.mean(dim=0)

    def after_aggregation(self, parameters, cohort):
        self.report(third=3)
        return parameters


@both_apis
def test_a_verdict_holds_what_every_stage_said_by_client(api):
    server = play(api, Verbose(fedavg(api)))
    (verdict,) = server.strategy.last_report.verdicts
    assert verdict.participants == CLIENTS
    assert verdict.kept == (3, 8, 12)
    assert verdict.scores == dict(zip(CLIENTS, [0.0, 0.5, 1.0, 1.5, 2.0], strict=True))
    assert verdict.weights == {3: 0.5, 8: 0.25, 12: 0.25}
    assert verdict.notes == {"first": 1, "second": 2, "third": 3}
    assert verdict.judges
    assert verdict.seconds >= 0
    assert server.metrics["flsec-kept"] == 3
    assert server.metrics["flsec-usable"] == 5
    kept = server.metrics["flsec-kept-ids"]
    assert kept == ("3,8,12" if api == "classic" else [3, 8, 12])


@both_apis
def test_a_verdict_of_one_round_is_not_that_of_the_next(api):
    class OnlyFirst(RobustStrategy):
        def before_aggregation(self, cohort):
            if cohort.round == 1:
                self.report(scores=torch.ones(len(cohort)), note="first")
            return cohort

    server = play(api, OnlyFirst(fedavg(api)), [1, 2])
    (verdict,) = server.strategy.last_report.verdicts
    assert server.strategy.last_report.round == 2
    assert verdict.scores is None
    assert verdict.notes == {}


@both_apis
def test_who_sent_garbage_is_logged_counted_and_named(api, caplog):
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [first_array(reply, lambda a: a * np.nan) if client_id in (5, 2**63 + 1) else reply]

    strategy = Median(fedavg(api))
    with caplog.at_level(logging.WARNING, "flsec"):
        server = play(api, strategy, answer=answer)
    assert [q.client_id for q in strategy.last_report.quarantined] == [5, 2**63 + 1]
    assert f"quarantined 2: 2 x NaN or infinity in the update [client 5, client {2**63 + 1}]" in caplog.text
    assert server.metrics["flsec-quarantined"] == 2
    ids = server.metrics["flsec-quarantined-ids"]
    assert ids == (f"5,{2**63 + 1}" if api == "classic" else [5, 2**63 + 1])


@both_apis
def test_times_are_given_by_stage(api):
    server = play(api, NormClipping(Median(fedavg(api)), max_norm=0.1))
    seconds = server.strategy.last_report.seconds
    assert {"parse", "NormClipping", "Median"} <= set(seconds)
    assert all(value >= 0 for value in seconds.values())


# --- rounds without a new model ---------------------------------------------------------------------------------


def refuses(stage):
    class Refuses(RobustStrategy):
        pass

    def refuse(self, *args):
        raise KeepPreviousModel("no quorum")

    setattr(Refuses, stage, refuse)
    return Refuses


@both_apis
@pytest.mark.parametrize("stage", ["before_aggregation", "on_aggregation", "after_aggregation"])
@pytest.mark.parametrize("flower", ["FedAvg", "FedAvgM", "FedAdam"])
def test_a_stage_can_keep_the_previous_model(api, stage, flower):
    inner = flower_strategy(api, flower, len(CLIENTS))
    server = play(api, refuses(stage)(inner))
    assert_unmoved(server)
    assert "no quorum" in server.strategy.last_report.kept_previous_model
    assert server.metrics["flsec-kept-previous-model"] == 1
    fresh = play(api, Median(flower_strategy(api, flower, len(CLIENTS))), [2])
    continued = Median(inner)
    for a, b in zip(fresh.arrays, play(api, continued, [2]).arrays, strict=True):
        np.testing.assert_array_equal(a, b)


@both_apis
def test_an_aggregate_that_is_not_finite_keeps_the_previous_model(api):
    class Divides(RobustStrategy):
        def on_aggregation(self, cohort):
            return cohort.updates.sum(dim=0) / 0

    server = play(api, Divides(fedavg(api)))
    assert_unmoved(server)
    assert server.strategy.last_report.kept_previous_model == "Divides: the aggregate is not finite"


@both_apis
def test_accepting_nobody_keeps_the_previous_model(api):
    class Nobody(RobustStrategy):
        def before_aggregation(self, cohort):
            return cohort.keep([])

    server = play(api, Nobody(fedavg(api)))
    assert_unmoved(server)
    report = server.strategy.last_report
    assert report.kept_previous_model == "Nobody: accepted no client"
    assert report.verdicts[0].kept == ()
    assert server.metrics["flsec-kept"] == 0


@pytest.mark.parametrize("failure", ["named", "nameless"])
def test_accept_failures_false_is_the_wrapped_strategys_word(failure):
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [replace(reply, failure=failure) if client_id == 5 else reply]

    strict = play("classic", Median(fedavg("classic", accept_failures=False)), answer=answer)
    assert_unmoved(strict)
    assert strict.strategy.last_report.kept_previous_model == "FedAvg returned no model"
    assert strict.metrics["flsec-kept-previous-model"] == 1
    lenient = play("classic", Median(fedavg("classic")), answer=answer)
    assert lenient.strategy.last_report.kept_previous_model is None
    assert not np.array_equal(lenient.arrays[0], MODEL["weight"])
    quiet = play("classic", Median(fedavg("classic", accept_failures=False)))
    assert quiet.strategy.last_report.kept_previous_model is None


def test_a_nameless_failure_is_told_of_whoever_sent_nothing():
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [replace(reply, failure="nameless") if client_id == 5 else reply]

    strategy = Median(fedavg("classic"))
    play("classic", strategy, answer=answer)
    ((client_id, reason),) = [(q.client_id, q.reason) for q in strategy.last_report.quarantined]
    assert client_id == 5
    assert "the client raised" in reason


# --- the users' own metrics -------------------------------------------------------------------------------------


@both_apis
def test_the_users_function_is_given_the_real_clients_metrics(api):
    seen = []

    def classic(pairs):
        seen.append([(count, metrics["train-loss"]) for count, metrics in pairs])
        return {"mine": len(pairs)}

    def message(contents, weight_key):
        records = [next(iter(content.metric_records.values())) for content in contents]
        seen.append([(record[weight_key], record["train-loss"]) for record in records])
        return MetricRecord({"mine": len(records)})

    def strategy(defense, **options):
        key, function = {
            "classic": ("fit_metrics_aggregation_fn", classic),
            "Message": ("train_metrics_aggr_fn", message),
        }[api]
        inner = fedavg(api, **{key: function})
        return defense(inner, **options), inner, function, key

    losses = [honest(1, c, list(MODEL.values()))[0].metrics["train-loss"] for c in CLIENTS]
    for defense, options, expected in [
        (Median, {}, [(1, loss) for loss in losses]),  # one aggregate, yet all clients' metrics
        (NormClipping, {"max_norm": 0.01}, [(1, loss) for loss in losses]),
        (Median, {"weighting": "examples"}, [(10 + c % 5, loss) for c, loss in zip(CLIENTS, losses, strict=True)]),
    ]:
        wrapped, inner, function, key = strategy(defense, **options)
        server = play(api, wrapped)
        assert seen.pop() == expected
        assert server.metrics["mine"] == len(CLIENTS)
        assert getattr(inner, key) is function, "the user's function is put back"
    wrapped, *_ = strategy(Krum, num_byzantine=1)
    play(api, wrapped)
    (kept,) = wrapped.last_report.verdicts[0].kept
    assert seen.pop() == [(1, losses[CLIENTS.index(kept)])]


@both_apis
def test_a_users_function_that_raises_loses_the_metrics_and_is_put_back(api):
    def broken(*_):
        raise ZeroDivisionError

    key = "fit_metrics_aggregation_fn" if api == "classic" else "train_metrics_aggr_fn"
    inner = fedavg(api, **{key: broken})
    server = play(api, Median(inner))
    assert getattr(inner, key) is broken
    assert server.strategy.last_report.kept_previous_model is None
    assert all(name.startswith("flsec-") for name in server.metrics)


def test_metrics_are_not_compared_where_nobody_averages_them():
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [replace(reply, metrics={f"only-{client_id}": 1.0})]

    strategy = Median(fedavg("classic"))
    play("classic", strategy, answer=answer)
    assert strategy.last_report.quarantined == ()


# --- evaluation -------------------------------------------------------------------------------------------------


@both_apis
def test_evaluation_counts_clients_alike_or_their_examples_as_flower_does(api):
    sent = []

    def answer(round, client_id, arrays):
        sent.extend(honest(round, client_id, arrays))
        return sent[-1:]

    alike = SERVERS[api](Median(fedavg(api)), CLIENTS).evaluate(1, answer)
    assert alike == pytest.approx(float(np.mean([reply.loss for reply in sent])))
    sent.clear()
    loss = SERVERS[api](Median(fedavg(api), weighting="examples"), CLIENTS).evaluate(1, answer)
    counts = np.array([reply.num_examples for reply in sent])
    assert len(set(counts)) > 1
    assert loss == pytest.approx(float(counts @ [reply.loss for reply in sent] / counts.sum()))


@both_apis
def test_a_rejected_evaluation_is_logged(api, caplog):
    def answer(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [replace(reply, loss=float("nan")) if client_id == 5 else reply]

    with caplog.at_level(logging.WARNING, "flsec"):
        loss = SERVERS[api](Median(fedavg(api)), CLIENTS).evaluate(3, answer)
    assert np.isfinite(loss)
    assert "round 3, evaluation | quarantined 1: loss is NaN or infinite [client 5]" in caplog.text


@both_apis
def test_a_second_evaluation_of_a_client_does_not_count(api):
    def twice(round, client_id, arrays):
        reply = honest(round, client_id, arrays)[0]
        return [reply, replace(reply, loss=1e9)] if client_id == 5 else [reply]

    strategies = [Median(fedavg(api)) for _ in range(2)]
    once, again = (
        SERVERS[api](strategy, CLIENTS).evaluate(1, answer)
        for strategy, answer in zip(strategies, (only_honest, twice), strict=True)
    )
    assert once == again


# --- state ------------------------------------------------------------------------------------------------------


@both_apis
@pytest.mark.parametrize("flower", ["FedAvg", "FedAdam", "FedAvgM"])
def test_a_state_survives_the_file_that_a_run_writes(api, flower, tmp_path):
    def make():
        inner = flower_strategy(api, flower, len(CLIENTS))
        return NormClipping(CenteredClipping(inner, radius=0.05, num_iterations=2), max_norm=0.4)

    server = play(api, make(), [1, 2])
    save_state(tmp_path / "state", server.strategy.state_dict())
    resumed = SERVERS[api](make(), CLIENTS)
    resumed.strategy.load_state_dict(load_state(tmp_path / "state"))
    resumed.tensors = list(server.tensors)
    for a, b in zip(server.play([3, 4]).arrays, resumed.play([3, 4]).arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    other = SERVERS[api](make(), CLIENTS)
    other.tensors = list(server.tensors)
    forgetful = other.play([5]).arrays
    assert any(not np.array_equal(a, b) for a, b in zip(server.play([5]).arrays, forgetful, strict=True))


def test_a_state_is_refused_by_another_defense():
    state = NormClipping(fedavg("classic")).state_dict()
    with pytest.raises(ConfigError, match="state is of NormClipping; it cannot continue Median"):
        Median(fedavg("classic")).load_state_dict(state)


def test_initial_parameters_that_are_not_handed_out_yet_are_no_loss_on_resume():
    inner = flower_strategy("classic", "FedAvg", 2)
    used = Median(flower_strategy("classic", "FedAvg", 2))
    used.initialize_parameters(None)
    fresh = Median(inner)
    fresh.load_state_dict(used.state_dict())
    assert isinstance(fresh.initialize_parameters(None), Parameters)


# --- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weighting", "median"),
        ("max_weight_ratio", 0),
        ("max_weight_ratio", 1.5),
        ("max_num_examples", 0),
        ("max_num_examples", "many"),
        ("device", "gpu"),
    ],
)
@pytest.mark.parametrize("defense", [Median, NormClipping, RobustStrategy])
def test_common_options_are_checked_for_every_defense(defense, name, value):
    with pytest.raises(ConfigError, match=rf"{defense.__name__}: {name} .*got {value!r}"):
        defense(fedavg("classic"), **{name: value})


@pytest.mark.parametrize("wrong", [None, 3, ClassicFedAvg, "FedAvg"])
def test_only_a_strategy_can_be_wrapped(wrong):
    with pytest.raises(ConfigError, match="strategy"):
        Median(wrong)


@both_apis
def test_max_num_examples_is_what_the_user_says(api):
    def answer(round, client_id, arrays):
        return [replace(honest(round, client_id, arrays)[0], num_examples=100 + client_id % 7)]

    strategy = Median(fedavg(api), max_num_examples=102)
    play(api, strategy, answer=answer)
    assert {q.client_id for q in strategy.last_report.quarantined} == {c for c in CLIENTS if c % 7 > 2}


def test_the_other_apis_methods_say_which_to_use():
    classic, message = Median(fedavg("classic")), Median(fedavg("Message"))
    with pytest.raises(TypeError, match="no Message API; use aggregate_fit"):
        classic.summary()
    with pytest.raises(TypeError, match="no classic API; use aggregate_train"):
        message.initialize_parameters(None)
    with pytest.raises(RuntimeError, match="before configure_fit"):
        classic.aggregate_fit(1, [], [])
    with pytest.raises(RuntimeError, match="before configure_train"):
        message.aggregate_train(1, [])


def test_a_defense_shows_what_it_wraps():
    assert repr(NormClipping(Median(fedavg("classic")))) == "NormClipping(Median(FedAvg(accept_failures=True)))"
    strategy = NormClipping(Median(inner := fedavg("classic")))
    assert strategy.base is inner
    assert [type(wrapper).__name__ for wrapper in strategy.chain()] == ["NormClipping", "Median"]


def test_a_defense_can_be_copied():
    strategy = play("classic", CenteredClipping(fedavg("classic"), radius=0.1)).strategy
    copied = copy.deepcopy(strategy)
    strategy.center.zero_()
    assert float(copied.center.abs().sum()) > 0
