"""Memory by client id that cannot grow without end."""

from collections.abc import Iterable
from typing import Any

__all__ = ["MAX_VECTORS", "forget_longest_unseen"]

MAX_VECTORS = 1000  # clients of whom a defense remembers a vector each, unless it is told otherwise


def forget_longest_unseen(memory: dict[int, Any], seen: Iterable[int], max_clients: int | None) -> dict[str, Any]:
    """Keep what is remembered of the clients that were seen last, and no more than ``max_clients`` of them.

    Args:
        memory: {client id: anything}, from the client that has been away longest to those of the last round; put into
            this order, and shortened. Checkpoints keep the order.
        seen: the clients of this round, in the cohort's order, which does not depend on who replied first.
        max_clients: the most to keep; None: all.

    Returns:
        {"forgotten": how many}, the note for the round's verdict; empty where nobody was forgotten.
    """
    for client_id in seen:
        if client_id in memory:
            memory[client_id] = memory.pop(client_id)
    too_many = 0 if max_clients is None else max(0, len(memory) - max_clients)
    for client_id in list(memory)[:too_many]:
        del memory[client_id]
    return {"forgotten": too_many} if too_many else {}
