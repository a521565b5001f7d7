"""Pictures that a client sees shifted and mirrored, another way in every batch."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from flsec.errors import ConfigError
from flsec.parameters import Count, check_parameters

__all__ = ["Augmentation"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random changes of the pictures in a client's training batches, each picture's own.

    Test samples, the server's root set and samples that clients give away are never changed. A trigger that an attacker
    stamps into its data moves with the picture, as it does in any client that augments what its data set hands out.

    Args:
        crop: p; surround a picture with p pixels of zeros on each side, and cut a piece of its old size out of that at
            a random place, so that it is shifted by up to p pixels.
        flip: mirror a picture, left to right, with probability 1/2.

    Raises:
        ConfigError: neither of the two.

    Example:
        >>> batch = torch.arange(9.0).reshape(1, 1, 3, 3)
        >>> Augmentation(flip=True).apply(batch, torch.Generator().manual_seed(0))[0, 0, 0]
        tensor([2., 1., 0.])

    Source: He, Zhang, Ren and Sun, CVPR 2016, Sec. 4.2 (crop of 4 and flip on CIFAR-10); SparseFed trains so.
    """

    crop: Count = 0
    flip: bool = False

    def __post_init__(self) -> None:
        check_parameters(Augmentation, {f.name: getattr(self, f.name) for f in fields(self)}, name="augment")
        if not self.crop and not self.flip:
            raise ConfigError("augment: changes nothing. For example: augment: {crop: 4, flip: true}")

    def check_shape(self, input_shape: tuple[int, ...]) -> None:
        """Raise ``ConfigError`` unless samples of this shape are pictures that the crop leaves something of."""
        if len(input_shape) != 3:
            raise ConfigError(
                f"augment: needs pictures, samples of shape (channels, height, width); got {input_shape}. Leave it out."
            )
        if self.crop >= min(input_shape[1:]):
            raise ConfigError(
                f"augment: crop must be smaller than the picture's sides, {input_shape[1]} and {input_shape[2]}; got "
                f"{self.crop}. For example: crop: {max(1, min(input_shape[1:]) // 8)}",
                parameter="crop",
            )

    def apply(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed copies of a batch of pictures.

        Args:
            x: (n, channels, height, width), on any device. Not modified.
            generator: on the CPU, so that every device sees the same changes; advanced.

        Raises:
            ConfigError: as ``check_shape``.
        """
        self.check_shape(tuple(x.shape[1:]))
        if self.crop:
            x = _shifted(x, self.crop, torch.randint(2 * self.crop + 1, (2, len(x)), generator=generator).to(x.device))
        if self.flip:
            mirrored = torch.rand(len(x), generator=generator) < 0.5
            x = torch.where(mirrored.to(x.device).view(-1, 1, 1, 1), x.flip(-1), x)
        return x


def _shifted(x: Tensor, padding: int, corners: Tensor) -> Tensor:
    """Return pieces of the padded pictures, from row ``corners[0]`` and column ``corners[1]`` on."""
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (padding, padding, padding, padding))
    rows = corners[0, :, None] + torch.arange(height, device=x.device)
    columns = corners[1, :, None] + torch.arange(width, device=x.device)
    picture = torch.arange(n, device=x.device).view(-1, 1, 1)
    return padded[picture, :, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()
