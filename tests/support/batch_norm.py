"""A small network with BatchNorm for 8 x 8 images, as an experiment's file can name it."""

from torch import Tensor, nn

__all__ = ["Model"]


class Model(nn.Module):
    """Two fully connected layers around BatchNorm.

    Args:
        input_shape: of one image.
        num_classes: C.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        size = input_shape[0] * input_shape[1] * input_shape[2]
        self.hidden = nn.Linear(size, 8)
        self.normalise = nn.BatchNorm1d(8)
        self.output = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (k, C)."""
        logits: Tensor = self.output(self.normalise(self.hidden(x.flatten(1))).relu())
        return logits
