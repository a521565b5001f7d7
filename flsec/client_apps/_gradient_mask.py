"""Training that changes chosen weights only."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from flsec.errors import ConfigError
from flsec.training import StepHook, weight_names

__all__ = ["GradientMask"]


class GradientMask(StepHook):
    """Sets gradients to zero where nothing is to change.

    Args:
        allowed: boolean arrays in the order of ``flsec.training.get_weights``.
    """

    def __init__(self, allowed: Sequence[NDArray[Any]]) -> None:
        self._allowed = allowed

    def before_step(self, model: nn.Module, gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        """Return the gradients with zeros in them."""
        names = weight_names(model)
        if len(names) != len(self._allowed):
            raise ConfigError(
                f"GradientMask: the model has {len(names)} parameters and buffers; got {len(self._allowed)} arrays. Do "
                "server and client build the same model?"
            )
        masks = dict(zip(names, self._allowed, strict=True))
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        return [
            None if gradient is None else gradient * torch.as_tensor(masks[name], device=gradient.device)
            for name, gradient in zip(trained, gradients, strict=True)
        ]
