"""CIFAR-100, from its binary files or from torchvision's."""

import functools
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.datasets._plain_pickle import read_plain_pickle
from flsec.data.datasets._roots import find_root, torchvision_command
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.parameters import check_parameters

__all__ = ["cifar100"]

_SHAPE = (3, 32, 32)
_NUM_CLASSES = {"coarse": 20, "fine": 100}
_RECORD = np.dtype([("coarse", np.uint8), ("fine", np.uint8), ("pixels", np.uint8, _SHAPE)])
_LAYOUTS = [
    ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"],
    ["cifar-100-python/train", "cifar-100-python/test"],
]


def cifar100(root: str | None = None, *, labels: Literal["fine", "coarse"] = "fine") -> DataSource:
    """Return CIFAR-100: 50,000 and 10,000 colour images of 32x32 pixels in [0, 1].

    Two layouts are read, the first that is there:

    - ``ROOT/cifar-100-binary/train.bin`` and ``test.bin``, the publisher's binary version, mapped: a client reads its
      own images only;
    - ``ROOT/cifar-100-python/train`` and ``test``, torchvision's. They are pickles, of which only arrays, lists and
      texts are read; a file that names anything else is refused, and nothing in it is run.

    Class names are taken from the file with names beside the images, if it is there.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.
        labels: the 100 ``"fine"`` classes, or the 20 ``"coarse"`` ones.

    Returns:
        Images (n, 3, 32, 32) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with the command that fetches it; or broken, with what is wrong.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    check_parameters(cifar100, {"labels": labels}, name="data set 'cifar100'")
    folder, layout = find_root("cifar100", root, _LAYOUTS, torchvision_command("CIFAR100"))
    return _load(folder, layout, labels)


@functools.cache
def _load(folder: Path, layout: int, kind: str) -> DataSource:
    train, test = (_part(str(folder / file), kind) for file in _LAYOUTS[layout])
    names = _class_names((folder / _LAYOUTS[layout][0]).parent, kind)
    return DataSource("cifar100", train, test, _NUM_CLASSES[kind], _SHAPE, class_names=names)


def _part(path: str, kind: str) -> ArrayDataset:
    pixels, labels = _opened(path)
    if labels[kind].size == 0 or int(labels[kind].max()) >= _NUM_CLASSES[kind]:
        raise ConfigError(
            f"{path} is broken: it must hold images with {kind} labels below {_NUM_CLASSES[kind]}. Delete it and fetch "
            "the data set again."
        )
    return ArrayDataset(LazyArray(_pixels, path, shape=pixels.shape, dtype=np.uint8), labels[kind])


def _pixels(path: str) -> npt.NDArray[np.uint8]:
    return _opened(path)[0]


@functools.cache
def _opened(path: str) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.int64]]]:
    """Return pixels (n, 3, 32, 32), and labels (n,) by kind."""
    return _binary(path) if path.endswith(".bin") else _pickled(path)


def _binary(path: str) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.int64]]]:
    size = Path(path).stat().st_size
    if size == 0 or size % _RECORD.itemsize:
        raise ConfigError(
            f"{path} is broken: it must hold records of {_RECORD.itemsize} bytes; got {size} bytes. Delete it and "
            "fetch the data set again."
        )
    records: Any = np.memmap(path, dtype=_RECORD, mode="r")
    return records["pixels"], {kind: records[kind].astype(np.int64) for kind in _NUM_CLASSES}


def _pickled(path: str) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.int64]]]:
    try:
        content = read_plain_pickle(Path(path))
        pixels = np.asarray(content[b"data"]).reshape(-1, *_SHAPE)
        labels = {kind: np.array(content[f"{kind}_labels".encode()], dtype=np.int64) for kind in _NUM_CLASSES}
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is broken: it must hold data (n, 3072), fine_labels and coarse_labels; reading it failed with: "
            f"{error!r}. Delete it and fetch the data set again."
        ) from error
    if pixels.dtype != np.uint8 or any(values.shape != (len(pixels),) for values in labels.values()):
        raise ConfigError(f"{path} is broken: it must hold bytes, with two labels an image. Fetch the data set again.")
    return pixels, labels


def _class_names(folder: Path, kind: str) -> tuple[str, ...] | None:
    """Return the names that lie beside the images, or None."""
    text, meta = folder / f"{kind}_label_names.txt", folder / "meta"
    if text.exists():
        return tuple(text.read_text(encoding="utf-8").split())
    if not meta.exists():
        return None
    try:
        return tuple(name.decode() for name in read_plain_pickle(meta)[f"{kind}_label_names".encode()])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{meta} is broken: it must hold {kind}_label_names. Fetch the data set again.") from error
