"""A softmax regression on a few clients, trained for real in either API; and its gradients in float64, by hand."""

import numpy as np
from flwr.common import ndarrays_to_parameters
from torch import nn

from flsec._contracts.server import ClassicServer, MessageServer, Reply, flower_strategy, identify, npy_bytes
from flsec.client_apps import TorchClient
from flsec.data import ArrayDataset
from flsec.training import Training

SERVERS = {"classic": ClassicServer, "Message": MessageServer}
FEATURES, CLASSES = 3, 4
SIZES = (6, 9, 12, 15, 18)
CLIENTS = tuple(range(1, 1 + len(SIZES)))
START = {"weight": np.zeros((CLASSES, FEATURES), np.float32), "bias": np.zeros(CLASSES, np.float32)}


def data_of(client_id):
    rng = np.random.default_rng(client_id)
    x = rng.normal(size=(SIZES[client_id - 1], FEATURES)).astype(np.float32)
    y = (rng.integers(0, 2, len(x)) + client_id) % CLASSES  # two classes a client: they drift apart
    return x, y


def gradient(vector, client_id):
    """The gradient of the mean cross-entropy on all of a client's data, at a flat float64 vector."""
    x, y = data_of(client_id)
    x = np.c_[x.astype(np.float64), np.ones(len(x))]
    weights = np.c_[vector[: CLASSES * FEATURES].reshape(CLASSES, FEATURES), vector[CLASSES * FEATURES :]]
    logits = x @ weights.T
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    found = shares.T @ x / len(y)
    return np.concatenate([found[:, :FEATURES].ravel(), found[:, FEATURES]])


def flat(arrays):
    return np.concatenate([np.asarray(array, np.float64).ravel() for array in arrays])


def flower(api, name="FedAvg"):
    """One of Flower's strategies that asks all clients, and starts from this model."""
    strategy = flower_strategy(api, name, len(CLIENTS))
    if api == "classic":
        strategy.initial_parameters = ndarrays_to_parameters(list(START.values()))
        if hasattr(strategy, "current_weights"):
            strategy.current_weights = list(START.values())
    return strategy


class Federation:
    """A server with its clients, who train on all of their data in each step.

    Args:
        api: which of Flower's.
        strategy: the server's.
        half: put around each client.
        steps: {client: steps a round}, or one number for all.
        change: (client id, reply) to what is sent instead.
        training: more settings of ``Training``.
    """

    def __init__(self, api, strategy, half=lambda client: client, steps=3, change=lambda _, reply: reply, **training):
        identify()
        self.server = SERVERS[api](strategy, CLIENTS, START)
        self.change = change
        self.clients = {}
        for i in CLIENTS:
            model, own = nn.Linear(FEATURES, CLASSES), steps[i] if isinstance(steps, dict) else steps
            settings = Training(**{"learning_rate": 0.5, "steps": own, "batch_size": 1.0, **training})
            self.clients[i] = half(TorchClient(model, ArrayDataset(*data_of(i)), settings, client_id=i))

    def answer(self, number, client_id, arrays):
        config = {"server-round": number, **self.server.configs[client_id]}
        local, num_examples, metrics = self.clients[client_id].fit(arrays, config)
        reply = Reply(tuple(npy_bytes(array) for array in local), num_examples, metrics)
        return [self.change(client_id, reply)]

    def play(self, rounds):
        self.server.play(rounds, self.answer)
        return self

    @property
    def model(self):
        return flat(self.server.arrays)
