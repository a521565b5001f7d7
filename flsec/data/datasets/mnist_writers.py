"""MNIST, with its writers as natural clients."""

import dataclasses
import functools
from pathlib import Path

from flsec.data.datasets._idx import IDX_FILES
from flsec.data.datasets._roots import find_root
from flsec.data.datasets.mnist import mnist
from flsec.data.source import DataSource

__all__ = ["mnist_writers"]

_WRITERS = "mnist_writers/mnist_writers.npz"
_SUPPLY = (
    "torchvision.datasets.MNIST('{root}', download=True) for the images, and {root}/mnist_writers/mnist_writers.npz "
    "with the array train_writer, one id per training image in MNIST's order, which is the third column of QMNIST's "
    "label file qmnist-train-labels.tsv."
)


def mnist_writers(root: str | None = None) -> DataSource:
    """Return MNIST by writer: ``groups["writer"]`` holds the 539 people who wrote its 60,000 training images.

    With ``partition: {name: natural}`` a client is a person, with 19 to 131 images. No writer of the training set is
    among the 297 of the test set. The images are those of ``mnist``, which has the same groups where the file is
    there; here it must be.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.

    Returns:
        Images (n, 1, 28, 28) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: images or writers are not there, with what would supply them; or broken, with what is wrong.

    Source: LeCun et al., Proc. IEEE 1998; writers: Yadav and Bottou, NeurIPS 2019 (QMNIST).
    """
    files = [*(f"MNIST/raw/{name}" for name in IDX_FILES), _WRITERS]
    folder, _ = find_root("mnist_writers", root, [files], _SUPPLY)
    return _load(folder)


@functools.cache
def _load(folder: Path) -> DataSource:
    return dataclasses.replace(mnist(str(folder)), name="mnist_writers")
