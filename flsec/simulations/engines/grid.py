"""Grids: how a server reaches its clients in a simulation. Flower's own are wrapped, one is ours."""

from __future__ import annotations  # a Flower without Run is not asked for it

import threading
import time
import uuid
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flsec.errors import ConfigError

try:  # the only private modules of Flower that an own Grid needs; tests run with Flower 1.38 to 1.42
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:
    _missing: str | None = f"{error}"
else:
    _missing = None

__all__ = ["InProcessGrid", "Interrupted", "OwnGrid", "PartitionGrid", "check_own_grids", "reply_of"]

CLIENT_FAILED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def check_own_grids() -> None:
    """Raise ``ConfigError`` if the installed Flower lacks what the engines of our own are made from."""
    if _missing is not None:
        raise ConfigError(
            f"simulation.engine: 'inprocess' and 'pooled' use parts of Flower that version {metadata.version('flwr')} "
            f"lacks ({_missing}). Take engine: flower, which is slower and needs none of them, or a Flower from 1.38 "
            "to 1.42."
        )


class Interrupted(Exception):
    """The user asked the run to stop."""


class OwnGrid(Grid):
    """What our own grids share: node ids that are partition ids, and contexts made when a client is first called.

    Args:
        num_clients: how many there are.
        run_config: what clients find in ``context.run_config``.
    """

    def __init__(self, num_clients: int, run_config: dict[str, Any] | None = None):
        check_own_grids()
        self._num_clients = num_clients
        self._run_config = run_config or {}
        self._contexts: dict[int, Context] = {}
        self._run = Run.create_empty(run_id=1)
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1

    def set_run(self, run: Run) -> None:
        """Set the run that messages belong to."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message; Flower prefers ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return all partition ids."""
        return range(self._num_clients)

    def abandon(self, message_ids: Iterable[str]) -> None:
        """Forget messages whose time is over; by default there are none."""

    def _context(self, node_id: int) -> Context:
        """Return a client's context, with the state that it left there."""
        known = self._contexts.get(node_id)
        if known is not None:
            return known
        node_config: UserConfig = {"partition-id": node_id, "num-partitions": self._num_clients}
        return Context(1, node_id, node_config, RecordDict(), dict(self._run_config))


def reply_of(app: ClientApp, message: Message, context: Context) -> Message:
    """Return a client's reply; where it raises, or returns something else, one that says so."""
    try:
        reply = app(message, context)
        if not isinstance(reply, Message):
            raise TypeError(f"the client returned {type(reply).__name__} instead of a reply")
    except (Exception, SystemExit) as error:
        return Message(Error(CLIENT_FAILED, f"{type(error).__name__}: {error}"), reply_to=message)
    return reply


class InProcessGrid(OwnGrid):
    """Run every client in this process, one after another; node ids are partition ids.

    For debugging and tests, and for many small clients: no worker processes, no serialisation. A client that
    raises, or that returns nothing, becomes an error reply; one that never returns blocks the run.

    Args:
        client_app: what the clients run, of either Flower API.
        num_clients: how many there are.
        run_config: what clients find in ``context.run_config``.
    """

    def __init__(self, client_app: ClientApp, num_clients: int, run_config: dict[str, Any] | None = None):
        super().__init__(num_clients, run_config)
        self._app = client_app
        self._replies: dict[str, Message] = {}

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the clients; their replies wait for ``pull_messages``."""
        return [self._deliver(message) for message in messages]

    def _deliver(self, message: Message) -> str:
        message_id = str(uuid.uuid4())
        message.metadata.__dict__["_message_id"] = message_id
        node_id = message.metadata.dst_node_id
        context = self._context(node_id)
        # Strategies put one RecordDict into all messages, and a client may empty the one it is given.
        message.content = RecordDict(dict(message.content))
        reply = reply_of(self._app, message, context)
        if len(context.state):  # 35,000 clients without state leave nothing behind
            self._contexts[node_id] = context
        self._replies[message_id] = reply
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies in the order of ``message_ids``."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Run the clients and return their replies; ``timeout`` cannot stop a client in the same process."""
        return self.pull_messages(self.push_messages(messages))


class PartitionGrid(Grid):
    """A view of another grid in which a node's id is its partition id, and only the sampled nodes are seen.

    Flower's node ids are random in every run, and so is its sampling; partition ids are stable, so that state kept
    by client id survives a resumed run and all engines agree.

    Args:
        grid: Flower's grid, or ``InProcessGrid``.
        num_clients: wait until so many nodes are there.
        stop: when set, waiting ends with ``Interrupted``.
        patience: seconds to wait for the nodes.

    Raises:
        TimeoutError: too few nodes came.
    """

    _PAUSE = 0.01  # seconds between two looks for replies

    def __init__(self, grid: Grid, num_clients: int, stop: threading.Event, patience: float = 120.0):
        self._grid = grid
        self._stop = stop
        self._node_ids = self._wait_for_nodes(num_clients, patience)
        self._partition_of = {node_id: partition for partition, node_id in enumerate(self._node_ids)}
        self.selected: Sequence[int] = range(num_clients)

    def _wait_for_nodes(self, num_clients: int, patience: float) -> list[int]:
        deadline = time.monotonic() + patience
        while len(node_ids := list(self._grid.get_node_ids())) < num_clients:
            if self._stop.is_set():
                raise Interrupted
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"only {len(node_ids)} of {num_clients} clients connected within {patience:.0f} s. Start as many "
                    "SuperNodes as simulation.num_clients says."
                )
            time.sleep(self._PAUSE)
        if isinstance(self._grid, OwnGrid):
            return node_ids
        # Flower's simulation registers its nodes in the order of their partitions.
        nodes = sorted(self._grid.get_nodes(), key=lambda node: (node.registered_at, node.node_id))
        return [node.node_id for node in nodes][:num_clients]

    def set_run(self, run: Run) -> None:
        """Forward."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run of the grid inside."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Return a message; Flower prefers ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the partition ids of the sampled clients."""
        return list(self.selected)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages that are addressed by partition id."""
        addressed = []
        for message in messages:
            message.metadata.dst_node_id = self._node_ids[message.metadata.dst_node_id]
            addressed.append(message)
        return self._grid.push_messages(addressed)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come, signed by partition id."""
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            reply.metadata.__dict__["_src_node_id"] = self._partition_of[reply.metadata.src_node_id]
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, and wait until all have replied or ``timeout`` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        waiting: set[str] = set()
        # the in-process grid runs a client when it is sent a message
        one_by_one = isinstance(self._grid, InProcessGrid)
        for batch in ([message] for message in messages) if one_by_one else [list(messages)]:
            if self._stop.is_set():
                raise Interrupted
            waiting.update(self.push_messages(batch))
        while waiting:
            arrived = list(self.pull_messages(waiting))
            replies.extend(arrived)
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if self._stop.is_set():
                raise Interrupted
            if not waiting or (deadline is not None and time.monotonic() > deadline):
                break
            if not isinstance(self._grid, OwnGrid):  # ours wait by themselves
                time.sleep(self._PAUSE)
        if isinstance(self._grid, OwnGrid):
            self._grid.abandon(waiting)
        return replies
