"""Sign flipping on a client."""

from typing import Any

from flsec.attacks.sign_flipping import sign_flipping
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext
from flsec.parameters import Positive

__all__ = ["SignFlipping"]


class SignFlipping(Attack):
    """Upload the honest update times -scale.

    Args:
        scale: 1 in DiverseFL and in FedMLSecurity's flipping mode, 4 in SIREN.
        options: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flwr.client import NumPyClient
        >>> @SignFlipping(scale=4.0)
        ... class Client(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 0.5], 10, {}
        >>> Client().fit([np.array([1.0, 2.0])], {})
        ([array([-1.,  0.])], 10, {})

    Source: SIREN, Sec. 2.2 and 5.3; DiverseFL, Sec. IV-A; FedMLSecurity, Sec. 3.1, flipping mode.
    """

    def __init__(self, *, scale: Positive = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the reversed update."""
        return sign_flipping(global_, local, scale=self.scale)
