"""``on_verdict``: everybody who wants to know is told of every round, once, with the report."""

import numpy as np
import pytest

from flsec._contracts.faults import first_array
from flsec._contracts.server import ClassicServer, MessageServer, flower_strategy, honest, identify, only_honest
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps import KrumAttack
from flsec.errors import ConfigError, NoProgressError
from flsec.strategies import Adversary, Krum, Median, NormClipping, RobustStrategy

CLIENTS = (1, 2, 3, 4, 5, 6, 2**63 + 7)
SERVERS = {"classic": ClassicServer, "Message": MessageServer}
both_apis = pytest.mark.parametrize("api", SERVERS)


@pytest.fixture(autouse=True)
def _identity():
    identify()


def server(api, wrap, clients=CLIENTS):
    return SERVERS[api](wrap(flower_strategy(api, "FedAvg", len(clients))), clients)


def all_nan(round, client_id, arrays):
    return [first_array(reply, lambda a: a * np.nan) for reply in honest(round, client_id, arrays)]


def silence(round, client_id, arrays):
    return []


@both_apis
def test_every_round_is_told_once_whatever_became_of_it(api):
    told = []
    played = server(api, lambda inner: Krum(inner, num_byzantine=2, on_verdict=told.append, patience=None))
    for number, answer in enumerate((only_honest, all_nan, silence, only_honest), start=1):
        played.play([number], answer)
        assert told[-1] is played.strategy.last_report
    assert [report.round for report in told] == [1, 2, 3, 4]
    assert [report.kept_previous_model is None for report in told] == [True, False, False, True]
    assert len(told[1].quarantined) == len(CLIENTS)


@both_apis
def test_the_round_that_ends_the_run_is_told_before_the_error(api):
    told = []
    played = server(api, lambda inner: Median(inner, patience=2, on_verdict=told.append))
    played.play([1], silence)
    with pytest.raises(NoProgressError):
        played.play([2], silence)
    assert [report.round for report in told] == [1, 2]


@both_apis
def test_a_round_in_which_nobody_is_asked_is_told_too(api):
    told = []
    played = server(api, lambda inner: Krum(inner, num_byzantine=2, on_verdict=told.append)).play([1])
    inner = played.strategy.base
    for setting, value in (
        ("min_fit_clients", 3),
        ("min_train_nodes", 3),
        ("fraction_fit", 0.5),
        ("fraction_train", 0.5),
    ):
        if hasattr(inner, setting):
            setattr(inner, setting, value)
    played.play([2])
    assert [report.round for report in told] == [1, 2]
    assert "needs at least 7 replies" in told[1].kept_previous_model


def test_a_strategy_that_asks_nobody_is_told_too():
    told = []
    played = server("Message", lambda inner: Median(inner, on_verdict=told.append))
    played.strategy.base.fraction_train = 0.0
    played.play([1])
    assert [report.kept_previous_model for report in told] == ["the wrapped strategy asked nobody to train"]


@both_apis
def test_of_nested_wrappers_each_is_heard_with_the_one_report(api):
    calls = []

    def note(name):
        return lambda report: calls.append((name, report))

    played = server(
        api,
        lambda inner: NormClipping(
            Median(inner, on_verdict=note("inner")), max_norm=1.0, on_verdict=[note("first"), note("second")]
        ),
    ).play([1])
    report = played.strategy.last_report
    assert calls == [("first", report), ("second", report), ("inner", report)]
    assert [verdict.defense for verdict in report.verdicts] == ["NormClipping", "Median"]


@both_apis
def test_what_it_raises_ends_the_run_and_leaves_a_state_that_goes_on(api):
    class Stop(Exception):
        pass

    def stop(report):
        if report.round == 2:
            raise Stop

    played = server(api, lambda inner: Median(inner, patience=3, on_verdict=stop)).play([1], silence)
    with pytest.raises(Stop):
        played.play([2], silence)
    assert played.strategy.state_dict()["without_model"] == 2


def test_a_rehearsal_is_not_told():
    told, rehearsed = [], []

    class Noting(RobustStrategy):
        def before_aggregation(self, cohort):
            rehearsed.append(cohort.round)
            return cohort

    attack = KrumAttack(num_byzantine=2, adversaries=Adversaries(num_clients=10, ids=[1, 2]))
    attack.knows_defense = True
    looks = type(attack).poison_cohort

    def poison(view):
        view.rehearse(view.own)
        return looks(attack, view)

    attack.poison_cohort = poison
    played = server(
        "Message", lambda inner: Adversary(Noting(inner, on_verdict=told.append), attacks=[attack]), clients=range(10)
    ).play([1])
    assert len(rehearsed) == 2
    assert told == [played.strategy.last_report]


def test_it_is_a_function_or_several_and_nothing_of_a_file():
    from flsec.simulations.config import make_config

    with pytest.raises(ConfigError, match="on_verdict"):
        Median(flower_strategy("classic", "FedAvg", 2), on_verdict=3)
    with pytest.raises(ConfigError, match="on_verdict"):
        Median(flower_strategy("classic", "FedAvg", 2), on_verdict=[print, "print"])
    base = {"name": "x", "model": {"name": "softmax"}, "training": {"learning_rate": 0.1}}
    for section in (
        {"defenses": [{"name": "median", "on_verdict": None}]},
        {"strategy": {"name": "scaffold", "on_verdict": None}},
    ):
        with pytest.raises(ConfigError, match="on_verdict: no such key"):
            make_config({**base, **section})


@both_apis
def test_it_is_no_part_of_the_state(api):
    plain, told = server(api, Median), server(api, lambda inner: Median(inner, on_verdict=print))
    assert plain.strategy.state_dict().keys() == told.strategy.state_dict().keys()
    assert told.strategy.state_dict()["state"] == {}
