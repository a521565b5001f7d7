"""False alarms to SIREN's server."""

from collections.abc import Mapping
from typing import Any

from flsec.aggregation._siren_keys import ALARM
from flsec.client_apps.base import Attack, AttackContext

__all__ = ["FalseAlarm"]


class FalseAlarm(Attack):
    """Raise SIREN's alarm in every round, whatever the global model is like.

    Without SIREN on the server it does nothing. Stack it with an attack on data or upload; alone, it tries to have the
    server drop honest clients and go back to an older model.

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
        >>> from flsec.client_apps.base import AttackContext
        >>> FalseAlarm().poison_metrics({"siren-alarm": 0, "train-loss": 0.2}, AttackContext(round=1, client_id=0))
        {'siren-alarm': 1, 'train-loss': 0.2}

    Source: SIREN, Sec. 4.2 ("malicious clients can deliberately fake alarms") and Sec. 4.4, Case 3; all hostile clients
    of the released program do so.
    """

    needs_defense = "siren"

    def poison_metrics(self, metrics: Mapping[str, Any], context: AttackContext) -> dict[str, Any]:
        """Return the client's metrics with the alarm raised."""
        return {**metrics, ALARM: 1}
