"""The noisy median on a client: noise on the upload."""

from typing import Any

import numpy as np

from flsec.client_apps._around import FitResult, HonestFit, NDArrays, checked_result
from flsec.client_apps._state import state_of_client
from flsec.client_apps.client_half import ClientHalf
from flsec.errors import ConfigError
from flsec.parameters import NonNegative

__all__ = ["NoisyClient", "noisy_client"]


class NoisyClient(ClientHalf):
    """Add Gaussian noise to all weights that the client uploads; BatchNorm's statistics are none.

    The noise depends on seed, round and client alone. The client's partition id and the round must be known.

    Args:
        std: sigma, in parameter units. What the ``NoisyMedian`` wrapper sends with each round takes its place; one of
            the two is needed.
        seed: the seed of the run.
        options: see ``ClientHalf``.

    Raises:
        ConfigError: a parameter is out of its range; in a round, ``std`` is not known, or the client's partition id or
            the round.

    Example:
        >>> import numpy as np
        >>> from flwr.client import NumPyClient
        >>> @NoisyClient(std=0.1)
        ... class Client(NumPyClient):
        ...     client_id = 3
        ...     def fit(self, parameters, config):
        ...         return parameters, 10, {}
        >>> noisy, _, _ = Client().fit([np.zeros(10_000)], {"server-round": 1})
        >>> round(float(noisy[0].std()), 2)
        0.1

    Source: X. Chen et al., "Distributed Training with Heterogeneous Data", 2019; DiverseFL, Sec. II-C.
    """

    def __init__(self, *, std: NonNegative | None = None, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.std = std
        self.seed = seed

    def fit(self, client: Any, honest_fit: HonestFit, parameters: NDArrays, config: Any) -> FitResult:
        """Train as ever, then perturb."""
        from flsec.aggregation.noisy_median import STD, noisy_upload  # which load torch
        from flsec.client_apps._half_tools import round_generator

        std = config.get(STD, self.std)
        if std is None:
            raise ConfigError(
                f"NoisyClient needs std: the NoisyMedian wrapper sends it as {STD!r}; or pass std=.", parameter="std"
            )
        noise = round_generator(client, config, self.seed, "noisy median")
        local, num_examples, metrics = checked_result(honest_fit(parameters, config), "fit")
        state = state_of_client(None, [np.asarray(array) for array in local], (), client, type(self).__name__)
        return noisy_upload(local, float(std), noise, state), num_examples, metrics


noisy_client = NoisyClient  # reads better above a class
