"""CIFAR-10, from torchvision's files or from JPEG files in two zips."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.datasets._jpeg_zip import JpegZip
from flsec.data.datasets._roots import find_root, torchvision_command
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError

__all__ = ["cifar10"]

_SHAPE = (3, 32, 32)
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_JPEG_SIZES = {"train": 5_000, "test": 1_000}  # images a class


def cifar10(root: str | None = None) -> DataSource:
    """Return CIFAR-10: 50,000 and 10,000 colour images of 32x32 pixels in [0, 1].

    Two layouts are read, the first that is there:

    - ``ROOT/cifar-10-batches-py``, torchvision's, read by torchvision whole, which checks it;
    - ``ROOT/cifar10/train.zip`` and ``test.zip``, JPEG files ``<class>/<nnnn>.jpg`` stored uncompressed. An image
      is decoded when it is first asked for and kept for the life of the process; the order is random but fixed.
      JPEG is lossy, so the source's name is ``cifar10 (JPEG)``, and results with it are not CIFAR-10's to the
      last digit.

    For the usual normalisation: ``cifar10().normalized((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))``.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.

    Returns:
        Images (n, 3, 32, 32) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with the command that fetches it; or broken, with what is wrong.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    layouts = [["cifar-10-batches-py"], ["cifar10/train.zip", "cifar10/test.zip"]]
    folder, layout = find_root("cifar10", root, layouts, torchvision_command("CIFAR10"))
    return _load_batches(folder) if layout == 0 else _load_zips(folder)


@functools.cache
def _load_batches(folder: Path) -> DataSource:
    train, test = (
        ArrayDataset(LazyArray(_batch_images, str(folder), part == "train", shape=images.shape, dtype=np.uint8), labels)
        for part, (images, labels) in ((part, _batches(str(folder), part == "train")) for part in _JPEG_SIZES)
    )
    return DataSource("cifar10", train, test, 10, _SHAPE, class_names=_CLASSES)


def _batch_images(folder: str, train: bool) -> npt.NDArray[np.uint8]:
    return _batches(folder, train)[0]


@functools.cache
def _batches(folder: str, train: bool) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return images (n, 3, 32, 32) and labels (n,)."""
    from torchvision.datasets import CIFAR10  # takes a second, and most runs use other data

    try:
        data: Any = CIFAR10(folder, train=train)
    except RuntimeError as error:  # its check of the files' MD5 sums
        raise ConfigError(
            f"{folder}/cifar-10-batches-py is broken: a file is missing or its MD5 sum is wrong. Delete the folder "
            f"and run {torchvision_command('CIFAR10').format(root=folder)}"
        ) from error
    return np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)), np.array(data.targets, dtype=np.int64)


@functools.cache
def _load_zips(folder: Path) -> DataSource:
    train, test = (_zip_dataset(str(folder / "cifar10" / f"{part}.zip"), part) for part in _JPEG_SIZES)
    return DataSource("cifar10 (JPEG)", train, test, 10, _SHAPE, class_names=_CLASSES)


def _zip_dataset(path: str, part: str) -> ArrayDataset:
    images = _jpegs(path)
    counts = np.bincount(images.labels).tolist()
    if images.class_names != _CLASSES or counts != [_JPEG_SIZES[part]] * len(_CLASSES):
        raise ConfigError(
            f"{path} is broken: it must hold {_JPEG_SIZES[part]} images in each of the folders {', '.join(_CLASSES)}; "
            f"got {dict(zip(images.class_names, counts, strict=True))}. Fetch the file again."
        )
    return ArrayDataset(LazyArray(_jpegs, path, shape=images.shape, dtype=np.uint8), images.labels)


@functools.cache
def _jpegs(path: str) -> JpegZip:
    return JpegZip(path, *_SHAPE[1:])
