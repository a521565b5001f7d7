import math
from typing import Literal

from torch import Tensor, nn

from flsec.errors import ConfigError
from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.parameters import PositiveCount

__all__ = ["ResNetGN"]


class ResNetGN(nn.Module):
    """The residual network for CIFAR-10 with GroupNorm in place of BatchNorm: 6 * blocks + 2 layers.

    One convolution, then three stages of ``blocks`` residual blocks with channels, 2 * channels and 4 * channels
    kernels of 3 x 3; the second and third stage begin with stride 2; then the mean over all positions and one linear
    layer. Where a block changes the shape, its shortcut is a 1 x 1 convolution (the paper's option B).

    GroupNorm knows no batch: the network judges each example by itself, in training too, has no statistics that
    clients would have to share, and its gradient can be inverted without them. Weights start from torch's usual draw.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        blocks: residual blocks of each stage: 3 makes ResNet-20, 9 makes ResNet-56, 1 makes ResNet-8.
        channels: kernels of the first stage.
        groups: groups of every GroupNorm; must divide ``channels``.
        pooling: ``"mean"`` over all positions before the linear layer, as printed; ``"none"`` gives it every position
            by itself. The mean hides where things were: a gradient is far easier to invert without it.

    Raises:
        ConfigError: a parameter out of its range, groups that do not divide channels, or an input that is no image.

    Example:
        >>> sum(p.numel() for p in ResNetGN((3, 32, 32), 10).parameters())
        272474

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Sec. 4.2; Wu and He, "Group
    Normalization", ECCV 2018; instead of BatchNorm in federated learning: Hsieh et al., ICML 2020.
    """

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        blocks: PositiveCount = 3,
        channels: PositiveCount = 16,
        groups: PositiveCount = 8,
        pooling: Literal["mean", "none"] = "mean",
    ):
        super().__init__()
        check_arguments(ResNetGN, locals())
        depth, height, width = image_shape(
            ResNetGN, input_shape, smallest=1, advice="Use fedinv_fcn or mlp for such data."
        )
        if channels % groups:
            raise ConfigError(
                f"model 'resnet_gn': groups must divide channels={channels}; got {groups}. "
                "1 is layer norm, channels is instance norm.",
                parameter="groups",
            )
        layers: list[nn.Module] = [
            nn.Conv2d(depth, channels, 3, padding=1, bias=False),
            nn.GroupNorm(groups, channels),
            nn.ReLU(),
        ]
        maps = channels
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                layers.append(_ResidualBlock(maps, channels * 2**stage, stride, groups))
                maps = channels * 2**stage
        if pooling == "mean":
            layers.append(nn.AdaptiveAvgPool2d(1))
        positions = 1 if pooling == "mean" else math.ceil(height / 4) * math.ceil(width / 4)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(maps * positions, num_classes))

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


class _ResidualBlock(nn.Module):
    """Two normalised convolutions, added to their input."""

    def __init__(self, width_in: int, width_out: int, stride: int, groups: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False),
            nn.GroupNorm(groups, width_out),
            nn.ReLU(),
            nn.Conv2d(width_out, width_out, 3, padding=1, bias=False),
            nn.GroupNorm(groups, width_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride=stride, bias=False), nn.GroupNorm(groups, width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.layers(x) + self.shortcut(x))
