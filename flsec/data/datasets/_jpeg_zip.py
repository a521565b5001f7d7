"""Images as JPEG files in a zip, one folder per class, each decoded when it is first asked for."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.errors import ConfigError
from flsec.randomness import numpy_generator

__all__ = ["JpegZip"]

_LOCAL_HEADER = 30  # bytes before the name; lengths of the name and the extra field are its last four


class JpegZip:
    """The images of a zip, indexed by arrays of row numbers; each is decoded once per process.

    The rows are in a fixed random order: such files are sorted by class, and the first thousand rows of a test set
    should be a fair sample. The zip is mapped, not read through a file position, so that threads and forked
    workers may share it.

    Args:
        path: a zip with entries ``<class>/<name>.jpg``, stored without compression.
        height: of every image, in pixels.
        width: likewise.

    Attributes:
        class_names: folder names, sorted.
        labels: (n,) int64 index into ``class_names`` by row.
        decoded: (n,) bool, which rows have been decoded in this process.

    Raises:
        ConfigError: not such a zip, or (when the row is asked for) an image that cannot be decoded.
    """

    def __init__(self, path: str, height: int, width: int):
        self._path = path
        entries = sorted(_entries(path), key=lambda entry: entry.filename)
        self._entries = [entries[i] for i in numpy_generator(0, purpose="rows of a zip").permutation(len(entries))]
        folders = [entry.filename.split("/")[0] for entry in self._entries]
        self.class_names = tuple(sorted(set(folders)))
        index = {name: label for label, name in enumerate(self.class_names)}
        self.labels = np.array([index[folder] for folder in folders], dtype=np.int64)
        self.decoded = np.zeros(len(entries), dtype=bool)
        self._images = np.zeros(
            (len(entries), 3, height, width), np.uint8
        )  # memory is taken page by page, when written
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, 3, height, width)."""
        return self._images.shape

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        for row in np.unique(rows[~self.decoded[rows]]):
            self._images[row] = self._decode(self._entries[row])
            self.decoded[row] = True
        return self._images[rows]

    def _decode(self, entry: zipfile.ZipInfo) -> npt.NDArray[np.uint8]:
        """Return (3, height, width)."""
        from PIL import Image, UnidentifiedImageError  # here: who reads another form of the data needs none of it

        header = self._bytes[entry.header_offset : entry.header_offset + _LOCAL_HEADER].tobytes()
        try:
            start = entry.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[-4:]))
            jpeg = self._bytes[start : start + entry.file_size].tobytes()
            image = np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
        except (struct.error, UnidentifiedImageError, OSError, SyntaxError) as error:
            raise ConfigError(f"{self._path} is broken: {entry.filename} cannot be decoded: {error}.") from error
        if image.shape != (*self._images.shape[2:], 3):
            raise ConfigError(
                f"{self._path} is broken: {entry.filename} must be {self._images.shape[2]} x {self._images.shape[3]} "
                f"pixels; got {image.shape[0]} x {image.shape[1]}."
            )
        return image.transpose(2, 0, 1)


def _entries(path: str) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except zipfile.BadZipFile as error:
        size = Path(path).stat().st_size
        raise ConfigError(f"{path} is broken: {error} ({size} bytes). Fetch the file again.") from error
    for entry in entries:
        if entry.filename.count("/") != 1 or not entry.filename.lower().endswith((".jpg", ".jpeg")):
            raise ConfigError(f"{path}: entries must be <class>/<name>.jpg; got {entry.filename!r}.")
        if entry.compress_type != zipfile.ZIP_STORED:
            raise ConfigError(
                f"{path}: entries must be stored uncompressed, so that single images can be read; "
                f"{entry.filename!r} is compressed. Pack the folder again with zip -0."
            )
    return entries
