"""Clients whose shares of each class are drawn from a Dirichlet distribution."""

import heapq

import numpy as np
import numpy.typing as npt

from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_labels
from flsec.errors import ConfigError
from flsec.parameters import Count, Positive, PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["dirichlet"]

_MAX_DRAWS = 10
_HOPELESS = 10  # so many clients short in one draw: the chance of none in the next is about exp(-10)


def dirichlet(
    labels: npt.NDArray[np.int64],
    num_clients: PositiveCount,
    *,
    alpha: Positive,
    min_size: Count = 1,
    seed: int = 0,
) -> Partition:
    """Cut each class into parts whose sizes follow Dirichlet(alpha, ..., alpha), one part per client.

    A small alpha gives each class to few clients; a large one comes close to equal shares.

    Up to 10 draws are made until every client has ``min_size`` samples. If none will do, or one leaves more than 10
    clients short (as always with many clients and a small alpha), the last draw is topped up: samples move one at a
    time from whichever client then has most to those that have too few, so that the result keeps as much of the
    draw as the minimum allows.

    Args:
        labels: (n,) labels of the samples.
        num_clients: how many clients.
        alpha: concentration; common are 0.1 (strong skew) to 1.
        min_size: samples that every client has at least; ``min_size * num_clients`` is at most n.
        seed: of the run.

    Returns:
        A partition that deals every sample once.

    Raises:
        ConfigError: too few samples for ``min_size``, or an alpha whose shares are no numbers.

    Example:
        >>> partition = dirichlet(np.repeat([0, 1], 50), num_clients=5, alpha=0.1, min_size=4)
        >>> int(partition.sizes().sum()), bool(partition.sizes().min() >= 4)
        (100, True)

    Source: Yurochkin et al., ICML 2019, Sec. 4 (shares drawn per class over the clients); redrawing up to a minimum
    size as Li et al., ICDE 2022. The top-up is ours.
    """
    labels = checked_labels(dirichlet, labels, num_clients, alpha=alpha, min_size=min_size)
    if min_size * num_clients > len(labels):
        raise ConfigError(
            f"partitioner 'dirichlet' needs min_size * num_clients samples, {min_size} * {num_clients} = "
            f"{min_size * num_clients}; got {len(labels)}. Lower min_size or num_clients.",
            parameter="min_size",
        )
    rng = numpy_generator(seed, purpose="partition dirichlet")
    for _ in range(_MAX_DRAWS):
        owners = _draw(labels, num_clients, alpha, rng)
        num_short = int((np.bincount(owners, minlength=num_clients) < min_size).sum())
        if num_short == 0:
            return Partition.from_owners(owners, num_clients, rng)
        if num_short > _HOPELESS:
            break
    return Partition.from_owners(_topped_up(owners, num_clients, min_size, rng), num_clients, rng)


def _draw(
    labels: npt.NDArray[np.int64], num_clients: int, alpha: float, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return (n,) the client of every sample."""
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_clients, alpha))
        if not np.isclose(shares.sum(), 1.0):  # also when it is NaN
            raise ConfigError(
                f"partitioner 'dirichlet': alpha={alpha!r} leaves the range of floating point numbers; take one "
                "between 1e-3 and 1e6, or the partitioner 'iid' for equal shares.",
                parameter="alpha",
            )
        cuts = np.minimum(np.rint(np.cumsum(shares) * len(members)).astype(np.int64), len(members))
        cuts[-1] = len(members)
        owners[members] = np.repeat(np.arange(num_clients), np.diff(cuts, prepend=0))
    return owners


def _topped_up(
    owners: npt.NDArray[np.int64], num_clients: int, min_size: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return owners with every client at ``min_size`` or more, the largest giving first."""
    drawn = Partition.from_owners(owners, num_clients, rng)
    missing = np.maximum(min_size - drawn.sizes(), 0)
    richest = [(-int(size), client) for client, size in enumerate(drawn.sizes()) if size > min_size]
    heapq.heapify(richest)
    gives = np.zeros(num_clients, dtype=np.int64)
    for _ in range(int(missing.sum())):
        size, client = richest[0]
        gives[client] += 1
        heapq.heapreplace(richest, (size + 1, client))
    given = [drawn[int(client)][: gives[client]] for client in np.flatnonzero(gives)]
    result = owners.copy()
    result[rng.permutation(np.concatenate(given))] = np.repeat(np.arange(num_clients), missing)
    return result
