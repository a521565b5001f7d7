"""Clients as the data has them: writers, subjects, speakers."""

import heapq
from typing import Any, Literal

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
    leftover: Literal["unused", "merged"] = "unused",
    groups: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> Partition:
    """Make every natural client a client, or ``split_each`` of them.

    Clients are in the order of their natural ids. Where there are more than ``num_clients``, a random choice of
    them takes part, and the samples of the others stay unused; or all take part, several to a client.

    Args:
        labels: (n,) labels of the samples; only their number matters here.
        num_clients: how many clients.
        split_each: cut each natural client at random into so many of even size; one with fewer samples than that
            gives one client per sample.
        leftover: where there are more natural clients than ``num_clients``: ``"unused"``: the others take no part;
            ``"merged"``: each goes whole to the client that has the fewest samples then, the largest first, which suits
            many people with few samples each, such as authors of posts.
        groups: (n,) natural ids of the samples.
        seed: of the run.

    Returns:
        A partition without empty clients; none has samples of two natural ids, unless they are merged.

    Raises:
        ConfigError: no natural ids, or fewer natural clients (after the split) than ``num_clients``.

    Example:
        >>> writers = np.array([7, 3, 7, 3, 3])
        >>> [writers[client].tolist() for client in natural(np.zeros(5, dtype=int), 2, groups=writers)]
        [[3, 3, 3], [7, 7]]

    Source: SparseFed Sec. 3.1 and Appendix B.6: FEMNIST's 3,500 writers, each split into 9 to 10 devices.
    """
    labels = checked_labels(natural, labels, num_clients, number_only=True, split_each=split_each, leftover=leftover)
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
    part += np.repeat(np.cumsum(parts) - parts, sizes)
    choose = _merged if leftover == "merged" and num_clients < total else _chosen
    owners = np.empty(len(labels), dtype=np.int64)
    owners[by_group] = choose(np.bincount(part), num_clients, rng)[part]
    return Partition.from_owners(owners, num_clients, rng)


def _chosen(sizes: npt.NDArray[np.int64], num_clients: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the client that each part is; -1: it takes no part."""
    number = np.full(len(sizes), -1)
    number[np.sort(rng.choice(len(sizes), num_clients, replace=False))] = np.arange(num_clients)
    return number


def _merged(sizes: npt.NDArray[np.int64], num_clients: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return the client that each part goes to; parts of the same size in random order."""
    number = np.empty(len(sizes), dtype=np.int64)
    fewest = [(0, client) for client in range(num_clients)]
    shuffled = rng.permutation(len(sizes))
    for part in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        size, number[part] = fewest[0]
        heapq.heapreplace(fewest, (size + int(sizes[part]), int(number[part])))
    return number


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
