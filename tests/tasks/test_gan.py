"""Each network's own gradient, measures by hand, and a federation on digits with an attack and a defense."""

import copy

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from flsec.errors import ConfigError
from flsec.models import MLPGAN, build_model
from flsec.simulations import engine
from flsec.simulations.config import make_config
from flsec.tasks import GAN
from flsec.tasks._frechet import frechet_distance, moments
from flsec.training import Training, evaluate, train


def model(**settings):
    return build_model("mlp_gan", (1, 4, 4), 2, seed=3, latent_size=5, hidden=7, **settings).double()


def images(n=9, seed=0):
    return torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_network_gets_its_own_gradient_and_none_of_the_other_s():
    gan, x = model(), images()
    with torch.random.fork_rng():
        torch.manual_seed(11)
        loss = GAN().batch_loss(gan, x, torch.zeros(9, dtype=torch.int64))
        gradients = dict(
            zip(dict(gan.named_parameters()), torch.autograd.grad(loss, list(gan.parameters())), strict=True)
        )
        torch.manual_seed(11)
        noise = torch.randn(9, 5, dtype=torch.float64)
    fixed = gan.generator(noise).detach()
    judged = torch.cat([gan.discriminator(x), gan.discriminator(fixed)])
    truth = torch.cat([torch.ones(9), torch.zeros(9)]).double()
    discriminator_loss = 2 * cross_entropy(judged, truth)  # a mean over each kind
    for_discriminator = torch.autograd.grad(discriminator_loss, list(gan.discriminator.parameters()))
    frozen = copy.deepcopy(gan.discriminator).requires_grad_(False)
    generator_loss = cross_entropy(frozen(gan.generator(noise)), torch.ones(9).double())
    for_generator = torch.autograd.grad(generator_loss, list(gan.generator.parameters()))
    for network, expected in (("discriminator", for_discriminator), ("generator", for_generator)):
        own = [gradient for name, gradient in gradients.items() if name.startswith(network)]
        for got, by_hand in zip(own, expected, strict=True):
            torch.testing.assert_close(got, by_hand, rtol=1e-10, atol=1e-14)
            assert by_hand.any()
    assert loss.item() == pytest.approx((discriminator_loss + generator_loss).item(), rel=1e-12)


def test_measures_by_hand():
    gan, x = model(), images(40)
    result = evaluate(gan, x, torch.zeros(40, dtype=torch.int64), batch_size=7, task=GAN())
    with torch.no_grad():
        fakes = gan.generator(torch.randn(1024, 5, generator=torch.Generator().manual_seed(0)).double())
        real, fake = gan.discriminator(x), gan.discriminator(fakes)
    assert result.accuracy == pytest.approx(float((real > 0).double().mean() + (fake <= 0).double().mean()) / 2)
    losses = cross_entropy(real, torch.ones(40).double()), cross_entropy(fake, torch.zeros(1024).double())
    assert result.measures["discriminator_loss"] == pytest.approx(float(sum(losses)))
    generator_loss = float(cross_entropy(fake, torch.ones(1024).double()))
    assert result.measures["generator_loss"] == pytest.approx(generator_loss)
    assert result.loss == pytest.approx(float(sum(losses)) + generator_loss)
    distance = by_scipy(x.flatten(1).numpy(), fakes.flatten(1).numpy())
    assert result.measures["pixel_frechet_distance"] == pytest.approx(distance, rel=1e-6)


def by_scipy(first, second):
    """The squared Frechet distance with biased covariances, and scipy's root of the product."""
    means = first.mean(axis=0), second.mean(axis=0)
    covariances = np.cov(first.T, bias=True), np.cov(second.T, bias=True)
    root = sqrtm(covariances[0] @ covariances[1]).real
    return ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_agrees_with_scipy_and_knows_the_easy_cases(seed):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(50, 4)), rng.normal(size=(60, 4)) @ rng.normal(size=(4, 4)) + 1
    ours = frechet_distance(*(moments(torch.from_numpy(points)) for points in (first, second)))
    assert ours == pytest.approx(by_scipy(first, second), rel=1e-8)
    same = moments(torch.from_numpy(first))
    assert frechet_distance(same, same) == pytest.approx(0, abs=1e-10)
    point = moments(torch.from_numpy(first).mean(dim=0, keepdim=True))
    assert frechet_distance(same, point) == pytest.approx(first.var(axis=0).sum())  # to one image: all the variance


def test_a_model_that_is_not_finite_has_no_distance():
    gan = model()
    torch.nn.init.constant_(gan.generator[0].weight, torch.nan)
    result = evaluate(gan, images(), torch.zeros(9, dtype=torch.int64), task=GAN())
    assert np.isnan(result.measures["pixel_frechet_distance"])
    assert 0 <= result.accuracy <= 1


def test_larger_images_are_judged_by_coarse_pixels():
    gan = build_model("mlp_gan", (3, 20, 18), 2, seed=0, hidden=4)
    x = torch.rand(5, 3, 20, 18)
    assert GAN().outputs(gan, x).real_pixels.shape == (5, 3 * 8 * 8)


def test_noise_is_drawn_anew_for_each_batch_and_the_same_for_each_evaluation():
    gan, x, y = model().float(), images().float(), torch.zeros(9, dtype=torch.int64)
    results = [evaluate(gan, x, y, task=GAN()).measures for _ in range(2)]
    assert results[0] == results[1]
    losses = [
        train(copy.deepcopy(gan), x, y, Training(learning_rate=1e-9), round=1, task=GAN(), generator=generator).loss
        for generator in (torch.Generator().manual_seed(seed) for seed in (0, 0, 1))
    ]
    assert losses[0] == losses[1] != losses[2]


class OtherLatent(MLPGAN):
    """A generator that wants other noise than it says."""

    def __init__(self):
        super().__init__((1, 4, 4), 2)
        self.generator = torch.nn.Sequential(torch.nn.Linear(32, 9), torch.nn.Unflatten(1, (1, 3, 3)))


@pytest.mark.parametrize(
    ("network", "shape", "words"),
    [
        (torch.nn.Flatten(), (2, 1, 4, 4), "it has no generator. For example: mlp_gan"),
        (MLPGAN((1, 4, 4), 2), (2, 16), r"needs images \(channels, height, width\) for the task gan; got \(16,\)"),
        (OtherLatent(), (2, 1, 4, 4), r"generator that returns \(2, 1, 4, 4\) for two samples; got \(2, 1, 3, 3\)"),
    ],
)
def test_a_model_that_cannot_generate_such_images_is_refused(network, shape, words):
    with pytest.raises(ConfigError, match=words):
        GAN().check_model(network, torch.zeros(shape), 2)


# --- a federation -----------------------------------------------------------------------------------------------

FEDERATION = {
    "seed": 1,
    "data": {"name": "digits"},
    "task": {"name": "gan"},
    "model": {"name": "mlp_gan", "latent_size": 16, "hidden": 64},
    "training": {"learning_rate": 0.3, "steps": 20, "batch_size": 16},
    "simulation": {"engine": "inprocess", "num_clients": 10, "num_rounds": 8},
}
ATTACK = {"attacks": [{"name": "random_attack", "scale": 10.0}], "adversaries": {"count": 2}}
DEFENSE = {"defenses": [{"name": "multi_krum", "num_byzantine": 2}]}


def test_digits_come_nearer_a_random_attack_ruins_them_and_multi_krum_defends(tmp_path):
    """Nearer, not near: so soon the generator finds where digits are dark, but not yet how they differ."""
    output = {"folder": str(tmp_path), "plots": False, "evaluate_every": 8}
    distances = {}
    for name, sections in (("free", {}), ("attacked", ATTACK), ("defended", {**ATTACK, **DEFENSE})):
        records = engine.run(make_config({**FEDERATION, **sections, "name": name, "output": output})).rounds()
        distances[name] = [records[at]["measures"]["pixel_frechet_distance"] for at in (0, -1)]
    start = distances["free"][0]
    assert distances["free"][1] < 0.7 * start
    assert distances["attacked"][1] > start
    assert distances["defended"][1] < 0.7 * start
