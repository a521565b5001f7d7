from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.models._residual import he_normal_
from flsec.parameters import Positive, PositiveCount

__all__ = ["ResNet9"]


class ResNet9(nn.Module):
    """Page's fast residual network without BatchNorm: SparseFed's network for CIFAR-10, CIFAR-100 and Fashion-MNIST.

    Eight convolutions of 3 x 3 with ReLU and without biases: channels, 2 * channels, a residual block of two,
    4 * channels, 8 * channels, a residual block of two; the second, fifth and sixth are followed by MaxPool(2). Then
    the largest value of each map, one linear layer without a bias, and logits times ``scale``. A residual block adds
    what is left after the second ReLU. The paper's k = d = 6,568,640 settles that no layer has a bias.

    The paper is silent about initial weights; its program leaves them to torch, whose usual draw makes the signal
    shrink from layer to layer where no BatchNorm restores it: the loss hardly moves in the first tens of steps.

    Args:
        input_shape: (channels, height, width); height and width of at least 8, for the three poolings.
        num_classes: C.
        channels: kernels of the first convolution.
        scale: of the logits.
        init: ``"torch"``, torch's usual uniform draw; ``"he"``, He's normal one for convolutions, which keeps the
            signal.

    Raises:
        ConfigError: a parameter out of its range, or an image smaller than 8 x 8.

    Example:
        >>> sum(p.numel() for p in ResNet9((3, 32, 32), 10).parameters())
        6568640

    Source: SparseFed, App. B.3.1 ("the ResNet9 architecture are drawn from Page", "We do not use batch normalization
    in any of our experiments") and Fig. 8; Page, "How to train your ResNet", 2018, for the layout and 0.125; the
    released program: github.com/sparsefed/sparsefed.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        channels: PositiveCount = 64,
        scale: Positive = 0.125,
        init: Literal["torch", "he"] = "torch",
    ):
        super().__init__()
        check_arguments(ResNet9, locals())
        depth, _, _ = image_shape(ResNet9, input_shape, smallest=8, advice="Use fedinv_fcn or mlp for such data.")
        self.scale = scale
        self.layers = nn.Sequential(
            *_convolution(depth, channels),
            *_convolution(channels, 2 * channels),
            nn.MaxPool2d(2),
            _AddedBlock(2 * channels),
            *_convolution(2 * channels, 4 * channels),
            nn.MaxPool2d(2),
            *_convolution(4 * channels, 8 * channels),
            nn.MaxPool2d(2),
            _AddedBlock(8 * channels),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * channels, num_classes, bias=False),
        )
        if init == "he":
            he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        return self.scale * torch.as_tensor(self.layers(x))


def _convolution(width_in: int, width_out: int) -> list[nn.Module]:
    return [nn.Conv2d(width_in, width_out, 3, padding=1, bias=False), nn.ReLU()]


class _AddedBlock(nn.Module):
    """Two convolutions, each with ReLU, added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(*_convolution(width, width), *_convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.as_tensor(self.layers(x))
