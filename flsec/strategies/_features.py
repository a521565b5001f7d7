"""What similarity defenses look at, and the memory of it by client id."""

from typing import Literal

import torch
from torch import Tensor

from flsec.strategies.cohort import Cohort, Layout

__all__ = ["Features", "feature_columns", "remember_updates"]

Features = Literal["output_layer", "all"]


def feature_columns(layout: Layout, features: Features) -> slice:
    """Return the columns of the flat vector that ``features`` names.

    The output layer is the last array of two or more dimensions and what follows it (its bias); everything where the
    model has no such array.
    """
    matrices = [slot.start for slot in layout.slots if slot.start is not None and len(slot.shape) >= 2]
    return slice(matrices[-1] if features == "output_layer" and matrices else 0, layout.size)


def remember_updates(histories: dict[int, Tensor], cohort: Cohort, features: Features) -> Tensor:
    """Add the cohort's updates to the sums in ``histories``, by client id, and return the sums of its clients.

    Returns:
        (n, k), rows in the cohort's order.
    """
    for client_id, row in zip(cohort.client_ids, cohort.updates, strict=True):
        part = row[feature_columns(cohort.layout, features)]
        histories[client_id] = histories[client_id] + part if client_id in histories else part.clone()
    return torch.stack([histories[client_id] for client_id in cohort.client_ids])
