from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from flsec._calls import explained
from flsec.parameters import NonNegative, PositiveCount
from flsec.randomness import generator
from flsec.reconstruction._arguments import check_attack
from flsec.reconstruction._lbfgs import lbfgs
from flsec.reconstruction._matching import Matching, as_labels, random_start, relative_squared_error
from flsec.reconstruction._search import Progress, best_of_restarts
from flsec.reconstruction.multi_step import LocalSteps
from flsec.reconstruction.result import Reconstruction

__all__ = ["deep_leakage"]


@explained
def deep_leakage(
    model: nn.Module,
    gradients: Sequence[Tensor],
    *,
    input_shape: Sequence[PositiveCount],
    num_classes: Annotated[int, Ge(2)],
    seed: int = 0,
    batch_size: PositiveCount = 1,
    labels: Sequence[int] | Tensor | None = None,
    local_steps: LocalSteps | None = None,
    ignore_zeros: bool = False,
    restarts: PositiveCount = 5,
    max_iterations: PositiveCount = 3000,
    tolerance: NonNegative = 1e-8,
    restart_above: NonNegative = 1e-5,
    patience: PositiveCount = 200,
    init_mean: float = 0.5,
    init_std: NonNegative = 0.1,
    progress: Progress | None = None,
) -> Reconstruction:
    """Rebuild the examples behind a gradient by finding others that would give the same: DLG.

    Minimises |g(x, y) - g|^2 / |g|^2 over the inputs x and, unless they are known, over the labels, which are softmax
    probabilities while they are searched and their largest entry in the end. Everything is computed in float64,
    which for such small problems costs little and reaches lower losses.

    Three deviations, all measured: our L-BFGS searches along each direction until the strong Wolfe conditions hold,
    where the paper's takes steps of length 1; a start that stays at a high loss is repeated; and starts are grey with
    a little noise. What the gradient hardly depends on stays as it starts, so a start near to an image, rather than
    the paper's N(0, 1) (``init_mean=0, init_std=1``), ends nearer to one after the same number of iterations.

    It needs a network that can be differentiated twice (sigmoid, Softplus, tanh; a ReLU network has no second
    derivative worth following: use ``invert_gradients``) and works for few examples.

    Args:
        model: the network with the weights that the client started from. Not changed; used in training mode, without
            dropout.
        gradients: of the mean cross-entropy, one per parameter that requires a gradient, in the order of
            ``model.parameters()``. Their length counts: undo clipping first, or use ``invert_gradients``.
        input_shape: of one example.
        num_classes: C.
        seed: of the random starts; the same seed gives the same result.
        batch_size: how many examples to rebuild: those behind the gradients, all steps together.
        labels: (batch_size,) the labels if they are known; they are then not searched for.
        local_steps: for an update of several SGD steps; one gradient if None.
        ignore_zeros: compare gradients only where the observed one is not exactly zero. For an update of which entries
            were left out (top-k, Soteria): they then count as unknown, and not as an observed zero.
        restarts: random starts at most.
        max_iterations: of each start.
        tolerance: a start ends at this loss.
        restart_above: while the lowest loss is above this, another start is made.
        patience: a start ends when that many iterations have lowered its loss by less than a tenth.
        init_mean: of the first inputs.
        init_std: of the first inputs, which are normal.
        progress: called with (start, iteration, loss), all from 0.

    Returns:
        The best start. ``loss`` is the objective above.

    Raises:
        ConfigError: gradients that do not fit the model, are not finite or are all zero, or a parameter out of range.

    Example:
        >>> from flsec.models import Softmax
        >>> model, x = Softmax((4,), 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
        >>> loss = nn.functional.cross_entropy(model(x), torch.tensor([2]))
        >>> gradients = torch.autograd.grad(loss, list(model.parameters()))
        >>> found = deep_leakage(model, gradients, input_shape=(4,), num_classes=3, max_iterations=30)
        >>> found.inputs.round(decimals=2), found.labels
        (tensor([[0.1000, 0.9000, 0.4000, 0.6000]]), tensor([2]))

    Source: Zhu, Liu and Han, "Deep Leakage from Gradients", NeurIPS 2019, Alg. 1.
    """
    check_attack(deep_leakage, locals())
    matching = Matching(
        model, gradients, local_steps, relative_squared_error, dtype=torch.float64, ignore_zeros=ignore_zeros
    )
    shape = (batch_size, *input_shape)
    known = None if labels is None else as_labels(labels, batch_size, num_classes, matching.like.device)

    def parts(point: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and, if they are searched, the logits of the labels."""
        num_values = point.numel() - (batch_size * num_classes if known is None else 0)
        return point[:num_values].view(shape), point[num_values:].view(-1, num_classes)

    def loss_and_gradient(point: Tensor) -> tuple[float, Tensor]:
        point = point.detach().requires_grad_()
        inputs, logits = parts(point)
        loss = matching(inputs, logits.softmax(dim=1) if known is None else known)
        return loss.item(), torch.autograd.grad(loss, point)[0]

    def iterations(number: int) -> Iterator[tuple[Tensor, float]]:
        rng = generator(seed, purpose=f"deep leakage {number}")
        first = [random_start(shape, init_mean, init_std, rng, matching.like).flatten()]
        if known is None:
            first.append(random_start((batch_size * num_classes,), 0.0, 1.0, rng, matching.like))
        return lbfgs(loss_and_gradient, torch.cat(first))

    best = best_of_restarts(
        iterations,
        restarts=restarts,
        max_iterations=max_iterations,
        tolerance=tolerance,
        restart_above=restart_above,
        patience=patience,
        progress=progress,
    )
    inputs, logits = parts(best.point)
    return Reconstruction(
        inputs=inputs.to(next(model.parameters()).dtype),
        labels=logits.argmax(dim=1) if known is None else known,
        loss=best.loss,
        restarts=len(best.history),
        history=best.history,
    )
