"""RSA's client: Equation 6 step by step, and a model that outlives the round."""

import numpy as np
import pytest
import torch
from torch import nn

from flsec.aggregation import rsa_server_step
from flsec.client_apps import RSAClient, SignFlipping, TorchClient, rsa_client
from flsec.client_apps.client_state import state_folder
from flsec.data import ArrayDataset
from flsec.errors import ConfigError
from flsec.training import Training
from tests.client_apps import toys
from tests.support.tasks import WithLoss

MU, DELTA, LAMBDA, SCALE = 0.25, 0.125, 0.5, 0.5
SETTINGS = {"rsa-delta": DELTA, "rsa-gradient-scale": SCALE}


class Slope(nn.Module):
    """Its loss is the mean of x times w, so that the gradient is the mean of x wherever w is."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(3))
        self.register_buffer("steps", torch.tensor(5))
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x @ self.w


class Client(TorchClient):
    """Trains by flsec's training, with its own loss."""

    def fit(self, parameters, config):
        from flsec.training import get_weights, set_weights, train

        set_weights(self.model, parameters)
        x, y = self.trainset.tensors()
        generator = torch.Generator().manual_seed(0)
        train(
            self.model,
            x,
            y,
            self.training,
            round=config["server-round"],
            generator=generator,
            task=WithLoss(function=lambda out, _: out.mean()),
            hooks=self.step_hooks,
        )
        return get_weights(self.model), len(y), {}


GRADIENTS = {0: np.array([1.0, -1.0, 0.0]), 1: np.array([3.0, 0.0, 0.5])}


def client(client_id, steps=1, **options):
    x = np.tile(GRADIENTS[client_id], (4, 1)).astype(np.float32)
    training = Training(learning_rate=MU, steps=steps, batch_size=4)
    return RSAClient(**options)(Client(Slope(), ArrayDataset(x, np.zeros(4, int)), training, client_id=client_id))


def model(w, unused=(0.0, 0.0)):
    """In the order of the state dict, where parameters come before buffers."""
    return [np.array(w, np.float32), np.array(unused, np.float32), np.array(5)]


def test_two_clients_and_a_server_over_three_rounds_are_equations_6_and_7():
    clients = {i: client(i) for i in (0, 1)}
    server, own = np.array([1.0, 0.0, -1.0]), {i: np.array([1.0, 0.0, -1.0]) for i in (0, 1)}
    sent = torch.from_numpy(server).float()
    for number in (1, 2, 3):
        rows = []
        for i in (0, 1):
            own[i] = own[i] - MU * (SCALE * GRADIENTS[i] + DELTA * np.sign(own[i] - server))
            uploaded = clients[i].fit(model(sent.numpy()), {"server-round": number, **SETTINGS})[0]
            np.testing.assert_allclose(uploaded[0], own[i], atol=1e-6)
            rows.append(torch.from_numpy(uploaded[0]) - sent)
        server = server - MU * (LAMBDA * server + DELTA * sum(np.sign(server - own[i]) for i in (0, 1)))
        sent = sent + rsa_server_step(sent, torch.stack(rows), learning_rate=MU, delta=DELTA, lambda_=LAMBDA)
        np.testing.assert_allclose(sent, server, atol=1e-6)
    assert not np.allclose(own[0], own[1])


def test_each_of_several_steps_is_pulled_from_where_it_is():
    own = server = np.array([0.05, 0.0, 0.0])
    for _ in range(4):
        own = own - MU * (SCALE * GRADIENTS[1] + DELTA * np.sign(own - server))
    uploaded = client(1, steps=4).fit(model(server), {"server-round": 1, **SETTINGS})[0]
    np.testing.assert_allclose(uploaded[0], own, atol=1e-6)


def test_what_the_loss_does_not_depend_on_is_pulled_as_well():
    one = client(0)
    one.fit(model([0.0] * 3, [1.0, 0.0]), {"server-round": 1, **SETTINGS})
    uploaded = one.fit(model([0.0] * 3, [0.0, 2.0]), {"server-round": 2, **SETTINGS})[0]
    np.testing.assert_allclose(uploaded[1], [1 - MU * DELTA, MU * DELTA], atol=1e-7)


def test_the_clients_own_model_goes_on_and_not_the_servers():
    one = client(0, delta=0.0)
    first = one.fit(model([0.0] * 3), {"server-round": 1})[0][0]
    second = one.fit(model([50.0] * 3), {"server-round": 2})[0][0]
    np.testing.assert_allclose(second, 2 * first, atol=1e-6)


def test_it_is_kept_wherever_the_client_runs_and_a_resumed_run_sees_its_past_alone(tmp_path):
    def play(rounds):
        for number in rounds:  # a new object each round, as in a simulation
            uploaded = client(1).fit(model([0.1 * number] * 3), {"server-round": number, **SETTINGS})[0]
        return uploaded

    with state_folder(tmp_path):
        whole = play([1, 2, 3, 4])
        assert toys.same(play([3, 4]), whole)  # what rounds 3 and 4 saved is newer than round 3
        assert not toys.same(play([1, 4]), client(0).fit(model([0.4] * 3), {"server-round": 1, **SETTINGS})[0])


def test_partial_participation_leaves_the_own_model_where_it_was():
    one = client(0, delta=0.0)
    first = one.fit(model([0.0] * 3), {"server-round": 1})[0][0]
    later = one.fit(model([9.0] * 3), {"server-round": 7})[0][0]
    np.testing.assert_allclose(later, 2 * first, atol=1e-6)


def test_an_attack_goes_around_it():
    honest = client(0).fit(model([1.0] * 3), {"server-round": 1, **SETTINGS})[0][0]
    hostile = SignFlipping()(client(0)).fit(model([1.0] * 3), {"server-round": 1, **SETTINGS})[0][0]
    np.testing.assert_allclose(hostile - 1, -(honest - 1), atol=1e-6)


def test_a_client_without_hooks_is_named():
    assert rsa_client is RSAClient
    with pytest.raises(ConfigError, match=r"RSAClient acts on each step .* Toy has no step_hooks"):
        RSAClient()(toys.Toy()).fit(toys.arrays(), {"server-round": 1})
    with pytest.raises(ConfigError, match="delta"):
        RSAClient(delta=-1.0)
