"""Flower's grid of a deployment, reduced to what a server sees of it: nodes with random ids, which come and go."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from flsec.client_apps import tells_partition

SUPERLINK = 1  # the node that Flower's own errors come from


def silent(message: Message, context: Context) -> None:
    """Never answer."""


@dataclass
class Node:
    """A SuperNode, and what its client does: an app, or a function of the message that may raise or return nothing."""

    node_id: int
    config: dict[str, Any]
    client: Callable[[Message, Context], Message | None]
    online: bool = True
    started: int = 0
    asked: list[str] = field(default_factory=list)  # types of the messages that it was sent

    @property
    def info(self) -> Any:
        return SimpleNamespace(
            node_id=self.node_id,
            registered_at=str(self.node_id % 7),  # an order that says nothing
            last_activated_at=str(self.started),
            heartbeat_interval=30.0,
        )

    def restart(self, **config: Any) -> None:
        self.online, self.started = True, self.started + 1
        self.config.update(config)


class Deployed(Grid):
    """What ``HttpGrid`` is to a ServerApp; ``unreadable`` replies make its ``pull_messages`` raise."""

    def __init__(self, *nodes: Node):
        self.nodes = {node.node_id: node for node in nodes}
        self._replies: dict[str, Message | Exception] = {}
        self._count = 0

    def get_nodes(self) -> Any:
        return [node.info for node in self.nodes.values() if node.online]

    def get_node_ids(self) -> Iterable[int]:
        return [node.node_id for node in self.get_nodes()]

    def set_run(self, run: Any) -> None: ...

    @property
    def run(self) -> Any:
        return None

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        return Message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return [self._deliver(message) for message in messages]

    def _deliver(self, message: Message) -> str:
        self._count += 1
        message.metadata.__dict__["_message_id"] = message_id = f"message-{self._count}"
        node = self.nodes[message.metadata.dst_node_id]
        if not node.online:
            reply = Message(Error(5, "Node Unavailable"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK
            self._replies[message_id] = reply
            return message_id
        node.asked.append(message.metadata.message_type)
        context = Context(1, node.node_id, dict(node.config), RecordDict(), {})
        try:
            answer = node.client(message, context)
        except UnreadableReply as error:
            self._replies[message_id] = ValueError(str(error))
            return message_id
        except Exception as error:
            answer = Message(Error(2, f"{type(error).__name__}: {error}"), reply_to=message)
        if answer is not None:
            self._replies[message_id] = answer
        return message_id

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        arrived = [self._replies.pop(key) for key in list(message_ids) if key in self._replies]
        for reply in arrived:
            if isinstance(reply, Exception):
                raise reply
        return arrived  # type: ignore[return-value]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))


class UnreadableReply(Exception):
    """What a client raises whose reply cannot be decoded."""


def echo() -> ClientApp:
    """Return an app that answers training with nothing."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict(), reply_to=message)

    return tells_partition(app)


IDS = (2**63 + 11, 17, 2**62 + 5, 903, 5, 2**63 + 1)  # as random as Flower's


def deployed(*partitions: Any, count: int | None = None) -> Deployed:
    """Return a deployment whose nodes say these partitions, in this order of registration; None: nothing."""
    total = len(partitions) if count is None else count
    nodes = []
    for node_id, partition in zip(IDS, partitions, strict=False):
        said = {} if partition is None else {"partition-id": partition}
        nodes.append(Node(node_id, {**said, "num-partitions": total}, echo()))
    return Deployed(*nodes)
