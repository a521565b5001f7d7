"""Independent and identically distributed clients."""

import numpy as np
import numpy.typing as npt

from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["iid"]


def iid(labels: npt.NDArray[np.int64], num_clients: PositiveCount, *, seed: int = 0) -> Partition:
    """Deal all samples out at random, in parts whose sizes differ by at most one.

    Args:
        labels: (n,) labels of the samples; only their number matters here.
        num_clients: how many clients; at most n.
        seed: of the run.

    Returns:
        A partition that deals every sample once.

    Raises:
        ConfigError: fewer samples than clients.

    Example:
        >>> iid(np.zeros(10, dtype=int), num_clients=4).sizes()
        array([3, 3, 2, 2])

    Source: SIREN Sec. 5.1, "IID data": random shards, one per client.
    """
    labels = checked_labels(iid, labels, num_clients, number_only=True)
    if num_clients > len(labels):
        raise ConfigError(
            f"partitioner 'iid' needs a sample for every client; got num_clients={num_clients} for {len(labels)} "
            "samples. Lower num_clients.",
            parameter="num_clients",
        )
    rng = numpy_generator(seed, purpose="partition iid")
    owners = rng.permutation(np.arange(len(labels)) % num_clients)
    return Partition.from_owners(owners, num_clients, rng)
