"""Groups of clients, each biased towards one class (or one natural client)."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_groups, checked_labels
from flsec.errors import ConfigError
from flsec.parameters import Fraction, PositiveCount
from flsec.randomness import numpy_generator

__all__ = ["group_bias"]


def group_bias(
    labels: npt.NDArray[np.int64],
    num_clients: PositiveCount,
    *,
    bias: Fraction = 0.5,
    by: Literal["label", "group"] = "label",
    num_groups: PositiveCount | None = None,
    groups: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> Partition:
    """Send a sample of class c to client group c with probability p = ``bias``, else to any other group alike.

    The clients form M groups, one per class, consecutive and as even as can be. Within the chosen group each
    client is equally likely. p = 1/M is IID (not p = 0, under which a group never sees its own class); p = 1 gives each
    group one class only. Sizes are random, and a client may get nothing where samples are few.

    Args:
        labels: (n,) labels of the samples.
        num_clients: how many clients; at least M.
        bias: p, the probability that a sample goes to its own group. SIREN uses 0.5, FedInv 0.8.
        by: what plays the class: ``"label"``, or ``"group"`` for the natural ids (FedInv's HAR: one subject a group).
        num_groups: M; only the samples of the M smallest ids are dealt. Default: all ids. FedInv deals 20 of HAR's 21
            training subjects to 20 clients (which 20 it does not say).
        groups: (n,) natural ids, for ``by="group"``.
        seed: of the run.

    Returns:
        A partition that deals every sample once (those of the first M ids, if ``num_groups`` is given).

    Raises:
        ConfigError: fewer clients than groups, more groups asked for than there are, or no natural ids.

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> partition = group_bias(labels, num_clients=4, bias=1.0)
        >>> [int(n) for client in partition for n in np.unique(labels[client])]
        [0, 0, 1, 1]

    Source: FLTrust, Cao et al., NDSS 2021, Sec. VI-A; SIREN Sec. 5.1; FedInv, "Settings".
    """
    labels = checked_labels(group_bias, labels, num_clients, bias=bias, by=by, num_groups=num_groups)
    if by == "label":
        classes: npt.NDArray[Any] = labels
    else:
        classes = checked_groups(group_bias, groups, len(labels), "set by='label'")
    ids, home = np.unique(classes, return_inverse=True)
    m = len(ids) if num_groups is None else num_groups
    if m > len(ids):
        raise ConfigError(
            f"partitioner 'group_bias': num_groups must be at most {len(ids)}, the ids there are; got {m}.",
            parameter="num_groups",
        )
    if num_clients < m:
        raise ConfigError(
            f"partitioner 'group_bias' needs a client for every group: num_clients >= {m} (one group per {by}); got "
            f"{num_clients}. Raise num_clients, or deal fewer groups with num_groups={num_clients}.",
            parameter="num_clients",
        )
    rng = numpy_generator(seed, purpose="partition group_bias")
    n = len(labels)
    elsewhere = (home + rng.integers(1, max(m, 2), n)) % m  # uniform over the other groups
    group = np.where(rng.random(n) < bias, home, elsewhere)
    first = np.arange(m + 1) * num_clients // m  # group g: clients first[g] .. first[g + 1] - 1
    group[home >= m] = 0  # any: they are dealt to nobody
    owners = rng.integers(first[group], first[group + 1])
    owners[home >= m] = -1
    return Partition.from_owners(owners, num_clients, rng)
