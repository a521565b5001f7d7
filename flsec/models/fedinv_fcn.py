import math
from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments
from flsec.parameters import PositiveCount

__all__ = ["FedInvFCN"]


class FedInvFCN(nn.Module):
    """FedInv's fully connected network for HAR: Linear(561 * 150), Softplus, Linear(150 * 6), Softplus, as printed.

    The last Softplus is in print: it makes the logits positive and leaves their order. Weights start from torch's
    usual draw; the paper is silent.

    Args:
        input_shape: of one example; flattened.
        num_classes: C.
        hidden: neurons of the hidden layer.

    Raises:
        ConfigError: a parameter out of its range.

    Inputs (n, *input_shape) to logits (n, C).

    Example:
        >>> sum(p.numel() for p in FedInvFCN((561,), 6).parameters())
        85206

    Source: FedInv, Experimental Setup, "Models".
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, input_shape: InputShape, num_classes: NumClasses, *, hidden: PositiveCount = 150):
        super().__init__()
        check_arguments(FedInvFCN, locals())
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(math.prod(input_shape), hidden),
            nn.Softplus(),
            nn.Linear(hidden, num_classes),
            nn.Softplus(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, *input_shape) to positive logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
