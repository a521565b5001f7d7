from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.models._residual import Residual, bottleneck_layers, convolution, he_normal_
from flsec.parameters import PositiveCount

__all__ = ["ResNet101LN"]


class ResNet101LN(nn.Module):
    """ResNet-101 with LayerNorm in place of BatchNorm: SparseFed's network for FEMNIST.

    ImageNet's layout, whatever the size of the image: a convolution of 7 x 7 with stride 2, MaxPool(3) with stride 2,
    four stages of bottlenecks whose last three begin with stride 2, the mean over all positions, one linear layer.
    Each LayerNorm is over channels, height and width and has a weight and a bias for each of these, as in the authors'
    program. The paper says 40 M parameters; on 28 x 28 with 62 classes ours are 43,124,350, 0.6 M of them of norms.

    Args:
        input_shape: (channels, height, width).
        num_classes: C; LEAF's FEMNIST has 62, the paper prints 63.
        blocks: bottlenecks of each stage; ResNet-50 has (3, 4, 6, 3).
        channels: kernels of the first convolution.

    Raises:
        ConfigError: a parameter out of its range, or an input that is no image.

    Example:
        >>> sum(p.numel() for p in ResNet101LN((1, 28, 28), 62, blocks=(1, 1, 1, 1), channels=8).parameters())
        163270

    Source: SparseFed, App. B.3.1 ("a 40M-parameter ResNet101, but we replace the batch norm with layer norm"); sizes:
    the released program, github.com/kiddyboots216/CommEfficient; He et al., CVPR 2016, Table 1.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        blocks: Sequence[PositiveCount] = (3, 4, 23, 3),
        channels: PositiveCount = 64,
    ):
        super().__init__()
        check_arguments(ResNet101LN, locals())
        depth, height, width = image_shape(
            ResNet101LN, input_shape, smallest=1, advice="Use fedinv_fcn or mlp for such data."
        )
        size = _halved((height, width))
        layers: list[nn.Module] = [
            nn.Conv2d(depth, channels, 7, stride=2, padding=3, bias=False),
            nn.LayerNorm((channels, *size)),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        ]
        size, maps = _halved(size), channels
        for stage, number in enumerate(blocks):
            for position in range(number):
                stride = 2 if stage and not position else 1
                layers.append(_block(maps, channels * 2**stage, stride, size))
                maps = 4 * channels * 2**stage
                size = size if stride == 1 else _halved(size)
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, num_classes))
        he_normal_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _halved(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width behind a layer of stride 2."""
    height, width = size
    return (height + 1) // 2, (width + 1) // 2


def _block(width_in: int, width: int, stride: int, size: tuple[int, int]) -> Residual:
    after = size if stride == 1 else _halved(size)
    layers = bottleneck_layers(
        width_in, width, stride, lambda c: nn.LayerNorm((c, *size)), lambda c: nn.LayerNorm((c, *after))
    )
    if stride == 1 and width_in == 4 * width:
        return Residual(layers)
    shortcut = nn.Sequential(convolution(width_in, 4 * width, 1, stride), nn.LayerNorm((4 * width, *after)))
    return Residual(layers, shortcut)
