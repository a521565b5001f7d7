"""The zero attack on a client."""

from flsec.attacks.zero_attack import zero_attack
from flsec.client_apps._around import NDArrays
from flsec.client_apps.base import Attack, AttackContext

__all__ = ["ZeroAttack"]


class ZeroAttack(Attack):
    """Upload a model whose weights are all zero.

    Args:
        adversaries: see ``Attack``.
        camp: see ``Attack``.
        data_attribute: see ``Attack``.
        inputs_key: see ``Attack``.
        labels_key: see ``Attack``.
        attack_state: see ``Attack``.
        state_arrays: see ``Attack``.
        seed: see ``Attack``.

    Raises:
        ConfigError: a parameter out of its range; in a round, see ``Attack``.

    Example:
        >>> import numpy as np
        >>> from flsec.client_apps.base import AttackContext
        >>> ZeroAttack().poison_update([np.ones(2)], [np.full(2, 3.0)], AttackContext(round=1, client_id=0))
        [array([0., 0.])]

    Source: FedMLSecurity, Sec. 3.1, Byzantine attack, zero mode.
    """

    def poison_update(self, global_: NDArrays, local: NDArrays, context: AttackContext) -> NDArrays:
        """Return zeros."""
        return zero_attack(global_, local)
