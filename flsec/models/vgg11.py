import itertools
from collections.abc import Callable
from typing import ClassVar, Literal

from torch import Tensor, nn

from flsec.errors import ConfigError
from flsec.models._arguments import Dropout, InputShape, NumClasses, check_arguments, image_shape
from flsec.models._initialisation import glorot_uniform_
from flsec.parameters import PositiveCount

__all__ = ["VGG11"]

_WIDTHS = (1, 2, 4, 4, 8, 8, 8, 8)  # kernels, in multiples of the first layer's
_POOLED = (0, 1, 3, 5, 7)  # convolutions that MaxPool(2) follows


class VGG11(nn.Module):
    """VGG-11 with GroupNorm: DiverseFL's network for CIFAR-10 and CIFAR-100.

    Eight convolutions of 3 x 3, each with a norm and ReLU, five of them with MaxPool(2); then two linear layers with
    ReLU and dropout, and the output layer. Glorot's uniform weights are the paper's; zero biases are our choice. The
    paper does not give the dense layers' width or dropout: 4096 and 0.5 are those of the network that it cites.

    Args:
        input_shape: (channels, height, width); height and width of at least 32, for the five poolings.
        num_classes: C.
        channels: kernels of the first convolution; the last ones have eight times as many.
        hidden: neurons of the first two dense layers.
        norm: ``"group"``; ``"batch"``, the usual VGG-11's; ``"none"``, the original's of 2014.
        channels_per_group: channels in every group of GroupNorm; must divide ``channels``. 16, the paper's, if ``norm``
            is ``"group"``; else leave it out.
        dropout: share of values dropped after each of the first two dense layers.

    Raises:
        ConfigError: a parameter out of its range, groups that do not fit or that the norm would ignore, or an image
            smaller than 32 x 32.

    Example:
        >>> sum(p.numel() for p in VGG11((3, 32, 32), 10, hidden=512).parameters())
        9756426

    Source: DiverseFL, Sec. IV-B ("each group has 16 channels throughout the network"); Simonyan and Zisserman, "Very
    deep convolutional networks for large-scale image recognition", ICLR 2015, Table 1, A; Wu and He, ECCV 2018.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        channels: PositiveCount = 64,
        hidden: PositiveCount = 4096,
        norm: Literal["group", "batch", "none"] = "group",
        channels_per_group: PositiveCount | None = None,
        dropout: Dropout = 0.5,
    ):
        super().__init__()
        check_arguments(VGG11, locals())
        depth, height, width = image_shape(
            VGG11, input_shape, smallest=32, advice="Use lenet, femnist_cnn or resnet for smaller images."
        )
        norm_of = _norm_of(norm, channels_per_group, channels)
        widths = [depth, *(channels * multiple for multiple in _WIDTHS)]
        convolutions: list[nn.Module] = []
        for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
            convolutions += [nn.Conv2d(width_in, width_out, 3, padding=1), *norm_of(width_out), nn.ReLU()]
            if index in _POOLED:
                convolutions.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(
            *convolutions,
            nn.Flatten(),
            nn.Linear(widths[-1] * (height // 32) * (width // 32), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        glorot_uniform_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _norm_of(norm: str, channels_per_group: int | None, channels: int) -> Callable[[int], list[nn.Module]]:
    """Return what makes the norm of a number of channels: a list of one module, or of none."""
    if norm == "group":
        size = 16 if channels_per_group is None else channels_per_group
        if channels % size:
            raise ConfigError(
                f"model 'vgg11': channels_per_group must divide channels={channels}; got {size}. "
                f"{channels} is layer norm in the first layer, 1 is instance norm.",
                parameter="channels_per_group",
            )
        return lambda width: [nn.GroupNorm(width // size, width)]
    if channels_per_group is not None:
        raise ConfigError(
            f"model 'vgg11': channels_per_group goes with norm 'group'; got {channels_per_group} and norm {norm!r}. "
            "Leave it out.",
            parameter="channels_per_group",
        )
    return lambda width: [nn.BatchNorm2d(width)] if norm == "batch" else []
