"""Back-gradient poisoning: training samples that are optimised through the training that they spoil."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from flsec.errors import ConfigError
from flsec.parameters import Positive, PositiveCount, check_parameters

__all__ = ["back_gradient", "optimised_poison"]

Examples = tuple[Tensor, Tensor]  # (n, ...) inputs and (n,) labels


def back_gradient(
    model: nn.Module,
    poison: Examples,
    clean: Examples,
    held_out: Examples,
    *,
    learning_rate: Positive,
    steps: PositiveCount,
) -> tuple[Tensor, float]:
    """Return how the loss on held-out data after training depends on the inputs of poison samples.

    Training is T full-batch gradient steps on clean and poison samples together, w_t = w_(t-1) - eta grad L(w_(t-1)).
    The derivative of the held-out loss at w_T is taken back through the steps, last one first: with v = dA/dw_t,

        dA/dx_p  -=  eta * d<grad L(w_(t-1)), v> / dx_p,        v  -=  eta * (Hessian of L at w_(t-1)) v

    so that one step costs two gradients, and no Hessian is ever formed.

    Args:
        model: where training starts; used in eval mode (dropout off, statistics of BatchNorm fixed). Its layers must be
            differentiable twice. Not modified.
        poison: (p, ...) floating inputs, with the labels that they are trained with. Not modified.
        clean: what they are trained together with; may be empty.
        held_out: what the attacker wants to be misclassified. Its labels are the true ones.
        learning_rate: eta.
        steps: T; fewer than the victim takes truncates the derivative.

    Returns:
        The hypergradient, of the shape of the poison inputs, and the held-out loss after the T steps.

    Raises:
        ConfigError: inputs that are not floating, no poison or held-out samples, or a setting out of its range.

    The paper walks back along the trajectory by undoing the steps, to save memory; here the T models are kept.

    Example:
        >>> from flsec.models import Softmax
        >>> poses = torch.tensor([[0.5]]), torch.tensor([1])  # a sample that says: class 1 is where inputs are positive
        >>> held_out = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> nothing = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
        >>> slope, loss = back_gradient(Softmax((1,), 2), poses, nothing, held_out, learning_rate=1.0, steps=1)
        >>> bool(slope < 0)  # a smaller, at last negative, input would do more damage
        True

    Source: Munoz-Gonzalez et al., "Towards Poisoning of Deep Learning Algorithms with Back-gradient Optimization",
    AISec 2017, Sec. 3.2 and Algorithm 2.
    """
    check_parameters(back_gradient, {"learning_rate": learning_rate, "steps": steps}, name="back_gradient")
    _check_samples(poison, held_out)
    victim = _Victim(model)
    weights = victim.start
    trajectory = []
    for _ in range(steps):
        trajectory.append(weights)
        w = _free(weights)
        gradients = _filled(torch.autograd.grad(victim.mean_loss(w, poison, clean), w, allow_unused=True), w)
        weights = [p - learning_rate * g for p, g in zip(weights, gradients, strict=True)]
    w = _free(weights)
    loss = victim.mean_loss(w, held_out)
    influence = _filled(torch.autograd.grad(loss, w, allow_unused=True), w)
    hypergradient = torch.zeros_like(poison[0])
    for weights in reversed(trajectory):
        inputs, w = poison[0].detach().requires_grad_(), _free(weights)
        spoiled = victim.mean_loss(w, (inputs, poison[1]), clean)
        slopes = torch.autograd.grad(spoiled, w, create_graph=True, allow_unused=True)
        products = [(g * v).sum() for g, v in zip(slopes, influence, strict=True) if g is not None]
        by_inputs, *by_weights = torch.autograd.grad(torch.stack(products).sum(), [inputs, *w], allow_unused=True)
        if by_inputs is not None:
            hypergradient = hypergradient - learning_rate * by_inputs
        curvature = _filled(by_weights, weights)
        influence = [v - learning_rate * h for v, h in zip(influence, curvature, strict=True)]
    return hypergradient, float(loss.detach())


def optimised_poison(
    model: nn.Module,
    poison: Examples,
    clean: Examples,
    held_out: Examples,
    *,
    learning_rate: Positive,
    steps: PositiveCount = 5,
    iterations: PositiveCount = 10,
    step_size: Positive = 0.1,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[Tensor, float]:
    """Return poison inputs that make training on them as bad as possible for held-out data.

    Projected gradient ascent: each iteration moves every sample along its hypergradient, scaled so that its largest
    entry is ``step_size`` times the width of the bounds, and back into the bounds. The best inputs seen are returned.

    Args:
        model: as in ``back_gradient``.
        poison: where the search starts, with the labels that stay. Not modified.
        clean: as in ``back_gradient``.
        held_out: as in ``back_gradient``.
        learning_rate: of the training that is unrolled.
        steps: T, how many steps are unrolled.
        iterations: of the ascent.
        step_size: see above.
        bounds: lowest and highest value that an input may have.

    Returns:
        Inputs of the shape of the first ones, and the held-out loss after the unrolled training on them.

    Raises:
        ConfigError: as ``back_gradient``, or bounds that leave no room.

    The paper optimises one sample after the other; here all of them move together.

    Example:
        >>> from flsec.models import Softmax
        >>> poses = torch.tensor([[0.5]]), torch.tensor([1])  # a sample that says: class 1 is where inputs are positive
        >>> held_out = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
        >>> nothing = torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64)
        >>> optimised_poison(Softmax((1,), 2), poses, nothing, held_out, learning_rate=1.0, bounds=(-1.0, 1.0))[0]
        tensor([[-1.]])

    Source: Munoz-Gonzalez et al., AISec 2017, Sec. 3.3 and Algorithm 1.
    """
    check_parameters(optimised_poison, {"iterations": iterations, "step_size": step_size}, name="optimised_poison")
    low, high = bounds
    if not low < high:
        raise ConfigError(f"optimised_poison: bounds must be (low, high) with low < high; got {bounds}.")
    x, y = poison
    best, best_loss = x.clone(), -torch.inf
    for _ in range(iterations + 1):  # the last one only measures
        hypergradient, loss = back_gradient(model, (x, y), clean, held_out, learning_rate=learning_rate, steps=steps)
        if loss > best_loss:
            best, best_loss = x, loss
        largest = hypergradient.abs().flatten(1).amax(dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        direction = hypergradient / largest.reshape(-1, *[1] * (x.ndim - 1))
        x = (x + step_size * (high - low) * direction.nan_to_num()).clamp(low, high)
    return best, best_loss


class _Victim:
    """A model as a function of its trainable parameters."""

    def __init__(self, model: nn.Module) -> None:
        self._model = copy.deepcopy(model).eval()
        named = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
        self._names = list(named)
        self.start = [p.detach() for p in named.values()]

    def mean_loss(self, weights: Sequence[Tensor], *parts: Examples) -> Tensor:
        """Return the mean loss over several sets of examples together."""
        x, y = (torch.cat(part) for part in zip(*(part for part in parts if len(part[1])), strict=True))
        return cross_entropy(functional_call(self._model, dict(zip(self._names, weights, strict=True)), (x,)), y)


def _free(weights: Sequence[Tensor]) -> list[Tensor]:
    return [w.detach().requires_grad_() for w in weights]


def _filled(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    return [torch.zeros_like(w) if g is None else g for g, w in zip(gradients, like, strict=True)]


def _check_samples(poison: Examples, held_out: Examples) -> None:
    if not poison[0].is_floating_point():
        raise ConfigError(
            f"back_gradient changes inputs bit by bit, which takes floating ones; got {poison[0].dtype}. Tokens cannot "
            "be optimised this way; use an attack on labels."
        )
    for name, (x, y) in (("poison", poison), ("held_out", held_out)):
        if len(x) != len(y) or not len(y):
            raise ConfigError(f"back_gradient: {name} must be inputs with a label each; got {len(x)} and {len(y)}.")
