"""What clients who only pretend to train have in common."""

from typing import Any

from numpy.typing import NDArray

from flsec.client_apps.base import Attack

__all__ = ["FreeRider"]


class FreeRider(Attack):
    """A client whose upload takes no training; its own still runs, for the number of examples and the metrics."""

    def honest_state(self, global_: NDArray[Any], local: NDArray[Any]) -> NDArray[Any]:
        """Return the global model's statistics, as nothing was trained; counters go on."""
        return local if local.dtype.kind in "biu" else global_.astype(local.dtype)
