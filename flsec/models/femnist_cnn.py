from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import Dropout, InputShape, NumClasses, check_arguments, image_shape
from flsec.parameters import PositiveCount

__all__ = ["FemnistCNN"]


class FemnistCNN(nn.Module):
    """McMahan's convolutional network for MNIST, the "CNN" of FedMLSecurity and LEAF for FEMNIST.

    Conv(32, 5 x 5), ReLU, MaxPool(2), Conv(64, 5 x 5), ReLU, MaxPool(2), Linear(512), ReLU, Linear(C). The printed
    count settles that both convolutions are padded by 2. FedML has it as ``CNN_OriginalFedAvg``, beside a smaller
    network of Reddi et al. (``CNN_DropOut``: 3 x 3 kernels, 128 neurons), which FedMLSecurity does not cite. Weights
    start from torch's usual draw; the papers are silent.

    Args:
        input_shape: (channels, height, width); height and width of at least 4, for the two poolings.
        num_classes: C; 62 for FEMNIST.
        hidden: neurons of the first dense layer.
        dropout: share of values dropped after the second pooling and after the first dense layer; 0 in the papers.

    Raises:
        ConfigError: a parameter out of its range, or an image smaller than 4 x 4.

    Example:
        >>> sum(p.numel() for p in FemnistCNN((1, 28, 28), 10).parameters())
        1663370

    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    Sec. 3 ("1,663,370 total parameters"); FedMLSecurity, Table 3; Caldas et al., "LEAF", 2018.
    """

    tasks: ClassVar[tuple[str, ...]] = ("classification",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        hidden: PositiveCount = 512,
        dropout: Dropout = 0.0,
    ):
        super().__init__()
        check_arguments(FemnistCNN, locals())
        depth, height, width = image_shape(
            FemnistCNN, input_shape, smallest=4, advice="Use fedinv_fcn or mlp for such data."
        )
        self.layers = nn.Sequential(
            nn.Conv2d(depth, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, height, width) to logits (n, num_classes)."""
        logits: Tensor = self.layers(x)
        return logits
