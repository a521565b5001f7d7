"""A3FL: a trigger that is fitted to the global model, and to a global model that has been trained to resist it."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flsec.attacks.triggers import Inputs, copied
from flsec.errors import ConfigError
from flsec.parameters import Count, NonNegative, Positive, PositiveCount, check_parameters
from flsec.training import Training, train

__all__ = ["OptimisedTrigger", "adapted_trigger", "patch_mask"]


@dataclass(frozen=True, eq=False)
class OptimisedTrigger:
    """Chosen places of an input, set to numbers that an optimisation has found.

    Args:
        values: of the shape of one input.
        mask: boolean, of the same shape; true where the input takes its number from ``values``.

    Raises:
        ConfigError: ``apply_to_each`` is given inputs of another shape.

    Example:
        >>> import numpy as np
        >>> OptimisedTrigger(np.array([0.5, 9.0]), np.array([True, False])).apply_to_each(np.zeros((1, 2)))
        array([[0.5, 0. ]])
    """

    values: NDArray[Any]
    mask: NDArray[Any]

    def apply_to_each(self, inputs: Inputs) -> Inputs:
        """Return a stamped copy of a batch (k, ...).

        Raises:
            ConfigError: the inputs have another shape than the trigger.
        """
        if tuple(inputs.shape[1:]) != self.mask.shape:
            raise ConfigError(
                f"OptimisedTrigger: the trigger was made for inputs of shape {self.mask.shape}; got "
                f"{tuple(inputs.shape[1:])}. Use the data that it was made on."
            )
        stamped = copied(inputs)
        if isinstance(stamped, Tensor):
            stamped[:, torch.from_numpy(self.mask)] = torch.from_numpy(self.values[self.mask]).to(stamped)
        else:
            stamped[:, self.mask] = self.values[self.mask]
        return stamped


def patch_mask(shape: Sequence[int], *, size: PositiveCount, margin: Count) -> Tensor:
    """Return a boolean tensor of the shape (..., H, W) of one image, true in a square near its top left corner.

    Args:
        shape: of one image.
        size: side of the square in pixels.
        margin: pixels between the square and the two edges.

    Raises:
        ConfigError: the shape is that of no image, or the square does not fit.

    Example:
        >>> patch_mask((1, 3, 3), size=2, margin=0)[0].int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    if len(shape) < 2 or size + margin > min(shape[-2:]):
        raise ConfigError(
            f"A3FL: a patch of size={size} with margin={margin} needs images of {size + margin} pixels a side or more; "
            f"got samples of shape {tuple(shape)}. Use a smaller size, or other data.",
            parameter="size",
        )
    mask = torch.zeros(*shape, dtype=torch.bool)
    mask[..., margin : margin + size, margin : margin + size] = True
    return mask


def adapted_trigger(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    mask: Tensor,
    *,
    target: Count,
    generator: torch.Generator,
    iterations: PositiveCount = 50,
    step_size: Positive = 0.02,
    balance: NonNegative = 0.01,
    adversarial_every: PositiveCount = 10,
    adversarial_epochs: PositiveCount = 5,
    low: float = 0.0,
    value: float = 1.0,
) -> Tensor:
    """Return a trigger that model and the model's adversarial twin both take for the target.

    Each iteration moves the trigger by ``step_size`` against the sign of the gradient of

        L(model, stamped, target) + balance * sim(twin, model) * L(twin, stamped, target)

    where L is the cross-entropy and sim the cosine similarity of all parameters. The twin starts as the model and is
    trained on stamped inputs with their true labels: what honest clients would do if they could undo the backdoor.

    Args:
        model: the network with the global parameters. Used in eval mode; not modified.
        x: (k, ...) the attackers' samples, on the model's device.
        y: (k,) their true labels.
        mask: boolean, of the shape of one sample: where the trigger is.
        target: the label that stamped inputs are to get.
        generator: of the twin's batches, on the CPU; advanced.
        iterations: steps of the trigger.
        step_size: by how much a step moves each number, in units of ``value - low``.
        balance: lambda_0, weight of the twin's loss; 0: no twin.
        adversarial_every: the twin is trained anew after so many iterations.
        adversarial_epochs: of the twin's training: SGD with a rate of 0.01, momentum 0.9, weight decay 5e-4, batches
            of 64.
        low: the trigger's smallest number.
        value: its largest.

    Returns:
        A tensor of the shape of one sample; outside of the mask it has no meaning.

    Raises:
        ConfigError: no samples, a mask of another shape, or a setting out of its range.

    The start is the middle between ``low`` and ``value``, as in the authors' program, whose iterations go over
    batches and whose trigger goes on from round to round; here each round starts anew, so that the trigger depends on
    the global model, the samples and the seed alone.

    Example:
        >>> model = nn.Linear(2, 2)
        >>> _ = nn.init.eye_(model.weight)  # class 1 is where the second number is large
        >>> x, y, mask = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64), torch.tensor([False, True])
        >>> adapted_trigger(model, x, y, mask, target=1, generator=torch.Generator(), balance=0.0)[1]
        tensor(1.)

    Source: Zhang et al., "A3FL: Adversarially Adaptive Backdoor Attacks to Federated Learning", NeurIPS 2023, and the
    authors' program for the numbers.
    """
    given = {"target": target, "iterations": iterations, "step_size": step_size, "balance": balance}
    given |= {"adversarial_every": adversarial_every, "adversarial_epochs": adversarial_epochs}
    check_parameters(adapted_trigger, given, name="adapted_trigger")
    if len(x) == 0 or x.shape[1:] != mask.shape:
        raise ConfigError(
            f"adapted_trigger needs samples, of the mask's shape {tuple(mask.shape)}; got {tuple(x.shape)}.",
            parameter="auxiliary_data",
        )
    if not low < value:
        raise ConfigError(f"adapted_trigger: low must be less than value; got {low} and {value}.", parameter="value")
    model = copy.deepcopy(model).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    mask, wanted = mask.to(x.device), torch.full_like(y, target)
    trigger = torch.full_like(x[0], (low + value) / 2)
    twin, weight = model, 0.0
    for iteration in range(iterations):
        if balance and iteration % adversarial_every == 0:
            twin = _resisting(model, torch.where(mask, trigger, x), y, adversarial_epochs, generator)
            weight = balance * _similarity(twin, model)
        with torch.enable_grad():
            trigger.requires_grad_()
            stamped = torch.where(mask, trigger, x)
            loss = cross_entropy(model(stamped), wanted)
            if weight:
                loss = loss + weight * cross_entropy(twin(stamped), wanted)
            (gradient,) = torch.autograd.grad(loss, trigger)
        trigger = (trigger.detach() - step_size * (value - low) * gradient.sign()).clamp(low, value)
    return trigger


def _resisting(model: nn.Module, x: Tensor, y: Tensor, epochs: int, generator: torch.Generator) -> nn.Module:
    """Return a copy of a model, trained on stamped samples with their true labels."""
    twin = copy.deepcopy(model)
    for p in twin.parameters():
        p.requires_grad_(True)
    settings = Training(learning_rate=0.01, momentum=0.9, weight_decay=5e-4, epochs=epochs, batch_size=64)
    train(twin, x, y, settings, round=1, generator=generator)
    for p in twin.parameters():
        p.requires_grad_(False)
    return twin.eval()


def _similarity(one: nn.Module, other: nn.Module) -> float:
    """Return the cosine similarity of all parameters."""
    a, b = (torch.cat([p.detach().reshape(-1).double() for p in model.parameters()]) for model in (one, other))
    lengths = float(a.norm() * b.norm())
    return float(a @ b) / lengths if lengths > 0 else 0.0
