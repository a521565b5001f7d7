"""Soteria: which features of a representation give the input away, so that a client does not send them."""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from flsec.errors import ConfigError

__all__ = ["representation_and_sensitivity", "soteria_pruned"]

Percentile = Annotated[float, Ge(0), Le(100)]

# What the server calls the settings that it sends.
LAYER = "soteria-layer"
PERCENTILE = "soteria-percentile"


def representation_and_sensitivity(model: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what enters a layer, and how strongly each of its entries depends on the input.

    Args:
        model: used in eval mode; it is not changed.
        layer: one of its modules, called once in a forward pass, with an (n, L) matrix.
        x: (n, ...) floating point inputs. Not modified.

    Returns:
        r, (n, L), and |d r_i / d x| of each example, (n, L), the Euclidean norm over the entries of x.

    Raises:
        ConfigError: inputs that are no floats, or a layer that is not called with a matrix.

    One backward pass for each of the L features.

    Example:
        >>> first, last = nn.Linear(2, 2, bias=False), nn.Linear(2, 3)
        >>> _ = first.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> representation_and_sensitivity(nn.Sequential(first, last), last, torch.tensor([[1.0, 1.0]]))
        (tensor([[7., 1.]]), tensor([[5., 1.]]))

    Source: Sun et al., Soteria, CVPR 2021, Sec. 4 and Algorithm 1.
    """
    if not x.is_floating_point():
        raise ConfigError(f"Soteria needs floating point inputs, to differentiate by them; got {x.dtype}.")
    x = x.detach().clone().requires_grad_()
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.enable_grad():
            model(x)
    finally:
        handle.remove()
        for module, training in modes.items():
            module.training = training
    if len(seen) != 1 or seen[0].ndim != 2 or len(seen[0]) != len(x):
        raise ConfigError(
            "Soteria needs a layer that a forward pass calls once, with a matrix of one row for each example; this one "
            f"was given {', '.join(str(tuple(r.shape)) for r in seen) or 'nothing'}. Name a fully connected layer."
        )
    r = seen[0]
    norms = torch.zeros_like(r)
    for i in range(r.shape[1] if r.requires_grad else 0):
        # in eval mode no example's r depends on another's x, so that one pass serves all examples
        slope = torch.autograd.grad(r[:, i].sum(), x, retain_graph=True, allow_unused=True)[0]
        if slope is not None:
            norms[:, i] = slope.flatten(1).norm(dim=1)
    return r.detach(), norms.detach()


@torch.no_grad()
def soteria_pruned(representation: Tensor, sensitivity: Tensor, percentile: Percentile) -> Tensor:
    """Return which features are pruned: those with the largest |r_i| / |d r_i / d x|.

    An input that is rebuilt from a representation without them is far from the true one: to first order, it takes a
    change of |r_i| / |d r_i / d x| to bring r_i to zero.

    Args:
        representation: (n, L), r of each example. Over several examples both norms are taken over all of them.
        sensitivity: (n, L), |d r_i / d x|.
        percentile: share of the features that are pruned, in percent; rounded up.

    Returns:
        (L,), bool. Of equal ratios, the first are pruned. Features that are zero on all examples come last: there is
        nothing to hide. Features that do not depend on the input come first, as the ratio has it.

    Raises:
        ConfigError: shapes that differ, or a percentile outside [0, 100].

    Example:
        >>> r = torch.tensor([[1.0, -3.0, 0.0, 2.0]])
        >>> soteria_pruned(r, torch.tensor([[1.0, 1.0, 0.0, 4.0]]), percentile=50)
        tensor([ True,  True, False, False])

    Source: Sun et al., Soteria, CVPR 2021, Algorithm 1, with |r| / |d r / d x| in the place of |r (d r / d x)^-1| as in
    the released program. That adds 0.1 to r, and divides by r with its sign.
    """
    if representation.ndim != 2 or representation.shape != sensitivity.shape:
        raise ConfigError(
            "soteria_pruned needs representation and sensitivity of one shape (n, L); got "
            f"{tuple(representation.shape)} and {tuple(sensitivity.shape)}."
        )
    if not 0 <= percentile <= 100:
        raise ConfigError(f"soteria_pruned needs a percentile in [0, 100]; got {percentile}.")
    ratios = representation.double().norm(dim=0) / sensitivity.double().norm(dim=0)
    order = ratios.nan_to_num(nan=0.0, posinf=math.inf).argsort(descending=True, stable=True)  # 0 / 0: nothing to hide
    pruned = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    pruned[order[: math.ceil(percentile / 100 * len(order) - 1e-9)]] = True
    return pruned
