"""A poisoned view of a torch data set."""

from flsec.data._views import PoisonedDataset

__all__ = ["PoisonedDataset"]
