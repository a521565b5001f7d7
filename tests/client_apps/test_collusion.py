"""Attacks by clients who work together, as the server's side of a simulation calls them."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from flsec import aggregation
from flsec.attacks import CohortView, Rehearsal, alie, alie_z, ipm, mimicked_row, min_max, min_sum
from flsec.client_apps import (
    ALIE,
    IPM,
    AdaptiveLineSearch,
    AdaptivePool,
    AGRTailored,
    Colluding,
    KrumAttack,
    Mimic,
    MinMax,
    MinSum,
    OptimisedALIE,
    OptimisedIPM,
    TrimmedMeanAttack,
)
from flsec.errors import ConfigError

BLIND = {
    "alie": ALIE(),
    "alie, all": ALIE(knowledge="all", z=1.0),
    "ipm": IPM(epsilon=0.5),
    "ipm, colluders": IPM(epsilon=10.0, knowledge="colluders"),
    "krum_attack": KrumAttack(),
    "krum_attack, colluders": KrumAttack(knowledge="colluders"),
    "krum_attack, epsilon": KrumAttack(epsilon=0.01),
    "trimmed_mean_attack": TrimmedMeanAttack(),
    "trimmed_mean_attack, colluders": TrimmedMeanAttack(knowledge="colluders"),
    **{f"min_max, {kind}": MinMax(perturbation=kind) for kind in ("unit", "std", "sign")},
    **{f"min_sum, {kind}": MinSum(perturbation=kind) for kind in ("unit", "std", "sign")},
    "min_max, colluders": MinMax(knowledge="colluders"),
    "min_sum, colluders": MinSum(knowledge="colluders"),
    "mimic": Mimic(),
    "colluding": Colluding(),
}
ADAPTIVE = {
    f"adaptive_line_search, {kind}": AdaptiveLineSearch(perturbation=kind, num_trials=9)
    for kind in ("unit", "std", "sign")
} | {
    "adaptive_line_search, all": AdaptiveLineSearch(reverse="all", num_trials=9),
    "adaptive_pool": AdaptivePool(num_trials=50),
    "adaptive_pool, jitter": AdaptivePool(num_trials=50, jitter=0.1),
    "agr_tailored": AGRTailored(),
    "agr_tailored, median": AGRTailored(rule="median", perturbation="unit"),
    "agr_tailored, bulyan": AGRTailored(rule="bulyan"),
    "optimised_alie": OptimisedALIE(num_trials=9),
    "optimised_ipm": OptimisedIPM(num_trials=9),
}
ATTACKS = {**BLIND, **ADAPTIVE}
DIFFERENT = {  # uploads of attackers
    "adaptive_pool, jitter",
    "krum_attack, epsilon",
    "trimmed_mean_attack",
    "trimmed_mean_attack, colluders",
}
each = pytest.mark.parametrize("name", ATTACKS)


def rows(n, d=40, seed=0, mean=0.3):
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


RULES = {
    "mean": (aggregation.mean, None),
    "median": (aggregation.median, None),
    "trimmed mean": (lambda u: aggregation.trimmed_mean(u, num_trimmed=4), None),
    "krum": (
        lambda u: aggregation.krum(u, num_byzantine=4),
        lambda u: [int(aggregation.krum_scores(u, num_byzantine=4).argmin())],
    ),
    "multi_krum": (
        lambda u: aggregation.multi_krum(u, num_byzantine=4),
        lambda u: aggregation.multi_krum_selection(u, num_byzantine=4).tolist(),
    ),
    "clipping": (lambda u: aggregation.norm_clipping(u, max_norm=3.0).mean(dim=0), None),
}


def rehearsal(rule, others, asked=None):
    aggregate, kept = RULES[rule]

    def rehearse(uploads):
        every = torch.cat([uploads, others])
        if asked is not None:
            asked.append(uploads.clone())
        accepted = torch.ones(len(every), dtype=torch.bool)
        if kept is not None:
            accepted = torch.zeros_like(accepted)
            accepted[kept(every)] = True
        return Rehearsal(aggregate(every), accepted[: len(uploads)])

    return rehearse


def view(attack, own, others, rule="median", asked=None, round_=3, seed=5):
    return CohortView(
        own=own,
        own_ids=tuple(range(10, 10 + len(own))),
        clients_per_round=len(own) + len(others),
        round=round_,
        seed=seed,
        global_parameters=torch.zeros(own.shape[1]),
        others=others if attack.knowledge == "all" else None,
        rehearse=rehearsal(rule, others, asked) if attack.knows_defense else None,
    )


def upload(attack, own, others, **settings):
    return attack.poison_cohort(view(attack, own, others, **settings))


# --- what holds for all -----------------------------------------------------------------------------------------


@each
def test_one_row_for_each_attacker_and_the_same_where_they_act_as_one(name):
    sent = upload(ATTACKS[name], rows(4), rows(9, seed=1))
    assert (sent.shape, sent.dtype) == ((4, 40), torch.float32)
    assert bool((sent == sent[0]).all()) == (name not in DIFFERENT)
    assert not torch.equal(sent, rows(4))


@each
def test_nothing_is_changed_in_place_nor_shared_and_two_calls_agree(name):
    own, others = rows(4), rows(9, seed=1)
    sent = upload(ATTACKS[name], own, others)
    again = upload(ATTACKS[name], own, others)
    assert torch.equal(sent, again)
    sent[:] = torch.nan  # writes neither into the view nor into another row's memory
    assert torch.equal(own, rows(4))
    assert torch.equal(others, rows(9, seed=1))


@each
def test_who_knows_the_colluders_only_is_not_told_more(name):
    attack = ATTACKS[name]
    assert (attack.knowledge == "colluders") == (name in ("alie", "colluding") or name.endswith("colluders"))
    assert attack.knows_defense == (name in ADAPTIVE)
    assert attack.poisons_cohort
    assert not attack.poisons_update
    assert not attack.poisons_data


@each
def test_the_order_of_the_others_does_not_matter(name):
    own, others = rows(4), rows(9, seed=1)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(upload(ATTACKS[name], own, others[order]), upload(ATTACKS[name], own, others))


@each
def test_the_order_of_the_attackers_does_not_matter(name):
    own, others = rows(4), rows(9, seed=1)
    torch.testing.assert_close(
        upload(ATTACKS[name], own.flip(0), others), upload(ATTACKS[name], own, others), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", [name for name in BLIND if name != "krum_attack, epsilon"])
def test_updates_twice_as_long_give_uploads_twice_as_long(name):
    own, others = rows(4), rows(9, seed=1)
    torch.testing.assert_close(upload(ATTACKS[name], 2 * own, 2 * others), 2 * upload(ATTACKS[name], own, others))


@each
@pytest.mark.parametrize("num_attackers", [1, 4])
@pytest.mark.parametrize("num_others", [0, 1, 9])
def test_odd_rounds_give_finite_uploads(name, num_attackers, num_others):
    attack = ATTACKS[name]
    own, others = rows(num_attackers), rows(num_others, seed=1)
    for scale in (1.0, 0.0, 1e-30, 1e18, 1e38):
        for a, b in ((own, others), (own[:1].repeat(num_attackers, 1), own[:1].repeat(num_others, 1))):
            sent = upload(attack, (scale * a).clamp(-3e38, 3e38), (scale * b).clamp(-3e38, 3e38))
            assert sent.shape == own.shape
            assert bool(sent.isfinite().all()), (scale, a is own)


@each
def test_notes_can_be_written_to_a_log(name):
    for own in (rows(4), rows(1)):
        seen = view(ATTACKS[name], own, rows(9, seed=1))
        ATTACKS[name].poison_cohort(seen)
        assert all(type(value) in (bool, int, float, str) for value in seen.notes.values())


# --- one by one -------------------------------------------------------------------------------------------------


def test_each_uploads_what_its_formula_says():
    own, others = rows(4), rows(9, seed=1)
    for attack, known, expected in (
        (ALIE(), own, lambda u: alie(u, z=alie_z(13, 4))),
        (ALIE(z=0.7, ddof=0), own, lambda u: alie(u, z=0.7, ddof=0)),
        (ALIE(z=0.7, knowledge="all"), others, lambda u: alie(u, z=0.7)),
        (IPM(epsilon=0.5), others, lambda u: ipm(u, epsilon=0.5)),
        (IPM(epsilon=0.5, knowledge="colluders"), own, lambda u: ipm(u, epsilon=0.5)),
        (MinMax(), others, lambda u: min_max(u)[0]),
        (MinMax(perturbation="sign", knowledge="colluders"), own, lambda u: min_max(u, perturbation="sign")[0]),
        (MinSum(perturbation="unit"), others, lambda u: min_sum(u, perturbation="unit")[0]),
        (Mimic(), others, lambda u: u[mimicked_row(u)]),
        (Colluding(), own, lambda u: u.mean(dim=0)),
    ):
        torch.testing.assert_close(upload(attack, own, others)[0], expected(known))


def test_notes_say_what_was_chosen():
    own, others = rows(4), rows(9, seed=1)

    def notes(attack):
        seen = view(attack, own, others)
        attack.poison_cohort(seen)
        return seen.notes

    assert notes(ALIE()) == {"z": alie_z(13, 4)}
    assert notes(MinMax()) == {"gamma": min_max(others)[1]}
    assert notes(MinSum()) == {"gamma": min_sum(others)[1]}
    assert notes(Mimic()) == {"mimicked_row": mimicked_row(others)}


def test_a_lone_attackers_deviation_is_unknown_and_noted():
    own = rows(1)
    for attack in (ALIE(z=2.0), TrimmedMeanAttack(knowledge="colluders")):
        seen = view(attack, own, rows(9, seed=1))
        assert torch.equal(attack.poison_cohort(seen), own)
        assert seen.notes["deviation"] == "unknown: 1 update, ddof 1"


def test_too_few_attackers_for_alie_are_told_so_once(caplog):
    own, others = rows(2, seed=7), rows(34, seed=8)
    with caplog.at_level(logging.WARNING, "flsec"):
        for round_ in (1, 2, 3):
            sent = upload(ALIE(), own, others, round_=round_)
    torch.testing.assert_close(sent[0], own.mean(dim=0))
    assert [record.getMessage()[:27] for record in caplog.records] == ["ALIE: 2 attackers of 36 cli"]


@pytest.mark.parametrize("knowledge", ["all", "colluders"])
@pytest.mark.parametrize("seed", range(3))
def test_krum_picks_what_the_krum_attack_uploads(knowledge, seed):
    own, others = rows(8, seed=seed), rows(15, seed=seed + 50)
    attack = KrumAttack(knowledge=knowledge)
    seen = view(attack, own, others)
    sent = attack.poison_cohort(seen)
    known = own if knowledge == "colluders" else torch.cat([own, others])
    direction = known.double().mean(dim=0).sign()
    np.testing.assert_allclose(sent[0].double().numpy(), (-seen.notes["lambda"] * direction).numpy(), rtol=1e-6)
    assert seen.notes["picked"]
    assert torch.equal(aggregation.krum(torch.cat([sent, others]), num_byzantine=8), sent[0])
    assert not torch.equal(aggregation.krum(torch.cat([-4 * own, others]), num_byzantine=8), -4 * own[0])


def test_krum_attackers_stay_within_epsilon_of_the_first():
    own, others = rows(8), rows(15, seed=1)
    exact = upload(KrumAttack(), own, others)
    near = upload(KrumAttack(epsilon=0.01), own, others)
    away = (near - exact).norm(dim=1)
    assert torch.equal(near[0], exact[0])
    assert 0.005 < float(away[1:].min()) <= float(away.max()) < 0.01 + 1e-6
    assert len(set(away.tolist())) == 8
    assert not torch.equal(upload(KrumAttack(epsilon=0.01), own, others, round_=4), near)


def test_attackers_on_the_trimmed_mean_draw_alone_whoever_else_attacks():
    attack = TrimmedMeanAttack()
    own, others = torch.zeros(4, 40), rows(9, seed=1)  # own updates of zero leave the direction to the others
    sent = upload(attack, own, others)
    assert torch.equal(upload(attack, own[:3], others), sent[:3])
    assert len(set(sent[:, 0].tolist())) == 4
    assert not torch.equal(upload(attack, own, others, round_=4), sent)
    beyond = torch.where(others.mean(dim=0) > 0, sent <= others.amin(dim=0), sent >= others.amax(dim=0))
    assert bool(beyond.all())


def test_the_direction_is_that_of_all_updates_the_attackers_own_included():
    own, others = torch.full((4, 40), 5.0), rows(9, seed=1) - 2
    sent = upload(TrimmedMeanAttack(), own, others)
    assert bool((others.mean(dim=0) < 0).all())
    assert bool((torch.cat([own, others]).mean(dim=0) > 0).any())
    rising = torch.cat([own, others]).mean(dim=0) > 0
    assert torch.equal((sent <= others.amin(dim=0)).all(dim=0), rising)


def test_nobody_mimics_an_attacker():
    own, others = rows(4) + 1e6, rows(9, seed=1)
    sent = upload(Mimic(), own, others)
    assert int((others == sent[0]).all(dim=1).sum()) == 1
    with pytest.raises(ConfigError, match="Mimic: knowledge must be 'all'"):
        Mimic(knowledge="colluders")


def test_colluders_have_nothing_else_to_know():
    with pytest.raises(ConfigError, match="Colluding: knowledge must be 'colluders'"):
        Colluding(knowledge="all")


# --- the attack that tries the defense out ----------------------------------------------------------------------


def tried(rule, own, others, **settings):
    attack = AdaptiveLineSearch(**settings)
    asked = []
    seen = view(attack, own, others, rule=rule, asked=asked)
    return attack.poison_cohort(seen), seen, asked


def displaced(rule, others, sent, p):
    """How far along p the aggregate is from where the attackers' honest means would have it."""
    rehearse = rehearsal(rule, others)
    start = rehearse(others.mean(dim=0).repeat(len(sent), 1)).aggregate
    return float((rehearse(sent).aggregate - start).double() @ p)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "mean"])
@pytest.mark.parametrize("seed", range(2))
def test_it_does_nearly_the_most_that_can_be_done_along_its_way(rule, seed):
    own, others = rows(4, seed=seed), rows(13, seed=seed + 9)
    mean = others.double().mean(dim=0)
    p = -mean / mean.norm()
    sent, seen, asked = tried(rule, own, others)
    gamma = seen.notes["gamma"]
    torch.testing.assert_close(sent[0].double(), mean + gamma * p, rtol=1e-5, atol=1e-5)
    done = displaced(rule, others, sent, p)
    assert done == pytest.approx(seen.notes["damage"], rel=1e-4)
    assert len(asked) == seen.notes["trials"] == 21
    rehearse, best = rehearsal(rule, others), 0.0
    for g in np.geomspace(1e-2, 1e2, 60):
        crafted = (mean + g * p).float().repeat(4, 1)
        if int(rehearse(crafted).accepted.sum()) >= seen.notes["accepted"]:
            best = max(best, displaced(rule, others, crafted, p))
    assert done >= 0.9 * best > 0
    assert done > displaced(rule, others, -4 * own, p)  # the simple attack


def test_krum_is_led_astray_by_the_row_that_it_keeps():
    own, others = rows(4), rows(13, seed=1)
    sent, seen, _ = tried("krum", own, others)
    assert torch.equal(aggregation.krum(torch.cat([sent, others]), num_byzantine=4), sent[0])
    assert seen.notes["accepted"] == 1
    assert seen.notes["gamma"] > 0


def test_without_a_defense_it_goes_to_the_end_of_its_search():
    own, others = rows(4), rows(13, seed=1)
    _, seen, _ = tried("mean", own, others)
    mean = others.double().mean(dim=0)
    spread = float((others.double() - mean).norm(dim=1).max())
    assert seen.notes["gamma"] == pytest.approx(100 * max(spread, float(mean.norm())), rel=1e-4)


def test_a_defense_that_accepts_no_attacker_gets_the_honest_mean():
    own, others = rows(4), rows(13, seed=1)

    def suspicious(uploads):
        return Rehearsal(uploads.mean(dim=0), torch.zeros(len(uploads), dtype=torch.bool))

    seen = replace(view(AdaptiveLineSearch(), own, others), rehearse=suspicious)
    sent = AdaptiveLineSearch().poison_cohort(seen)
    torch.testing.assert_close(sent, others.mean(dim=0).repeat(4, 1))
    assert (seen.notes["gamma"], seen.notes["damage"], seen.notes["accepted"]) == (0.0, 0.0, 0)


def test_a_defense_that_turns_away_who_goes_too_far_is_not_provoked():
    """As many rows must be accepted as when all upload the mean."""
    own, others = rows(4), rows(13, seed=1)
    mean = others.mean(dim=0)

    def strict(uploads):
        near = (uploads - mean).norm(dim=1) < 0.7
        return Rehearsal(uploads.mean(dim=0), near)

    seen = replace(view(AdaptiveLineSearch(), own, others), rehearse=strict)
    sent = AdaptiveLineSearch().poison_cohort(seen)
    assert 0.65 < float((sent[0] - mean).norm()) < 0.7
    assert seen.notes["accepted"] == 4


def test_it_needs_a_defense_to_try():
    seen = replace(view(AdaptiveLineSearch(), rows(2), rows(3)), rehearse=None)
    with pytest.raises(ConfigError, match=r"needs view\.rehearse"):
        AdaptiveLineSearch().poison_cohort(seen)


def test_the_line_search_reverses_the_mean_that_it_is_told_to():
    own, others = rows(4) + 2, rows(13, seed=1) - 1
    for reverse, known in (("others", others), ("all", torch.cat([own, others]))):
        sent, seen, _ = tried("median", own, others, reverse=reverse)
        mean = known.double().mean(dim=0)
        expected = mean * (1 - seen.notes["gamma"] / float(mean.norm()))
        torch.testing.assert_close(sent[0].double(), expected, rtol=1e-5, atol=1e-5)
        assert seen.notes["damage"] > 0
    alone = view(AdaptiveLineSearch(reverse="all", knowledge="colluders"), own, others)
    assert AdaptiveLineSearch(reverse="all", knowledge="colluders").poison_cohort(alone).shape == own.shape


def test_jitter_has_the_length_that_it_is_told():
    own, others = rows(4), rows(13, seed=1)
    sent = upload(AdaptivePool(jitter=0.2), own, others)
    plain = upload(AdaptivePool(), own, others)
    spread = float((others - others.mean(dim=0)).norm(dim=1).mean())
    pairs = torch.cdist(sent, sent)[~torch.eye(4, dtype=torch.bool)]
    assert bool((plain == plain[0]).all())
    assert float(pairs.min()) > 0
    assert float(pairs.max()) <= 0.4 * spread * (1 + 1e-5)
    assert not torch.equal(upload(AdaptivePool(jitter=0.2), own, others, round_=4), sent)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "mean"])
@pytest.mark.parametrize(
    ("attack", "of_factor"),
    [
        (OptimisedALIE(), lambda u, g: alie(u, z=g)),
        (OptimisedIPM(), lambda u, g: ipm(u, epsilon=g)),
        (AGRTailored(), lambda u, g: alie(u, z=g)),
    ],
)
def test_the_optimised_factor_moves_the_deployed_rule_nearly_as_far_as_any(rule, attack, of_factor):
    own, others = rows(4), rows(13, seed=1)
    seen = view(attack, own, others, rule=rule)
    sent = attack.poison_cohort(seen)
    rehearse = rehearsal(rule, others)
    start = rehearse(others.mean(dim=0).repeat(4, 1))

    def moved(uploads):
        outcome = rehearse(uploads)
        if int(outcome.accepted.sum()) < max(1, int(start.accepted.sum())):
            return 0.0
        return float((outcome.aggregate.double() - start.aggregate.double()).norm())

    best = max(moved(of_factor(others, g).repeat(4, 1)) for g in np.geomspace(0.01, 50, 80))
    assert moved(sent) == pytest.approx(seen.notes["damage"], rel=1e-4)
    assert moved(sent) >= 0.9 * best > 0


def test_a_rule_by_its_name_is_not_tried_out():
    own, others, asked = rows(4), rows(13, seed=1), []
    AGRTailored(rule="krum").poison_cohort(view(AGRTailored(rule="krum"), own, others, asked=asked))
    assert not asked


def small_network():
    torch.manual_seed(0)
    network = torch.nn.Module()
    network.lora_a, network.body, network.lora_b = (torch.nn.Linear(3, n, bias=False) for n in (2, 5, 4))
    return network


def test_ipm_on_adapters_leaves_other_weights_at_the_honest_mean():
    own, others = rows(2, d=33), rows(7, d=33, seed=1)
    sent = upload(IPM(epsilon=0.5, only=["lora_"], model_factory=small_network), own, others)
    mean = others.mean(dim=0)
    expected = torch.cat([-0.5 * mean[:6], mean[6:21], -0.5 * mean[21:]])
    torch.testing.assert_close(sent, expected.repeat(2, 1))


def test_weights_that_there_are_not_are_refused_by_name():
    attack = IPM(epsilon=0.5, only=["adapter"], model_factory=small_network)
    with pytest.raises(ConfigError, match=r"IPM: no array .* has 'adapter' in its name; there are lora_a\.weight"):
        attack.check_model(small_network())
    with pytest.raises(ConfigError, match="IPM needs model_factory"):
        IPM(epsilon=0.5, only=["lora_"])
    IPM(epsilon=0.5).check_model(small_network())
