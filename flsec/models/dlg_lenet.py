import math
from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.parameters import Positive, PositiveCount

__all__ = ["DLGLeNet"]


class DLGLeNet(nn.Module):
    """The small convolutional network of "Deep Leakage from Gradients", made to be inverted.

    Three convolutions of 5 x 5 with 12 kernels, padded by 2, with strides 2, 2 and 1, a sigmoid after each, then one
    linear layer. Sigmoids instead of ReLU, because the attack needs second derivatives; strides instead of pooling.
    All weights and biases are drawn uniformly from [-0.5, 0.5], as in the authors' program: far wider than a usual
    start, which is what keeps the gradient informative behind three sigmoids.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        channels: kernels of each convolution.
        init_range: weights and biases start uniform in [-init_range, init_range].

    Raises:
        ConfigError: a parameter out of its range, or an input that is no image.

    Example:
        >>> sum(p.numel() for p in DLGLeNet((3, 32, 32), 100).parameters())
        85036

    Source: Zhu, Liu and Han, "Deep Leakage from Gradients", NeurIPS 2019, Sec. 4.1; sizes and initial weights: the
    released program, github.com/mit-han-lab/dlg.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        channels: PositiveCount = 12,
        init_range: Positive = 0.5,
    ):
        super().__init__()
        check_arguments(DLGLeNet, locals())
        depth, height, width = image_shape(
            DLGLeNet, input_shape, smallest=1, advice="Use fedinv_fcn or mlp for such data."
        )
        self.layers = nn.Sequential(
            nn.Conv2d(depth, channels, 5, stride=2, padding=2),
            nn.Sigmoid(),
            nn.Conv2d(channels, channels, 5, stride=2, padding=2),
            nn.Sigmoid(),
            nn.Conv2d(channels, channels, 5, padding=2),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(channels * math.ceil(height / 4) * math.ceil(width / 4), num_classes),
        )
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -init_range, init_range)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
