import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount
from flsec.randomness import generator
from flsec.reconstruction._arguments import check_attack
from flsec.reconstruction._matching import as_labels, random_start
from flsec.reconstruction._matching_batch import matching_batch

__all__ = ["InvertedUpdates", "invert_update"]


@dataclass(frozen=True, eq=False, kw_only=True)
class InvertedUpdates:
    """Dummy examples that explain n clients' updates.

    Attributes:
        inputs: (n, b, *input_shape), each client's dummies. A client whose gradient is not finite, or so large that its
            dummies left the range of floats, has NaN or infinity in its own.
        labels: (b,) int64, the same for all clients.
        start: (b, *input_shape), where all dummies began; FedInv compares ``inputs - start``.
        loss: (n,), the squared error |G - g|^2 that is left.
        start_loss: (n,), the squared error at the start.

    Example:
        >>> from flsec.models import Softmax
        >>> found = invert_update(
        ...     Softmax((4,), 3), torch.eye(15)[:5], input_shape=(4,), num_classes=3, batch_size=6, num_steps=1
        ... )
        >>> found.inputs.shape, found.labels.shape, found.loss.shape
        (torch.Size([5, 6, 4]), torch.Size([6]), torch.Size([5]))
    """

    inputs: Tensor
    labels: Tensor
    start: Tensor
    loss: Tensor
    start_loss: Tensor


@explained
def invert_update(
    model: nn.Module,
    gradients: Tensor | Sequence[Sequence[Tensor]],
    *,
    input_shape: Sequence[PositiveCount],
    num_classes: Annotated[int, Ge(2)],
    seed: int = 0,
    batch_size: PositiveCount = 10,
    labels: Sequence[int] | Tensor | None = None,
    learning_rate: Positive = 0.03,
    num_steps: PositiveCount = 700,
    clients_at_once: PositiveCount | None = None,
) -> InvertedUpdates:
    """Make dummy examples for each of n clients whose gradient is the client's: FedInv's model inversion.

    Minimises |G(x, y) - g|^2 over the inputs x alone, where G is the gradient of the mean cross-entropy at ``model``.
    The labels y are random and fixed, and all clients share them and the first x, so that what differs between their
    dummies comes from their gradients. One batched optimisation: since no client's dummies depend on another's, the
    result is that of n optimisations, one after another, up to rounding.

    Args:
        model: the network with the weights that the clients started from. Not changed; used in eval mode: without
            dropout, and with BatchNorm's running statistics.
        gradients: g; (n, d), row i the gradient that client i's update stands for, its parameters flattened one after
            another; or n lists with a tensor for each parameter. In the order of ``model.parameters()``, of those that
            require a gradient. A gradient, not an update: SGD goes against it, so an update counts with a minus.
        input_shape: of one example.
        num_classes: C.
        seed: of labels and start.
        batch_size: b, dummies per client.
        labels: (b,); uniform among the classes if None.
        learning_rate: of Adam, about how far an input moves in a step.
        num_steps: of the optimisation.
        clients_at_once: how many clients to invert together; all if None. Changes memory and time, not the result.

    Returns:
        The dummies and what there is to know about them, in the dtype and on the device of the model.

    Raises:
        ConfigError: gradients that do not fit the model, or a parameter out of its range.

    A row of NaN, infinity or huge numbers harms its own dummies only. Models that are a chain of dense layers, plain
    convolutions and poolings, and smooth activations or ReLU are differentiated in closed form; any other by
    ``torch.func``, which takes two to three times as long. Memory: some ten copies of the activations of n b examples
    and one of the gradients, 82 MiB for 20 clients with 10 dummies each of FedInv's CNN; ``clients_at_once`` bounds
    it.

    Example:
        >>> from flsec.models import Softmax
        >>> result = invert_update(
        ...     Softmax((4,), 3), torch.eye(15)[:5], input_shape=(4,), num_classes=3, batch_size=6, num_steps=10
        ... )
        >>> result.inputs.shape, bool((result.loss < result.start_loss).all())
        (torch.Size([5, 6, 4]), True)

    Source: FedInv, "Privacy-Respecting Model Inversion", Eq. 2 and Algorithm 1, lines 7 to 9: 700 steps of gradient
    descent, without a learning rate or the number of dummies; Adam, because plain descent would need another rate for
    every model and round.
    """
    check_attack(invert_update, locals())
    network = copy.deepcopy(model).eval()
    observed = _split(network, gradients)
    like = observed[0]
    drawn, start = _drawn(like, input_shape, num_classes, seed, batch_size)
    known = as_labels(drawn if labels is None else labels, batch_size, num_classes, like.device)
    together = clients_at_once or len(like)
    parts = [
        _invert(network, known, start, [g[first : first + together] for g in observed], learning_rate, num_steps)
        for first in range(0, len(like), together)
    ]
    inputs, loss, start_loss = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    return InvertedUpdates(inputs=inputs, labels=known, start=start, loss=loss, start_loss=start_loss)


def start_gradient_norm(
    model: nn.Module,
    *,
    input_shape: Sequence[PositiveCount],
    num_classes: Annotated[int, Ge(2)],
    seed: int = 0,
    batch_size: PositiveCount = 10,
) -> float:
    """Return the norm of the model's gradient at the dummies and labels that ``invert_update`` starts from.

    Args:
        model: as for ``invert_update``; not changed.
        input_shape: of one example.
        num_classes: C.
        seed: the same as for ``invert_update``.
        batch_size: b.

    Returns:
        |G(x, y)|, of the mean cross-entropy in the parameters that require a gradient.

    Example:
        >>> from flsec.models import Softmax
        >>> 0.0 < start_gradient_norm(Softmax((4,), 3), input_shape=(4,), num_classes=3) < 3.0
        True
    """
    network = copy.deepcopy(model).eval()
    parameters = [p for p in network.parameters() if p.requires_grad]
    labels, start = _drawn(parameters[0], input_shape, num_classes, seed, batch_size)
    with torch.enable_grad():
        loss = cross_entropy(network(start), labels.to(start.device))
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return float(torch.stack([g.to(torch.float64).square().sum() for g in gradients]).sum().sqrt())


def _drawn(
    like: Tensor, input_shape: Sequence[int], num_classes: int, seed: int, batch_size: int
) -> tuple[Tensor, Tensor]:
    """Return (b,) labels and (b, *input_shape) dummies to start from."""
    rng = generator(seed, purpose="invert update")
    labels = torch.randint(num_classes, (batch_size,), generator=rng)
    return labels, random_start((batch_size, *input_shape), 0.0, 1.0, rng, like.detach())


_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # Adam's usual


@torch.no_grad()
def _invert(
    network: nn.Module, labels: Tensor, start: Tensor, observed: list[Tensor], learning_rate: float, num_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the (n, b, *input_shape) dummies and the (n,) errors at the end and at the start."""
    matching = matching_batch(network, start.shape[1:], labels, observed)
    inputs = matching.pack(start.expand(len(observed[0]), *start.shape))
    start_loss = matching.loss(inputs)
    mean, square = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for count in range(1, num_steps + 1):
        slope = matching.derivative(inputs)
        mean.lerp_(slope, 1 - _BETA1)
        square.mul_(_BETA2).addcmul_(slope, slope, value=1 - _BETA2)
        size = (square / (1 - _BETA2**count)).sqrt_().add_(_EPSILON)
        inputs = inputs.addcdiv(mean, size, value=-learning_rate / (1 - _BETA1**count))
    return matching.unpack(inputs), matching.loss(inputs), start_loss


def _split(model: nn.Module, gradients: Tensor | Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return (n, *shape) for each parameter, in the dtype and on the device of the model."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    shapes = [p.shape for p in parameters]
    blocks: list[Tensor] = []
    if isinstance(gradients, Tensor):
        size = sum(p.numel() for p in parameters)
        if gradients.ndim != 2 or gradients.shape[1] != size or not len(gradients):
            raise ConfigError(
                f"gradients must be (n, d) with n >= 1 and d = {size}, the parameters of the model that require a "
                f"gradient; got {tuple(gradients.shape)}."
            )
        first = 0
        for p in parameters:
            columns = gradients.detach()[:, first : first + p.numel()]
            blocks.append(columns.reshape(len(gradients), *p.shape))
            first += p.numel()
    else:
        for number, row in enumerate(gradients):
            if [g.shape for g in row] != shapes:
                raise ConfigError(
                    f"gradients of client {number} must have the shapes of the model's parameters, "
                    f"{[tuple(s) for s in shapes]}; got {[tuple(g.shape) for g in row]}."
                )
        if not len(gradients):
            raise ConfigError("gradients needs at least one client; got none.")
        blocks = [torch.stack([g.detach() for g in column]) for column in zip(*gradients, strict=True)]
    return [block.to(p.device, p.dtype) for block, p in zip(blocks, parameters, strict=True)]
