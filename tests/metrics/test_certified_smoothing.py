import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from torch import nn

from flsec.errors import ConfigError
from flsec.metrics import (
    Certificate,
    certified_accuracy,
    certified_backdoor_radius,
    certify_model,
    logistic_lipschitz,
    noise_contraction,
    smoothed_votes,
    vote_bounds,
)

MNIST = {  # configs/mnist_params.yaml of the released program, with one attacker in round 10 and a boost of 10
    "attacker_weights": [1 / 20],
    "learning_rate": 0.001,
    "num_steps": 30,
    "poisoned_share": 0.05,
    "boost": 10.0,
    "lipschitz": math.sqrt(17),
}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def linear(margin):
    """Two classes; the logit of class 0 is margin * x more than that of class 1."""
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[margin], [0.0]]))
    return model


# --- votes ------------------------------------------------------------------------------------------------------


def test_votes_are_binomial_with_the_probability_of_the_noise():
    """The logits differ by (margin + e0 - e1) x: class 0 wins with probability Phi(margin / (sqrt(2) std))."""
    std, copies = 0.5, 4000
    for margin in (0.0, 0.4, -0.8):
        votes = smoothed_votes(linear(margin), torch.tensor([[1.0], [-1.0]]), std, copies, random(1))
        probability = NormalDist().cdf(margin / (math.sqrt(2) * std))
        allowed = 4 * math.sqrt(copies * 0.25)
        assert votes.sum(dim=1).tolist() == [copies, copies]
        assert abs(int(votes[0, 0]) - copies * probability) < allowed
        assert abs(int(votes[1, 1]) - copies * probability) < allowed


def test_the_model_is_not_changed_and_the_noise_comes_from_the_generator():
    model = nn.Sequential(nn.Linear(3, 5), nn.Dropout(0.5), nn.BatchNorm1d(5), nn.Linear(5, 4)).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(30, 3, generator=random(2))
    first = smoothed_votes(model, x, 0.3, 20, random(1))
    torch.manual_seed(5)
    assert torch.equal(smoothed_votes(model, x, 0.3, 20, random(1)), first)
    assert torch.equal(smoothed_votes(model, x, 0.3, 20, random(1), batch_size=7), first)
    assert not torch.equal(smoothed_votes(model, x, 0.3, 20, random(2)), first)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training


def test_statistics_get_no_noise():
    """The server perturbs weights alone; a variance of noise would be negative, and the logits NaN."""
    model = nn.BatchNorm1d(2, affine=False)  # nothing but statistics
    model.running_mean.copy_(torch.tensor([0.0, 0.1]))
    assert smoothed_votes(model, torch.tensor([[0.2, 0.2]]), 5.0, 40, random()).tolist() == [[40, 0]]


def test_without_noise_all_copies_agree_with_the_model():
    model, x = nn.Linear(3, 4), torch.randn(10, 3, generator=random(3))
    votes = smoothed_votes(model, x, 0.0, 7)
    assert torch.equal(votes.argmax(dim=1), model(x).argmax(dim=1))
    assert votes.amax(dim=1).tolist() == [7] * 10


def test_tied_weights_stay_tied():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.zero_()
    x = torch.tensor([[1.0, 0.0]])
    votes = smoothed_votes(model, x, 1.0, 400, random())
    by_hand, noise = [0, 0], random()
    for _ in range(400):
        w = torch.randn(2, 2, generator=noise, dtype=torch.float64).float()
        by_hand[int((x @ w.T @ w.T).argmax())] += 1
    assert votes.tolist() == [by_hand]


# --- bounds -----------------------------------------------------------------------------------------------------


def test_bounds_by_hand():
    """M = 200, alpha = 0.02: the margin is sqrt(ln 50 / 400) = 0.0989."""
    bounds = vote_bounds(torch.tensor([[150, 30, 20], [20, 70, 110]]), alpha=0.02)
    margin = math.sqrt(math.log(50) / 400)
    assert margin == pytest.approx(0.0989, abs=1e-4)
    np.testing.assert_allclose(bounds.top, [0.75 - margin, 0.55 - margin])
    np.testing.assert_allclose(bounds.runner_up, [0.15 + margin, 0.35 + margin])
    assert bounds.predictions.tolist() == [0, 2]


def test_hoeffdings_bound_errs_no_more_often_than_it_says_by_the_binomial_distribution():
    """Exact tail: P(votes / M - margin > p) for M = 200, alpha = 0.05, for any p."""
    copies, alpha = 200, 0.05
    tops = vote_bounds(torch.stack([torch.arange(101, 201), 200 - torch.arange(101, 201)], dim=1), alpha).top
    for p in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95):
        wrong = [k for k, top in zip(range(101, 201), tops.tolist(), strict=True) if top > p]
        tail = sum(math.comb(copies, k) * p**k * (1 - p) ** (copies - k) for k in wrong)
        assert tail <= alpha
        assert wrong or p > 0.9, "the bound is never above p: it says nothing"


def test_where_the_bounds_overlap_the_model_abstains():
    """The released program gives [500, 500, 0] a radius: there |sqrt(0.44) - sqrt(0.56)| is squared."""
    votes = torch.tensor([[500, 500, 0], [555, 445, 0], [570, 430, 0]])
    assert vote_bounds(votes).predictions.tolist() == [-1, -1, 0]
    certificate = certified_backdoor_radius(votes, **MNIST)
    assert certificate.predictions.tolist() == [-1, -1, 0]
    assert certificate.radii[:2].tolist() == [0.0, 0.0]
    assert certificate.radii[2] > 0


# --- radius -----------------------------------------------------------------------------------------------------


def test_radius_by_hand():
    """M = 1000, all votes for one class: p_A = 0.94123, p_B = 0.05877; -ln(1 - 0.52962) = 0.75419."""
    certificate = certified_backdoor_radius(torch.tensor([[1000, 0]]), **MNIST)
    by_hand = math.sqrt(0.75419 * 1e-4 / (2 * 17 * (0.05 * 10 * 30 * 0.001 * 0.05) ** 2))
    assert certificate.radii.item() == pytest.approx(by_hand, rel=1e-4)
    assert logistic_lipschitz(3.0) == pytest.approx(MNIST["lipschitz"])


def test_radius_rises_with_the_winners_votes_and_falls_with_the_runner_ups():
    votes = torch.stack([torch.tensor([a, 1000 - a, 0]) for a in range(500, 1001, 10)])
    radii = certified_backdoor_radius(votes, **MNIST).radii
    assert (radii.diff() >= 0).all()
    assert (radii.diff()[8:] > 0).all()
    split = certified_backdoor_radius(torch.tensor([[700, 300, 0], [700, 200, 100], [700, 150, 150]]), **MNIST).radii
    assert split[0] < split[1] < split[2]
    order = certified_backdoor_radius(torch.tensor([[0, 700, 300], [300, 0, 700]]), **MNIST)
    assert order.radii.tolist() == [split[0]] * 2
    assert order.predictions.tolist() == [1, 2]


def test_radius_scales_as_the_theorem_says():
    votes = torch.tensor([[900, 100]])

    def radius(**changes):
        return certified_backdoor_radius(votes, **{**MNIST, **changes}).radii.item()

    base = radius()
    assert radius(boost=20.0) == pytest.approx(base / 2)
    assert radius(num_steps=60) == pytest.approx(base / 2)
    assert radius(learning_rate=0.002) == pytest.approx(base / 2)
    assert radius(poisoned_share=0.1) == pytest.approx(base / 2)
    assert radius(lipschitz=2 * MNIST["lipschitz"]) == pytest.approx(base / 2)
    assert radius(std=0.02) == pytest.approx(2 * base)
    assert radius(attacker_weights=[1 / 20] * 3) == pytest.approx(base / 3)  # R * R: the sum, and the factor
    assert radius(attacker_weights=[0.03, 0.04]) == pytest.approx(base * 0.05 / (math.sqrt(2) * 0.05))
    assert radius(contraction=0.25) == pytest.approx(2 * base)
    assert radius(contraction=0.0) == math.inf
    assert radius(alpha=0.1) > base


def test_contraction_is_the_distance_of_gaussians_two_bounds_apart():
    """2 Phi(rho / sigma) - 1 is the total variation distance of N(0, 1) and N(2 rho / sigma, 1), here by a sum."""
    grid = np.linspace(-12, 12, 48_001)
    for ratio in (0.2, 1.0, 2.0):
        density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
        moved = np.exp(-((grid - 2 * ratio) ** 2) / 2) / math.sqrt(2 * math.pi)
        distance = np.abs(density - moved).sum() * (grid[1] - grid[0]) / 2
        assert noise_contraction([ratio * 0.3], std=0.3) == pytest.approx(distance, rel=1e-4)
        assert noise_contraction([ratio] * 3, std=1.0) == pytest.approx(distance**3, rel=1e-3)
    assert noise_contraction([]) == 1.0


# --- curve ------------------------------------------------------------------------------------------------------


def test_certified_accuracy_counts_the_right_ones_that_far():
    rng = np.random.default_rng(0)
    predictions, labels, radii = rng.integers(-1, 3, 60), rng.integers(0, 3, 60), rng.random(60)
    certificate = Certificate(torch.from_numpy(predictions), torch.from_numpy(radii))
    at = np.linspace(0, 1.1, 23)
    curve = certified_accuracy(certificate, labels, list(at))
    for value, radius in zip(curve, at, strict=True):
        right = [p == y and r >= radius for p, y, r in zip(predictions, labels, radii, strict=True)]
        assert value == pytest.approx(sum(right) / 60)
    assert all(a >= b for a, b in itertools.pairwise(curve))
    assert curve[0] > curve[10] > curve[-1] == 0


def test_abstaining_is_never_right():
    certificate = Certificate(torch.tensor([-1, 0]), torch.tensor([0.0, 0.0]))
    assert certified_accuracy(certificate, [0, 0], [0.0]) == [0.5]
    assert certified_accuracy(certificate, [-1, 0], [0.0]) == [0.5]


def test_a_trained_models_certified_accuracy_falls_with_the_radius():
    x = torch.randn(300, 2, generator=random(4)) / 2
    y = (x[:, 0] > 0).long()
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-30.0, 0.0], [30.0, 0.0]]))
        model.bias.zero_()
    settings = {**MNIST, "max_norm": 0.1, "std": 0.05, "num_copies": 300}
    certificate = certify_model(model, x, **settings)
    curve = certified_accuracy(certificate, y, [0.0, 1.0, 3.0, 6.0, 100.0])
    assert curve[0] > 0.6
    assert all(a >= b for a, b in itertools.pairwise(curve))
    assert curve[0] > curve[3]
    assert curve[-1] == 0
    assert (model.weight.abs().max() == 30).item(), "the model was changed"
    wide = certify_model(model, x, **{**settings, "max_norm": 100.0})  # without clipping noise changes nothing
    assert certified_accuracy(wide, y, [0.0])[0] > curve[0]
    again = certify_model(model, x, **settings)
    assert torch.equal(again.radii, certificate.radii)
    assert not torch.equal(certify_model(model, x, seed=1, **settings).radii, certificate.radii)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: smoothed_votes(nn.Linear(1, 2), torch.zeros(0, 1), 0.1), "no inputs"),
        (lambda: smoothed_votes(nn.Linear(1, 2), torch.zeros(1, 1), -0.1), "std"),
        (lambda: smoothed_votes(nn.Linear(1, 2), torch.zeros(1, 1), 0.1, 0), "num_copies"),
        (lambda: vote_bounds(torch.tensor([[3]])), "C at least 2"),
        (lambda: vote_bounds(torch.tensor([[0, 0]])), "at least one"),
        (lambda: vote_bounds(torch.tensor([[1, 0]]), alpha=0.0), "alpha"),
        (lambda: certified_backdoor_radius(torch.tensor([[3, 1]]), **{**MNIST, "attacker_weights": []}), "attacker"),
        (lambda: certified_backdoor_radius(torch.tensor([[3, 1]]), **{**MNIST, "std": 0.0}), "std"),
        (lambda: noise_contraction([0.0]), "max_norms"),
        (lambda: logistic_lipschitz(0.0), "max_norm"),
        (lambda: certified_accuracy(Certificate(torch.tensor([1]), torch.tensor([1.0])), [1, 2], [0.0]), "length"),
        (lambda: certify_model(nn.Linear(1, 2), torch.zeros(1, 1), **{**MNIST, "max_norm": -1.0}), "max_norm"),
    ],
)
def test_bad_arguments_are_named(call, named):
    with pytest.raises(ConfigError, match=named):
        call()
