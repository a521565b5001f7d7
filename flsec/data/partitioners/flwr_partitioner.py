"""The partitioners of Flower Datasets, by class name."""

import contextlib
import inspect
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from flsec.data._extras import import_extra
from flsec.data.partition import Partition
from flsec.data.partitioners._checks import checked_groups, checked_labels
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount
from flsec.randomness import numpy_generator, seed_for

__all__ = ["flwr_partitioner"]

_TITLE = "partitioner 'flwr_partitioner'"


def flwr_partitioner(
    labels: npt.NDArray[np.int64],
    num_clients: PositiveCount,
    *,
    partitioner: str = "IidPartitioner",
    settings: dict[str, Any] | None = None,
    groups: npt.NDArray[Any] | None = None,
    seed: int = 0,
) -> Partition:
    """Deal samples out with a partitioner of Flower Datasets, such as ``DirichletPartitioner``.

    The partitioner sees a table with the columns ``label`` and, if the data has natural ids, ``group``, in an order
    that the seed decides. What it calls ``num_partitions`` and ``seed`` is set here; ``partition_by`` is ``label``, or
    ``group`` for the partitioners by natural id, unless ``settings`` say otherwise.

    Args:
        labels: (n,) labels of the samples.
        num_clients: how many clients.
        partitioner: name of a class in ``flwr_datasets.partitioner``.
        settings: the partitioner's own parameters, such as ``{alpha: 0.5}``.
        groups: (n,) natural ids of the samples.
        seed: of the run.

    Returns:
        The partitioner's partition; some leave samples unused.

    Raises:
        ConfigError: Flower Datasets is not installed, no such partitioner, or whatever it refuses.

    Example:
        >>> labels = np.repeat([0, 1], 50)
        >>> partition = flwr_partitioner(
        ...     labels, 4, partitioner="PathologicalPartitioner", settings={"num_classes_per_partition": 1}
        ... )
        >>> [len(np.unique(labels[client])) for client in partition]
        [1, 1, 1, 1]

    Source: Flower Datasets, Flower Labs.
    """
    build = _class(partitioner)
    given = {"partitioner": partitioner, "settings": settings}
    labels = checked_labels(flwr_partitioner, labels, num_clients, number_only=not _deals_by_label(build), **given)
    options = _options(build, num_clients, seed, dict(settings or {}))
    order = numpy_generator(seed, purpose="partition flwr_partitioner").permutation(len(labels))
    columns: dict[str, Any] = {"row": order, "label": labels[order]}
    if groups is not None or options.get("partition_by") == "group":
        ids = checked_groups(flwr_partitioner, groups, len(labels), "take another partitioner")
        columns["group"] = np.unique(ids, return_inverse=True)[1][order]
    try:
        dealer = build(**options)
        dealer.dataset = import_extra("datasets", _TITLE).Dataset.from_dict(columns)
        with contextlib.redirect_stderr(io.StringIO()):  # some draw progress bars
            clients = [np.asarray(dealer.load_partition(i)["row"][:], np.int64) for i in range(dealer.num_partitions)]
    except Exception as error:  # each partitioner has errors of its own
        raise ConfigError(
            f"{_TITLE}: {partitioner} cannot deal {len(labels)} samples to num_clients={num_clients}: "
            f"{str(error).strip()[:300]}",
            parameter="settings",
        ) from error
    if len(clients) != num_clients:
        raise ConfigError(
            f"{_TITLE}: {partitioner} makes {len(clients)} clients; got num_clients={num_clients}. Set "
            f"num_clients={len(clients)}.",
            parameter="num_clients",
        )
    return Partition(np.concatenate(clients), np.concatenate([[0], np.cumsum([len(rows) for rows in clients])]))


def _class(name: str) -> Any:
    module = import_extra("flwr_datasets.partitioner", _TITLE)
    known = [known for known in module.__all__ if known != "Partitioner" and not known.startswith("Vertical")]
    if name not in known:
        raise ConfigError(
            f"{_TITLE}: partitioner must be one of {', '.join(known)}; got {name!r}.", parameter="partitioner"
        )
    return getattr(module, name)


def _deals_by_label(build: Any) -> bool:
    return "partition_by" in inspect.signature(build).parameters and "NaturalId" not in build.__name__


def _options(build: Any, num_clients: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the partitioner's constructor."""
    takes = inspect.signature(build).parameters
    unknown = [key for key in settings if key not in takes or key in ("num_partitions", "seed")]
    if unknown:
        own = [key for key in takes if key not in ("num_partitions", "seed")]
        raise ConfigError(
            f"{_TITLE}: {build.__name__} has no setting {unknown[0]!r} to write. It takes: {', '.join(own) or 'none'}.",
            parameter="settings",
        )
    supplied = {
        "num_partitions": num_clients,
        "seed": seed_for(seed, purpose="partition flwr_partitioner") % 2**32,
        "partition_by": "label" if _deals_by_label(build) else "group",
    }
    return {key: value for key, value in supplied.items() if key in takes} | settings
