from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape

__all__ = ["FedInvCNN"]


class FedInvCNN(nn.Module):
    """FedInv's network for MNIST and Fashion-MNIST: smooth activations, because its defense inverts gradients.

    Conv(6, 3 x 3), Softplus, MaxPool(2), Conv(25, 3 x 3), Softplus, MaxPool(2), Linear(50), Softplus, Linear(C),
    Softplus, as printed. The last Softplus is in print too: it makes the logits positive and leaves their order.
    The printed Linear(1225 * 50) settles the padding, which the paper does not give: 1225 = 25 * 7 * 7 needs 28 x 28
    to survive both convolutions, so they pad by 1. Weights start from torch's usual draw; the paper is silent.

    Args:
        input_shape: (channels, height, width); height and width of at least 4, for the two poolings.
        num_classes: C.

    Raises:
        ConfigError: a parameter out of its range, or an image smaller than 4 x 4.

    Example:
        >>> sum(p.numel() for p in FedInvCNN((1, 28, 28), 10).parameters())
        63245

    Source: FedInv, Experimental Setup, "Models".
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(self, input_shape: InputShape, num_classes: NumClasses):
        super().__init__()
        check_arguments(FedInvCNN, locals())
        depth, height, width = image_shape(
            FedInvCNN, input_shape, smallest=4, advice="Use fedinv_fcn or mlp for such data."
        )
        self.layers = nn.Sequential(
            nn.Conv2d(depth, 6, 3, padding=1),
            nn.Softplus(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 25, 3, padding=1),
            nn.Softplus(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(25 * (height // 4) * (width // 4), 50),
            nn.Softplus(),
            nn.Linear(50, num_classes),
            nn.Softplus(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to positive logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
