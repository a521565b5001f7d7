"""Projected gradient descent inside the ball that the server clips to."""

import copy

import torch
from torch import Tensor, nn

from flsec.aggregation.sparsefed import Coordinates, num_coordinates
from flsec.attacks._upload import Array
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount, check_parameters
from flsec.state_arrays import state_by_name
from flsec.training import Training, get_weights, train

__all__ = ["projected_gradient", "wrong_labels"]


def wrong_labels(labels: Tensor, num_classes: PositiveCount, generator: torch.Generator) -> Tensor:
    """Return for each sample a label that is not its own, all others equally likely.

    Args:
        labels: (n,) int64, the true labels, 0 to C - 1. Not modified.
        num_classes: C, at least 2.
        generator: source of randomness, on the CPU; advanced.

    Returns:
        (n,) int64.

    Raises:
        ConfigError: C < 2, or a label that is none of the classes.

    Example:
        >>> wrong_labels(torch.tensor([0, 1, 1]), 2, torch.Generator())
        tensor([1, 0, 0])

    Source: Panda et al., SparseFed, AISTATS 2022, Sec. 3.2 and App. B.8 ("randomly given a label from one of the 9
    classes which it does not belong to").
    """
    check_parameters(wrong_labels, {"num_classes": num_classes}, name="wrong_labels")
    if num_classes < 2 or bool((labels < 0).any()) or bool((labels >= num_classes).any()):
        raise ConfigError(
            f"wrong_labels needs num_classes >= 2 and labels in 0 to num_classes - 1; got num_classes={num_classes} "
            f"and labels from {int(labels.min())} to {int(labels.max())}."
        )
    return (labels + torch.randint(1, num_classes, labels.shape, generator=generator).to(labels.device)) % num_classes


def projected_gradient(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    max_norm: Positive,
    learning_rate: Positive,
    generator: torch.Generator,
    epochs: PositiveCount = 5,
    batch_size: Coordinates = 0.2,
    boost: Positive = 20.0,
    coordinates: Tensor | None = None,
) -> list[Array]:
    """Return parameters that fit the attackers' samples as well as an update of norm L can.

    Each step: one SGD step on a minibatch, with the loss times ``boost``; then, where ``coordinates`` are given,
    everything that was changed outside of them is put back; then the whole update so far is shortened to an L2
    norm of L if it is longer.

    Args:
        model: the network with the global parameters M_0. Not modified.
        x: (n, ...) inputs of the auxiliary set.
        y: (n,) the labels that the attackers want.
        max_norm: L, what the server clips to, so that clipping finds nothing to cut.
        learning_rate: eta.
        generator: of the minibatches; advanced. From equal generators all colluders compute the same, bit by bit on
            the same machine with the same number of threads.
        epochs: e; one minibatch and one projection each, as the algorithm is printed.
        batch_size: samples of a minibatch: a number, or a share of n.
        boost: factor of the loss. The paper tries 1 to 20; with 20 the update reaches the edge of the ball.
        coordinates: (m,) int64, the only places that may change, as indices into the model's weights (its floating
            arrays without BatchNorm's statistics), flat and joined in the order of ``flsec.training.get_weights``;
            None: all. With the server's next top-k this is Algorithm 12.

    Returns:
        New arrays in the order of ``flsec.training.get_weights``. Buffers keep the global values, so that they take
        nothing of the norm; integer buffers are as training leaves them.

    Raises:
        ConfigError: no data, or a setting out of its range.

    The printed projection, M = M_0 - CLIP(M' - M_0), turns the attackers' update around; this is M_0 + CLIP(M' - M_0).

    Example:
        >>> from flsec.models import Softmax
        >>> x, y = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1])
        >>> arrays = projected_gradient(
        ...     Softmax((1,), 2), x, y, max_norm=0.5, learning_rate=0.1, generator=torch.Generator(), batch_size=1.0
        ... )
        >>> round(sum(float((array**2).sum()) for array in arrays) ** 0.5, 3)  # as far as the server lets pass
        0.5

    Source: Panda et al., SparseFed, AISTATS 2022, Algorithm 6 and App. B.8; with ``coordinates`` Algorithm 12. After
    Sun et al., "Can You Really Backdoor Federated Learning?", 2019.
    """
    settings = {"max_norm": max_norm, "learning_rate": learning_rate, "epochs": epochs, "batch_size": batch_size}
    check_parameters(projected_gradient, {**settings, "boost": boost}, name="projected_gradient")
    local = copy.deepcopy(model)
    floats = _floats(local)
    start = torch.cat([values.reshape(-1).double() for values in floats.values()])
    free = _trainable(local, floats)
    if coordinates is not None:
        listed = torch.zeros_like(free)
        listed[_weights(local, floats).nonzero()[coordinates.to(free.device), 0]] = True
        free &= listed
    one_step = Training(learning_rate=learning_rate * boost, steps=1, batch_size=1.0)
    size = min(num_coordinates(batch_size, len(y)) if isinstance(batch_size, float) else batch_size, len(y))
    for _ in range(epochs):
        batch = torch.randperm(len(y), generator=generator)[:size].to(x.device)
        train(local, x[batch], y[batch], one_step, round=1, generator=generator)
        current = torch.cat([values.reshape(-1).double() for values in floats.values()])
        update = torch.where(free, current - start, 0.0)
        norm = float(update.norm())
        if norm > max_norm:
            update *= max_norm / norm
        _write(floats, start + update)
    return get_weights(local)


def _floats(model: nn.Module) -> dict[str, Tensor]:
    """Return the floating parameters and buffers by name; what is written into them is written into the model."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}


def _trainable(model: nn.Module, floats: dict[str, Tensor]) -> Tensor:
    """Return (d,) whether each place belongs to a parameter that requires a gradient."""
    parameters = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    flags = [torch.full((value.numel(),), name in parameters, device=value.device) for name, value in floats.items()]
    return torch.cat(flags)


def _weights(model: nn.Module, floats: dict[str, Tensor]) -> Tensor:
    """Return (d,) whether each place belongs to the weights, which servers see as one vector, and not to state."""
    state = state_by_name(floats)
    flags = [
        torch.full((value.numel(),), place not in state, device=value.device)
        for place, value in enumerate(floats.values())
    ]
    return torch.cat(flags)


@torch.no_grad()
def _write(floats: dict[str, Tensor], vector: Tensor) -> None:
    parts = torch.split(vector, [values.numel() for values in floats.values()])
    for values, part in zip(floats.values(), parts, strict=True):
        values.copy_(part.reshape(values.shape))
