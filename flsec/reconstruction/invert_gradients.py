from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.parameters import NonNegative, Positive, PositiveCount
from flsec.randomness import generator
from flsec.reconstruction._arguments import check_attack
from flsec.reconstruction._matching import Matching, as_labels, cosine_distance, random_start
from flsec.reconstruction._search import Progress, best_of_restarts
from flsec.reconstruction.labels import reveal_labels
from flsec.reconstruction.multi_step import LocalSteps
from flsec.reconstruction.result import Reconstruction

__all__ = ["invert_gradients"]


@explained
def invert_gradients(
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
    total_variation: NonNegative = 1e-2,
    learning_rate: Positive = 0.1,
    box: Sequence[float] | None = (0.0, 1.0),
    restarts: PositiveCount = 1,
    max_iterations: PositiveCount = 3000,
    tolerance: NonNegative = 0.0,
    restart_above: NonNegative = 0.0,
    init_mean: float = 0.5,
    init_std: NonNegative = 0.1,
    progress: Progress | None = None,
) -> Reconstruction:
    """Rebuild the examples behind a gradient from its direction: Inverting Gradients.

    Minimises 1 - cos(g(x, y), g) + total_variation * TV(x) over the inputs x, with Adam on the signs of the gradient,
    whose rate falls to a tenth after 3/8, 5/8 and 7/8 of the iterations; after each step the inputs are cut to the
    box. TV is the mean absolute difference of neighbouring pixels, down plus across; it counts for images only.
    Since only the direction is compared, a client that clips its update hides nothing.

    Args:
        model: the network with the weights that the client started from. Not changed; used in training mode, without
            dropout.
        gradients: of the mean cross-entropy, one per parameter that requires a gradient, in the order of
            ``model.parameters()``. Only their direction counts, except where repeated labels must be revealed.
        input_shape: of one example.
        num_classes: C.
        seed: of the random starts; the same seed gives the same result.
        batch_size: how many examples to rebuild: those behind the gradients, all steps together.
        labels: (batch_size,) the labels if they are known; else ``reveal_labels`` is asked for them.
        local_steps: for an update of several SGD steps; one gradient if None.
        ignore_zeros: compare gradients only where the observed one is not exactly zero. For an update of which entries
            were left out (top-k, Soteria): they then count as unknown, and not as an observed zero.
        total_variation: weight of TV.
        learning_rate: first rate of Adam, about how far a pixel moves in an iteration.
        box: (least, largest) value of an input; None: unbounded.
        restarts: random starts at most.
        max_iterations: of each start.
        tolerance: a start ends at this loss.
        restart_above: while the lowest loss is above this, another start is made; 0: all are.
        init_mean: of the first inputs.
        init_std: of the first inputs, which are normal: grey with a little noise.
        progress: called with (start, iteration, loss), all from 0.

    Returns:
        The point of lowest loss of all starts. ``loss`` is the objective above, so not 0 at the truth.

    Raises:
        ConfigError: gradients that do not fit the model, are not finite or are all zero, or a parameter out of range.

    Example:
        >>> from flsec.models import Softmax
        >>> model, x = Softmax((4,), 3), torch.tensor([[0.1, 0.9, 0.4, 0.6]])
        >>> loss = nn.functional.cross_entropy(model(x), torch.tensor([2]))
        >>> gradients = torch.autograd.grad(loss, list(model.parameters()))
        >>> found = invert_gradients(
        ...     model, gradients, input_shape=(4,), num_classes=3, total_variation=0.0, max_iterations=300
        ... )
        >>> bool((found.inputs - x).abs().max() < 0.1), found.labels
        (True, tensor([2]))

    Source: Geiping, Bauermeister, Dröge and Moeller, "Inverting Gradients: How easy is it to break privacy in
    federated learning?", NeurIPS 2020, Eq. 4; step decay and box: the released program,
    github.com/JonasGeiping/invertinggradients.
    """
    check_attack(invert_gradients, locals())
    if box is not None and (len(box) != 2 or not box[0] < box[1]):
        raise ConfigError(f"box must be (least, largest) with least < largest, such as (0.0, 1.0); got {box}.")
    matching = Matching(model, gradients, local_steps, cosine_distance, ignore_zeros=ignore_zeros)
    if labels is None:
        labels = reveal_labels(
            model, gradients, input_shape=input_shape, num_classes=num_classes, batch_size=batch_size
        ).labels
    known = as_labels(labels, batch_size, num_classes, matching.like.device)

    def loss_and_gradient(inputs: Tensor) -> tuple[float, Tensor]:
        inputs = inputs.detach().requires_grad_()
        loss = matching(inputs, known)
        if total_variation and len(input_shape) == 3:
            loss = loss + total_variation * _total_variation(inputs)
        return loss.item(), torch.autograd.grad(loss, inputs)[0]

    def iterations(number: int) -> Iterator[tuple[Tensor, float]]:
        """Yield inputs and their loss; signed Adam."""
        rng = generator(seed, purpose=f"inverting gradients {number}")
        inputs = random_start((batch_size, *input_shape), init_mean, init_std, rng, matching.like)
        mean, square = torch.zeros_like(inputs), torch.zeros_like(inputs)
        for count in range(1, max_iterations + 2):
            inputs = inputs if box is None else inputs.clamp(box[0], box[1])
            loss, gradient = loss_and_gradient(inputs)
            yield inputs, loss
            sign = gradient.sign()
            mean = mean.lerp(sign, 1 - _BETA1)
            square = square.lerp(sign.square(), 1 - _BETA2)
            step = mean / (1 - _BETA1**count) / ((square / (1 - _BETA2**count)).sqrt() + 1e-8)
            inputs = inputs - _decayed(learning_rate, count, max_iterations) * step

    best = best_of_restarts(
        iterations,
        restarts=restarts,
        max_iterations=max_iterations,
        tolerance=tolerance,
        restart_above=restart_above,
        patience=None,  # the loss stands still until the rate falls
        progress=progress,
    )
    return Reconstruction(
        inputs=best.point, labels=known, loss=best.loss, restarts=len(best.history), history=best.history
    )


_BETA1, _BETA2 = 0.9, 0.999  # Adam's usual


def _decayed(learning_rate: float, iteration: int, max_iterations: int) -> float:
    """Return the rate of an iteration, counted from 1."""
    return learning_rate * 0.1 ** sum(8 * iteration > eighths * max_iterations for eighths in (3, 5, 7))


def _total_variation(images: Tensor) -> Tensor:
    """Return the mean absolute difference of vertical plus that of horizontal neighbours; images (n, c, h, w)."""
    total = images.new_zeros(())
    for axis in (2, 3):
        if images.shape[axis] > 1:
            total = total + images.diff(dim=axis).abs().mean()
    return total
