"""Data sets and partitions by name."""

from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data import DATASETS, PARTITIONERS
from flsec.data.partition import Partition
from flsec.data.source import DataSource
from flsec.parameters import parameters_of

__all__ = ["load_dataset", "make_partition"]


def load_dataset(name: str, root: str | None = None, **parameters: Any) -> DataSource:
    """Return the data set called ``name``.

    Args:
        name: a name of ``DATASETS``, or ``"package.module:function"``.
        root: folder that holds the data; default: FLSEC_DATA, ./data and ~/.cache/flsec, in this order.
        **parameters: the data set's own, such as ``num_classes=12`` of ``har``.

    Raises:
        ConfigError: an unknown name or parameter, or data that is missing or broken.

    Example:
        >>> source = load_dataset("digits")
        >>> source.input_shape, source.num_classes, len(source.train)
        ((1, 8, 8), 10, 1438)
    """
    source: DataSource = DATASETS.build(name, parameters, root=root)
    return source


def make_partition(
    name: str,
    labels: npt.ArrayLike,
    num_clients: int,
    *,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
    **parameters: Any,
) -> Partition:
    """Deal samples out to clients with the partitioner called ``name``.

    Args:
        name: a name of ``PARTITIONERS``, or ``"package.module:function"``.
        labels: (n,) labels of the samples.
        num_clients: how many clients.
        groups: (n,) natural ids of the samples; reaches only the partitioners that take it.
        seed: of the run.
        **parameters: the partitioner's own, such as ``alpha=0.5`` of ``dirichlet``.

    Raises:
        ConfigError: an unknown name or parameter, or a request that the data cannot meet.

    Example:
        >>> make_partition("iid", [0, 1, 0, 1, 0, 1], num_clients=3).sizes()
        array([2, 2, 2])
    """
    supplied: dict[str, Any] = {"labels": np.asarray(labels), "num_clients": num_clients, "seed": seed}
    if "groups" in parameters_of(PARTITIONERS.get(name)):
        supplied["groups"] = None if groups is None else np.asarray(groups)
    partition: Partition = PARTITIONERS.build(name, parameters, **supplied)
    return partition
