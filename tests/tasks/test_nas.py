"""Gradients of weights and of the architecture, each computed apart."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from flsec.errors import ConfigError
from flsec.models import MLP, build_model
from flsec.tasks import CLASSIFICATION, NAS
from flsec.training import Training, evaluate, train


def model():
    network = build_model("darts_cell", (1, 5, 5), 3, seed=1, nodes=2, cells=2, channels=3).double()
    with torch.no_grad():
        network.alpha.copy_(torch.randn(network.alpha.shape, generator=torch.Generator().manual_seed(4)))
    return network


def batch(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, 5, 5, generator=generator, dtype=torch.float64), torch.arange(n) % 3


def gradients_of(loss, network):
    names = dict(network.named_parameters())
    return dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("n", [8, 9])
def test_weights_follow_the_first_half_and_the_architecture_both(weight, n):
    network, (x, y) = model(), batch(n)
    loss = NAS(validation_weight=weight).batch_loss(network, x, y)
    got = gradients_of(loss, network)
    cut = (n + 1) // 2
    first, second = (cross_entropy(network(x[half]), y[half]) for half in (slice(0, cut), slice(cut, None)))
    on_first, on_second = gradients_of(first, network), gradients_of(second, network)
    for name, gradient in got.items():
        expected = on_first[name] + weight * on_second[name] if name == "alpha" else on_first[name]
        torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-14)
    assert float(loss) == pytest.approx(float(first + weight * second), rel=1e-12)
    assert on_second["alpha"].any()


def test_a_batch_of_one_example_trains_both():
    network, (x, y) = model(), batch(1)
    got = gradients_of(NAS().batch_loss(network, x, y), network)
    expected = gradients_of(cross_entropy(network(x), y), network)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_training_learns_weights_and_architecture_of_separable_data():
    network = model().float()
    before = network.alpha.detach().clone()
    x = torch.zeros(60, 1, 5, 5)
    y = torch.arange(60) % 3
    for image, label in zip(x, y.tolist(), strict=True):
        image[0, :, label : label + 2] = 1.0 + label
    settings = Training(learning_rate=0.2, momentum=0.9, epochs=20, batch_size=12)
    train(network, x, y, settings, round=1, generator=torch.Generator().manual_seed(0), task=NAS())
    assert evaluate(network, x, y, task=NAS()).accuracy > 0.95
    assert (network.alpha - before).abs().max() > 0.01


def test_refusals():
    with pytest.raises(ConfigError, match="validation_weight") as caught:
        NAS(validation_weight=-1.0)
    assert "task 'nas'" in str(caught.value)
    with pytest.raises(ConfigError, match=r"method architecture_parameters\(\) for the task nas.*darts_cell"):
        NAS().check_model(MLP((1, 5, 5), 3), torch.zeros(2, 1, 5, 5), 3)
    with pytest.raises(ConfigError, match="one number a class"):
        NAS().check_model(model().float(), torch.zeros(2, 1, 5, 5), 4)
    assert NAS().takes_data_of(CLASSIFICATION)
