import itertools
import math
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments
from flsec.models._initialisation import glorot_uniform_
from flsec.parameters import PositiveCount

__all__ = ["MLP"]


class MLP(nn.Module):
    """Fully connected network with ReLU between its layers; DiverseFL's network for MNIST.

    Args:
        input_shape: of one example; flattened.
        num_classes: C.
        hidden: neurons of each hidden layer.

    Raises:
        ConfigError: a parameter out of its range.

    Inputs (n, *input_shape) to logits (n, C). Glorot's uniform initialiser is the paper's; zero biases, which go with
    it in most libraries, are our choice.

    Example:
        >>> sum(p.numel() for p in MLP((1, 28, 28), 10).parameters())
        199210

    Source: DiverseFL, Sec. IV-B ("two fully connected layers, each with 200 neurons"); the output layer comes on top.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self, input_shape: InputShape, num_classes: NumClasses, *, hidden: Sequence[PositiveCount] = (200, 200)
    ):
        super().__init__()
        check_arguments(MLP, locals())
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in itertools.pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))
        glorot_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, *input_shape) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
