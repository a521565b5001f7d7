"""Hooks around each step of local training."""

import numpy as np
import pytest
import torch
from torch import nn

from flsec.client_apps import TorchClient
from flsec.client_apps._half_tools import round_generator, step_hook
from flsec.data import ArrayDataset, training_data
from flsec.errors import ConfigError
from flsec.training import StepHook, Training, get_weights, train

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def network():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 2))


def trained(hooks, **settings):
    model = network()
    training = Training(**{"learning_rate": 0.3, "momentum": 0.5, "epochs": 2, "batch_size": 8, **settings})
    train(model, X, Y, training, round=2, generator=torch.Generator().manual_seed(2), hooks=hooks)
    return get_weights(model)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


class Spy(StepHook):
    def __init__(self):
        self.calls = []

    def before_step(self, model, gradients):
        assert not torch.is_grad_enabled()
        self.calls.append(("before", [p.clone() for p in model.parameters()], gradients))
        return gradients

    def after_step(self, model, gradients, learning_rate):
        self.calls.append(("after", [p.clone() for p in model.parameters()], learning_rate))


def test_a_hook_that_does_nothing_changes_nothing():
    assert same(trained([StepHook(), Spy()]), trained([]))


def test_a_hook_sees_each_step_before_and_after():
    spy = Spy()
    trained([spy], momentum=0.0, schedule="inverse_sqrt")
    rate = 0.3 / 2**0.5
    assert [name for name, *_ in spy.calls] == ["before", "after"] * 6  # two passes of three batches
    for (_, start, gradients), (_, end, told) in zip(spy.calls[::2], spy.calls[1::2], strict=True):
        assert told == pytest.approx(rate)
        for a, g, b in zip(start, gradients, end, strict=True):
            torch.testing.assert_close(b, a - rate * g)


def test_hooks_change_gradients_in_turn_and_parameters_after_the_step():
    class Times(StepHook):
        def __init__(self, factor):
            self.factor = factor

        def before_step(self, model, gradients):
            return [g * self.factor for g in gradients]

    class Plus(Times):
        def before_step(self, model, gradients):
            return [g + self.factor for g in gradients]

    class Back(StepHook):
        def before_step(self, model, gradients):
            self.start = [p.clone() for p in model.parameters()]
            return gradients

        def after_step(self, model, gradients, learning_rate):
            for p, start in zip(model.parameters(), self.start, strict=True):
                p.copy_(start)

    for a, b in zip(trained([Times(0.5)]), trained([], learning_rate=0.15), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert same(trained([Times(0.0), Plus(1.0)]), trained([Times(0.0), Times(7.0), Plus(1.0)]))
    assert not same(trained([Plus(1.0), Times(0.0)]), trained([Times(0.0), Plus(1.0)]))
    weights, start = trained([Back()]), get_weights(network())
    assert np.array_equal(weights[0], start[0])
    assert np.array_equal(trained([Times(0.0)])[0], start[0])


def test_a_client_calls_its_hooks_for_as_long_as_they_are_there():
    data = ArrayDataset(X.numpy(), Y.numpy())
    client = TorchClient(network(), data, Training(learning_rate=0.3, batch_size=8), client_id=3, seed=1)
    spy, other = Spy(), Spy()
    start = get_weights(network())
    plain = client.fit(start, {"server-round": 1})[0]
    with step_hook(client, other, "me"), step_hook(client, spy, "me"):
        assert client.step_hooks == (other, spy)
        assert same(client.fit(start, {"server-round": 1})[0], plain)
    assert client.step_hooks == ()
    assert len(spy.calls) == len(other.calls) == 6
    with pytest.raises(RuntimeError), step_hook(client, spy, "me"):
        raise RuntimeError
    assert client.step_hooks == ()
    with (
        pytest.raises(ConfigError, match=r"me acts on .* object has no step_hooks.*TorchClient"),
        step_hook(object(), spy, "me"),
    ):
        pass


def test_random_numbers_are_a_clients_own_and_a_rounds_own():
    class Client:
        client_id = 3

    def draw(client_id=3, round=4, seed=5, name="noise"):
        client = Client()
        client.client_id = client_id
        return torch.rand(3, generator=round_generator(client, {"server-round": round}, seed, name)).tolist()

    assert draw() == draw()
    others = [draw(client_id=4), draw(round=5), draw(seed=6), draw(name="other")]
    assert len({tuple(numbers) for numbers in [draw(), *others]}) == 5
    for nobody, config in ((object(), {"server-round": 1}), (Client(), {})):
        with pytest.raises(ConfigError, match="noise draws other random numbers"):
            round_generator(nobody, config, 5, "noise")


def test_inputs_come_from_any_form_of_training_data():
    dataset = ArrayDataset(X.numpy(), Y.numpy())
    plain = [(x, int(y)) for x, y in zip(X, Y, strict=True)]
    forms = [(X, Y), (X.numpy(), Y.numpy()), dataset, plain, torch.utils.data.DataLoader(dataset, batch_size=3)]
    positions = torch.tensor([4, 0, 19])
    for data in forms:
        assert len(training_data(data)) == 20
        assert torch.equal(training_data(data).tensors(positions.numpy())[0], X[positions])
