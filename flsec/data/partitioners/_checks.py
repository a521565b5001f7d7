"""What every partitioner checks before it deals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.errors import ConfigError
from flsec.parameters import check_parameters

__all__ = ["checked_groups", "checked_labels"]


def checked_labels(
    partitioner: Callable[..., Any],
    labels: npt.ArrayLike,
    num_clients: int,
    /,
    *,
    number_only: bool = False,
    **parameters: Any,
) -> npt.NDArray[np.int64]:
    """Return the labels as (n,) int64 after checking them and the partitioner's parameters.

    Args:
        partitioner: who asks.
        labels: what it was given.
        num_clients: how many clients.
        number_only: whether no more than the number of labels matters to it, so that they may be sequences.
        **parameters: the partitioner's own.

    Raises:
        ConfigError: a parameter out of its limits, or labels that are not a flat, non-empty array of integers.
    """
    name = f"partitioner {partitioner.__name__!r}"
    check_parameters(partitioner, {"num_clients": num_clients, **parameters}, name=name)
    array = np.asarray(labels)
    if array.ndim == 2 and len(array):
        if number_only:
            return np.zeros(len(array), dtype=np.int64)
        raise ConfigError(
            f"{name} deals by class, and these samples have sequences of labels, of shape {array.shape}. Use 'iid', or "
            "'natural' where the data have natural clients.",
            parameter="labels",
        )
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ConfigError(
            f"{name}: labels must be (n,) integers, n at least 1; got {array.dtype} of shape {array.shape}.",
            parameter="labels",
        )
    return array.astype(np.int64, copy=False)


def checked_groups(
    partitioner: Callable[..., Any], groups: npt.ArrayLike | None, num_samples: int, instead: str
) -> npt.NDArray[Any]:
    """Return the natural ids as an (n,) array.

    Args:
        partitioner: who asks.
        groups: what it was given.
        num_samples: n.
        instead: what a user without natural ids can do.

    Raises:
        ConfigError: there are none, or not one per sample.
    """
    name = f"partitioner {partitioner.__name__!r}"
    if groups is None:
        raise ConfigError(
            f"{name} needs the samples' natural ids (groups), and this data set has none. Take one that has, such as "
            f"'mnist' with its writers or 'har' with its subjects, or {instead}.",
            parameter="groups",
        )
    array = np.asarray(groups)
    if array.shape != (num_samples,):
        raise ConfigError(
            f"{name}: groups must have one id per sample, shape ({num_samples},); got {array.shape}.",
            parameter="groups",
        )
    return array
