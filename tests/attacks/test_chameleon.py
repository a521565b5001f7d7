"""Chameleon: the contrastive loss by its definition, and which layers each phase changes."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flsec.attacks import chameleon, classifier_of, contrastive_loss
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import Training, get_weights, set_weights, train
from tests.client_apps.toys import same

SHAPE, CLASSES = (1, 4, 4), 3
TRAINING = Training(learning_rate=0.1, batch_size=8)


def by_definition(features, labels, temperature, target, weight):
    z = features / np.linalg.norm(features, axis=1, keepdims=True)
    total = 0.0
    for i in range(len(z)):
        partners = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        if not partners:
            continue
        everything = sum(math.exp(z[i] @ z[a] / temperature) for a in range(len(z)) if a != i)
        own = -sum(math.log(math.exp(z[i] @ z[p] / temperature) / everything) for p in partners) / len(partners)
        total += own * (weight if labels[i] == target else 1)
    return total / len(z)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("weight", [1.0, 6.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_its_definition(temperature, weight, seed):
    random = np.random.default_rng(seed)
    features, labels = random.standard_normal((12, 5)), random.integers(0, 4, 12)
    loss = contrastive_loss(
        torch.from_numpy(features), torch.from_numpy(labels), temperature=temperature, target=2, weight=weight
    )
    assert float(loss) == pytest.approx(by_definition(features, labels, temperature, 2, weight), rel=1e-9)


def test_a_lone_anchor_and_a_lone_sample_cost_nothing_and_have_a_gradient():
    for labels in ([0], [0, 1], [0, 1, 2]):
        features = torch.randn(len(labels), 3, requires_grad=True)
        loss = contrastive_loss(features, torch.tensor(labels))
        loss.backward()
        assert float(loss.detach()) == 0
        assert features.grad.isfinite().all()


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[8])


def data():
    x = torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(0))
    y = torch.arange(24) % CLASSES
    x[torch.arange(24), 0, y] += 1.0
    return x, y


def trained(model=None, **settings):
    given = {"target": 1, "round": 2, "generator": torch.Generator().manual_seed(4), **settings}
    return chameleon(model or network(), *data(), TRAINING, **given)


def test_the_second_phase_leaves_the_encoder_where_the_first_has_put_it():
    start = get_weights(network())
    short, long = trained(classifier_epochs=1), trained(classifier_epochs=5)
    assert same(short[:2], long[:2])
    assert not same(short[:2], start[:2])
    assert not same(short[2:], long[2:])


def test_the_first_phase_leaves_the_classifier_alone(monkeypatch):
    seen = []

    def watched(model, *args, **settings):
        before = get_weights(model)
        outcome = train(model, *args, **settings)
        seen.append([not np.array_equal(a, b) for a, b in zip(get_weights(model), before, strict=True)])
        return outcome

    monkeypatch.setattr(sys.modules["flsec.attacks.chameleon"], "train", watched)
    trained()
    assert seen == [[True, True, False, False], [False, False, True, True]]


def test_features_of_a_label_come_together():
    def spread(arrays):
        model = network()
        set_weights(model, arrays)
        x, y = data()
        seen = []
        classifier_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
        model(x)
        return float(contrastive_loss(seen[0], y, temperature=0.5))

    assert spread(trained(contrastive_epochs=20)) < spread(get_weights(network())) - 0.1


def test_nothing_is_changed_in_place_and_two_calls_agree():
    model = network()
    assert same(trained(model), trained(model))
    assert same(get_weights(model), get_weights(network()))
    assert all(p.requires_grad for p in model.parameters())


def test_a_network_without_an_encoder_is_refused():
    for model in (build_model("softmax", SHAPE, CLASSES, seed=1), nn.Flatten()):
        with pytest.raises(ConfigError, match="chameleon trains the features in front of a last linear layer"):
            trained(model)
