"""Many small clients, each with samples of a single class."""

import numpy as np
import numpy.typing as npt

from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["one_class"]


def one_class(
    labels: npt.NDArray[np.int64],
    num_clients: PositiveCount,
    *,
    samples_per_client: PositiveCount = 5,
    replace: bool = False,
    seed: int = 0,
) -> Partition:
    """Give every client k = ``samples_per_client`` samples of one class.

    Each class is shuffled and cut into bundles of k; a random choice of the bundles goes to the clients, so that a
    class has clients in proportion to its size. What does not fill a bundle, and bundles beyond ``num_clients``, stay
    unused.

    Args:
        labels: (n,) labels of the samples.
        num_clients: how many clients.
        samples_per_client: k, distinct samples of one class.
        replace: when all bundles are dealt, shuffle each class anew and deal again, so that clients share samples
            as evenly as can be (100,000 clients of 5 from 50,000 images). Default: refuse.
        seed: of the run.

    Returns:
        A partition with exactly k samples per client; no sample is dealt twice while there are bundles left.

    Raises:
        ConfigError: more clients than bundles, without ``replace``; or no class with k samples.

    Example:
        >>> labels = np.repeat([0, 1], 10)
        >>> partition = one_class(labels, num_clients=4)
        >>> [len(np.unique(labels[client])) for client in partition], partition.sizes()
        ([1, 1, 1, 1], array([5, 5, 5, 5]))

    Source: SparseFed Appendix B.3.1: 10,000 clients, "each of which has 5 points from a single target class".
    """
    labels = checked_labels(one_class, labels, num_clients, samples_per_client=samples_per_client, replace=replace)
    k = samples_per_client
    counts = np.bincount(np.unique(labels, return_inverse=True)[1])
    available = int((counts // k).sum())
    if available == 0:
        raise ConfigError(
            f"partitioner 'one_class' needs a class with samples_per_client={k} samples; the largest has "
            f"{int(counts.max())}. Lower samples_per_client.",
            parameter="samples_per_client",
        )
    if num_clients > available and not replace:
        raise ConfigError(
            f"partitioner 'one_class': {len(labels)} samples are enough for {available} clients with {k} samples of "
            f"one class each; got num_clients={num_clients}. Lower num_clients or samples_per_client, or set "
            "replace=True to let clients share samples.",
            parameter="num_clients",
        )
    rng = numpy_generator(seed, purpose="partition one_class")
    passes = -(-num_clients // available)
    bundles = np.concatenate([_bundles(labels, counts, k, rng) for _ in range(passes)])[:num_clients]
    return Partition(bundles.ravel(), np.arange(num_clients + 1) * k, disjoint=not replace)


def _bundles(
    labels: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], k: int, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Return (bundles, k) sample numbers, each bundle of one class, in random order; no sample twice."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # place within its class
    whole = rank < np.repeat(counts // k * k, counts)
    return rng.permutation(by_class[whole].reshape(-1, k))
