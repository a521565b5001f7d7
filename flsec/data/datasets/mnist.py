"""MNIST, with the writer of every image where that is known."""

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flsec.data.datasets._idx import IDX_FILES, idx_dataset
from flsec.data.datasets._npz import read_npz
from flsec.data.datasets._roots import find_root, torchvision_command
from flsec.data.source import DataSource
from flsec.errors import ConfigError

__all__ = ["mnist"]


def mnist(root: str | None = None) -> DataSource:
    """Return MNIST: 60,000 and 10,000 digits of 28x28 pixels in [0, 1].

    The idx files in ``ROOT/MNIST/raw``, where torchvision puts them, are mapped: a client reads its own images only.
    If ``ROOT/mnist_writers/mnist_writers.npz`` is there, ``groups["writer"]`` holds the 539 training writers (array
    ``train_writer``, one id per image in MNIST's order; QMNIST's label files have them).

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.

    Returns:
        Images (n, 1, 28, 28) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with the command that fetches it; or broken, with what is wrong.

    Source: LeCun et al., Proc. IEEE 1998; writers: Yadav and Bottou, NeurIPS 2019 (QMNIST).
    """
    files = [f"MNIST/raw/{name}" for name in IDX_FILES]
    folder, _ = find_root("mnist", root, [files], torchvision_command("MNIST"))
    return _load(folder)


@functools.cache
def _load(folder: Path) -> DataSource:
    raw = folder / "MNIST" / "raw"
    train, test = idx_dataset(raw, "train", 10), idx_dataset(raw, "t10k", 10)
    writers = folder / "mnist_writers" / "mnist_writers.npz"
    groups = {"writer": _writers(writers, len(train))} if writers.exists() else None
    return DataSource("mnist", train, test, num_classes=10, input_shape=train.input_shape, groups=groups)


def _writers(path: Path, num_images: int) -> npt.NDArray[np.int64]:
    ids: npt.NDArray[np.int64] = read_npz(path, ("train_writer",))["train_writer"].astype(np.int64)
    if ids.shape != (num_images,):
        raise ConfigError(
            f"{path} is broken: train_writer must have one id per training image, ({num_images},); got {ids.shape}. "
            "Fetch it again, or delete it to do without writers."
        )
    return ids
