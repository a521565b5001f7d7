"""Which node has which partition: known beforehand in a simulation, asked for in a deployment."""

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid

from flsec.simulations.engines.interrupted import Interrupted
from flsec.simulations.engines.pulls import Pulls
from flsec.strategies._partitions import Claim, conflicts_among, question, read_claim, refusal

__all__ = ["AskedSeats", "Seats"]

logger = logging.getLogger("flsec")

_PAUSE = 0.5  # seconds between two looks at who is there


class Seats:
    """Nodes in the order of their partitions, as a simulation makes them.

    Args:
        node_ids: of partitions 0, 1, ...
    """

    def __init__(self, node_ids: Sequence[int]):
        self._node_ids = node_ids

    def node_of(self, partition: int) -> int | None:
        """Return the node that has a partition; None if none does at present."""
        return self._node_ids[partition]

    def look(self) -> None:
        """Look who is there; in a simulation always the same."""


class AskedSeats:
    """Nodes of a deployment, by the partition that each says it has.

    A node is asked when it is first seen, and again when its SuperNode was started anew or gave no answer; an answer is
    remembered by node id. A partition belongs to the first node that claims it, for as long as that is connected; then
    another that claims it may take its place, such as the same machine under a new key.

    Args:
        grid: Flower's.
        pulls: how its replies are fetched.
        num_partitions: how many there must be.
        patience: seconds to wait until so many nodes are connected.
        timeout: seconds to wait for a node's answer.
        stop: when set, waiting ends with ``Interrupted``.

    Raises:
        ConfigError: the nodes do not say one partition each, or too few came; it lists what each said.
    """

    def __init__(
        self,
        grid: Grid,
        pulls: Pulls,
        num_partitions: int,
        *,
        patience: float,
        timeout: float,
        stop: threading.Event,
    ):
        self._grid = grid
        self._pulls = pulls
        self._num_partitions = num_partitions
        self._timeout = timeout
        self._claims: dict[int, Claim] = {}
        self._seats: dict[int, int] = {}
        self._asked: dict[str, tuple[int, float]] = {}  # message: whom, until when
        self._started: dict[int, Any] = {}  # when the SuperNode that was asked had been started
        self._online: set[int] = set()
        self._fill(patience, stop)

    def node_of(self, partition: int) -> int | None:
        """Return the node that has a partition; None if none does at present."""
        return self._seats.get(partition)

    def look(self, *, again: bool = True) -> None:
        """See who has come and who has answered; ask who has not been asked, and ``again`` who has failed.

        Waits for nobody.
        """
        online = {node.node_id: node for node in self._grid.get_nodes()}
        answered = self._read_answers()
        waiting = {node_id for node_id, _ in self._asked.values()}
        to_ask = []
        for node_id, node in online.items():
            anew = self._started.get(node_id) != node.last_activated_at
            if anew or (again and node_id not in waiting and self._claims[node_id].failure is not None):
                to_ask.append(node_id)
            self._started[node_id] = node.last_activated_at
        self._ask(to_ask)
        self._online = set(online)
        self._assign()
        seated = set(self._seats.values())
        for node_id in answered if again else ():  # after the start nobody is refused
            if node_id not in seated:
                logger.warning("node %d has no place: it says %s", node_id, self._claims[node_id])
        for node_id in self._started.keys() - online.keys() - seated:  # gone for good, or asked again when it returns
            self._forget(node_id)

    def _forget(self, node_id: int) -> None:
        self._give_up([node_id])
        self._claims.pop(node_id, None)
        del self._started[node_id]

    def _give_up(self, node_ids: Sequence[int]) -> None:
        """Wait for no answer of these nodes any longer."""
        given_up = [key for key, (node_id, _) in self._asked.items() if node_id in node_ids]
        self._pulls.forget(given_up)
        for key in given_up:
            del self._asked[key]

    def _ask(self, node_ids: Sequence[int]) -> None:
        if not node_ids:
            return
        self._give_up(node_ids)
        messages = [question(node_id, ttl=self._timeout) for node_id in node_ids]
        sent = set(self._grid.push_messages(messages))
        for node_id, message in zip(node_ids, messages, strict=True):
            if message.metadata.message_id in sent:
                self._asked[message.metadata.message_id] = (node_id, time.monotonic() + self._timeout)
            else:
                self._claims[node_id] = Claim(failure="the question could not be sent")

    def _read_answers(self) -> list[int]:
        """Note what has come; return whose answer, or failure to answer, that is."""
        answered = []
        for message_id, (node_id, until) in list(self._asked.items()):
            reply = self._pulls.fetch(message_id)
            if reply is not None:
                self._claims[node_id] = read_claim(reply) if isinstance(reply, Message) else Claim(failure=reply)
            elif time.monotonic() > until:
                self._claims[node_id] = Claim(failure=f"none within {self._timeout:g} s")
                self._pulls.forget([message_id])
            else:
                continue
            del self._asked[message_id]
            answered.append(node_id)
        return answered

    def _assign(self) -> None:
        """Give each partition to the first node that claims it and is there."""
        claimants: dict[int, list[int]] = {}
        for node_id, claim in self._claims.items():  # in the order of the answers
            alone = {node_id: claim}
            if claim.failure is None and not conflicts_among(alone, self._num_partitions, complete=False):
                claimants.setdefault(claim.partition_id, []).append(node_id)
        for partition, nodes in claimants.items():
            holder = self._seats.get(partition)
            present = [node_id for node_id in nodes if node_id in self._online]
            if (holder in nodes and holder in self._online) or not present:
                continue
            if holder is not None:
                logger.warning("partition %d: node %d takes the place of node %d", partition, present[0], holder)
            self._seats[partition] = present[0]
        for partition, holder in list(self._seats.items()):  # one that was started anew with another partition
            if holder not in claimants.get(partition, ()):
                del self._seats[partition]

    # --- the start --------------------------------------------------------------------------------------------

    def _fill(self, patience: float, stop: threading.Event) -> None:
        """Wait until every partition has its node, or it is clear that some will not."""
        deadline = time.monotonic() + patience
        while True:
            if stop.is_set():
                raise Interrupted
            self.look(again=False)
            answered = not self._asked
            enough = len(self._online) >= self._num_partitions or time.monotonic() > deadline
            if len(self._seats) == self._num_partitions or (answered and enough):
                return self._judge()
            time.sleep(_PAUSE)

    def _judge(self) -> None:
        """Refuse nodes that contradict each other; go on without those that fail or hang, which may come later."""
        complete = len(self._seats) == self._num_partitions
        problems = conflicts_among(self._claims, self._num_partitions, complete=False)
        silent = {node_id: claim for node_id, claim in self._claims.items() if claim.failure is not None}
        missing = [partition for partition in range(self._num_partitions) if partition not in self._seats]
        if problems or not self._seats or len(missing) > len(silent):
            problems = conflicts_among(self._claims, self._num_partitions, complete=not complete)
            raise refusal(problems, self._claims, self._num_partitions)
        if missing:
            said = "; ".join(f"node {node_id} gave {claim}" for node_id, claim in sorted(silent.items()))
            logger.warning("starting without partitions %s: %s", missing, said)
