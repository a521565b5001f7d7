"""What is known of clients beside what they send: whether they are simulated, and who attacks."""

from collections.abc import Collection
from typing import Any

from flsec.attacks.adversaries import Adversaries
from flsec.errors import ConfigError

__all__ = ["are_real", "check_known"]

_NEVER = 1e299  # seconds; Flower gives the nodes of a simulation a heartbeat that is never due, every 1e300


def are_real(nodes: Any) -> bool:
    """Return whether some client is a SuperNode; False where nothing says so.

    Args:
        nodes: a grid; anything else, and a grid that knows no nodes, has no SuperNodes.
    """
    look = getattr(nodes, "get_nodes", None)
    try:
        known = list(look()) if look is not None else []
    except NotImplementedError:
        return False
    return any(0 < getattr(node, "heartbeat_interval", 0.0) < _NEVER for node in known)


def check_known(name: str, adversaries: Adversaries | None, client_ids: Collection[int]) -> None:
    """Refuse clients of whom ``adversaries`` cannot say whether they attack.

    Raises:
        ConfigError: an id is none of 0 to ``num_clients`` - 1.
    """
    if adversaries is None:
        return
    strange = sorted(client_id for client_id in client_ids if not 0 <= client_id < adversaries.num_clients)
    if strange:
        raise ConfigError(
            f"{name}: adversaries knows the clients 0 to {adversaries.num_clients - 1}, so whether client {strange[0]} "
            "attacks is not known; Flower's node ids are no partition ids. Take the attackers' node ids from "
            "flsec.strategies.partition_ids(grid), and write Adversaries(num_clients=2**64, ids=[...]).",
            parameter="adversaries",
        )
