import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.errors import ConfigError
from flsec.models import build_model
from flsec.randomness import generator
from flsec.reconstruction import reveal_labels
from flsec.reconstruction.labels import _LastLayer, _occurring, _whole
from flsec.training import Training, evaluate, train
from tests.reconstruction.problems import SHAPE, examples, gradients_of, lenet

CLASSES = 62  # as many as there are digits and letters


def network(name: str, seed: int, num_classes: int = CLASSES) -> nn.Module:
    return build_model(name, SHAPE, num_classes, seed=seed).eval()


def images(n: int, seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return examples(torch.randint(1400, (n,), generator=rng).tolist())[0]


def reveal(model: nn.Module, x: Tensor, y: Tensor, num_classes: int = CLASSES):
    form = {"input_shape": SHAPE, "num_classes": num_classes, "batch_size": len(y)}
    return reveal_labels(model, gradients_of(model, x, y), **form)


untrained = pytest.mark.parametrize("name", ["dlg_lenet", "mlp", "fedinv_cnn", "resnet_gn", "softmax"])


@untrained
@pytest.mark.parametrize("batch_size", [8, 32])
def test_distinct_labels_of_untrained_networks_exactly(name: str, batch_size: int) -> None:
    y = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(batch_size))[:batch_size]
    revealed = reveal(network(name, 1), images(batch_size, 2), y)
    assert revealed.labels.tolist() == sorted(y.tolist())
    assert torch.equal(revealed.counts, torch.bincount(y, minlength=CLASSES))


@untrained
def test_repeated_labels_of_untrained_networks(name: str) -> None:
    y = torch.tensor([7, 7, 7, 7, 7, 50, 50, 3, 61, 61])
    revealed = reveal(network(name, 1), images(10, 3), y)
    assert revealed.labels.tolist() == sorted(y.tolist())
    assert revealed.estimates.sum().item() == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("name", ["mlp", "fedinv_cnn", "softmax"])
def test_batches_larger_than_the_number_of_classes(name: str) -> None:
    y = torch.tensor([0] * 20 + [1] * 3 + [2] * 9 + [4] * 8)  # class 3 does not occur
    revealed = reveal(network(name, 1, 5), images(40, 4), y, num_classes=5)
    assert (revealed.counts - torch.tensor([20, 3, 9, 0, 8])).abs().sum() <= 2  # one label on the wrong class
    assert revealed.counts.sum() == 40


@pytest.mark.parametrize("label", range(0, 10, 3))
@pytest.mark.parametrize("trained", [False, True])
def test_one_label_always(label: int, trained: bool) -> None:
    model = lenet(seed=label)
    if trained:  # until it is sure of something else
        with torch.no_grad():
            model.layers[-1].bias[(label + 1) % 10] += 8.0
    y = torch.tensor([label])
    assert reveal(model, images(1, label), y, num_classes=10).labels.tolist() == [label]


def test_the_sign_matters() -> None:
    model, x, y = lenet(), images(1, 0), torch.tensor([4])
    form = {"input_shape": SHAPE, "num_classes": 10}
    negated = [-g for g in gradients_of(model, x, y)]
    assert reveal_labels(model, negated, **form).labels.tolist() != [4]


def test_the_set_of_classes_on_a_trained_network() -> None:
    """Where the predictions at mean features say little, the linear programs still tell the classes apart."""
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(CLASSES).repeat(10)
    x = torch.randn(CLASSES, *SHAPE, generator=rng)[y] + 2.5 * torch.randn(len(y), *SHAPE, generator=rng)
    model = network("mlp", 3)
    train(model, x, y, Training(learning_rate=0.1, epochs=4, batch_size=31), round=1, generator=generator(1))
    assert evaluate(model, x, y).accuracy > 0.5  # by chance 0.016
    exact = exact_by_sign = 0
    for _ in range(5):
        rows = torch.randperm(CLASSES, generator=rng)[:16]  # one of each class
        truth = sorted(y[rows].tolist())
        exact += reveal(model, x[rows], y[rows]).labels.tolist() == truth
        exact_by_sign += (gradients_of(model, x[rows], y[rows])[-1] < 0).nonzero().flatten().tolist() == truth
    assert exact == 5
    assert exact_by_sign <= 2


def test_needs_no_bias_and_sees_through_what_follows_the_layer() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.hidden, self.out = nn.Linear(64, 100), nn.Linear(100, CLASSES, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return 0.125 * self.out(self.hidden(x.flatten(1)).relu())

    y = torch.tensor([5, 9, 9, 9, 40, 41])
    model = Scaled()
    assert reveal(model, images(6, 6), y).labels.tolist() == y.tolist()
    assert reveal(model, images(1, 6), y[:1]).labels.tolist() == [5]


def test_contributions_are_the_gradients_of_single_examples() -> None:
    model = network("fedinv_cnn", 2, 5).double()
    x = images(5, 7).double()
    y = torch.arange(5)
    layer = _LastLayer(model, gradients_of(model, x, y), SHAPE, 5)
    features = model.layers[:9](x).detach().numpy()  # what the last linear layer is given
    columns = layer.contributions(features)
    for c in range(5):
        alone = gradients_of(model, x[c : c + 1], y[c : c + 1])[-1]
        np.testing.assert_allclose(columns[:, c], alone, atol=1e-12)
    np.testing.assert_allclose(layer.bias_gradient, columns.mean(axis=1), atol=1e-12)


def test_every_class_that_occurs_can_be_told_apart() -> None:
    """The linear program has a solution for each of them, whatever the predictions and features are."""
    rng = np.random.default_rng(0)
    for _ in range(5):
        labels = rng.integers(0, 40, 6)
        probabilities = rng.dirichlet(np.full(40, 0.3), size=6)
        probabilities[np.arange(6), labels] -= 1
        occurring = _occurring(probabilities.T @ rng.normal(size=(6, 50)), np.zeros(40, dtype=bool), 6)
        assert set(labels) <= set(occurring)
        assert len(occurring) < 15


def test_whole_counts_keep_the_sum() -> None:
    assert _whole(np.array([2.2, 0.0, 0.9, -1.0]), 3, []).tolist() == [2, 0, 1, 0]
    assert _whole(np.zeros(4), 2, []).sum() == 2
    assert _whole(np.array([4.0, 9.0, 0.1, 0.0]), 4, [2, 0, 3]).tolist() == [2, 0, 1, 1]  # each that occurs, once
    assert _whole(np.array([0.4, 9.0, 0.9, 0.7]), 2, [3, 0, 2]).tolist() == [1, 0, 0, 1]  # too many: the clearest


def test_changes_neither_model_nor_random_state() -> None:
    model, y = network("mlp", 0), torch.tensor([3, 4])
    model.train()
    before, state = torch.random.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    reveal(model, images(2, 8), y)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("model", "num_classes", "words"),
    [
        (nn.Sequential(nn.Conv2d(1, 10, 8), nn.Flatten()), 10, "the model has none"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), 9, "num_classes=9 outputs.*with 10 outputs"),
    ],
)
def test_refuses_networks_without_a_last_linear_layer(model: nn.Module, num_classes: int, words: str) -> None:
    observed = torch.autograd.grad(cross_entropy(model(images(1, 0)), torch.tensor([1])), list(model.parameters()))
    with pytest.raises(ConfigError, match=words):
        reveal_labels(model, observed, input_shape=SHAPE, num_classes=num_classes)
