from typing import ClassVar, Literal

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape

__all__ = ["LeNet"]


class LeNet(nn.Module):
    """LeNet-5 as it is taught: two convolutions of 5 x 5 with 6 and 16 kernels, then 120 and 84 neurons.

    The paper's input is 32 x 32. MNIST's 28 x 28 lies in it with a margin of 2, which the first convolution's
    ``padding`` adds: 61,706 parameters either way. What differs from 1998: every map of the second convolution sees
    all six before it, pooling has no weights, and the output is linear, not a radial basis function; weights start from
    torch's usual draw.

    Args:
        input_shape: (channels, height, width); with the padding, height and width of at least 16.
        num_classes: C.
        padding: of the first convolution; 0 for images of 32 x 32.
        activation: ``"relu"``, or ``"tanh"``, nearer to the paper's scaled one.
        pooling: ``"max"``, or ``"mean"``, nearer to the paper's.

    Raises:
        ConfigError: a parameter out of its range, or an image that is too small.

    Example:
        >>> sum(p.numel() for p in LeNet((1, 28, 28), 10).parameters())
        61706

    Source: LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86(11), 1998, Sec. II-B;
    named by FedMLSecurity, Sec. 1.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        padding: Literal[0, 2] = 2,
        activation: Literal["relu", "tanh"] = "relu",
        pooling: Literal["max", "mean"] = "max",
    ):
        super().__init__()
        check_arguments(LeNet, locals())
        depth, height, width = image_shape(
            LeNet, input_shape, smallest=16 - 2 * padding, advice="Use fedinv_cnn or mlp for smaller images."
        )
        pool = nn.MaxPool2d if pooling == "max" else nn.AvgPool2d
        smooth = nn.ReLU if activation == "relu" else nn.Tanh
        rows, columns = (((length + 2 * padding - 4) // 2 - 4) // 2 for length in (height, width))
        self.layers = nn.Sequential(
            nn.Conv2d(depth, 6, 5, padding=padding),
            smooth(),
            pool(2),
            nn.Conv2d(6, 16, 5),
            smooth(),
            pool(2),
            nn.Flatten(),
            nn.Linear(16 * rows * columns, 120),
            smooth(),
            nn.Linear(120, 84),
            smooth(),
            nn.Linear(84, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
