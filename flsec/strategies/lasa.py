"""LASA as a Flower strategy."""

from typing import Annotated, Any

from annotated_types import Ge, Lt
from torch import Tensor

from flsec.aggregation.lasa import lasa_layers, mean_of_layers
from flsec.parameters import Positive
from flsec.strategies.base import FlowerStrategy, RobustStrategy
from flsec.strategies.cohort import Cohort

__all__ = ["LASA"]


class LASA(RobustStrategy):
    """Average each layer over the clients whose sparse, clipped update is of usual size and direction there.

    Args:
        strategy: the strategy to protect.
        magnitude_radius: lambda_n, how many standard deviations a layer's norm may lie from the median; the authors
            take 1 on CIFAR and 2 elsewhere.
        direction_radius: lambda_s, the same for the share of positive signs among a layer's entries.
        sparsity: share of each update's entries, the smallest, that are set to zero.
        options: see ``RobustStrategy``; with ``weighting="examples"`` layers are averaged by its weights.

    Raises:
        ConfigError: a radius is not positive, or ``sparsity`` is not in [0, 1). Others: see ``RobustStrategy``.

    Makes one (d,) update of a round's (n, d). Each array of the model is a layer. A client that is left out of one
    layer counts in others, so that this is no verdict on clients: all stay in the round, and the verdict's scores are
    the share of the model's entries in whose layers a client counts. Its notes are ``max_norm``, the bound of the
    clipping, and ``empty_layers``, in how many nobody counts: those stay as they were. Against fewer than half of the
    clients; not told how many.

    O(n d) time, O(d) memory, nothing kept between rounds, nothing on the client.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = LASA(FedAvg(), sparsity=0.0)
        >>> play_rounds(strategy, [[1.0, 1.0], [1.0, 1.1], [1.1, 1.0], [1.1, 1.1], [-9.0, -9.0]]).round(decimals=1)
        tensor([1.1000, 1.1000])

    Source: Xu, Zhang and Hu, "Achieving Byzantine-Resilient Federated Learning via Layer-Adaptive Sparsified Model
        Aggregation", WACV 2025.
    """

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        magnitude_radius: Positive = 2.0,
        direction_radius: Positive = 1.0,
        sparsity: Annotated[float, Ge(0), Lt(1)] = 0.3,
        **options: Any,
    ) -> None:
        super().__init__(strategy, **options)
        self.magnitude_radius = magnitude_radius
        self.direction_radius = direction_radius
        self.sparsity = sparsity

    def on_aggregation(self, cohort: Cohort) -> Tensor:
        """Return the mean of the layers."""
        layers = [slot.stop - slot.start for slot in cohort.layout.slots if slot.start is not None and slot.stop]
        found = lasa_layers(cohort.updates, layers, self.magnitude_radius, self.direction_radius, self.sparsity)
        sizes = found.factors.new_tensor(layers)
        self.report(
            scores=(found.kept.double() @ sizes) / sizes.sum(),
            max_norm=found.max_norm,
            empty_layers=int((~found.kept.any(dim=0)).sum()),
        )
        return mean_of_layers(cohort.updates, layers, found, self.weights(cohort))
