"""``ActivateOnSuspicion``: plain averaging until a detector fires, then the defense, in both APIs."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from flsec._contracts.battery import equal
from flsec._contracts.server import ClassicServer, MessageServer, flower_strategy, honest, identify, npy_bytes
from flsec.errors import ConfigError
from flsec.strategies import (
    ActivateOnSuspicion,
    BanList,
    CrossRound,
    Eavesdrop,
    FoolsGold,
    Krum,
    Median,
    MultiKrum,
    NormClipping,
    RobustStrategy,
    Scaffold,
    Siren,
    ThreeSigma,
)
from flsec.strategies._rehearsal import rehearse
from flsec.testing import example
from flsec.training import Training
from tests.support.tiny_rounds import cohort

SERVERS = {"classic": ClassicServer, "Message": MessageServer}
CLIENTS = (*range(1, 11), 2**63 + 3)
both_apis = pytest.mark.parametrize("api", SERVERS)


@pytest.fixture(autouse=True)
def _identity():
    identify()


def server(api, wrap, clients=CLIENTS):
    return SERVERS[api](wrap(flower_strategy(api, "FedAvg", len(clients))), clients)


def attacked_by(*ids, factor=50.0):
    def answer(round, client_id, arrays):
        (reply,) = honest(round, client_id, arrays)
        if client_id not in ids:
            return [reply]
        far = [a - factor * (b - a) if a.dtype.kind == "f" else b for a, b in zip(arrays, reply.arrays, strict=True)]
        return [replace(reply, tensors=tuple(npy_bytes(a.astype(b.dtype)) for a, b in zip(far, arrays, strict=True)))]

    return answer


def names(played):
    return [verdict.defense for verdict in played.strategy.last_report.verdicts]


def notes(played):
    return next(v for v in played.strategy.last_report.verdicts if v.defense == "ActivateOnSuspicion").notes


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.arrays, b.arrays, strict=True))


def quiet(*ids):
    """A detector that suspects these clients in the rounds that ``attacked_by`` shows, and nobody else ever."""

    def detector(seen):
        norms = seen.updates.norm(dim=1)
        return [i for i, norm in zip(seen.client_ids, norms, strict=True) if i in ids and norm > 5]

    return detector


# --- when it is active ------------------------------------------------------------------------------------------


@both_apis
@pytest.mark.parametrize("for_rounds", [1, 3])
def test_it_averages_until_a_round_fires_and_then_is_the_defense_until_so_many_are_quiet(api, for_rounds):
    def guarded(inner):
        krum = MultiKrum(inner, num_byzantine=2, num_selected=4)
        return ActivateOnSuspicion(krum, detector=quiet(3), for_rounds=for_rounds)

    played = server(api, guarded)
    attacks = {4, 5, 10}
    for number in range(1, 15):
        before = list(played.tensors)
        answer = attacked_by(3) if number in attacks else attacked_by()
        played.play([number], answer)
        active = any(0 <= number - attack < for_rounds for attack in attacks)
        alone = server(api, partial(MultiKrum, num_byzantine=2, num_selected=4) if active else RobustStrategy)
        alone.tensors = before
        assert same(played, alone.play([number], answer))
        assert notes(played)["active"] is active
        assert notes(played)["suspects"] == ([3] if number in attacks else [])
        assert names(played) == (["ActivateOnSuspicion", "MultiKrum"] if active else ["ActivateOnSuspicion"])
        assert len(played.strategy.last_report.verdicts[0].kept) == len(CLIENTS)


@both_apis
def test_the_built_in_detector_is_the_three_sigma_rule(api):
    played = server(api, lambda inner: ActivateOnSuspicion(Median(inner), min_suspects=2))
    rule = server(api, ThreeSigma)
    for number, ids in enumerate([(), (3,), (3, 4)], start=1):
        rule.tensors = list(played.tensors)
        for each in (played, rule):
            each.play([number], attacked_by(*ids))
        (expected,) = rule.strategy.last_report.verdicts
        found = played.strategy.last_report.verdicts[0]
        assert found.scores == expected.scores
        assert set(notes(played)["suspects"]) == set(expected.participants) - set(expected.kept) >= set(ids)
        assert notes(played)["active"] is (len(notes(played)["suspects"]) >= 2)


@both_apis
@pytest.mark.parametrize("detector", [ThreeSigma, CrossRound])
def test_a_detector_inside_drops_nobody_and_has_its_memory(api, detector):
    def guarded(inner):
        return ActivateOnSuspicion(detector(Median(inner)), detector="inside", for_rounds=1, min_suspects=2)

    played, alone = server(api, guarded), server(api, detector)
    for number in range(1, 5):
        ids = (3, 4) if number == 3 else ()
        before, alone.tensors = list(played.tensors), list(played.tensors)
        for each in (played, alone):
            each.play([number], attacked_by(*ids))
        (expected,) = alone.strategy.last_report.verdicts
        found = played.strategy.last_report.verdicts[0]
        assert found.kept == CLIENTS
        assert found.scores == expected.scores
        assert set(notes(played)["suspects"]) == set(expected.participants) - set(expected.kept) >= set(ids)
        active = len(notes(played)["suspects"]) >= 2
        assert active or number != 3
        assert names(played) == ["ActivateOnSuspicion", *(["Median"] if active else [])]
        plain = server(api, Median if active else RobustStrategy)
        plain.tensors = before
        assert same(played, plain.play([number], attacked_by(*ids)))


@both_apis
def test_with_no_defense_inside_the_suspects_of_active_rounds_are_dropped(api):
    played = server(api, lambda inner: ActivateOnSuspicion(inner, detector=quiet(3, 4), min_suspects=2, for_rounds=2))
    kept = []
    for number, ids in enumerate([(), (3,), (3, 4), (4,), (4,)], start=1):
        played.play([number], attacked_by(*ids))
        (verdict,) = played.strategy.last_report.verdicts
        assert verdict.judges
        kept.append(set(CLIENTS) - set(verdict.kept))
    assert kept == [set(), set(), {3, 4}, {4}, set()]


@both_apis
def test_rounds_that_are_counted_anew_do_not_leave_it_active(api):
    played = server(api, lambda inner: ActivateOnSuspicion(Median(inner), detector=quiet(3), for_rounds=5))
    assert notes(played.play([50], attacked_by(3)))["active"]
    assert not notes(played.play([1], attacked_by()))["active"]


@both_apis
def test_it_is_logged_when_the_defense_is_called_and_when_it_stands_by_again(api, caplog):
    played = server(api, lambda inner: ActivateOnSuspicion(Median(inner), detector=quiet(3), for_rounds=2))
    with caplog.at_level(logging.WARNING, "flsec"):
        for number in range(1, 7):
            played.play([number], attacked_by(*([3] if number == 2 else [])))
    said = [record.getMessage() for record in caplog.records if "the defense" in record.getMessage()]
    assert said == [
        "round 2: the defense is active: round 2 fired; active until round 3 if no other fires",
        "round 4: the defense stands by again: quiet since round 2",
    ]


# --- what is inside ---------------------------------------------------------------------------------------------


@both_apis
def test_a_defense_that_remembers_clients_has_seen_the_quiet_rounds(api):
    def guarded(inner):
        foolsgold = FoolsGold(inner, features="all")
        return ActivateOnSuspicion(NormClipping(foolsgold, max_norm=0.5), detector=quiet(3))

    played = server(api, guarded)
    plain = server(api, lambda inner: NormClipping(FoolsGold(inner, features="all"), max_norm=0.5, patience=None))
    for number in range(1, 5):
        plain.tensors = list(played.tensors)
        for each in (played, plain):
            each.play([number], attacked_by())
    assert names(played) == ["ActivateOnSuspicion"]
    (known, expected) = (each.strategy.chain()[-1].histories for each in (played, plain))
    assert list(known) == list(expected)
    for client_id in CLIENTS:
        assert torch.equal(known[client_id], expected[client_id])


@both_apis
def test_a_defense_without_a_memory_costs_nothing_in_quiet_rounds(api):
    calls = []

    class Counting(Median):
        def before_aggregation(self, cohort):
            calls.append(cohort.round)
            return cohort

    played = server(api, lambda inner: ActivateOnSuspicion(Counting(inner), detector=quiet(3), for_rounds=1))
    played.play([1, 2], attacked_by()).play([3], attacked_by(3))
    assert calls == [3]


@both_apis
def test_too_few_replies_for_the_defense_stop_active_rounds_only(api):
    def some(*ids):
        return lambda round, client_id, arrays: attacked_by(*ids)(round, client_id, arrays) if client_id < 7 else []

    played = server(api, lambda inner: ActivateOnSuspicion(Krum(inner, num_byzantine=4), detector=quiet(3)))
    assert played.play([1], some()).strategy.last_report.kept_previous_model is None
    reason = played.play([2], some(3)).strategy.last_report.kept_previous_model
    assert reason == "Krum needs at least 11 usable replies; there are 6"


@both_apis
def test_a_server_optimizer_and_a_listener_inside_work_in_every_round(api):
    training = Training(learning_rate=0.1, steps=1)

    def guarded(inner):
        scaffold = Scaffold(inner, training=training, num_clients=len(CLIENTS))
        return ActivateOnSuspicion(Median(Eavesdrop(scaffold, rounds=None, learning_rate=0.1)), detector=quiet(3))

    played = server(api, guarded)
    before = played.strategy.chain()[-1].state_dict()
    played.play([1, 2], attacked_by())
    assert "Median" not in names(played)
    assert {round for round, _ in played.strategy.observations} == {1, 2}
    assert not equal(played.strategy.chain()[-1].state_dict(), before)  # the control variate has moved


def test_what_cannot_stand_by_or_cannot_detect_is_refused():
    inner = flower_strategy("classic", "FedAvg", 2)
    siren = Siren(inner, **example(Siren, inner))
    with pytest.raises(ConfigError, match="Siren goes back to earlier models"):
        ActivateOnSuspicion(siren)
    Siren(ActivateOnSuspicion(Median(inner)), **example(Siren, inner))
    with pytest.raises(ConfigError, match="there is no wrapper"):
        ActivateOnSuspicion(inner, detector="inside")
    for rule in (Krum(inner, num_byzantine=1), Median(inner), NormClipping(inner, max_norm=1.0)):
        with pytest.raises(ConfigError, match=f"{type(rule).__name__} is no detector"):
            ActivateOnSuspicion(rule, detector="inside")
    with pytest.raises(ConfigError, match="detector"):
        ActivateOnSuspicion(inner, detector="krum")


@both_apis
def test_a_detector_that_names_strangers_is_a_mistake_of_the_users(api):
    played = server(api, lambda inner: ActivateOnSuspicion(Median(inner), detector=lambda seen: [77]))
    with pytest.raises(ConfigError, match=r"suspects \{77\}, no clients of the round"):
        played.play([1])


@both_apis
def test_a_detector_that_cannot_judge_fires_not_and_says_so(api):
    class Nobody(ThreeSigma):
        def before_aggregation(self, cohort):
            return cohort.keep([])

    played = server(api, lambda inner: ActivateOnSuspicion(Nobody(Median(inner)), detector="inside")).play([1])
    assert notes(played)["not_judged"] == "the detector accepts nobody"
    assert not notes(played)["active"]
    assert played.strategy.last_report.kept_previous_model is None


@both_apis
def test_a_ban_list_counts_the_suspects_of_rounds_that_fire(api):
    def guarded(inner):
        krum = MultiKrum(inner, num_byzantine=3)
        return BanList(ActivateOnSuspicion(krum, detector=quiet(3, 4), min_suspects=2), after=2)

    played = server(api, guarded).play([1, 2], attacked_by(3)).play([3, 4], attacked_by(3, 4))
    assert set(played.strategy.bans) == {3, 4}


# --- state ------------------------------------------------------------------------------------------------------


def own(inner):
    return ActivateOnSuspicion(FoolsGold(inner, features="all"), detector=quiet(3), for_rounds=3)


def inside(inner):
    detector = CrossRound(FoolsGold(inner, features="all"))
    return ActivateOnSuspicion(detector, detector="inside", min_suspects=2, for_rounds=2)


@both_apis
@pytest.mark.parametrize("wrap", [own, inside])
def test_a_resumed_run_is_active_when_one_that_never_stopped_is(api, wrap):
    def play(played, rounds):
        seen = []
        for number in rounds:
            played.play([number], attacked_by(*([3, 4] if number in (3, 7) else [])))
            seen.append((notes(played), [array.tobytes() for array in played.arrays]))
        return seen

    expected = play(server(api, wrap), range(1, 10))
    assert {told["active"] for told, _ in expected} == {True, False}
    for stop in (2, 3, 4, 6):
        first, resumed = server(api, wrap), server(api, wrap)
        play(first, range(1, stop + 1))
        resumed.strategy.load_state_dict(first.strategy.state_dict())
        resumed.tensors = list(first.tensors)
        assert play(resumed, range(stop + 1, 10)) == expected[stop:]


def test_an_attackers_rehearsal_leaves_no_trace():
    inner = flower_strategy("Message", "FedAvg", 2)
    guarded = ActivateOnSuspicion(CrossRound(FoolsGold(inner)), detector=lambda seen: [1], for_rounds=4)
    updates = torch.randn(6, 21, generator=torch.Generator().manual_seed(0))
    rehearse(guarded.chain(), cohort(updates))
    assert guarded.fired is None
    assert not guarded._active
    crossround, foolsgold = guarded.chain()[1:]
    assert not crossround.accepted
    assert not foolsgold.histories
