"""Pictures of any origin as one array of pixels, each decoded when it is first asked for."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from flsec.errors import ConfigError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Pictures"]


class Pictures:
    """Pictures indexed by arrays of row numbers; each is decoded once per process, in RGB or in grey.

    Args:
        open_picture: returns the picture of a row.
        count: n.
        size: all are scaled to size x size pixels; None: all must be as large as the first.
        channels: 1: grey; 3: RGB; None: as the first picture is.
        name_of: what messages call the picture of a row.

    Raises:
        ConfigError: the first picture, or (when the row is asked for) another one cannot be decoded or has another
            size.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        open_picture: "Callable[[int], Image.Image]",
        count: int,
        size: int | None,
        channels: int | None,
        name_of: Callable[[int], str],
    ):
        self._open, self._name_of, self._size = open_picture, name_of, size
        first = self._picture(0)
        self._mode = "L" if (channels or len(first.getbands())) in (1, 2) else "RGB"  # LA is grey, too
        width, height = (size, size) if size else first.size
        self.shape = (count, 1 if self._mode == "L" else 3, height, width)
        self._pixels = np.zeros(self.shape, np.uint8)  # memory is taken page by page, when written
        self._decoded = np.zeros(count, dtype=bool)

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        for row in np.unique(rows[~self._decoded[rows]]):
            self._pixels[row] = self._decode(int(row))
            self._decoded[row] = True
        return self._pixels[rows]

    def _decode(self, row: int) -> npt.NDArray[np.uint8]:
        """Return (channels, height, width)."""
        picture = self._picture(row)
        height, width = self.shape[2:]
        if self._size:
            picture = picture.convert(self._mode).resize((self._size, self._size))
        elif picture.size != (width, height):
            raise ConfigError(
                f"{self._name_of(row)} has {picture.size[0]} x {picture.size[1]} pixels, and the first picture "
                f"{width} x {height}. Set size, such as size: {min(height, width)}, to scale all to one.",
                parameter="size",
            )
        pixels = np.asarray(picture.convert(self._mode))
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def _picture(self, row: int) -> "Image.Image":
        try:
            picture = self._open(row)
            picture.load()
        except (OSError, SyntaxError, ValueError) as error:  # PIL's own errors are OSErrors
            raise ConfigError(f"{self._name_of(row)} cannot be decoded: {error}.") from error
        return picture.convert("RGB") if picture.mode in ("P", "CMYK", "YCbCr", "HSV", "LAB") else picture
