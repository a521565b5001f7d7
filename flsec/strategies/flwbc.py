"""FL-WBC as a Flower strategy."""

from typing import Any, ClassVar

from flsec.aggregation.flwbc import SCALE
from flsec.parameters import NonNegative
from flsec.strategies.base import FlowerStrategy, RobustStrategy

__all__ = ["FLWBC"]


class FLWBC(RobustStrategy):
    """Have honest clients perturb, in their training, the parameters in which an attack's effect would stay.

    Args:
        strategy: the strategy to protect.
        scale: b of the Laplace noise, per unit of learning rate; s of the paper, 0.4 for CIFAR-10.
        options: see ``RobustStrategy``.

    Raises:
        ConfigError: ``scale`` is negative. Others: see ``RobustStrategy``.

    Hands the (n, d) updates on as they are. The server only sends the setting: updates pass as they are, and robust
    rules inside or outside still decide about them. Needs ``flsec.client_apps.wbc_client`` around the clients, and at
    least two steps of local training a round. It lets a model recover from an attack that succeeded; it keeps no
    attacker out. On the client: one more gradient in memory, and two random numbers for each parameter and step.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.testing import play_rounds
        >>> strategy = FLWBC(FedAvg(), scale=0.4)
        >>> play_rounds(strategy, [[1.0], [2.0]])
        tensor([1.5000])
        >>> strategy.client_config(server_round=1)  # what the clients are told
        {'flwbc-scale': 0.4}

    Source: Sun et al., FL-WBC, NeurIPS 2021, Sec. 4 and Algorithm 1.
    """

    client_half: ClassVar[str | None] = "flsec.client_apps.wbc_client:WBCClient"

    def __init__(self, strategy: FlowerStrategy, *, scale: NonNegative = 0.4, **options: Any) -> None:
        super().__init__(strategy, **options)
        self.scale = scale

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return the clients' setting."""
        return {SCALE: float(self.scale)}
