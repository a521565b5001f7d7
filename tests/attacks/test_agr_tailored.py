"""Attacks tailored to a rule: the gamma, by brute force in float64."""

import math

import numpy as np
import pytest
import torch

from flsec.attacks import agr_tailored, largest_damage, min_max
from flsec.errors import ConfigError

RULES = ("krum", "multi_krum", "bulyan", "trimmed_mean", "median")
KINDS = ("unit", "std", "sign")
H, M = 16, 4


def rows(h=H, d=30, seed=0, mean=0.2):
    return mean + torch.randn(h, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def direction(u, kind):
    mean = u.mean(axis=0)
    return {"unit": -mean / np.linalg.norm(mean), "std": -u.std(axis=0, ddof=1), "sign": -np.sign(mean)}[kind]


def krum_order(u, f):
    """Scores by the definition, one pair after the other."""
    n = len(u)
    return [sum(sorted(((a - b) ** 2).sum() for j, b in enumerate(u) if j != i)[: n - f - 2]) for i, a in enumerate(u)]


def iterated(u, f):
    left, picks = list(range(len(u))), []
    while len(picks) < len(u) - 2 * f:
        scores = []
        for i in left:
            near = sorted(((u[i] - u[j]) ** 2).sum() for j in left if j != i)
            scores.append(sum(near[: max(1, len(left) - f - 2)]))
        picks.append(left.pop(int(np.argmin(scores))))
    return picks


def let_through(rule, u, crafted):
    """Whether a rule that selects takes what the attackers want it to take."""
    every = np.concatenate([u, np.tile(crafted, (M, 1))])
    if rule == "bulyan":
        return sum(i >= len(u) for i in iterated(every, M)) == M
    scores = np.array(krum_order(every, M))
    if rule == "krum":
        return scores[len(u) :].min() < scores[: len(u)].min()
    return bool((scores.argsort(kind="stable")[: len(every) - M] >= len(u)).sum() == M)


def moved(rule, u, crafted):
    every = np.sort(np.concatenate([u, np.tile(crafted, (M, 1))]), axis=0)
    aggregate = np.median(every, axis=0) if rule == "median" else every[M:-M].mean(axis=0)
    return np.linalg.norm(aggregate - u.mean(axis=0))


@pytest.mark.parametrize("rule", ["krum", "multi_krum", "bulyan"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_rule_selects_the_upload_and_not_one_a_hundredth_farther_out(rule, kind):
    honest = rows(seed=1)
    u = honest.numpy()
    upload, gamma, damage = agr_tailored(honest, rule=rule, num_attackers=M, perturbation=kind)
    assert gamma == damage > 0
    np.testing.assert_allclose(upload.numpy(), u.mean(axis=0) + gamma * direction(u, kind), rtol=1e-9, atol=1e-12)
    assert let_through(rule, u, upload.numpy())
    assert not let_through(rule, u, u.mean(axis=0) + 1.01 * gamma * direction(u, kind))


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_aggregate_is_moved_as_far_as_any_gamma_of_a_fine_grid_moves_it(rule, kind):
    honest = rows(seed=2)
    u = honest.numpy()
    upload, _, damage = agr_tailored(honest, rule=rule, num_attackers=M, perturbation=kind)
    assert damage == pytest.approx(moved(rule, u, upload.numpy()), rel=1e-9)
    scale = np.linalg.norm(u - u.mean(axis=0), axis=1).max() / np.linalg.norm(direction(u, kind))
    grid = [moved(rule, u, u.mean(axis=0) + g * scale * direction(u, kind)) for g in np.geomspace(0.01, 20, 80)]
    assert damage >= 0.97 * max(grid)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_order_scale_and_shift(rule, kind):
    honest = rows(seed=3)
    plain = agr_tailored(honest, rule=rule, num_attackers=M, perturbation=kind).upload
    torch.testing.assert_close(
        agr_tailored(honest.flip(0), rule=rule, num_attackers=M, perturbation=kind).upload, plain
    )
    for scale in (1e-20, 1e15):
        scaled = agr_tailored(scale * honest, rule=rule, num_attackers=M, perturbation=kind).upload
        torch.testing.assert_close(scaled / scale, plain, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("h", "m", "f"), [(1, 1, None), (2, 5, None), (9, 3, 0), (9, 3, 9), (3, 3, 40)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e37])
def test_odd_rounds_give_finite_uploads(rule, h, m, f, scale):
    honest = (scale * rows(h).float()).clamp(-3e38, 3e38)
    upload, gamma, _ = agr_tailored(honest, rule=rule, num_attackers=m, num_byzantine=f)
    assert upload.isfinite().all()
    assert math.isfinite(gamma)
    assert upload.dtype == torch.float32


@pytest.mark.parametrize("rule", ["trimmed_mean", "median"])
def test_it_moves_the_rule_that_it_knows_farther_than_min_max_does(rule):
    honest = rows(seed=4)
    tailored = agr_tailored(honest, rule=rule, num_attackers=M)
    assert tailored.damage >= moved(rule, honest.numpy(), min_max(honest)[0].numpy())


def test_halving_finds_edges_below_twice_its_start_and_gives_up_where_nothing_does_damage():
    for edge in (0.001, 0.7, 10.0, 19.9):
        gamma, damage = largest_damage(lambda g, e=edge: g if g <= e else -math.inf, start=10.0, tolerance=1e-6)
        assert gamma == damage == pytest.approx(edge, abs=1e-4)
        assert gamma <= edge
    assert largest_damage(lambda g: -math.inf, start=10.0, tolerance=1e-5) == (0.0, 0.0)
    assert largest_damage(lambda g: math.nan, start=10.0, tolerance=1e-5) == (0.0, 0.0)


def test_refuses_settings_that_cannot_work():
    for settings in (
        {"rule": "mean"},
        {"start": 0.0},
        {"tolerance": 0.0},
        {"perturbation": "up"},
        {"num_attackers": 0},
    ):
        with pytest.raises(ConfigError, match="agr_tailored"):
            agr_tailored(rows(), **{"rule": "krum", "num_attackers": M, **settings})
