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

    Source: SIREN, Sec. 2.2 and 5.3; DiverseFL, Sec. IV-A; FedMLSecurity, Sec. 3.1, flipping mode.
    """

    def __init__(self, *, scale: Positive = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return the reversed update."""
        return sign_flipping(global_, local, scale=self.scale)
