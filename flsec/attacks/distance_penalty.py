"""Training towards a hostile goal and, at the same time, towards a model that raises no suspicion."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from flsec.attacks._upload import Array
from flsec.errors import ConfigError
from flsec.parameters import Fraction, check_parameters
from flsec.training import StepHook, weight_names

__all__ = ["DistancePenalty", "penalised_gradients"]

Distance = Literal["l2", "squared"]


def penalised_gradients(
    gradients: Sequence[Tensor | None],
    parameters: Sequence[Tensor],
    anchors: Sequence[Tensor],
    *,
    alpha: Fraction,
    distance: Distance = "l2",
) -> list[Tensor]:
    """Return the gradient of alpha * loss + (1 - alpha) * distance(parameters, anchors).

    Args:
        gradients: of the loss, one for each parameter; None: zero. Not modified.
        parameters: where they were taken. Not modified.
        anchors: the model to stay close to, same shapes. Not modified.
        alpha: 1: the loss alone.
        distance: ``"l2"``: the L2 norm of the difference, over all parameters together; ``"squared"``: its square.

    The gradient of the L2 norm at the anchors themselves is taken as zero.

    Raises:
        ConfigError: alpha out of its range, or an unknown distance.

    Example:
        >>> penalised_gradients([torch.zeros(2)], [torch.tensor([3.0, 4.0])], [torch.zeros(2)], alpha=0.5)
        [tensor([0.3000, 0.4000])]

    Source: Bagdasaryan et al., AISTATS 2020, Sec. 4.3 and Eq. 4, constrain-and-scale, with a p-norm distance as L_ano;
    Baruch, Baruch and Goldberg, NeurIPS 2019, Sec. 4.2 (squared).
    """
    check_parameters(penalised_gradients, {"alpha": alpha, "distance": distance}, name="penalised_gradients")
    differences = [p.detach() - anchor for p, anchor in zip(parameters, anchors, strict=True)]
    factor = 2.0
    if distance == "l2":
        norm = float(torch.stack([d.double().square().sum() for d in differences]).sum().sqrt()) if differences else 0.0
        factor = 1 / norm if norm > 0 else 0.0
    return [
        (1 - alpha) * factor * d + (0.0 if gradient is None else alpha * gradient)
        for gradient, d in zip(gradients, differences, strict=True)
    ]


class DistancePenalty(StepHook):
    """Adds the distance to a model to the loss, at each step of training; see ``penalised_gradients``.

    Args:
        anchor: the model to stay close to: its parameters and buffers in the order of ``flsec.training.get_weights``.
        alpha: weight of the loss; the distance has the rest.
        distance: ``"l2"`` or ``"squared"``.

    Raises:
        ConfigError: ``alpha`` is not in [0, 1], or ``distance`` is unknown; when it first acts.

    Example:
        >>> from flsec.models import Softmax
        >>> from flsec.training import Training, get_weights, train
        >>> model = Softmax((1,), 2)
        >>> penalty = DistancePenalty(get_weights(model), alpha=0.0)  # the distance alone: nothing moves
        >>> _ = train(
        ...     model, torch.ones(4, 1), torch.ones(4, dtype=torch.int64), Training(learning_rate=1.0), round=1,
        ...     generator=torch.Generator(), hooks=[penalty],
        ... )
        >>> float(model.output.weight.detach().abs().max())
        0.0

    Source: as ``penalised_gradients``.
    """

    def __init__(self, anchor: Sequence[Array], *, alpha: Fraction, distance: Distance = "l2") -> None:
        self._anchor = anchor
        self._alpha = alpha
        self._distance: Distance = distance
        self._targets: list[Tensor] | None = None

    def before_step(self, model: nn.Module, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Return the gradients of the penalised loss."""
        trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if self._targets is None:
            names = weight_names(model)
            if len(names) != len(self._anchor):
                raise ConfigError(
                    f"DistancePenalty: the model has {len(names)} parameters and buffers; got {len(self._anchor)} "
                    "arrays as anchor. Do server and client build the same model?"
                )
            arrays = dict(zip(names, self._anchor, strict=True))
            self._targets = [torch.as_tensor(arrays[name]).to(p) for name, p in trained]
        parameters = [p for _, p in trained]
        return penalised_gradients(gradients, parameters, self._targets, alpha=self._alpha, distance=self._distance)
