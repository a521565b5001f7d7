"""Clients as the data has them: writers, subjects, speakers."""

from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_groups, checked_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["natural"]


def natural(
    labels: npt.NDArray[np.int64],
    num_clients: PositiveCount,
    *,
    split_each: PositiveCount = 1,
    groups: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> Partition:
    """Make every natural client a client, or ``split_each`` of them.

    Clients are in the order of their natural ids. Where there are more than ``num_clients``, a random choice of
    them takes part, and the samples of the others stay unused.

    Args:
        labels: (n,) labels of the samples; only their number matters here.
        num_clients: how many clients.
        split_each: cut each natural client at random into so many of even size; one with fewer samples than that
            gives one client per sample.
        groups: (n,) natural ids of the samples.
        seed: of the run.

    Returns:
        A partition without empty clients, no client with samples of two natural ids.

    Raises:
        ConfigError: no natural ids, or fewer natural clients (after the split) than ``num_clients``.

    Example:
        >>> writers = np.array([7, 3, 7, 3, 3])
        >>> [writers[client].tolist() for client in natural(np.zeros(5, dtype=int), 2, groups=writers)]
        [[3, 3, 3], [7, 7]]

    Source: SparseFed Sec. 3.1 and Appendix B.6: FEMNIST's 3,500 writers, each split into 9 to 10 devices.
    """
    labels = checked_labels(natural, labels, num_clients, number_only=True, split_each=split_each)
    ids = checked_groups(natural, groups, len(labels), "take the partitioner 'dirichlet'")
    _, group, sizes = np.unique(ids, return_inverse=True, return_counts=True)
    parts = np.minimum(sizes, split_each)  # (G,) clients made from each natural one
    total = int(parts.sum())
    if num_clients > total:
        raise ConfigError(_too_few(num_clients, total, split_each, sizes), parameter="num_clients")
    rng = numpy_generator(seed, purpose="partition natural")
    shuffled = rng.permutation(len(labels))
    by_group = shuffled[np.argsort(group[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # place within its natural client
    part = rank * np.repeat(parts, sizes) // np.repeat(sizes, sizes)
    number = np.full(total, -1)
    number[np.sort(rng.choice(total, num_clients, replace=False))] = np.arange(num_clients)
    owners = np.empty(len(labels), dtype=np.int64)
    owners[by_group] = number[np.repeat(np.cumsum(parts) - parts, sizes) + part]
    return Partition.from_owners(owners, num_clients, rng)


def _too_few(num_clients: int, total: int, split_each: int, sizes: npt.NDArray[np.int64]) -> str:
    message = (
        f"partitioner 'natural': the data has {len(sizes)} natural clients, which split_each={split_each} makes "
        f"{total}; got num_clients={num_clients}. "
    )
    if num_clients > sizes.sum():
        return message + f"Lower num_clients: there are only {int(sizes.sum())} samples."
    enough = split_each
    while np.minimum(sizes, enough).sum() < num_clients:
        enough += 1
    return message + (
        f"Lower num_clients, or set split_each={enough}, which makes {int(np.minimum(sizes, enough).sum())}."
    )
