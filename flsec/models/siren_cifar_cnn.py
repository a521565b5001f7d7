from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.models._initialisation import glorot_uniform_

__all__ = ["SirenCifarCNN"]


class SirenCifarCNN(nn.Module):
    """Three convolutions and two dense layers, ReLU between them: what SIREN's program runs on CIFAR-10.

    Conv(32, 3 x 3), MaxPool(2), Conv(64, 3 x 3), MaxPool(2), Conv(64, 3 x 3), Linear(64), Linear(C), without padding
    or dropout. The paper says that it reuses ``siren_cnn`` for CIFAR-10 and, for one attack, takes a "more powerful
    three-CNN-layer model with more kernels" whose sizes it does not give; this is the only one with three convolutions
    that the program's instructions name. It has far fewer parameters than ``siren_cnn``. Glorot's uniform weights and
    zero biases are what the program's library starts from.

    Args:
        input_shape: (channels, height, width); height and width of at least 18.
        num_classes: C.

    Raises:
        ConfigError: a parameter out of its range, or an image smaller than 18 x 18.

    Example:
        >>> sum(p.numel() for p in SirenCifarCNN((3, 32, 32), 10).parameters())
        122570

    Source: the released program, github.com/AISIGSJTU/Siren, ``--model_num=0``; SIREN, Sec. 5.1 and 5.7.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, input_shape: InputShape, num_classes: NumClasses):
        super().__init__()
        check_arguments(SirenCifarCNN, locals())
        depth, height, width = image_shape(
            SirenCifarCNN, input_shape, smallest=18, advice="siren_cnn with kernel_size 3 fits images from 5 x 5 on."
        )
        self.layers = nn.Sequential(
            nn.Conv2d(depth, 32, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * _remaining(height) * _remaining(width), 64),
            nn.ReLU(),
            nn.Linear(64, num_classes),
        )
        glorot_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _remaining(length: int) -> int:
    """Return what three convolutions of 3 and the two poolings between them leave of a side."""
    return ((length - 2) // 2 - 2) // 2 - 2
