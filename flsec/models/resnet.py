import math
from typing import ClassVar, Literal

from torch import Tensor, nn

from flsec.errors import ConfigError
from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape, title
from flsec.models._residual import NormOf, Residual, basic_layers, bottleneck_layers, convolution, he_normal_
from flsec.parameters import PositiveCount

__all__ = ["ResNet"]


class ResNet(nn.Module):
    """The residual network for CIFAR: 6 * blocks + 2 layers, ResNet-20 by default.

    One convolution, then three stages of ``blocks`` residual blocks with channels, 2 * channels and 4 * channels
    kernels of 3 x 3; the second and third stage begin with stride 2; then the mean over all positions and one linear
    layer. The defaults are the paper's. FedMLSecurity cites the paper and runs FedML's networks, which differ:
    ``shortcut="projection"`` for its ResNet-20, and with it ``block="bottleneck", blocks=6`` for its ResNet-56.

    BatchNorm needs more than one value of a channel in training: a batch of one image of 4 x 4 or smaller has none.
    Its statistics travel with the weights and are state, not weights, to every defense.

    Args:
        input_shape: (channels, height, width).
        num_classes: C.
        blocks: residual blocks of each stage: 3 makes ResNet-20, 9 makes ResNet-56, 1 makes ResNet-8.
        block: ``"basic"``, two convolutions; ``"bottleneck"``, three (1 x 1, 3 x 3, 1 x 1) that end in four times the
            channels, for 9 * blocks + 2 layers.
        channels: kernels of the first stage.
        norm: ``"batch"``, or ``"group"`` for GroupNorm, which judges each example by itself.
        groups: groups of every GroupNorm; must divide ``channels``. 8 if ``norm`` is ``"group"``; else leave it out.
        shortcut: where a block changes the shape: ``"zeros"``, the input at every second position with zeros for the
            new channels (the paper's option A); ``"projection"``, a 1 x 1 convolution with a norm (option B).
        pooling: ``"mean"`` over all positions before the linear layer, as printed; ``"none"`` gives it every position
            by itself. The mean hides where things were: a gradient is far easier to invert without it.
        init: ``"he"``, the paper's normal draw for convolutions; ``"torch"``, torch's usual uniform one.

    Raises:
        ConfigError: a parameter out of its range, groups that do not divide channels or that BatchNorm would ignore,
            or an input that is no image.

    Example:
        >>> sum(p.numel() for p in ResNet((3, 32, 32), 10).parameters())  # "0.27M" in print
        269722

    Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, Sec. 4.2, weights: their "Delving Deep
    into Rectifiers", ICCV 2015, Eq. 14; FedML: github.com/FedML-AI/FedML, ``python/fedml/model/cv/resnet.py``.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        blocks: PositiveCount = 3,
        block: Literal["basic", "bottleneck"] = "basic",
        channels: PositiveCount = 16,
        norm: Literal["batch", "group"] = "batch",
        groups: PositiveCount | None = None,
        shortcut: Literal["zeros", "projection"] = "zeros",
        pooling: Literal["mean", "none"] = "mean",
        init: Literal["he", "torch"] = "he",
    ):
        super().__init__()
        check_arguments(type(self), locals())
        depth, height, width = image_shape(
            type(self), input_shape, smallest=1, advice="Use fedinv_fcn or mlp for such data."
        )
        norm_of = self._norm(norm, groups, channels)
        layers: list[nn.Module] = [convolution(depth, channels, 3), norm_of(channels), nn.ReLU()]
        maps = channels
        for stage in range(3):
            for position in range(blocks):
                stride = 2 if stage and not position else 1
                layers.append(_block(block, maps, channels * 2**stage, stride, norm_of, shortcut))
                maps = channels * 2**stage * (4 if block == "bottleneck" else 1)
        if pooling == "mean":
            layers.append(nn.AdaptiveAvgPool2d(1))
        positions = 1 if pooling == "mean" else math.ceil(height / 4) * math.ceil(width / 4)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(maps * positions, num_classes))
        if init == "he":
            he_normal_(self)

    def _norm(self, norm: str, groups: int | None, channels: int) -> NormOf:
        if norm == "batch":
            if groups is not None:
                raise ConfigError(
                    f"{title(type(self))}: groups goes with norm 'group'; got {groups} and norm 'batch'. Leave it out.",
                    parameter="groups",
                )
            return nn.BatchNorm2d
        number = 8 if groups is None else groups
        if channels % number:
            raise ConfigError(
                f"{title(type(self))}: groups must divide channels={channels}; got {number}. "
                "1 is layer norm, channels is instance norm.",
                parameter="groups",
            )
        return lambda width: nn.GroupNorm(number, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits


def _block(kind: str, width_in: int, width: int, stride: int, norm_of: NormOf, shortcut: str) -> Residual:
    if kind == "basic":
        layers, width_out = basic_layers(width_in, width, stride, norm_of), width
    else:
        layers, width_out = bottleneck_layers(width_in, width, stride, norm_of, norm_of), 4 * width
    if stride == 1 and width_in == width_out:
        return Residual(layers)
    if shortcut == "zeros":
        return Residual(layers, _ZeroShortcut(width_out - width_in, stride))
    return Residual(layers, nn.Sequential(convolution(width_in, width_out, 1, stride), norm_of(width_out)))


class _ZeroShortcut(nn.Module):
    """The input at every ``stride``-th position, with maps of zeros for the channels that are new."""

    def __init__(self, new_channels: int, stride: int):
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
