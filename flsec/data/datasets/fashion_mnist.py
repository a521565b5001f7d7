"""Fashion-MNIST."""

import functools
from pathlib import Path

from flsec.data.datasets._idx import IDX_FILES, idx_dataset
from flsec.data.datasets._roots import find_root, torchvision_command
from flsec.data.source import DataSource

__all__ = ["fashion_mnist"]

_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def fashion_mnist(root: str | None = None) -> DataSource:
    """Return Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 28x28 pixels in [0, 1].

    The idx files in ``ROOT/FashionMNIST/raw``, where torchvision puts them, are mapped: a client reads its own images
    only.

    Args:
        root: folder to look in; default: FLSEC_DATA, ./data, ~/.cache/flsec.

    Returns:
        Images (n, 1, 28, 28) float32 and labels (n,) int64, in ``train`` and ``test``.

    Raises:
        ConfigError: not there, with the command that fetches it; or broken, with what is wrong.

    Source: Xiao, Rasul and Vollgraf, arXiv:1708.07747.
    """
    files = [f"FashionMNIST/raw/{name}" for name in IDX_FILES]
    folder, _ = find_root("fashion_mnist", root, [files], torchvision_command("FashionMNIST"))
    return _load(folder)


@functools.cache
def _load(folder: Path) -> DataSource:
    raw = folder / "FashionMNIST" / "raw"
    train, test = idx_dataset(raw, "train", 10), idx_dataset(raw, "t10k", 10)
    return DataSource("fashion_mnist", train, test, num_classes=10, input_shape=train.input_shape, class_names=_CLASSES)
