"""Soteria as a Flower strategy."""

from typing import Any, ClassVar

from flsec.aggregation.soteria import LAYER, PERCENTILE, Percentile
from flsec.strategies.base import FlowerStrategy, RobustStrategy

__all__ = ["Soteria"]


class Soteria(RobustStrategy):
    """Have clients leave out of a fully connected layer's update what would let the server rebuild their data.

    Args:
        strategy: the strategy to protect.
        percentile: share of the layer's input features that each client prunes, in percent. The released program shows
            60 against Inverting Gradients and 1 against DLG.
        layer: name of a ``torch.nn.Linear`` in the clients' model; None: its last one.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``percentile`` is not in [0, 100]. Others: see ``RobustStrategy``.

    Hands the (n, d) updates on as they are. The server only sends the settings: this protects clients from the server,
    and the model from nobody. Needs ``flsec.client_apps.soteria_client`` around the clients, which costs each of them
    one backward pass for each feature in each round. A client that does not trust the server gives the settings to that
    half itself.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = Soteria(FedAvg(), percentile=40.0)
        >>> play_rounds(strategy, [[1.0], [2.0]])
        tensor([1.5000])
        >>> strategy.client_config(server_round=1)  # what the clients are told
        {'soteria-percentile': 40.0}

    Source: Sun et al., Soteria, CVPR 2021, Algorithm 1.
    """

    fits_inputs: ClassVar = "numbers"  # along whose gradient features are judged

    client_half: ClassVar[str | None] = "flsec.client_apps.soteria_client:SoteriaClient"

    def __init__(
        self, strategy: FlowerStrategy, *, percentile: Percentile = 60.0, layer: str | None = None, **options: Any
    ) -> None:
        super().__init__(strategy, **options)
        self.percentile = percentile
        self.layer = layer

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return the clients' settings."""
        layer = {} if self.layer is None else {LAYER: self.layer}
        return {PERCENTILE: float(self.percentile), **layer}
