"""What the residual networks are made of; who builds one chooses the norm."""

from collections.abc import Callable

from torch import Tensor, nn

__all__ = ["NormOf", "Residual", "basic_layers", "bottleneck_layers", "convolution", "he_normal_"]

NormOf = Callable[[int], nn.Module]  # number of channels -> their norm


class Residual(nn.Module):
    """Layers whose output is added to their input, and ReLU after the sum.

    Args:
        layers: the layers.
        shortcut: brings the input to the shape of the layers' output; None where it has that shape.
    """

    def __init__(self, layers: nn.Module, shortcut: nn.Module | None = None):
        super().__init__()
        self.layers = layers
        self.shortcut = nn.Identity() if shortcut is None else shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to maps of the layers' channels, height and width."""
        return nn.functional.relu(self.layers(x) + self.shortcut(x))


def convolution(width_in: int, width_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of size x size, padded to keep height and width; without a bias, since a norm follows."""
    return nn.Conv2d(width_in, width_out, size, stride=stride, padding=size // 2, bias=False)


def basic_layers(width_in: int, width: int, stride: int, norm: NormOf) -> nn.Sequential:
    """Return the layers of a basic block: two convolutions of 3 x 3, the first of which has the stride."""
    return nn.Sequential(
        convolution(width_in, width, 3, stride), norm(width), nn.ReLU(), convolution(width, width, 3), norm(width)
    )


def bottleneck_layers(width_in: int, width: int, stride: int, norm: NormOf, norm_after: NormOf) -> nn.Sequential:
    """Return the layers of a bottleneck: 1 x 1, 3 x 3, which has the stride, and 1 x 1 to 4 * width channels.

    Args:
        width_in: channels of the input.
        width: kernels of the first two convolutions.
        stride: of the second convolution.
        norm: before the stride.
        norm_after: after the stride, where the maps are smaller.
    """
    return nn.Sequential(
        convolution(width_in, width, 1),
        norm(width),
        nn.ReLU(),
        convolution(width, width, 3, stride),
        norm_after(width),
        nn.ReLU(),
        convolution(width, 4 * width, 1),
        norm_after(4 * width),
    )


def he_normal_(model: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 2 / (kernels * height * width)), as He et al. (ICCV 2015) do."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
