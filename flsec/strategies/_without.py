"""Flower's clients without some of them, as a wrapped strategy sees them: a view of a client manager, or of a grid."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.criterion import Criterion
from flwr.serverapp import Grid

from flsec.strategies._classic import node_id

__all__ = ["without"]


def without(source: Any, clients: frozenset[int], least: int = 0) -> Any:
    """Return a client manager or a grid that does not show some clients.

    Args:
        source: Flower's.
        clients: ids of those that are not shown.
        least: how many of the others a sample of the client manager's has at least, if they are enough.
    """
    if not clients:
        return source
    if hasattr(source, "get_node_ids"):
        return _GridWithout(source, clients)
    return _ClientsWithout(source, clients, least)


class _ClientsWithout(ClientManager):
    """Some of a client manager's clients; it waits for clients as the manager itself does."""

    def __init__(self, manager: ClientManager, hidden: frozenset[int], least: int):
        self._manager = manager
        self._hidden = hidden
        self._least = least

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)

    def __len__(self) -> int:
        return len(self.all())

    def num_available(self) -> int:
        return len(self)

    def all(self) -> dict[str, ClientProxy]:
        return {cid: proxy for cid, proxy in self._manager.all().items() if self._shows(proxy)}

    def _shows(self, proxy: ClientProxy) -> bool:
        return node_id(proxy) not in self._hidden

    def register(self, client: ClientProxy) -> bool:
        return self._manager.register(client)

    def unregister(self, client: ClientProxy) -> None:
        self._manager.unregister(client)

    def wait_for(self, num_clients: int, timeout: int = 86400) -> bool:
        return self._manager.wait_for(num_clients, timeout)

    def sample(
        self, num_clients: int, min_num_clients: int | None = None, criterion: Criterion | None = None
    ) -> list[ClientProxy]:
        """Return a sample of those shown: as many as wanted if they are enough, else all."""
        self.wait_for(num_clients if min_num_clients is None else min_num_clients)
        fit = [proxy for proxy in self._manager.all().values() if criterion is None or criterion.select(proxy)]
        if len(fit) >= num_clients:  # else there would be too few if nobody were excluded: the manager says what then
            num_clients = min(max(num_clients, self._least), sum(map(self._shows, fit)))
        return self._manager.sample(num_clients, min_num_clients, _Both(self._shows, criterion))


class _Both(Criterion):
    def __init__(self, shows: Callable[[ClientProxy], bool], other: Criterion | None):
        self._shows = shows
        self._other = other

    def select(self, client: ClientProxy) -> bool:
        return self._shows(client) and (self._other is None or self._other.select(client))


class _GridWithout(Grid):
    """A grid some of whose nodes are not seen.

    A strategy that looks again and again after pauses is waiting for more nodes than it is shown. It is shown all of
    them from then on; what it addresses to those excluded is not sent.
    """

    _LOOKS = 2  # Flower's strategies look so often without waiting
    _SHORTEST_PAUSE = 0.5  # seconds; a strategy that does not wait looks again at once

    def __init__(self, grid: Grid, hidden: frozenset[int]):
        self._grid = grid
        self._hidden = hidden
        self._looks = 0
        self._looked = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        if self._looks >= self._LOOKS and time.monotonic() - self._looked > self._SHORTEST_PAUSE:
            self._hidden = frozenset()
        self._looks += 1
        shown = [node for node in self._grid.get_node_ids() if node not in self._hidden]
        self._looked = time.monotonic()
        return shown

    def get_nodes(self) -> Iterable[Any]:
        return [node for node in self._grid.get_nodes() if node.node_id not in self._hidden]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self._grid.send_and_receive(messages, timeout=timeout)
