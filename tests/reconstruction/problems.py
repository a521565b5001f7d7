"""Small inversion problems: an image of a digit, a network, and the gradient that a client would send."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.data import DATASETS
from flsec.models import build_model

SHAPE = (1, 8, 8)


@functools.cache
def digits() -> tuple[Tensor, Tensor]:
    return DATASETS.get("digits")().train.tensors()


def examples(indices: Sequence[int]) -> tuple[Tensor, Tensor]:
    x, y = digits()
    return x[list(indices)], y[list(indices)]


def lenet(seed: int = 0) -> nn.Module:
    return build_model("dlg_lenet", SHAPE, 10, seed=seed)


def gradients_of(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """What a client computes: the gradient of the mean cross-entropy."""
    return torch.autograd.grad(cross_entropy(model(x), y), [p for p in model.parameters() if p.requires_grad])


def sgd_by_hand(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]], rate: float) -> list[Tensor]:
    """Return the parameters after plain SGD, one step per batch; independent of the code under test."""
    parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    for x, y in batches:
        logits = torch.func.functional_call(model, dict(zip(names, parameters, strict=True)), (x,))
        gradients = torch.autograd.grad(cross_entropy(logits, y), parameters)
        parameters = [(p - rate * g).detach().requires_grad_() for p, g in zip(parameters, gradients, strict=True)]
    return [p.detach() for p in parameters]
