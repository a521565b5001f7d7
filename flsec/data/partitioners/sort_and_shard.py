"""Sorted by class and cut into equal shards."""

import numpy as np
import numpy.typing as npt

from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["sort_and_shard"]


def sort_and_shard(
    labels: npt.NDArray[np.int64],
    num_clients: PositiveCount,
    *,
    shards_per_client: PositiveCount = 1,
    seed: int = 0,
) -> Partition:
    """Sort the samples by class, cut them into equal shards and give each client ``shards_per_client`` of them.

    The shards of a client lie 1/shards_per_client of the sorted data apart, so that ``shards_per_client=2`` gives every
    client at least two classes unless one class makes up more than half of the data. (With shards dealt at random, some
    client nearly always gets the same class twice.) Which client gets which shards, and which samples of a class lie
    in which shard, is random.

    Args:
        labels: (n,) labels of the samples.
        num_clients: how many clients.
        shards_per_client: 1 as in DiverseFL's main experiments, 2 for its backdoor experiment.
        seed: of the run.

    Returns:
        A partition that deals every sample once; shard sizes differ by at most one.

    Raises:
        ConfigError: fewer samples than shards.

    Example:
        >>> labels = np.array([2, 0, 1, 0, 2, 1])
        >>> sorted(labels[client].tolist() for client in sort_and_shard(labels, num_clients=3))
        [[0, 0], [1, 1], [2, 2]]

    Source: DiverseFL Sec. IV-A (one shard a client) and IV-B, "Backdoor" (at least two classes a client).
    """
    labels = checked_labels(sort_and_shard, labels, num_clients, shards_per_client=shards_per_client)
    n, num_shards = len(labels), num_clients * shards_per_client
    if num_shards > n:
        raise ConfigError(
            "partitioner 'sort_and_shard' needs a sample for every shard, num_clients * shards_per_client = "
            f"{num_shards}; got {n} samples. Lower one of the two.",
            parameter="shards_per_client",
        )
    rng = numpy_generator(seed, purpose="partition sort_and_shard")
    shuffled = rng.permutation(n)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    sizes = np.diff(np.arange(num_shards + 1) * n // num_shards)
    owners = np.empty(n, dtype=np.int64)
    owners[by_class] = np.repeat(np.tile(rng.permutation(num_clients), shards_per_client), sizes)
    return Partition.from_owners(owners, num_clients, rng)
