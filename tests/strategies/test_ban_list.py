"""``BanList``: who was caught too often is not asked again, in both APIs, and the run goes on."""

import logging
import time
from dataclasses import replace
from types import SimpleNamespace

import flwr.server.strategy
import flwr.serverapp.strategy
import numpy as np
import pytest
from flwr.server.criterion import Criterion
from flwr.serverapp.strategy import FedAvg as MessageFedAvg
from flwr.serverapp.strategy.strategy_utils import sample_nodes

from flsec._contracts.faults import first_array
from flsec._contracts.server import ClassicServer, MessageServer, flower_strategy, honest, identify, npy_bytes
from flsec.errors import ConfigError, NoProgressError
from flsec.strategies import DEFENSES, BanList, Bucketing, Krum, Median, MultiKrum, NormClipping, ThreeSigma, ban_list
from flsec.strategies._without import without
from flsec.strategies.report import Quarantined, RoundReport, Verdict
from flsec.testing import example
from tests.support.example_settings import SETTINGS

SERVERS = {"classic": ClassicServer, "Message": MessageServer}
CLIENTS = (*range(1, 10), 2**63 + 5)
HOSTILE = (3, 2**63 + 5)
flower = {"classic": flwr.server.strategy, "Message": flwr.serverapp.strategy}
both_apis = pytest.mark.parametrize("api", SERVERS)


@pytest.fixture(autouse=True)
def _identity():
    identify()


class AccusesHostile(ThreeSigma):
    """Drops the hostile clients, and no other."""

    def before_aggregation(self, cohort):
        return cohort.keep([row for row, i in enumerate(cohort.client_ids) if i not in HOSTILE])


def server(api, wrap=BanList, clients=CLIENTS, fewest=None, **settings):
    """A server around FedAvg; ``settings`` of it by the names that both APIs share: ``fraction``."""
    inner = flower_strategy(api, "FedAvg", fewest or 1)
    for key, value in settings.items():
        setattr(inner, f"{key}_{'fit' if api == 'classic' else 'train'}", value)
    return SERVERS[api](wrap(inner), clients)


def sends_nan(*ids):
    def answer(round, client_id, arrays):
        replies = honest(round, client_id, arrays)
        return [first_array(r, lambda a: a * np.nan) for r in replies] if client_id in ids else replies

    return answer


def asked(played):
    return set(played.configs)


def verdict(played):
    return next(v for v in played.strategy.last_report.verdicts if v.defense == "BanList")


# --- who is banned, when, for how long --------------------------------------------------------------------------


@both_apis
@pytest.mark.parametrize(("after", "for_rounds"), [(1, 1), (1, 3), (3, 2)])
def test_an_offender_is_away_for_so_many_rounds_and_then_comes_back_clean(api, after, for_rounds):
    played = server(api, lambda inner: BanList(inner, after=after, within=5, for_rounds=for_rounds))
    expected = ([True] * after + [False] * for_rounds) * 3
    for number, is_asked in enumerate(expected, start=1):
        played.play([number], sends_nan(3))
        assert asked(played) == (set(CLIENTS) if is_asked else set(CLIENTS) - {3})
        notes = verdict(played).notes
        last_offence = is_asked and not [*expected, False][number]
        assert notes.get("banned", []) == ([3] if last_offence else [])
        assert notes.get("reinstated", []) == ([3] if not is_asked and [*expected, True][number] else [])
        assert notes["bans"] == int(not [*expected, True][number])


@both_apis
def test_drops_by_verdict_and_quarantine_count_together_once_a_round(api):
    played = server(api, lambda inner: BanList(AccusesHostile(inner), after=3, within=3))
    played.play([1, 2], honest)
    assert asked(played) == set(CLIENTS)
    played.play([3], sends_nan(HOSTILE[0]))
    assert verdict(played).notes["banned"] == list(HOSTILE)
    assert asked(played.play([4])) == set(CLIENTS) - set(HOSTILE)


@both_apis
def test_offences_that_lie_too_far_apart_ban_nobody(api):
    played = server(api, lambda inner: BanList(inner, after=2, within=3))
    for number in range(1, 20):
        played.play([number], sends_nan(3) if number % 3 == 1 else honest)
        assert asked(played) == set(CLIENTS)
    played.play([20], sends_nan(3)).play([21], honest)  # the last was in round 19
    assert asked(played) == set(CLIENTS) - {3}


@both_apis
def test_silence_and_failure_and_replies_that_nobody_asked_for_are_no_offences(api):
    def answer(round, client_id, arrays):
        (reply,) = honest(round, client_id, arrays)
        odd = {1: [], 2: [replace(reply, failure="named")], 3: [reply, replace(reply, sender=77)]}
        return odd.get(client_id, [reply])

    played = server(api, lambda inner: BanList(inner, after=1))
    for number in (1, 2, 3):
        played.play([number], answer)
        assert {entry.client_id for entry in played.strategy.last_report.quarantined} == {1, 2, 77}
        assert played.strategy.bans == {}
        assert asked(played) == set(CLIENTS)


def report(round=1, verdicts=(), rejected=()):
    quarantined = tuple(Quarantined(i, "NaN") for i in rejected)
    return RoundReport(round, quarantined, tuple(verdicts), None, {}, rejected=tuple(rejected))


def test_only_verdicts_that_accuse_count():
    banning = BanList(flower_strategy("classic", "FedAvg", 2), after=1)
    banning.after_round(report(verdicts=[Verdict("Krum", (1, 2, 3), (1,), judges=True)]))
    assert banning.bans == {}
    banning.after_round(report(verdicts=[Verdict("ThreeSigma", (1, 2, 3), (1,), judges=True, accused=(2, 3))]))
    assert set(banning.bans) == {2, 3}
    quiet = BanList(Krum(flower_strategy("classic", "FedAvg", 2), num_byzantine=1), after=1, verdicts=False)
    quiet.after_round(report(verdicts=[Verdict("ThreeSigma", (1, 2, 3), (1,), accused=(2, 3))], rejected=[5]))
    assert set(quiet.bans) == {5}


@both_apis
def test_a_rule_that_accepts_nobody_accuses_nobody(api):
    class Nobody(ThreeSigma):
        def before_aggregation(self, cohort):
            return cohort.keep([])

    played = server(api, lambda inner: BanList(Nobody(inner), after=1)).play([1, 2, 3], honest)
    assert played.strategy.last_report.kept_previous_model is not None
    assert asked(played) == set(CLIENTS)


# --- which rules accuse -----------------------------------------------------------------------------------------


def drops_of_honest_clients(name):
    """How many of 16 honest clients a defense drops in each of 4 rounds."""
    defense, inner = DEFENSES.get(name), flower_strategy("Message", "FedAvg", 16)
    strategy = defense(inner, **example(defense, inner, **SETTINGS.get(name, {})), patience=None)
    if not strategy.judges_clients:
        return strategy, []

    def answer(round, client_id, arrays):
        common, own = np.random.default_rng(round), np.random.default_rng([round, client_id])
        trained = [
            (a + 0.1 * common.standard_normal(a.shape) + 0.05 * own.standard_normal(a.shape)).astype(a.dtype)
            if a.dtype.kind == "f"
            else a + 1
            for a in arrays
        ]
        return [replace(honest(round, client_id, arrays)[0], tensors=tuple(map(npy_bytes, trained)), num_examples=20)]

    played = MessageServer(strategy, range(1, 17))
    drops = []
    for number in range(1, 5):
        (found,) = played.play([number], answer).strategy.last_report.verdicts
        drops.append(len(found.participants) - len(found.kept))
    return strategy, drops


@pytest.mark.parametrize("name", sorted(DEFENSES.names()))
def test_a_rule_that_drops_honest_clients_in_every_round_does_not_accuse(name):
    strategy, drops = drops_of_honest_clients(name)
    own_data = {"root_data", "client_samples", "adversaries"} & set(vars(strategy))  # the example's fit no such client
    if drops and min(drops[2:]) > 0 and not own_data:
        assert not strategy.accuses_clients
    if not strategy.judges_clients:
        assert not strategy.accuses_clients
    if strategy.accuses_clients and not own_data:
        assert min(drops) == 0


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "flanders", "multi_metrics", "flame"])
def test_rules_that_would_ban_everybody_are_refused_in_one_sentence(name):
    defense, inner = DEFENSES.get(name), flower_strategy("classic", "FedAvg", 2)
    rule = defense(inner, **example(defense, inner))
    with pytest.raises(ConfigError, match=f"what {defense.__name__} drops accuses no client.*verdicts=False") as caught:
        BanList(rule)
    assert caught.value.parameter == "verdicts"
    assert "\n" not in str(caught.value)
    BanList(rule, verdicts=False)
    BanList(NormClipping(ThreeSigma(inner), max_norm=1.0))
    BanList(Median(inner))  # judges coordinates, and drops nobody
    if name != "bulyan":
        BanList(ThreeSigma(rule))


def test_means_of_several_clients_accuse_none_of_them():
    inner = flower_strategy("classic", "FedAvg", 2)
    with pytest.raises(ConfigError, match=r"what ThreeSigma drops accuses no client.*means of several"):
        BanList(Bucketing(ThreeSigma(inner), bucket_size=2))
    BanList(ThreeSigma(Bucketing(inner, bucket_size=2)))

    class DropsHalf(ThreeSigma):
        def before_aggregation(self, cohort):
            return cohort.keep(range(0, len(cohort), 2))

    def wrap(inner):
        return BanList(AccusesHostile(Bucketing(DropsHalf(inner), bucket_size=2)), after=1)

    played = server("Message", wrap).play([1], honest)
    assert set(played.strategy.bans) == set(HOSTILE)


def test_beside_an_accusing_rule_krums_drops_ban_nobody():
    played = server("classic", lambda inner: BanList(AccusesHostile(MultiKrum(inner, num_byzantine=2)), after=1))
    played.play([1, 2, 3], honest)
    assert set(played.strategy.bans) == set(HOSTILE)


def test_settings_that_cannot_ban_are_refused():
    with pytest.raises(ConfigError, match=r"after <= within.*within=4"):
        BanList(flower_strategy("classic", "FedAvg", 2), after=4, within=3)


# --- sampling among the others ----------------------------------------------------------------------------------


def banned_from_the_start(banned, rule=lambda inner: inner, **options):
    def wrap(inner):
        strategy = BanList(rule(inner), verdicts=False, **options)
        strategy.bans = dict.fromkeys(banned, 10**6)
        return strategy

    return wrap


@both_apis
@pytest.mark.parametrize(
    ("fewest", "fraction", "banned", "number"),
    [
        (1, 1.0, [3], 9),  # all others
        (10, 1.0, [3, 4], 8),  # all of the ten that it wants, less those
        (5, 0.0001, [3, 4], 5),  # five of the eight others
        (1, 0.5, [3, 4], 4),  # half of the others
        (1, 0.5, list(CLIENTS[:9]), 1),
    ],
)
def test_the_wrapped_strategy_gets_its_numbers_from_the_others(api, fewest, fraction, banned, number):
    seen = set()
    for number_of_round in range(1, 16):
        played = server(api, banned_from_the_start(banned), fewest=fewest, fraction=fraction)
        before = dict(vars(played.strategy.base))
        played.play([number_of_round], honest)
        assert len(asked(played)) == number
        assert not asked(played) & set(banned)
        assert dict(vars(played.strategy.base)) == before
        seen |= asked(played)
    assert seen == set(CLIENTS) - set(banned)


@both_apis
def test_a_privacy_wrapper_of_flowers_inside_asks_the_others_too(api):
    module, kind = flower[api], "DifferentialPrivacyServerSideFixedClipping"
    ban = banned_from_the_start([3, 4], rule=ThreeSigma)

    def wrap(inner):
        return ban(getattr(module, kind)(inner, 0.0, 10.0, len(CLIENTS)))

    played = server(api, wrap, fewest=len(CLIENTS)).play([1], honest)
    assert asked(played) == set(CLIENTS) - {3, 4}
    assert played.strategy.last_report.kept_previous_model is None


@both_apis
def test_who_is_banned_is_not_asked_to_evaluate(api):
    played = server(api, banned_from_the_start([1, 2]), fewest=len(CLIENTS))
    heard = set()

    def answer(round, client_id, arrays):
        heard.add(client_id)
        return honest(round, client_id, arrays)

    assert played.evaluate(1, answer) is not None
    assert heard == set(CLIENTS) - {1, 2}
    everybody = server(api, banned_from_the_start(CLIENTS), fewest=len(CLIENTS))
    heard.clear()
    assert everybody.evaluate(1, answer) is None
    assert not heard


@both_apis
def test_without_bans_the_strategy_is_given_flowers_own_clients(api):
    played = server(api)
    given = []
    configure = getattr(played.strategy.base, "configure_fit" if api == "classic" else "configure_train")

    def noting(*args, **kwargs):
        given.append(kwargs["client_manager"] if api == "classic" else args[-1])
        return configure(*args, **kwargs)

    setattr(played.strategy.base, configure.__name__, noting)
    played.play([1], honest)
    assert (given[0] is played.manager) if api == "classic" else isinstance(given[0], SimpleNamespace)


def test_a_criterion_of_the_strategys_own_still_holds():
    class Even(Criterion):
        def select(self, client):
            return int(client.cid) % 2 == 0

    played = server("classic", banned_from_the_start([2, 4]))
    base, manager = played.strategy.base, []
    base.configure_fit = lambda server_round, parameters, client_manager: manager.append(client_manager) or []
    played.play([1], honest)
    (view,) = manager
    assert {proxy.cid for proxy in view.sample(4, criterion=Even())} == {"6", "8"}
    assert view.sample(9, criterion=Even()) == []  # too few even if nobody were banned: as Flower has it
    assert len(view) == view.num_available() == len(view.all()) == 8
    assert view.wait_for(10, timeout=0)  # banned clients are there all the same


def test_a_strategy_that_waits_for_more_than_it_is_shown_goes_on_and_asks_nobody_banned():
    class Waits(MessageFedAvg):
        def configure_train(self, server_round, arrays, config, grid):
            self.sampled, _ = sample_nodes(grid, 10, 10)
            return super().configure_train(server_round, arrays, config, grid)

    played = MessageServer(banned_from_the_start([3, 4])(Waits()), CLIENTS)
    begun = time.monotonic()
    played.play([1], honest)
    assert asked(played) == set(CLIENTS) - {3, 4}
    assert time.monotonic() - begun < 20


def test_it_waits_for_clients_as_the_strategy_does_and_counts_the_banned_who_are_there(monkeypatch):
    played = server("Message", banned_from_the_start([1]), clients=[1, 2], fewest=5)
    looks = []

    def sleep(seconds):
        looks.append(list(played.clients))
        played.clients = range(1, 3 + len(looks))

    monkeypatch.setattr(time, "sleep", sleep)
    played.play([1], honest)
    assert looks[-1] == [1, 2, 3, 4]
    assert asked(played) == {2, 3, 4, 5}


# --- when the others are too few --------------------------------------------------------------------------------


@both_apis
def test_too_few_others_are_joined_by_the_oldest_bans_but_by_no_more_than_f(api, caplog):
    krum = {"rule": lambda inner: Krum(inner, num_byzantine=2, patience=None), "patience": None}  # needs 7 of the 10
    for banned, expected in (
        ([1, 2, 3], set(CLIENTS) - {1, 2, 3}),
        ([5, 1, 2, 3], set(CLIENTS) - {1, 2, 3}),
        ([5, 9, 1, 2, 3], set(CLIENTS) - {1, 2, 3}),
        ([5, 9, 8, 1, 2, 3], set()),
    ):
        caplog.clear()
        played = server(api, banned_from_the_start(banned, **krum), fewest=len(CLIENTS))
        with caplog.at_level(logging.WARNING, "flsec"):
            played.play([1], honest)
        assert asked(played) == expected
        if expected and len(banned) > 3:
            assert "asked in spite of their ban" in caplog.text
            assert verdict(played).notes["asked_despite_ban"] == sorted(set(banned) - {1, 2, 3})
        assert len(played.strategy.bans) == len(banned)
        reason = played.strategy.last_report.kept_previous_model
        assert (reason is None) == bool(expected)
        if not expected:
            assert "Krum needs at least 7 replies, and the strategy asks 4, where 6 clients are banned" in reason


@both_apis
def test_a_share_of_the_others_is_raised_to_what_the_rules_need(api):
    wrap = banned_from_the_start([1, 2, 4], rule=lambda inner: Krum(inner, num_byzantine=2))
    played = server(api, wrap, fraction=0.5).play([1], honest)
    assert asked(played) == set(CLIENTS) - {1, 2, 4}


@both_apis
def test_if_everybody_is_banned_the_run_ends_with_an_error_and_not_in_silence(api):
    played = server(api, banned_from_the_start(CLIENTS, patience=3), fewest=len(CLIENTS)).play([1, 2], honest)
    assert asked(played) == set()
    with pytest.raises(NoProgressError, match="10 clients are banned"):
        played.play([3], honest)


@both_apis
def test_bans_run_out_in_rounds_in_which_nobody_is_asked_too(api):
    played = server(api, lambda inner: BanList(inner, after=1, for_rounds=2, patience=None), fewest=len(CLIENTS))
    played.play([1], sends_nan(*CLIENTS))
    assert asked(played.play([2], honest)) == set()
    assert verdict(played).notes == {"bans": len(CLIENTS)}
    played.play([3], honest)
    assert verdict(played).notes["reinstated"] == list(CLIENTS)
    assert asked(played.play([4], honest)) == set(CLIENTS)


# --- by hand, in a state, in bounds -----------------------------------------------------------------------------


@both_apis
def test_a_ban_is_lifted_by_hand(api):
    played = server(api, lambda inner: NormClipping(BanList(inner, after=1), max_norm=9.0)).play([1], sends_nan(3, 4))
    assert asked(played.play([2], honest)) == set(CLIENTS) - {3, 4}
    played.strategy.reinstate(3)
    with pytest.raises(ConfigError, match="client 3 is not banned; banned: 4"):
        played.strategy.reinstate(3)
    played.play([3], honest)
    assert asked(played) == set(CLIENTS) - {4}
    assert verdict(played).notes == {"reinstated": [3], "bans": 1}
    assert "reinstated" not in verdict(played.play([4], honest)).notes


@both_apis
def test_a_resumed_run_bans_and_reinstates_as_one_that_never_stopped(api):
    def wrap(inner):
        return BanList(AccusesHostile(inner), after=2, within=4, for_rounds=3)

    def play(played, rounds):
        seen = []
        for number in rounds:
            played.play([number], sends_nan(1, 2) if number % 2 else honest)
            seen.append((asked(played), verdict(played).notes, [array.tobytes() for array in played.arrays]))
        return seen

    expected = play(server(api, wrap), range(1, 16))
    assert len({frozenset(who) for who, _, _ in expected}) > 2
    for stop in (3, 7, 11):
        play(first := server(api, wrap), range(1, stop + 1))
        resumed = server(api, wrap)
        resumed.strategy.load_state_dict(first.strategy.state_dict())
        resumed.tensors = list(first.tensors)
        assert play(resumed, range(stop + 1, 16)) == expected[stop:]


def test_both_apis_ban_the_same_clients():
    for seed in range(5):
        bans = []
        for api in SERVERS:
            played = server(api, lambda inner: BanList(inner, after=2, within=3, for_rounds=2), clients=range(1, 9))
            rng, history = np.random.default_rng(seed), []
            for number in range(1, 15):
                hostile = (rng.random(8) < 0.3).nonzero()[0] + 1
                played.play([number], sends_nan(*hostile.tolist()))
                history.append((asked(played), dict(played.strategy.bans)))
            bans.append(history)
        assert bans[0] == bans[1]


def test_what_is_remembered_is_bounded(monkeypatch):
    banning = BanList(flower_strategy("classic", "FedAvg", 2), after=2, within=5, for_rounds=10)
    for number in range(1, 200):  # new clients in each round, who offend once
        banning.after_round(report(number, rejected=[10 * number + i for i in range(10)]))
        assert len(banning.offences) <= 50
    monkeypatch.setattr(ban_list, "_MOST_CLIENTS", 7)
    for number in range(200, 300):
        banning.after_round(report(number, rejected=[10 * (number // 2) + i for i in range(10)]))
    assert len(banning.bans) == 7
    assert len(banning.offences) <= 7
    assert all(len(rounds) < 2 for rounds in banning.offences.values())


def test_a_grid_view_passes_on_what_it_does_not_change():
    sent = []
    grid = SimpleNamespace(
        get_node_ids=lambda: [1, 2, 3],
        get_nodes=lambda: [SimpleNamespace(node_id=i) for i in (1, 2, 3)],
        push_messages=sent.append,
        pull_messages=lambda ids: ids,
        send_and_receive=lambda messages, timeout: (messages, timeout),
        run="run",
        set_run=sent.append,
        state="state",
    )
    view = without(grid, frozenset([2]))
    assert list(view.get_node_ids()) == [1, 3]
    assert [node.node_id for node in view.get_nodes()] == [1, 3]
    assert (view.run, view.state) == ("run", "state")
    assert view.send_and_receive([4], timeout=2) == ([4], 2)
    assert view.pull_messages(["id"]) == ["id"]
    view.push_messages("messages")
    view.set_run("other")
    assert sent == ["messages", "other"]
