"""Hand-drawn digits and letters by writer."""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.datasets._npz import read_npz
from flsec.data.datasets._roots import find_root
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator

__all__ = ["chars74k"]

_NUM_CLASSES, _NUM_TEST_WRITERS = 62, 11
_SUPPLY = (
    "{root}/chars74k_hnd/chars74k_hnd.npz with the arrays images (n, 28, 28) uint8, white on black, labels (n,) 0 to "
    "61, writers (n,) and chars (62,), made from the folder 'Hnd' of the Chars74K data set."
)


def chars74k(root: str | None = None) -> DataSource:
    """Return the hand-drawn part of Chars74K: 62 characters (0-9, A-Z, a-z) by 55 people, 28x28 pixels in [0, 1].

    Everybody drew each character once, so that a writer has 62 images. A fixed fifth of the writers, 11 of the 55, is
    the test set, the same whatever the seed of the run; ``groups["writer"]`` holds the other 44. The images are shrunk
    from drawings of 1200x900 pixels.

    This is not FEMNIST: classes and image size are the same, but writers are 55 instead of 3,500, with a quarter of
    the images each, and drew with a pen on a tablet. Results with one say nothing about the other.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.

    Returns:
        Images (n, 1, 28, 28) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with what would supply it; or broken, with what is wrong.

    Source: de Campos, Babu and Varma, "Character recognition in natural images", VISAPP 2009.
    """
    folder, _ = find_root("chars74k", root, [["chars74k_hnd/chars74k_hnd.npz"]], _SUPPLY)
    return _load(str(folder / "chars74k_hnd" / "chars74k_hnd.npz"))


@functools.cache
def _load(path: str) -> DataSource:
    table = _checked(path)
    train, test = (
        ArrayDataset(
            LazyArray(_images, path, part, shape=(len(rows), 1, 28, 28), dtype=np.uint8),
            table["labels"][rows].astype(np.int64),
        )
        for part, rows in enumerate(_split(path))
    )
    writers = table["writers"][_split(path)[0]].astype(np.int64)
    names = tuple(map(str, table["chars"]))
    return DataSource("chars74k", train, test, _NUM_CLASSES, (1, 28, 28), class_names=names, groups={"writer": writers})


@functools.cache
def _checked(path: str) -> dict[str, npt.NDArray[Any]]:
    table = read_npz(path, ("images", "labels", "writers", "chars"))
    n = len(table["labels"])
    wanted = {"images": (n, 28, 28), "labels": (n,), "writers": (n,), "chars": (_NUM_CLASSES,)}
    if any(table[name].shape != shape for name, shape in wanted.items()) or table["images"].dtype != np.uint8:
        raise ConfigError(
            f"{path} is broken: images must be uint8 (n, 28, 28), labels and writers (n,), chars ({_NUM_CLASSES},); "
            f"got {', '.join(f'{name} {array.dtype} {array.shape}' for name, array in table.items())}."
        )
    if not np.isin(table["labels"], range(_NUM_CLASSES)).all() or len(np.unique(table["writers"])) <= _NUM_TEST_WRITERS:
        raise ConfigError(
            f"{path} is broken: labels must be 0 .. {_NUM_CLASSES - 1}, by more than {_NUM_TEST_WRITERS} writers."
        )
    return table


@functools.cache
def _split(path: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of the training and of the test set; no writer is in both."""
    writers = _checked(path)["writers"]
    rng = numpy_generator(0, purpose="chars74k split")
    for_testing = rng.permutation(np.unique(writers))[:_NUM_TEST_WRITERS]
    is_test = np.isin(writers, for_testing)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _images(path: str, part: int) -> npt.NDArray[np.uint8]:
    images: npt.NDArray[np.uint8] = _checked(path)["images"][_split(path)[part]][:, None]
    return images
