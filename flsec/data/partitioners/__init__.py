"""Ways to deal a data set out to clients, one function a file."""

from typing import TYPE_CHECKING

from flsec._lazy import export_lazily

# Exports, made by `python -m flsec._exports` from the `__all__` of the modules here; do not edit.
if TYPE_CHECKING:
    from flsec.data.partitioners.dirichlet import dirichlet as dirichlet
    from flsec.data.partitioners.flwr_partitioner import flwr_partitioner as flwr_partitioner
    from flsec.data.partitioners.group_bias import group_bias as group_bias
    from flsec.data.partitioners.iid import iid as iid
    from flsec.data.partitioners.natural import natural as natural
    from flsec.data.partitioners.one_class import one_class as one_class
    from flsec.data.partitioners.sort_and_shard import sort_and_shard as sort_and_shard

__all__ = [
    "dirichlet",
    "flwr_partitioner",
    "group_bias",
    "iid",
    "natural",
    "one_class",
    "sort_and_shard",
]

export_lazily(
    __name__,
    {
        "dirichlet": "dirichlet",
        "flwr_partitioner": "flwr_partitioner",
        "group_bias": "group_bias",
        "iid": "iid",
        "natural": "natural",
        "one_class": "one_class",
        "sort_and_shard": "sort_and_shard",
    },
)
# End of exports.
