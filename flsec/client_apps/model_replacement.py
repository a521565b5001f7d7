"""Model replacement on a client."""

from typing import Any

import numpy as np

from flsec.attacks.model_replacement import model_replacement, replacement_boost
from flsec.attacks.projection import project_upload
from flsec.client_apps._around import FitResult, HonestFit, NDArrays
from flsec.client_apps.base import Attack, AttackContext
from flsec.parameters import Fraction, Positive, PositiveCount

__all__ = ["ModelReplacement"]


class ModelReplacement(Attack):
    """Upload the update times a boost, so that averaging with the others leaves the attacker's model.

    Stack it around a data attack, which trains the model that is to replace the global one:
    ``ModelReplacement(scale=4.0)(BadNets(target=9)(client))``.

    Args:
        scale: the boost. n / (server learning rate) replaces the global model of a plain mean over n clients;
            DiverseFL uses 4. Null: computed.
        clients_per_round: n, how many updates the server averages in a round, for a boost of n / eta.
        server_learning_rate: eta, for the same.
        alpha: constrain-and-scale: local training minimises alpha * loss + (1 - alpha) * ||model - global model||, so
            that the boosted update is less conspicuous; 1: the loss alone. Below 1, the client must call ``step_hooks``
            in its training, as ``TorchClient`` does.
        max_norm: L: after the boost, the upload is projected onto the ball of this radius around the global model,
            for a server that clips; null: it is not.
        options: see ``Attack``; ``adversaries`` chooses the rounds (FedInv: only the last).

    Raises:
        ConfigError: neither scale nor clients_per_round.

    Example:
        >>> from flsec.client_apps.base import AttackContext
        >>> attack = ModelReplacement(clients_per_round=10)
        >>> attack.poison_update([np.array([1.0])], [np.array([1.5])], AttackContext(round=1, client_id=0))
        [array([6.])]

    Source: Bagdasaryan et al., AISTATS 2020, Eq. 3 and 4; FedMLSecurity, Table 2; DiverseFL, Sec. IV-B; SparseFed,
    Sec. 3.2 and App. B.6.4 (with the projection).
    """

    def __init__(
        self,
        *,
        scale: Positive | None = None,
        clients_per_round: PositiveCount | None = None,
        server_learning_rate: Positive = 1.0,
        alpha: Fraction = 1.0,
        max_norm: Positive | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        needed = f"{type(self).__name__} needs scale"
        self.scale = replacement_boost(scale, clients_per_round, server_learning_rate, name=needed)
        self.alpha = alpha
        self.max_norm = max_norm

    @property
    def needs_client(self) -> bool:
        """Whether local training itself is changed."""
        return self.alpha < 1

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Run one round of an attacking client, close to the global model where ``alpha`` says so."""
        if self.alpha == 1:
            return super().fit(client, honest_fit, parameters, config)
        from flsec.attacks.distance_penalty import DistancePenalty  # training is torch's
        from flsec.client_apps._half_tools import step_hook

        penalty = DistancePenalty([np.array(array) for array in parameters], alpha=self.alpha)
        with step_hook(client, penalty, type(self).__name__):
            return super().fit(client, honest_fit, parameters, config)

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the boosted update, within the bound if there is one."""
        uploaded = model_replacement(global_, local, boost=self.scale)
        return uploaded if self.max_norm is None else project_upload(global_, uploaded, max_norm=self.max_norm)
