"""A small network, data that it can learn, and rounds of clients that train it."""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flsec._contracts.server import ClassicServer, Reply, flower_strategy, identify, npy_bytes
from flsec.state_arrays import state_by_name
from flsec.strategies.cohort import Cohort, Layout
from flsec.training import get_weights, weight_names

FEATURES, CLASSES = 6, 3


class Network(nn.Module):
    """A linear layer, after BatchNorm if asked for."""

    def __init__(self, normalise=False, bias=True):
        super().__init__()
        self.normalise = nn.BatchNorm1d(FEATURES) if normalise else nn.Identity()
        self.linear = nn.Linear(FEATURES, CLASSES, bias=bias)

    def forward(self, x):
        return self.linear(self.normalise(x))


def start(model=Network):
    """Names and arrays of the model that the first round starts from."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model()
    return dict(zip(weight_names(network), get_weights(network), strict=True))


def examples(seed, n=60, classes=tuple(range(CLASSES))):
    """(x, y) around one centre a class."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor(classes)[torch.randint(len(classes), (n,), generator=generator)]
    centers = 2 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(99))
    return centers[y] + 0.5 * torch.randn(n, FEATURES, generator=generator), y


def cohort(updates, ids=None, round=1, model=Network, num_examples=None):
    """A cohort of these updates around ``start(model)``."""
    arrays = start(model)
    layout = Layout(list(arrays.values()), list(arrays), state_by_name(arrays))
    n = len(updates)
    return Cohort(
        updates=updates,
        num_examples=torch.full((n,), 20.0).double() if num_examples is None else num_examples.double(),
        client_ids=tuple(ids if ids is not None else range(1, n + 1)),
        metrics=({},) * n,
        global_parameters=layout.flatten(list(arrays.values())),
        round=round,
        layout=layout,
        buffers=(layout.buffers(list(arrays.values())),) * n,
        sources=tuple(range(n)),
        global_state=layout.buffers(list(arrays.values())),
    )


def loss_at(vector, x, y):
    """The loss of the linear network with these parameters, in float64."""
    vector = vector.double()
    weight = vector[: FEATURES * CLASSES].reshape(CLASSES, FEATURES)
    return cross_entropy(x.double() @ weight.T + vector[FEATURES * CLASSES :], y)


def errors_at(vector, x, y):
    """Its share of wrong predictions."""
    vector = vector.double()
    weight = vector[: FEATURES * CLASSES].reshape(CLASSES, FEATURES)
    predictions = (x.double() @ weight.T + vector[FEATURES * CLASSES :]).argmax(dim=1)
    return float((predictions != y).double().mean())


def descend(vector, x, y, rate, steps):
    """Where ``steps`` of gradient descent on all of (x, y) lead from ``vector``, less where they began; in float64."""
    begin = vector.double()
    now = begin.clone()
    for _ in range(steps):
        now = now.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss_at(now, x, y), now)
        now = now.detach() - rate * gradient
    return now - begin


def flat(arrays):
    """A model's floats as one vector."""
    return torch.from_numpy(np.concatenate([np.ravel(a) for a in arrays if a.dtype.kind == "f"]))


def unflat(vector, arrays):
    """The vector in the shapes of ``arrays``."""
    parts, begin = [], 0
    for array in arrays:
        parts.append(vector[begin : begin + array.size].numpy().reshape(array.shape).astype(array.dtype))
        begin += array.size
    return parts


def server(strategy, ids):
    """A Flower server around ``strategy`` whose clients hold the network."""
    identify()
    return ClassicServer(strategy, ids, start())


def inner(n):
    """Flower's FedAvg for n clients."""
    return flower_strategy("classic", "FedAvg", n)


def clients(data, rate=0.1, steps=5, hostile=None):
    """What clients answer who train on ``data[client]``; ``hostile(round, client, update)`` may change their update."""

    def answer(round, client, arrays):
        begin = flat(arrays)
        update = descend(begin, *data[client], rate, steps).float()
        if hostile is not None:
            update = hostile(round, client, update)
        return [Reply(tuple(npy_bytes(a) for a in unflat(begin + update, arrays)))]

    return answer
