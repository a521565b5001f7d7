"""A data set of your own, as picture files in a folder for each class."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from flsec.data.datasets._own import Samples, check_one_test_set, find_path, own_source
from flsec.data.datasets._pictures import Pictures
from flsec.data.source import DataSource
from flsec.errors import ConfigError
from flsec.parameters import OpenFraction, PositiveCount, check_parameters
from flsec.randomness import numpy_generator

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["image_folder"]

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def image_folder(
    root: str | None = None,
    *,
    folder: str,
    size: PositiveCount | None = None,
    channels: Literal[1, 3] | None = None,
    test_fraction: OpenFraction | None = None,
) -> DataSource:
    """Return pictures in folders, ``FOLDER/<class>/*.png`` or ``FOLDER/train/<class>/*.png`` and ``FOLDER/test/...``.

    PNG, JPEG, BMP and WebP files are read, with pixels in [0, 1]. A picture is decoded when it is first asked for and
    kept for the life of the process; the order is random but fixed. Classes are the folders' names, sorted.

    Args:
        root: where a relative ``folder`` starts; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        folder: path of the folder.
        size: scale every picture to size x size pixels; default: all have one size, which is checked at once.
        channels: 1: grey, 3: RGB; default: as the first picture is.
        test_fraction: share of the pictures of each class that is the test set, where there are no folders ``train``
            and ``test``; default 0.2. The same pictures whatever the seed.

    Returns:
        Images (n, c, height, width) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, no pictures, or (when it is asked for) a picture that cannot be decoded.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("cat", "dog"):
        ...     (root / name).mkdir()
        ...     for number in range(5):
        ...         Image.new("L", (8, 8), color=51 * number).save(root / name / f"{number}.png")
        >>> source = image_folder(folder=str(root))
        >>> source.class_names, len(source.train), len(source.test), source.input_shape
        (('cat', 'dog'), 8, 2, (1, 8, 8))

    Source: ours; the layout is that of torchvision's ``ImageFolder``.
    """
    given = {key: value for key, value in locals().items() if key != "root"}
    check_parameters(image_folder, given, name="data set 'image_folder'")
    place = find_path("image_folder", root, folder, "folder")
    if all((place / part).is_dir() for part in ("train", "test")):
        check_one_test_set("image_folder", f"the folder {place / 'test'}", test_fraction)
    return own_source("image_folder", _read, test_fraction, str(place), size, channels)


def _read(
    test_fraction: float | None, folder: str, size: int | None, channels: int | None
) -> tuple[Samples, Samples | None]:
    place = Path(folder)
    if not all((place / part).is_dir() for part in ("train", "test")):
        return _samples(place, size, channels), None
    train = _samples(place / "train", size, channels)
    return train, _samples(place / "test", size, channels or train.x.shape[1])


def _samples(folder: Path, size: int | None, channels: int | None) -> Samples:
    files = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise ConfigError(
            f"data set 'image_folder': {folder} must have a folder for each class with pictures in it "
            f"({', '.join(_SUFFIXES)}); it has none.",
            parameter="folder",
        )
    files = [files[i] for i in numpy_generator(0, purpose="rows of a folder").permutation(len(files))]
    if size is None:
        _check_sizes(files)
    pictures = Pictures(lambda row: _open(files[row]), len(files), size, channels, lambda row: str(files[row]))
    return Samples(pictures, np.array([path.parent.name for path in files]))


def _open(path: Path) -> "Image.Image":
    from PIL import Image  # here: who reads another form of data needs none of it

    return Image.open(path)


def _check_sizes(files: list[Path]) -> None:
    """Look at the first bytes of every file, rather than fail in the middle of a run."""
    seen: dict[tuple[int, int], Path] = {}
    for path in files:
        try:
            with _open(path) as picture:
                seen.setdefault(picture.size, path)
        except OSError as error:
            raise ConfigError(f"{path} cannot be decoded: {error}.") from error
    if len(seen) > 1:
        (one, first), (other, second) = list(seen.items())[:2]
        raise ConfigError(
            f"data set 'image_folder': pictures must have one size; {first} has {one[0]} x {one[1]} pixels and "
            f"{second} {other[0]} x {other[1]}. Set size, such as size: {min(*one, *other)}, to scale all to one.",
            parameter="size",
        )
