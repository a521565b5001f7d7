"""SCAFFOLD in both APIs: Algorithm 1 in float64, with what defenses accept in the place of the mean."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from flsec._contracts.server import npy_bytes
from flsec.client_apps import scaffold_client
from flsec.errors import ConfigError
from flsec.strategies import Krum, Median, Scaffold, TrimmedMean
from flsec.strategies.cohort import Layout
from flsec.strategies.scaffold import _on_the_way
from flsec.training import Training
from tests.support.federation import CLIENTS, SERVERS, START, Federation, flat, flower, gradient

RATE, STEPS = 0.5, 3
TRAINING = Training(learning_rate=RATE, steps=STEPS, batch_size=1.0)
HALF = scaffold_client()
both_apis = pytest.mark.parametrize("api", SERVERS)


def scaffold(api, name="FedAvg", **options):
    return Scaffold(flower(api, name), **{"training": TRAINING, "num_clients": len(CLIENTS), **options})


class Algorithm1:
    """Option II, with all clients and any way to come to one update; c learns from c_i+ - c_i, as the paper has it."""

    def __init__(self, combined, eta=1.0):
        self.combined, self.eta = combined, eta
        self.x = flat(START.values())
        self.c = np.zeros_like(self.x)
        self.own = {i: np.zeros_like(self.x) for i in CLIENTS}

    def round(self):
        updates, changes = [], []
        for i in CLIENTS:
            y = self.x.copy()
            for _ in range(STEPS):
                y = y - RATE * (gradient(y, i) - self.own[i] + self.c)
            new = self.own[i] - self.c + (self.x - y) / (STEPS * RATE)
            updates.append(y - self.x)
            changes.append(new - self.own[i])
            self.own[i] = new
        self.x = self.x + self.eta * self.combined(updates)
        self.c = self.c + self.combined(changes)
        return self.x


def mean(rows):
    return np.mean(rows, axis=0)


def median(rows):
    return np.median(rows, axis=0)


@both_apis
@pytest.mark.parametrize("eta", [1.0, 0.5])
def test_four_rounds_are_algorithm_1(api, eta):
    federation, expected = Federation(api, scaffold(api, server_learning_rate=eta), HALF), Algorithm1(mean, eta)
    for number in (1, 2, 3, 4):
        np.testing.assert_allclose(federation.play([number]).model, expected.round(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(federation.server.strategy.control, expected.c, rtol=1e-4, atol=1e-6)


@both_apis
def test_the_median_around_it_is_the_median_of_updates_and_of_control_updates(api):
    """The two are the same: a median follows shifts and scales, and c_i+ - c_i is a shifted, scaled update."""
    federation, expected = Federation(api, Median(scaffold(api)), HALF), Algorithm1(median)
    for number in (1, 2, 3):
        np.testing.assert_allclose(federation.play([number]).model, expected.round(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(federation.server.strategy.strategy.control, expected.c, rtol=1e-4, atol=1e-5)


@both_apis
def test_the_first_round_is_fedavgs(api):
    def uniform(client_id, reply):
        return replace(reply, num_examples=10)

    one = Federation(api, scaffold(api), HALF).play([1])
    plain = Federation(api, flower(api), change=uniform).play([1])
    np.testing.assert_allclose(one.model, plain.model, rtol=1e-6, atol=1e-7)


@both_apis
def test_it_finds_the_common_optimum_where_fedavg_drifts(api):
    """Two classes a client and many local steps: the gradient of all at the model is what is left to do."""

    def left(federation):
        return np.linalg.norm(mean([gradient(federation.model, i) for i in CLIENTS]))

    rounds = range(1, 41)
    training = Training(learning_rate=RATE, steps=10, batch_size=1.0)
    ours = Federation(api, scaffold(api, training=training), HALF, steps=10).play(rounds)
    plain = Federation(api, flower(api), steps=10, change=lambda _, reply: replace(reply, num_examples=1)).play(rounds)
    assert left(ours) < 0.2 * left(plain)


@both_apis
def test_hostile_updates_do_not_poison_c(api):
    def change(client_id, reply):
        if client_id != 5:
            return reply
        return replace(reply, tensors=tuple(npy_bytes(array - 1e6) for array in reply.arrays))

    poisoned = Federation(api, scaffold(api), HALF, change=change).play([1, 2])
    assert float(poisoned.server.strategy.control.abs().max()) > 1e4
    for defend in (Median, lambda s: TrimmedMean(s, num_trimmed=1), lambda s: Krum(s, num_byzantine=1)):
        strategy = defend(scaffold(api))
        federation = Federation(api, strategy, HALF, change=change).play([1, 2, 3])
        assert float(strategy.strategy.control.abs().max()) < 2, type(strategy).__name__
        assert np.abs(federation.model).max() < 10


@both_apis
@pytest.mark.parametrize("name", ["FedAvg", "FedAdam"])
def test_it_resumes_exactly(api, name):
    whole = Federation(api, Median(scaffold(api, name)), HALF).play([1, 2])
    resumed = Federation(api, Median(scaffold(api, name)), HALF)
    resumed.server.strategy.load_state_dict(copy.deepcopy(whole.server.strategy.state_dict()))
    resumed.server.tensors = list(whole.server.tensors)
    resumed.clients = copy.deepcopy(whole.clients)
    assert np.array_equal(resumed.play([3, 4]).model, whole.play([3, 4]).model)


def test_a_part_of_the_clients_moves_c_by_their_share():
    strategy = scaffold("classic", num_clients=50)
    Federation("classic", strategy, HALF).play([1])
    everybody = scaffold("classic")
    Federation("classic", everybody, HALF).play([1])
    torch.testing.assert_close(strategy.control, everybody.control / 10)


def test_state_has_zeros_in_what_travels():
    model = [np.ones(2, np.float32), np.array(3), np.ones(3, np.float32), np.ones(1, np.complex64)]
    layout = Layout(model, state=[2])
    assert _on_the_way(torch.arange(1.0, 5.0), layout).tolist() == [1, 2, 0, 0, 0, 3, 4]


def test_batch_norm_trains_and_its_statistics_are_left_alone():
    from flsec.client_apps import TorchClient
    from flsec.data import ArrayDataset

    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    rng = np.random.default_rng(0)
    data = ArrayDataset(rng.normal(size=(8, 3)).astype(np.float32), rng.integers(0, 2, 8))
    client = HALF(TorchClient(model, data, TRAINING, client_id=1))
    start = client.get_parameters({})
    sizes = sum(array.size for array in start if array.dtype.kind == "f")
    config = {"server-round": 1, "scaffold-steps": STEPS, "scaffold-learning-rate": RATE}
    plain = client.fit(start, {**config, "scaffold-control": b""})[0]
    moved = client.fit(start, {**config, "scaffold-control": np.full(sizes, 0.1, np.float32).tobytes()})[0]
    assert not np.allclose(plain[0], moved[0])
    with pytest.raises(ConfigError, match="has 3 numbers where the model has"):
        client.fit(start, {**config, "scaffold-control": np.zeros(3, np.float32).tobytes()})


def test_it_goes_inside_of_defenses():
    with pytest.raises(ConfigError, match=r"Put it inside: Median\(Scaffold\("):
        Scaffold(Median(flower("classic")), training=TRAINING, num_clients=5)


@pytest.mark.parametrize("setting", [{"optimizer": "adam"}, {"momentum": 0.9}, {"steps": None, "epochs": 2}])
def test_refuses_training_whose_control_variate_would_be_wrong(setting):
    training = Training(**{"learning_rate": 0.1, "steps": 3, **setting})
    with pytest.raises(ConfigError, match=r"optimizer: sgd, momentum: 0.0, steps: 10"):
        scaffold("classic", training=training)


def test_halves_without_each_other_and_other_training_are_noticed():
    federation = Federation("classic", flower("classic"), HALF)
    with pytest.raises(ConfigError, match=r"the server sent no 'scaffold-control'"):
        federation.play([1])
    other = scaffold("classic", training=Training(learning_rate=RATE, steps=STEPS + 1))
    with pytest.raises(ConfigError, match=r"counts on 4 steps .* took 3"):
        Federation("classic", other, HALF).play([1])
