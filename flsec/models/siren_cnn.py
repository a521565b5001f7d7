from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import Dropout, InputShape, NumClasses, check_arguments, image_shape
from flsec.models._initialisation import glorot_uniform_
from flsec.parameters import PositiveCount

__all__ = ["SirenCNN"]


class SirenCNN(nn.Module):
    """Two convolutional and two dense layers, ReLU between them: SIREN's network for Fashion-MNIST and CIFAR-10.

    The paper gives the four layers and nothing else. The defaults are what its authors' program builds for
    Fashion-MNIST: 64 and 64 kernels of 5 x 5 without padding or pooling, 128 neurons, dropout after the second
    convolution and after the first dense layer. Glorot's uniform weights and zero biases are what that program's
    library starts from. It is large for its task (3.4 million parameters on 28 x 28): on a CPU, fewer ``channels``
    save most of the time.

    Args:
        input_shape: (channels, height, width); height and width of at least 2 * kernel_size - 1.
        num_classes: C.
        channels: kernels of both convolutions.
        kernel_size: height and width of the kernels, in pixels.
        hidden: neurons of the first dense layer.
        conv_dropout: share of values dropped after the second convolution.
        dense_dropout: share of values dropped after the first dense layer.

    Raises:
        ConfigError: a parameter out of its range, or an image smaller than the two convolutions need.

    Example:
        >>> sum(p.numel() for p in SirenCNN((1, 28, 28), 10).parameters())
        3382346

    Source: SIREN, Sec. 5.1 ("two CNN layers and two dense layers", reused for CIFAR-10); sizes: the released program,
    github.com/AISIGSJTU/Siren, ``--model_num=1`` (for CIFAR-10 its instructions name ``siren_cifar_cnn``).
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        channels: PositiveCount = 64,
        kernel_size: PositiveCount = 5,
        hidden: PositiveCount = 128,
        conv_dropout: Dropout = 0.25,
        dense_dropout: Dropout = 0.5,
    ):
        super().__init__()
        check_arguments(SirenCNN, locals())
        shrink = 2 * (kernel_size - 1)  # both convolutions together, per side length
        depth, height, width = image_shape(
            SirenCNN,
            input_shape,
            smallest=shrink + 1,
            advice="Lower kernel_size (3 fits images from 5 x 5 on), or choose another model.",
        )
        self.layers = nn.Sequential(
            nn.Conv2d(depth, channels, kernel_size),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size),
            nn.ReLU(),
            nn.Dropout(conv_dropout),
            nn.Flatten(),
            nn.Linear(channels * (height - shrink) * (width - shrink), hidden),
            nn.ReLU(),
            nn.Dropout(dense_dropout),
            nn.Linear(hidden, num_classes),
        )
        glorot_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
