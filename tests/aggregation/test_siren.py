"""SIREN's decisions: each case of Fig. 3, the readings of its thresholds, bans; against the text written out."""

import math
import random

import pytest
import torch

from flsec.aggregation import SirenCase, SirenDecision, siren_alarm, siren_decision, siren_penalties
from flsec.errors import ConfigError

GOOD, BAD = [1.0, 0.2], [-4.0, -0.8]  # updates that point apart


def decide(clients, **options):
    """``clients``: {id: (alarm, accuracy, update)}."""
    return siren_decision(
        {i: alarm for i, (alarm, _, _) in clients.items()},
        {i: accuracy for i, (_, accuracy, _) in clients.items()},
        torch.tensor([update for _, _, update in clients.values()]),
        **options,
    )


# ---- the cases


def test_case_1_and_2_without_an_alarm_all_are_kept_and_nobody_is_judged_or_evaluated():
    class Nothing(dict):
        def __missing__(self, client):
            raise AssertionError(f"client {client} was evaluated")

    for updates in (torch.tensor([GOOD, GOOD, GOOD]), torch.tensor([GOOD, BAD, BAD])):  # case 2 looks like case 1
        decision = siren_decision({4: False, 2: False, 9: False}, Nothing(), updates)
        assert decision == SirenDecision(SirenCase.NO_ALARM, (4, 2, 9), False, {}, {})


def test_case_3_alike_alarms_that_are_false():
    decision = decide({1: (True, 0.75, GOOD), 2: (True, 0.7, GOOD), 3: (False, 0.8, GOOD), 4: (False, 0.3, GOOD)})
    assert decision.case is SirenCase.FALSE_ALARMS
    assert decision.kept == (3,)
    assert not decision.rollback
    assert decision.benign == {1: False, 2: False, 3: True, 4: False}
    assert decision.reasons == {1: "false alarm", 2: "false alarm", 4: "accuracy 0.300, the best has 0.800"}


def test_case_3_alike_alarms_that_are_true():
    decision = decide({1: (True, 0.8, GOOD), 2: (False, 0.1, BAD), 3: (True, 0.75, GOOD)})
    assert decision.case is SirenCase.TRUE_ALARMS
    assert decision.kept == (1, 3)
    assert decision.rollback
    assert decision.benign == {1: True, 2: False, 3: True}


def test_case_3_everybody_alarms_and_is_alike():
    decision = decide({1: (True, 0.8, GOOD), 2: (True, 0.75, GOOD)})
    assert (decision.case, decision.kept, decision.rollback) == (SirenCase.TRUE_ALARMS, (1, 2), True)


def test_case_4_differing_alarms_are_true_and_the_silent_are_malicious_however_accurate():
    decision = decide({1: (True, 0.8, GOOD), 2: (True, 0.1, BAD), 3: (True, 0.72, GOOD), 4: (False, 0.99, GOOD)})
    assert decision.case is SirenCase.MIXED_ALARMS
    assert decision.kept == (1, 3)
    assert decision.rollback
    assert decision.benign == {1: True, 2: False, 3: True, 4: False}
    assert decision.reasons[4] == "silent where others are right to alarm"


def test_case_4_by_the_direction_alone_and_case_3_without_the_weight_analysis():
    clients = {1: (True, 0.8, GOOD), 2: (True, 0.78, BAD), 3: (True, 0.79, [0.0, 0.0]), 4: (False, 0.2, BAD)}
    decision = decide(clients)
    assert (decision.case, decision.kept) == (SirenCase.MIXED_ALARMS, (1,))  # an update of zero points nowhere
    decision = decide(clients, weight_analysis=False)
    assert (decision.case, decision.kept) == (SirenCase.TRUE_ALARMS, (1, 2, 3))


def test_one_alarm_as_several_or_with_a_recheck_of_all():
    wrong = {1: (True, 0.7, GOOD), 2: (False, 0.1, BAD), 3: (False, 0.72, GOOD)}
    assert decide(wrong).kept == (3,)  # case 3, false alarm
    decision = decide(wrong, single_alarm="recheck")
    assert (decision.case, decision.kept, decision.rollback) == (SirenCase.RECHECK, (1, 3), False)
    right = {1: (True, 0.7, GOOD), 2: (False, 0.1, BAD), 3: (False, 0.2, BAD)}
    for single_alarm in ("paper", "recheck"):
        decision = decide(right, single_alarm=single_alarm)
        assert (decision.kept, decision.rollback) == ((1,), True)
    two = {**right, 4: (True, 0.69, GOOD)}
    assert decide(two, single_alarm="recheck") == decide(two)


# ---- thresholds


@pytest.mark.parametrize(
    ("rule", "alarms"),
    # own model better by 0.1, 0.04 and 0.03; alike; worse by 0.03, 0.04 and 0.1
    [("tolerance", "1000000"), ("paper", "1111100"), ("relative", "1100000")],
)
def test_the_clients_alarm(rule, alarms):
    differences = (0.1, 0.04, 0.03, 0.0, -0.03, -0.04, -0.1)
    assert "".join(str(int(siren_alarm(0.8, 0.8 + d, 0.04, rule))) for d in differences) == alarms


def test_the_clients_alarm_by_tenths_is_not_at_the_mercy_of_rounding():
    assert 0.9 - 0.8 < 0.1 < 0.8 - 0.7  # what floating point makes of it
    assert [siren_alarm(b, a, 0.1) for a, b in ((0.9, 0.8), (0.8, 0.7))] == [False, False]
    assert [siren_alarm(a, b, 0.1, "paper") for a, b in ((0.9, 0.8), (0.8, 0.7))] == [False, False]


@pytest.mark.parametrize(("rule", "kept"), [("tolerance", (1, 2, 3)), ("paper", (1, 2)), ("relative", (1, 2))])
def test_the_servers_test_at_its_border(rule, kept):
    # 0.1 below the best, and 0.072: below it by 12.5 % and 9 %
    decision = decide({1: (True, 0.8, GOOD), 2: (True, 0.728, GOOD), 3: (True, 0.7, GOOD)}, rule=rule)
    assert decision.kept == kept


@pytest.mark.parametrize(("rule", "case"), [("tolerance", 2), ("paper", 2), ("relative", 3)])
def test_silent_clients_exactly_c_s_below_are_close_enough_as_printed(rule, case):
    decision = decide({1: (True, 0.8, GOOD), 2: (False, 0.7, GOOD)}, rule=rule)
    expected = {2: SirenCase.FALSE_ALARMS, 3: SirenCase.TRUE_ALARMS}[case]
    assert decision.case is expected


def test_parameters_out_of_range_are_named():
    for options in ({"tolerance": 0.0}, {"tolerance": 1.5}, {"rule": "printed"}, {"single_alarm": "none"}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            decide({1: (True, 0.8, GOOD)}, **options)
    with pytest.raises(ConfigError, match="rule"):
        siren_alarm(0.5, 0.5, 0.1, "printed")
    with pytest.raises(ConfigError, match="2 rows and 1 clients"):
        siren_decision({1: True}, {1: 0.5}, torch.zeros(2, 3))


# ---- hostile values


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("alarm", [True, False])
def test_an_update_that_is_not_finite_is_malicious_in_every_case_and_measures_nobody(value, alarm):
    broken = (alarm, 0.99, [value, 1.0])
    for others in (
        {1: (False, 0.8, GOOD), 2: (False, 0.8, GOOD)},
        {1: (True, 0.8, GOOD), 2: (False, 0.8, GOOD)},
        {1: (True, 0.8, GOOD), 2: (True, 0.1, BAD)},
    ):
        decision = decide({**others, 3: broken})
        expected = decide(others)
        assert (decision.case, decision.kept, decision.rollback) == (expected.case, expected.kept, expected.rollback)
        assert decision.benign == {**expected.benign, 3: False}
        assert decision.reasons[3] == "update is not finite"


def test_an_accuracy_that_is_no_number_never_wins_and_huge_updates_are_compared_exactly():
    assert decide({1: (True, math.nan, GOOD), 2: (True, 0.5, GOOD)}).kept == (2,)
    assert decide({1: (True, math.nan, GOOD), 2: (True, math.nan, GOOD)}).kept == (1, 2)
    huge = {1: (True, 0.5, [3e38, 0.0]), 2: (True, 0.5, [3e38, 1e30]), 3: (True, 0.5, [-1e-40, 1.0])}
    assert decide(huge).kept == (1, 2)


def test_somebody_is_always_kept():
    rng = random.Random(0)
    for _ in range(300):
        clients = {
            i: (rng.random() < 0.5, rng.choice([0.0, 0.1, 0.5, 0.9]), rng.choice([GOOD, BAD, [0.0, 0.0]]))
            for i in range(rng.randint(1, 6))
        }
        options = {"rule": rng.choice(["tolerance", "paper", "relative"])}
        options["single_alarm"] = rng.choice(["paper", "recheck"])
        assert decide(clients, **options).kept


# ---- against the text, written out


def by_the_text(clients, c_s, rule, weight_analysis):
    """Sec. 4.4 and 4.5 in plain Python; ``clients`` without zero updates."""

    def malicious(group):
        best = max(group, key=lambda i: (clients[i][1], -list(clients).index(i)))
        bad = set()
        for i in group:
            short = {
                "tolerance": clients[best][1] - clients[i][1] > c_s + 1e-12,
                "paper": clients[best][1] - clients[i][1] >= c_s - 1e-12,
                "relative": clients[i][1] < clients[best][1] - c_s * clients[best][1] - 1e-12,
            }[rule]
            cosine = math.fsum(a * b for a, b in zip(clients[i][2], clients[best][2], strict=True))
            if i != best and (short or (weight_analysis and cosine <= 0)):
                bad.add(i)
        return bad

    alarming = [i for i in clients if clients[i][0]]
    silent = [i for i in clients if not clients[i][0]]
    if not alarming:
        return list(clients), False
    if malicious(alarming):
        return [i for i in alarming if i not in malicious(alarming)], True
    top = max(clients[i][1] for i in alarming)
    second = max((clients[i][1] for i in silent), default=-math.inf)
    limit = top * c_s if rule == "relative" else c_s
    if top - second <= limit + 1e-12:
        return [i for i in silent if i not in malicious(silent)], False
    return alarming, True


@pytest.mark.parametrize("rule", ["tolerance", "paper", "relative"])
@pytest.mark.parametrize("weight_analysis", [True, False])
def test_random_rounds_are_decided_as_the_text_says_in_any_order(rule, weight_analysis):
    rng = random.Random(f"{rule} {weight_analysis}")
    seen = set()
    for _ in range(400):
        levels = [rng.randint(0, 100) / 100 for _ in range(2)]
        clients = {
            rng.randrange(2**60): (
                rng.random() < rng.choice([0.1, 0.5, 0.9]),
                round(min(1, max(0, rng.choice(levels) + rng.randint(-6, 6) / 100)), 2),
                [rng.gauss(0.7, 1) for _ in range(3)],
            )
            for _ in range(rng.randint(1, 8))
        }
        options = {"tolerance": 0.1, "rule": rule, "weight_analysis": weight_analysis}
        decision = decide(clients, **options)
        kept, rollback = by_the_text(clients, 0.1, rule, weight_analysis)
        assert decision.kept == tuple(kept)
        assert decision.rollback is rollback
        assert set(decision.reasons) == set(clients) - set(kept)
        seen.add(decision.case)
        if len({accuracy for _, accuracy, _ in clients.values()}) == len(clients):  # no ties
            ids = rng.sample(list(clients), len(clients))
            shuffled = decide({i: clients[i] for i in ids}, **options)
            assert set(shuffled.kept) == set(decision.kept)
            assert (shuffled.case, shuffled.rollback) == (decision.case, decision.rollback)
    assert len(seen) == 4


def test_nothing_is_modified():
    updates, alarms, accuracies = (
        torch.tensor([GOOD, BAD, GOOD]),
        {1: True, 2: True, 3: False},
        {1: 0.9, 2: 0.1, 3: 0.5},
    )
    before = updates.clone()
    siren_decision(alarms, accuracies, updates, banned=(3,))
    assert torch.equal(updates, before)
    assert (alarms, accuracies) == ({1: True, 2: True, 3: False}, {1: 0.9, 2: 0.1, 3: 0.5})


# ---- bans


def test_the_banned_are_not_kept_their_alarms_do_not_count_and_they_measure_nobody():
    clients = {1: (True, 0.99, BAD), 2: (False, 0.8, GOOD), 3: (False, 0.79, GOOD), 4: (True, 0.78, GOOD)}
    decision = decide(clients, banned={1, 4})
    assert (decision.case, decision.kept, decision.rollback) == (SirenCase.NO_ALARM, (2, 3), False)
    assert decision.reasons == {1: "banned", 4: "banned"}
    assert decision.benign == {1: False, 4: True}  # judged by the most accurate one that is kept
    assert decide(clients, banned={1, 4}, examine_banned=False).benign == {}
    assert decide(clients, banned={1, 2, 3, 4}).kept == ()


def test_more_than_c_p_verdicts_ban_and_awards_reinstate_below_c_p():
    def verdict(benign):
        return SirenDecision(SirenCase.MIXED_ALARMS, (), True, {7: benign}, {})

    penalties, banned, history = {}, (), []
    for benign in [False, False, True, False, False, True, True, False, True, True, True]:
        penalties, banned = siren_penalties(penalties, banned, verdict(benign), threshold=3.0, award=0.5)
        history.append((penalties[7], banned == (7,)))
    assert history == [
        (1.0, False),
        (2.0, False),
        (2.0, False),  # no award for who is not banned
        (3.0, False),  # not more than C_p
        (4.0, True),
        (3.5, True),
        (3.0, True),  # not below C_p
        (4.0, True),  # who is banned can still be judged malicious
        (3.5, True),
        (3.0, True),
        (2.5, False),
    ]


def test_who_is_not_judged_keeps_count_and_ban_and_without_a_threshold_nobody_is_banned():
    nobody = SirenDecision(SirenCase.NO_ALARM, (1,), False, {}, {})
    before = {1: 2.0, 5: 9.0}
    assert siren_penalties(before, (5,), nobody, threshold=3.0) == (before, (5,))
    guilty = SirenDecision(SirenCase.MIXED_ALARMS, (), True, {5: False}, {})
    assert siren_penalties(before, (), guilty, threshold=None) == ({1: 2.0, 5: 10.0}, ())
    assert before == {1: 2.0, 5: 9.0}
    assert siren_penalties({5: 0.25}, (5,), SirenDecision(nobody.case, (), False, {5: True}, {}), threshold=0.1) == (
        {5: 0.0},
        (),
    )


def test_a_misjudged_client_comes_back_while_an_attacker_stays_out():
    """Full participation, no alarm any more: the award needs no alarm."""
    penalties, banned = {1: 5.0, 2: 5.0}, (1, 2)
    clients = {1: (False, 0.8, GOOD), 2: (False, 0.1, BAD), 3: (False, 0.82, GOOD)}
    for _ in range(3):
        decision = decide(clients, banned=banned)
        penalties, banned = siren_penalties(penalties, banned, decision, threshold=4.5)
    assert (penalties, banned) == ({1: 4.0, 2: 8.0}, (2,))


@pytest.mark.parametrize("setting", [{"threshold": -1.0}, {"threshold": 1.0, "award": -0.5}])
def test_penalties_out_of_range(setting):
    decision = SirenDecision(SirenCase.MIXED_ALARMS, (1,), True, {1: True, 2: False}, {2: "silent"})
    with pytest.raises(ConfigError, match="siren_penalties: "):
        siren_penalties({}, (), decision, **setting)
