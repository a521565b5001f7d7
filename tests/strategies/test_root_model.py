import warnings

import numpy as np
import pytest
import torch
from torch import nn

from flsec.errors import ConfigError
from flsec.state_arrays import state_by_name
from flsec.strategies._root_model import RootModel, check_examples
from flsec.training import Training
from tests.support.tiny_rounds import CLASSES, FEATURES, Network, cohort, descend, errors_at, examples, loss_at, start

D = FEATURES * CLASSES + CLASSES
TRAINING = Training(learning_rate=0.1, steps=4, batch_size=8)


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_evaluates_the_global_model_plus_the_update(seed):
    c, update, (x, y) = cohort(draw(seed, 2, D)), draw(seed + 10, D), examples(seed)
    result = RootModel(Network).evaluate(c, update, (x, y))
    assert result.loss == pytest.approx(float(loss_at(c.global_parameters + update, x, y)), rel=1e-5)
    assert 1 - result.accuracy == pytest.approx(errors_at(c.global_parameters + update, x, y))


@pytest.mark.parametrize("steps", [1, 5])
def test_trains_as_gradient_descent_from_the_global_parameters(steps):
    c, data = cohort(draw(0, 1, D)), examples(3, n=20)
    root = RootModel(Network, training=Training(learning_rate=0.2, epochs=9, batch_size=4))
    update = root.train(c, data, purpose="test", steps=steps, batch_size=20)
    np.testing.assert_allclose(update, descend(c.global_parameters, *data, 0.2, steps), rtol=1e-4, atol=1e-6)


def test_steps_and_batches_are_those_of_the_training_unless_given():
    c, data = cohort(draw(0, 1, D)), examples(3, n=20)
    three_epochs = RootModel(Network, training=Training(learning_rate=0.2, epochs=3, batch_size=1.0))
    expected = descend(c.global_parameters, *data, 0.2, 3)
    np.testing.assert_allclose(three_epochs.train(c, data, purpose=""), expected, rtol=1e-4, atol=1e-6)


def test_follows_the_learning_rate_schedule():
    training = Training(learning_rate=0.2, steps=1, batch_size=1.0, schedule="triangular")
    data = examples(3, n=20)
    root = RootModel(Network, training=training, num_rounds=10)
    for round_ in (1, 2, 7):
        c = cohort(draw(0, 1, D), round=round_)
        rate = training.learning_rate_at(round_, 10)
        expected = descend(c.global_parameters, *data, rate, 1)
        np.testing.assert_allclose(root.train(c, data, purpose=""), expected, rtol=1e-4, atol=1e-6)


def test_batches_depend_on_seed_round_client_and_purpose_and_on_nothing_else():
    data = examples(3)

    def update(seed=0, round=1, client=5, purpose="a", before=0):
        root = RootModel(Network, training=TRAINING, seed=seed)
        for i in range(before):
            root.train(cohort(draw(0, 1, D), round=9), data, client=i, purpose="other")
            root.evaluate(cohort(draw(0, 1, D)), draw(1, D), data)
        return root.train(cohort(draw(0, 1, D), round=round), data, client=client, purpose=purpose)

    assert torch.equal(update(), update(before=3))
    for other in ({"seed": 1}, {"round": 2}, {"client": 6}, {"purpose": "b"}):
        assert not torch.equal(update(), update(**other)), other


class Noisy(Network):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        return super().forward(self.drop(x))


def test_leaves_global_randomness_alone_and_does_not_depend_on_it():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        root = RootModel(Noisy, training=TRAINING)
        c = cohort(draw(0, 1, D), model=Noisy)
        results.append(root.train(c, examples(3), purpose="test"))
        root.evaluate(c, results[0], examples(3))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*results)


def normalised():
    return Network(normalise=True)


def num_weights(model):
    arrays = start(model)
    state = state_by_name(arrays)
    return sum(a.size for i, a in enumerate(arrays.values()) if a.dtype.kind == "f" and i not in state)


def test_statistics_and_counters_are_no_part_of_the_update_and_are_those_that_clients_started_from():
    d = num_weights(normalised)
    c = cohort(torch.zeros(1, d), model=normalised)
    assert c.layout.size == d
    root, (x, y) = RootModel(normalised, training=TRAINING), examples(3)
    first = root.train(c, (x, y), purpose="test", steps=1, batch_size=len(x))
    assert first.shape == (d,)
    assert torch.equal(first, root.train(c, (x, y), purpose="test", steps=1, batch_size=len(x)))  # nothing is left over
    usual = root.evaluate(c, torch.zeros(d), (x, y)).loss
    state = [np.full(a.shape, 100, a.dtype) for a in c.global_state]  # means of 100: all inputs look alike
    moved = root.evaluate(c.replace(global_state=tuple(state)), torch.zeros(d), (x, y)).loss
    assert abs(moved - usual) > 0.1


@pytest.mark.parametrize("value", [1e30, -3e38, torch.inf, torch.nan])
def test_an_overflowing_update_evaluates_to_something_without_a_fuss(value):
    def half():
        return Network().half()

    for model in (Network, normalised, half):
        d = num_weights(model)
        c = cohort(torch.zeros(1, d), model=model)
        x, y = examples(3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            x = x.half() if model is half else x
            loss = RootModel(model).evaluate(c, torch.full((d,), value), (x, y)).loss
        assert not loss < 1.0


def test_refuses_a_factory_of_something_else():
    with pytest.raises(ConfigError, match="model_factory must return"):
        RootModel(lambda: "network")
    c = cohort(draw(0, 1, D))
    with pytest.raises(ConfigError, match="model_factory builds a model of 7 arrays; the clients train one of 2"):
        RootModel(normalised).evaluate(c, draw(0, D), examples(0))
    with pytest.raises(ConfigError, match=r"the first that differs of shape \(2, 6\)"):
        RootModel(lambda: nn.Sequential(nn.Linear(6, 2))).evaluate(c, draw(0, D), examples(0))


def test_refuses_to_train_without_training():
    with pytest.raises(ConfigError, match="training is needed"):
        RootModel(Network).train(cohort(draw(0, 1, D)), examples(0), purpose="test")
    with pytest.raises(ConfigError, match=r"must be a flsec.training.Training; got \{'learning_rate': 0.1\}"):
        RootModel(Network, training={"learning_rate": 0.1})


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(3, 2), torch.zeros(2)),
        (torch.zeros(0, 2), torch.zeros(0)),
        (torch.zeros(()), torch.zeros(())),
        (torch.zeros(3, 2), torch.zeros(())),
    ],
)
def test_examples_need_one_label_each(x, y):
    with pytest.raises(ConfigError, match="root_data must be"):
        check_examples((x, y), "root_data")
    check_examples((torch.zeros(3, 2), torch.zeros(3)), "root_data")
