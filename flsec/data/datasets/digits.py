"""The 8x8 handwritten digits that come with scikit-learn: real data without a download."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flsec.data._lazy import LazyArray
from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator

__all__ = ["digits"]


def digits(root: str | None = None) -> DataSource:
    """Return scikit-learn's digits: 1,797 images of 8x8 pixels with 17 grey levels, in [0, 1], ten classes.

    A fixed fifth of each class is the test set (359 images; 1,438 are left for training), the same whatever the seed
    of the run. It needs neither files nor a network.

    Args:
        root: not used; there, because every data set has it.

    Returns:
        Images (n, 1, 8, 8) float32 and labels (n,) int64, in ``train`` and ``test``.

    Example:
        >>> x, y = digits().train.tensors([0, 1, 2])
        >>> tuple(x.shape), y.dtype
        ((3, 1, 8, 8), torch.int64)

    Source: Alpaydin and Kaynak, UCI "Optical Recognition of Handwritten Digits", test part.
    """
    return _load()


@functools.cache
def _load() -> DataSource:
    train, test = (
        ArrayDataset(LazyArray(_images, part, shape=(len(rows), 1, 8, 8), dtype=np.uint8), _all()[1][rows], divisor=16)
        for part, rows in enumerate(_split())
    )
    return DataSource("digits", train, test, num_classes=10, input_shape=(1, 8, 8))


@functools.cache
def _all() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    rows = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)  # 64 pixels and the digit
    return rows[:, :-1].reshape(-1, 1, 8, 8), rows[:, -1].astype(np.int64)


def _file() -> Path:
    """Return scikit-learn's file; importing scikit-learn for it would cost each client's process 1 s and 140 MB."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            return path
    raise ConfigError(
        "data set 'digits' comes with scikit-learn, which is not here. To supply it: pip install scikit-learn"
    )


@functools.cache
def _split() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the rows of the training and of the test set, each in random order."""
    labels = _all()[1]
    rng = numpy_generator(0, purpose="digits split")
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        is_test[members[: round(len(members) / 5)]] = True
    return rng.permutation(np.flatnonzero(~is_test)), rng.permutation(np.flatnonzero(is_test))


def _images(part: int) -> npt.NDArray[np.uint8]:
    return _all()[0][_split()[part]]
