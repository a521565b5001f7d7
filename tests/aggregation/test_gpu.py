"""Every rule on a GPU: with its tensors there, and with those in main memory and ``computing_on`` it; every defense."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

import flsec.aggregation
from flsec._contracts.server import MODEL, ClassicServer, flower_strategy, honest, identify
from flsec.aggregation import (
    CountSketch,
    _columns,
    _device,
    _gram,
    _threads,
    fetchsgd_init,
    fetchsgd_step,
    sparsefed_init,
    sparsefed_step,
)
from flsec.aggregation._device import computing_on
from flsec.strategies import DEFENSES
from flsec.testing import example
from tests.support.pretend_gpu import a_gpu
from tests.test_contracts import SETTINGS

N, D = 23, 137
OF_ROWS = ("updates", "histories", "vectors")  # first arguments that hold a row for each client
OTHERS = {  # what the examples do not know
    "cross_round_similarities": lambda u: {"references": u.flip(0)},
}


def of_rows():
    exported = {name: getattr(flsec.aggregation, name) for name in flsec.aggregation.__all__}
    return {
        name: function
        for name, function in exported.items()
        if inspect.isfunction(function) and next(iter(inspect.signature(function).parameters)) in OF_ROWS
    }


def of_a_model(step):
    """A function of rows out of one of a model."""
    return lambda u, **parameters: step(u.sum(dim=0), **parameters)


def two_rounds(init, step, **settings):
    """Both vectors that two rounds of a defense with a state return."""

    def run(u):
        state = init(device=u.device)
        first, state = step(state, u[0], **settings)
        second, state = step(state, u[1], **settings)
        return torch.stack([first, second])

    return run


SKETCH = CountSketch(rows=5, columns=64, size=D)
FUNCTIONS = {
    **of_rows(),
    "crfl": of_a_model(flsec.aggregation.crfl),
    "clip_model": of_a_model(flsec.aggregation.clip_model),
    "top_k": of_a_model(partial(flsec.aggregation.top_k, k=9)),
    "rsa_server_step": lambda u: flsec.aggregation.rsa_server_step(u[0], u, learning_rate=0.1),
    "sparsefed_step": two_rounds(partial(sparsefed_init, D), sparsefed_step, k=9),
    "fetchsgd_step": two_rounds(partial(fetchsgd_init, SKETCH), fetchsgd_step, sketch=SKETCH, k=9),
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    for kind in ("cpu", "cuda"):
        monkeypatch.setitem(_gram._BLOCK, kind, 1000)
    monkeypatch.setattr(_gram, "_SMALLEST_BLOCK", 1000)
    monkeypatch.setattr(_columns, "_BLOCK_ELSEWHERE", 1000)
    for name in ("_FEW", "_MANY"):
        monkeypatch.setattr(_threads, name, 1000)


def case(name):
    updates = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    updates[5] = 1e6
    if name not in of_rows():
        return updates, {}
    return updates, example(FUNCTIONS[name], updates, **OTHERS.get(name, lambda u: {})(updates))


def moved(tree, device):
    return tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, torch.Tensor) else leaf, tree)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_on_a_gpu_as_in_main_memory(name, monkeypatch):
    updates, parameters = case(name)
    expected = FUNCTIONS[name](updates, **parameters)
    with a_gpu(monkeypatch) as device:
        result = FUNCTIONS[name](moved(updates, device), **moved(parameters, device))
        tensors = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        assert all(tensor.is_cuda for tensor in tensors)
        result = moved(result, "cpu")
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_computing_on_a_gpu_as_in_main_memory(name, monkeypatch):
    updates, parameters = case(name)
    expected = FUNCTIONS[name](updates, **parameters)
    with a_gpu(monkeypatch) as device, computing_on(device):
        result = FUNCTIONS[name](updates, **parameters)
        tensors = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, torch.Tensor)]
        assert not any(tensor.is_cuda for tensor in tensors)
    torch.testing.assert_close(result, expected)


NO_MATRIX = {"ban_list", "crfl", "eavesdrop", "flwbc", "oracle_sgd", "soteria"}  # that leave the mean to Flower
NO_MATRIX |= {"flanders", "worker_momentum"}  # that look at a few columns, or keep rows in main memory
TRAINING = {"diversefl", "fedinv", "fltrust"}  # that compute gradients on the server


@pytest.mark.parametrize("name", DEFENSES.names())
def test_a_defense_computes_the_same_on_a_gpu(name, monkeypatch):
    if name in TRAINING and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device: torch's backward pass looks for the real one")
    identify()
    defense = DEFENSES.get(name)

    def play(**device):
        inner = flower_strategy("classic", "FedAvg", N)
        strategy = defense(inner, **example(defense, inner, **SETTINGS.get(name, {})), **device)
        return ClassicServer(strategy, range(1, N + 1)).play([1, 2], lambda *said: [honest(*said)[0]])

    here = play().arrays
    sent, kept_on = [], _device.kept_on
    monkeypatch.setattr(_device, "kept_on", lambda *said: (sent.append(said), kept_on(*said))[1])
    monkeypatch.setattr(_gram, "kept_on", _device.kept_on)
    monkeypatch.setattr(_columns, "kept_on", _device.kept_on)
    with a_gpu(monkeypatch) as device:
        there = play(device="cuda").arrays
    assert any(where.type == device.type for _, where in sent) == (name not in NO_MATRIX)
    assert any((one != start).any() for one, start in zip(here, MODEL.values(), strict=True))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
