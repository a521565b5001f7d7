import math
from typing import ClassVar

from torch import Tensor, nn

from flsec.models._arguments import InputShape, NumClasses, check_arguments, image_shape
from flsec.parameters import PositiveCount

__all__ = ["MLPGAN"]


class MLPGAN(nn.Module):
    """A small generative adversarial network: generator and discriminator, fully connected, in one module.

    Both travel together, so that any rule averages or defends both. Two hidden layers each: ReLU in the generator,
    whose sigmoid gives pixels in [0, 1], and leaky ReLU of slope 0.2 in the discriminator. Sizes are ours; weights
    start from torch's usual draw.

    Args:
        input_shape: (channels, height, width).
        num_classes: not used; there, because every model has it.
        latent_size: numbers of noise that become one image.
        hidden: neurons of each hidden layer.

    Attributes:
        generator: maps noise (n, latent_size) to images (n, *input_shape).
        discriminator: maps images to logits (n,): positive for images that it takes for real.

    Raises:
        ConfigError: a parameter out of its range, or an input that is no image.

    Example:
        >>> sum(p.numel() for p in MLPGAN((1, 8, 8), 10, latent_size=16, hidden=32).parameters())
        6881

    Source: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, Sec. 5 (fully connected networks).
    """

    tasks: ClassVar[tuple[str, ...]] = ("gan",)

    def __init__(
        self,
        input_shape: InputShape,
        num_classes: NumClasses,
        *,
        latent_size: PositiveCount = 32,
        hidden: PositiveCount = 128,
    ):
        super().__init__()
        check_arguments(MLPGAN, locals())
        shape = image_shape(MLPGAN, input_shape, smallest=1, advice="Such data have no images to generate.")
        pixels = math.prod(shape)
        self.latent_size = latent_size
        self.generator = nn.Sequential(
            nn.Linear(latent_size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, pixels),
            nn.Sigmoid(),
            nn.Unflatten(1, shape),
        )
        self.discriminator = nn.Sequential(
            nn.Flatten(),
            nn.Linear(pixels, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, hidden),
            nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
            nn.Flatten(0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (n, channels, height, width) to the discriminator's logits (n,)."""
        logits: Tensor = self.discriminator(x)
        return logits
