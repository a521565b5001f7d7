import math
from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments

__all__ = ["Softmax"]


class Softmax(nn.Module):
    """Softmax regression: one linear layer to the logits; with cross-entropy a convex problem.

    This is also the "logistic regression (LR)" of FedInv and FedMLSecurity: logistic regression over more than two
    classes is softmax regression, so there is one model under one name.

    Args:
        input_shape: of one example; flattened.
        num_classes: C.
        zero_init: start from zero weights, as DiverseFL does (harmless, since the problem is convex); else from
            torch's usual uniform draw.

    Raises:
        ConfigError: a parameter out of its range.

    Inputs (n, *input_shape) to logits (n, C).

    Example:
        >>> sum(p.numel() for p in Softmax((1, 28, 28), 10).parameters())
        7850

    Source: DiverseFL, Sec. IV-A ("Model parameters are initialized to 0"); FedInv, "Models".
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, input_shape: InputShape, num_classes: NumClasses, *, zero_init: bool = True):
        super().__init__()
        check_arguments(Softmax, locals())
        self.output = nn.Linear(math.prod(input_shape), num_classes)
        if zero_init:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, *input_shape) to logits (n, num_classes)."""
        logits: Tensor = self.output(x.flatten(1))
        return logits
