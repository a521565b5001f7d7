"""Data that the server holds itself: carved out of the training data, never out of the test set."""

import dataclasses

import numpy as np

from flsec.data.source import ArrayDataset, DataSource
from flsec.errors import ConfigError
from flsec.randomness import numpy_generator

__all__ = ["carve_root"]


def carve_root(source: DataSource, size: int, seed: int) -> tuple[ArrayDataset, DataSource]:
    """Split a source into the server's root set and what is left for the clients.

    Args:
        source: the whole data set; not changed.
        size: samples of the root set, drawn at random from the training data.
        seed: the seed of the run.

    Returns:
        The root set, and the source without those samples. Nobody holds a sample of the other's.

    Raises:
        ConfigError: the training data have no more than ``size`` samples.

    Example:
        >>> from flsec.data import load_dataset
        >>> root, rest = carve_root(load_dataset("digits"), 100, seed=0)
        >>> len(root), len(rest.train)
        (100, 1338)
    """
    total = len(source.train)
    if size >= total:
        raise ConfigError(
            f"a root set of {size} samples leaves nothing of the {total} training samples of {source.name}. "
            f"Use for instance {max(1, total // 10)}.",
            parameter="size",
        )
    order = numpy_generator(seed, purpose="root set").permutation(total)
    root, rest = np.sort(order[:size]), np.sort(order[size:])
    groups = None if source.groups is None else {kind: ids[rest] for kind, ids in source.groups.items()}
    return source.train.subset(root), dataclasses.replace(source, train=source.train.subset(rest), groups=groups)
