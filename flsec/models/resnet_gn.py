from typing import Literal

from flsec.models._arguments import InputShape, NumClasses
from flsec.models.resnet import ResNet
from flsec.parameters import PositiveCount

__all__ = ["ResNetGN"]


class ResNetGN(ResNet):
    """The residual network for CIFAR with GroupNorm in place of BatchNorm: 6 * blocks + 2 layers.

    ``resnet`` with ``norm="group", shortcut="projection", init="torch"``, under a name of its own: where a block
    changes the shape, its shortcut is a 1 x 1 convolution, and weights start from torch's usual draw.

    GroupNorm knows no batch: the network judges each example by itself, in training too, has no statistics that
    clients would have to share, and its gradient can be inverted without them.

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
        super().__init__(
            input_shape,
            num_classes,
            blocks=blocks,
            channels=channels,
            norm="group",
            groups=groups,
            shortcut="projection",
            pooling=pooling,
            init="torch",
        )
