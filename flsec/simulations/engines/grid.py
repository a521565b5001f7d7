"""Grids: how a server reaches its clients in a simulation. Flower's own are wrapped, one is ours."""

from __future__ import annotations  # a Flower without Run is not asked for it

import copy
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
from flsec.simulations.engines.interrupted import Interrupted
from flsec.simulations.engines.pulls import Pulls
from flsec.simulations.engines.seats import AskedSeats, Seats

try:  # the only private modules of Flower that an own Grid needs; tests run with Flower 1.38 to 1.42
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
except ImportError as error:
    _missing: str | None = f"{error}"
else:
    _missing = None

__all__ = ["InProcessGrid", "OwnGrid", "PartitionGrid", "check_own_grids", "reply_of"]

CLIENT_FAILED = 2  # Flower's ErrorCode.CLIENT_APP_RAISED_EXCEPTION
NOT_THERE = 5  # Flower's ErrorCode.NODE_UNAVAILABLE
_LATE = 5.0  # seconds by which messages outlive their round, so that the round ends first


def check_own_grids() -> None:
    """Raise ``ConfigError`` if the installed Flower lacks what the engines of our own are made from."""
    if _missing is not None:
        raise ConfigError(
            f"simulation.engine: 'inprocess' and 'pooled' use parts of Flower that version {metadata.version('flwr')} "
            f"lacks ({_missing}). Take engine: flower, which is slower and needs none of them, or a Flower from 1.38 "
            "to 1.42."
        )


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

    Example:
        >>> import numpy as np
        >>> from flwr.app import ArrayRecord
        >>> from flwr.client import NumPyClient
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.client_apps import numpy_client_app
        >>> class Step(NumPyClient):
        ...     def fit(self, parameters, config):
        ...         return [parameters[0] + 1.0], 10, {}
        >>> grid = InProcessGrid(numpy_client_app(lambda context: Step()), num_clients=2)
        >>> result = FedAvg(fraction_evaluate=0.0).start(grid, ArrayRecord([np.zeros(1)]), num_rounds=3)
        >>> result.arrays.to_numpy_ndarrays()
        [array([3.])]
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

    Flower's node ids are random numbers, and so is its sampling; partition ids are stable, so that state kept by client
    id survives a resumed run and all engines agree. A reply counts as that of the client whose message it answers:
    errors of Flower's own infrastructure come from the SuperLink. A partition whose node is not there answers at once,
    with an error.

    Args:
        grid: Flower's grid, or one of ours.
        num_clients: wait until so many nodes are there.
        stop: when set, waiting ends with ``Interrupted``.
        patience: seconds to wait for the nodes.
        asks: whether each node is asked for its partition, as in a deployment; otherwise they are in the order in which
            they were registered, which is what Flower's simulation does.
        timeout: seconds to wait for a node that is asked.

    Raises:
        TimeoutError: too few nodes came.
        ConfigError: nodes that were asked do not say one partition each.
    """

    _PAUSE = 0.01  # seconds between two looks for replies of a simulation

    def __init__(
        self,
        grid: Grid,
        num_clients: int,
        stop: threading.Event,
        patience: float = 120.0,
        *,
        asks: bool = False,
        timeout: float = 600.0,
    ):
        self._grid = grid
        self._stop = stop
        self._remote = asks and not isinstance(grid, OwnGrid)
        self._pulls = Pulls(grid)
        self._seats: Seats | AskedSeats
        if self._remote:
            self._seats = AskedSeats(grid, self._pulls, num_clients, patience=patience, timeout=timeout, stop=stop)
        else:
            self._seats = Seats(self._wait_for_nodes(num_clients, patience))
        self._sent: dict[str, Message] = {}  # addressed by partition, and not yet answered
        self._undelivered: dict[str, str] = {}  # why
        self._selected: Sequence[int] = range(num_clients)

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

    @property
    def selected(self) -> Sequence[int]:
        """The partition ids of the clients that take part in the round; setting them begins a round."""
        return self._selected

    @selected.setter
    def selected(self, partitions: Sequence[int]) -> None:
        self._seats.look()
        self._selected = partitions

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

    def get_nodes(self) -> Any:
        """Return what a deployment knows of its nodes, under Flower's ids; nothing of a simulation's."""
        return list(self._grid.get_nodes()) if self._remote else []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages that are addressed by partition id."""
        return self._push(messages, None)

    def _push(self, messages: Iterable[Message], timeout: float | None) -> list[str]:
        messages = list(messages)
        if isinstance(self._grid, OwnGrid):
            return list(self._grid.push_messages(messages))
        addressed = []  # copies: strategies look up whom they have asked in the messages
        for message in messages:
            node_id = self._seats.node_of(message.metadata.dst_node_id)
            if node_id is None:
                self._not_sent(message, "no connected node has this partition")
            else:
                addressed.append((message, _addressed_to(node_id, message, timeout if self._remote else None)))
        accepted = set(self._grid.push_messages([copied for _, copied in addressed])) if addressed else set()
        for message, copied in addressed:
            message_id = copied.metadata.message_id
            if message_id in accepted:
                message.metadata.__dict__["_message_id"] = message_id
                self._sent[message_id] = message
            else:
                self._not_sent(message, "Flower did not take the message")
        return [message.metadata.message_id for message in messages]

    def _not_sent(self, message: Message, reason: str) -> None:
        message.metadata.__dict__["_message_id"] = message_id = str(uuid.uuid4())
        self._sent[message_id] = message
        self._undelivered[message_id] = reason

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that have come, signed by partition id."""
        message_ids = list(message_ids)
        if isinstance(self._grid, OwnGrid):
            return self._grid.pull_messages(message_ids)
        known = [message_id for message_id in message_ids if message_id in self._sent]
        replies = [
            Message(Error(NOT_THERE, self._undelivered.pop(message_id)), reply_to=self._sent.pop(message_id))
            for message_id in known
            if message_id in self._undelivered
        ]
        waiting = [message_id for message_id in known if message_id in self._sent]
        return replies + [self._signed(reply) for reply in self._arrived(waiting)]

    def _arrived(self, message_ids: list[str]) -> Iterable[Message]:
        if not self._remote:
            return self._grid.pull_messages(message_ids)
        replies = []
        for message_id in message_ids:
            reply = self._pulls.fetch(message_id)
            if isinstance(reply, str):
                reply = Message(Error(CLIENT_FAILED, reply), reply_to=self._sent[message_id])
            if reply is not None:
                replies.append(reply)
        return replies

    def _signed(self, reply: Message) -> Message:
        """Return a reply with the partition of the message that it answers as its sender."""
        sent = self._sent.pop(reply.metadata.reply_to_message_id)
        reply.metadata.__dict__["_src_node_id"] = sent.metadata.dst_node_id
        return reply

    def _pause(self, waiting: int) -> float:
        """Return the seconds until the next look for replies; in a deployment it is a request for each of them."""
        return min(3.0, 0.4 + 0.03 * waiting) if self._remote else self._PAUSE

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
            waiting.update(self._push(batch, timeout))
        while waiting:
            arrived = list(self.pull_messages(waiting))
            replies.extend(arrived)
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if self._stop.is_set():
                raise Interrupted
            if not waiting or (deadline is not None and time.monotonic() > deadline):
                break
            if not isinstance(self._grid, OwnGrid):  # ours wait by themselves
                time.sleep(self._pause(len(waiting)))
        if isinstance(self._grid, OwnGrid):
            self._grid.abandon(waiting)
        self._pulls.forget(waiting)
        for message_id in waiting:
            self._sent.pop(message_id, None)
        return replies


def _addressed_to(node_id: int, message: Message, ttl: float | None) -> Message:
    """Return a copy for a node, with the same content.

    Args:
        node_id: of Flower.
        message: addressed by partition id.
        ttl: seconds after which nobody waits for the answer; a node that comes back later does not work on old rounds.
    """
    copied = copy.copy(message)
    metadata = copy.copy(message.metadata)
    metadata.dst_node_id = node_id
    if ttl is not None:
        metadata.ttl = min(metadata.ttl, ttl + _LATE)
    copied.__dict__["_metadata"] = metadata
    return copied
