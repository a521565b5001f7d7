from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from flsec._calls import explained
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.reconstruction._arguments import check_attack
from flsec.reconstruction._matching import Matching, check_gradients, relative_squared_error
from flsec.reconstruction.labels import reveal_labels
from flsec.reconstruction.result import Reconstruction

__all__ = ["analytic_inverse"]


@explained
def analytic_inverse(
    model: nn.Module,
    gradients: Sequence[Tensor],
    *,
    input_shape: Sequence[PositiveCount],
    num_classes: Annotated[int, Ge(2)],
) -> Reconstruction:
    """Compute the one example behind a gradient, where the network's first layer is linear and has a bias.

    Row j of that layer's weight gradient is its bias gradient db_j times the input, so x = dW_j / db_j, in every row
    with db_j != 0; the rows are weighted with db_j^2, the least squares solution of dW = db x^T. For softmax regression
    and fully connected networks there is nothing to optimise: one example leaks exactly.

    For a batch it returns a weighted mean of the examples, which nothing here can tell apart.

    Args:
        model: the network with the weights that the client started from; its first parameters must be weight and bias
            of an ``nn.Linear`` that the flattened input goes to. Not changed.
        gradients: of the loss of one example, one per parameter that requires a gradient, in the order of
            ``model.parameters()``; of any scale.
        input_shape: of one example.
        num_classes: C.

    Returns:
        One input and its label; ``loss`` is the relative squared error that ``deep_leakage`` minimises.

    Raises:
        ConfigError: the first layer is something else, its bias gradient is zero, or the gradients do not fit.

    Example:
        >>> from flsec.models import Softmax
        >>> model, x = Softmax((3,), 2), torch.tensor([[0.2, 0.4, 0.8]])
        >>> loss = nn.functional.cross_entropy(model(x), torch.tensor([1]))
        >>> gradients = torch.autograd.grad(loss, list(model.parameters()))
        >>> result = analytic_inverse(model, gradients, input_shape=(3,), num_classes=2)
        >>> result.inputs, result.labels
        (tensor([[0.2000, 0.4000, 0.8000]]), tensor([1]))

    Source: Phong et al., "Privacy-Preserving Deep Learning via Additively Homomorphic Encryption", IEEE TIFS 2018,
    Sec. 3; Geiping et al., "Inverting Gradients", NeurIPS 2020, Prop. 3.1.
    """
    check_attack(analytic_inverse, locals())
    observed = check_gradients(model, gradients)
    size = torch.Size(input_shape).numel()
    weight, bias = (g.detach().double() for g in observed[:2]) if len(observed) > 1 else (observed[0], observed[0])
    if weight.ndim != 2 or weight.shape[1] != size or bias.shape != weight.shape[:1]:
        raise ConfigError(
            f"analytic_inverse needs a first layer nn.Linear({size}, ...) with a bias, as in softmax and mlp; got "
            f"first gradients of shapes {[tuple(g.shape) for g in observed[:2]]}. Use deep_leakage."
        )
    if not bias.any():
        raise ConfigError("the bias gradient of the first layer is zero, and x = dW / db needs one that is not.")
    inputs = ((bias @ weight) / (bias @ bias)).view(1, *input_shape)
    labels = reveal_labels(model, gradients, input_shape=input_shape, num_classes=num_classes).labels
    matching = Matching(model, gradients, None, relative_squared_error, dtype=torch.float64)
    loss = float(matching(inputs.to(matching.like.device), labels.to(matching.like.device)).detach())
    return Reconstruction(
        inputs=inputs.to(next(model.parameters())), labels=labels, loss=loss, restarts=1, history=((loss,),)
    )
