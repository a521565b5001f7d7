"""A Flower Grid over a pool of Ray actors: the same apps as on Flower's own engine, at a fraction of its overhead.

Flower's simulation runtime scans all its nodes for every message and copies the model for every client. Here the model
enters Ray's object store once a round, the ClientApp is shipped once to each actor, and nothing looks at clients that
are not at work, so that 35,000 of them cost nothing until they are asked.
"""

import logging
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any

from flwr.app import Error, Message
from flwr.clientapp import ClientApp

from flsec.errors import ConfigError
from flsec.simulations.engines.grid import CLIENT_FAILED, OwnGrid
from flsec.simulations.engines.ray_cluster import check_workers_fit, connect
from flsec.simulations.engines.workers import (
    Result,
    SharedArrays,
    Slot,
    Work,
    actor_factory,
    identity_of,
    kill,
    reply_from,
    wait_for_workers,
)

__all__ = ["PooledGrid"]

logger = logging.getLogger("flsec")


class PooledGrid(OwnGrid):
    """Run clients on a pool of Ray actors; node ids are partition ids.

    Works for any ClientApp and any ServerApp, of both Flower APIs. A client that raises becomes an error reply, and so
    does one that takes its worker down with it; the worker is replaced. Quick clients that shared a call with one that
    ended its worker, or that hangs, are asked again without it.

    Args:
        client_app: what the clients run.
        num_clients: how many there are; a context is made for a client when it is first called, and the state that a
            client leaves in it is kept here and travels with its messages.
        num_cpus: of one worker.
        num_gpus: of one worker; a fraction lets workers share a GPU.
        max_workers: no more workers than this; None: as many as the resources allow.
        init_args: passed to ``ray.init`` if this process does not use Ray yet.
        address: of a running Ray cluster to join, ``"host:port"`` or ``"auto"``; None: start Ray on this machine.
        run_config: what clients find in ``context.run_config``.
        client_timeout: seconds after which the server gives up clients, if it does; a call for several clients is
            given up after half of them, or 30 s if that is less.

    Raises:
        ConfigError: the resources do not suffice for one worker.
        RuntimeError: no worker can load the app, or none has started in time.

    Cost: a call to an actor takes some milliseconds of all processes' time, so quick clients share one; the model is
    copied once a round into the object store and once a round by each worker, a reply once by its worker.
    """

    CALL = 0.06  # seconds of work in a call, at the most, by what its clients have taken so far
    PATIENCE = 30.0  # seconds after which a call for several clients is given up; busy machines are slow
    WAIT = 0.02  # seconds that a look for replies may take
    STARTS = 3  # so many times in a row may new workers die while they start, before the round's messages fail
    START, START_EACH = 300.0, 10.0  # seconds for the workers to start, and for each of them

    def __init__(
        self,
        client_app: ClientApp,
        num_clients: int,
        *,
        num_cpus: float = 1.0,
        num_gpus: float = 0.0,
        max_workers: int | None = None,
        init_args: dict[str, Any] | None = None,
        address: str | None = None,
        run_config: dict[str, Any] | None = None,
        client_timeout: float | None = None,
    ):
        self._started_ray = connect(init_args, address)
        super().__init__(num_clients, run_config)
        self._slots: list[Slot] = []
        self._lock = threading.Lock()
        self._waiting: deque[Message] = deque()
        self._replies: dict[str, Message] = {}
        self._shared = SharedArrays()
        self._paces: dict[str, float] = defaultdict(lambda: self.CALL)  # seconds that a message of a type takes
        self._patience = self.PATIENCE if client_timeout is None else min(self.PATIENCE, client_timeout / 2)
        self._failed_starts = 0
        self._alone: set[str] = set()  # messages that may spoil a call for others
        try:
            count = check_workers_fit(num_cpus, num_gpus)
            self._new_actor = actor_factory(client_app, num_cpus, num_gpus)
            self._slots = [Slot.of(self._new_actor()) for _ in range(min(count, max_workers or count, num_clients))]
            self._slots = wait_for_workers(self._slots, self.START + self.START_EACH * len(self._slots))
        except (ConfigError, RuntimeError):
            self.close()
            raise

    @property
    def num_workers(self) -> int:
        """How many workers there are."""
        return len(self._slots)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages; workers take them up during ``pull_messages``."""
        ids = []
        with self._lock:
            for message in messages:
                message_id = str(uuid.uuid4())
                message.metadata.__dict__["_message_id"] = message_id
                self._waiting.append(message)
                ids.append(message_id)
            self._hand_out()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there, after waiting a moment for one if there is none."""
        wanted = list(message_ids)
        with self._lock:
            if not any(key in self._replies for key in wanted):
                self._collect()
            return [self._replies.pop(key) for key in wanted if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send, and wait until all have replied or ``timeout`` seconds have passed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        while waiting and (deadline is None or time.monotonic() < deadline):
            arrived = list(self.pull_messages(waiting))
            replies.extend(arrived)
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
        self.abandon(waiting)
        return replies

    def abandon(self, message_ids: Iterable[str]) -> None:
        """Forget messages whose time is over; a worker that is still busy with one of them is replaced."""
        with self._lock:
            late = set(message_ids)
            self._waiting = deque(message for message in self._waiting if message.metadata.message_id not in late)
            for slot in self._slots:
                messages = slot.messages
                again = [message for message in messages if message.metadata.message_id not in late]
                if len(again) < len(messages):
                    self._replace(slot, "is busy with a client whose time is over")
                    self._waiting.extendleft(reversed(again))
            self._alone -= late
            for key in late:
                self._replies.pop(key, None)

    def close(self) -> None:
        """Stop the workers, and Ray if it was started here."""
        import ray

        for slot in self._slots:
            kill(slot.actor)
        if self._started_ray:
            ray.shutdown()

    # --- under the lock -------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Give waiting messages to the workers that have nothing to do.

        One call at a time for each: a second one in advance saves no time that can be measured, and would have to be
        cancelled where another worker can do it earlier. A worker that starts would miss the cancelled call in the
        order of its calls, and Ray lets it fail all others after 30 seconds.
        """
        for slot in self._slots:
            if self._waiting and slot.call is None:
                self._submit(slot, self._next_call())

    def _next_call(self) -> list[Message]:
        """Take waiting messages for one call: as many as are quick, and no more than a worker's share of the rest."""
        first = self._waiting.popleft()
        waiting = 1 + len(self._waiting)
        share = -(-(waiting + sum(len(slot.messages) for slot in self._slots)) // len(self._slots))
        count = min(int(self.CALL / self._paces[first.metadata.message_type]), share, waiting)
        identity = identity_of(first.content)
        messages = [first]
        while len(messages) < count and self._alone.isdisjoint(
            (first.metadata.message_id, self._waiting[0].metadata.message_id)
        ):
            if identity_of(self._waiting[0].content) != identity:
                break
            messages.append(self._waiting.popleft())
        return messages

    def _submit(self, slot: Slot, messages: list[Message]) -> None:
        """Call the worker; the messages share their arrays."""
        works: list[Work] = []
        for message in messages:
            key, shared, own = self._shared.split(message.content)
            works.append((own, message.metadata, self._context(message.metadata.dst_node_id)))
        call = key, [shared], works  # one argument: Ray pickles each on its own
        slot.call, slot.messages, slot.since = slot.actor.process.remote(call), messages, time.monotonic()

    def _collect(self) -> None:
        """Wait a moment for workers to finish, and turn what they return into replies."""
        import ray

        references = [slot.call for slot in self._slots if slot.call is not None]
        if not references:
            return
        finished, _ = ray.wait(references, num_returns=1, timeout=self.WAIT)
        if finished:  # take along whatever else is done by now
            finished, _ = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in finished:
            slot = next(slot for slot in self._slots if slot.call is reference)
            messages, slot.messages, slot.call = slot.messages, [], None
            self._alone.difference_update(message.metadata.message_id for message in messages)
            try:
                seconds, results = ray.get(reference)
            except ray.exceptions.RayTaskError as error:  # a message or a reply cannot travel
                self._fail_or_repeat(messages, error)
            except ray.exceptions.RayError as error:
                self._replace(slot, "has died: " + str(error).partition("\n")[0])
                self._fail_or_repeat(messages, error)
                self._failed_starts += not messages
                if self._failed_starts > self.STARTS:
                    self._fail_all_waiting(error)
            else:
                self._take_in(messages, seconds, results)
        self._give_up_late_calls()
        self._hand_out()

    def _take_in(self, messages: list[Message], seconds: float, results: list[Result]) -> None:
        self._failed_starts = 0
        for message, parts in zip(messages, results, strict=True):
            self._replies[message.metadata.message_id] = self._reply(message, parts)
        if messages:
            kind = messages[0].metadata.message_type
            self._paces[kind] = (self._paces[kind] + max(seconds / len(messages), 1e-6)) / 2

    def _give_up_late_calls(self) -> None:
        for slot in self._slots:
            messages = slot.messages
            if len(messages) > 1 and time.monotonic() - slot.since > self._patience:
                self._paces[messages[0].metadata.message_type] = self._patience / len(messages)
                self._replace(slot, f"has not answered for {self._patience:g} s")
                self._repeat_alone(messages)

    def _fail_or_repeat(self, messages: list[Message], error: Exception) -> None:
        if len(messages) == 1:
            self._fail(messages[0], error)
        else:
            self._repeat_alone(messages)

    def _repeat_alone(self, messages: list[Message]) -> None:
        """Find out which of them it was that spoilt the call for all."""
        self._alone.update(message.metadata.message_id for message in messages)
        self._waiting.extendleft(reversed(messages))

    def _fail_all_waiting(self, error: Exception) -> None:
        self._failed_starts = 0
        for message in self._waiting:
            self._fail(message, error)
        self._waiting.clear()
        self._alone.clear()

    def _reply(self, message: Message, parts: Result) -> Message:
        state = parts[-1]
        if state is not None:
            node_id = message.metadata.dst_node_id
            self._contexts[node_id] = self._context(node_id)
            self._contexts[node_id].state = state
        return reply_from(parts)

    def _fail(self, message: Message, error: Exception) -> None:
        reason = Error(CLIENT_FAILED, f"{type(error).__name__}: {error}")
        self._replies[message.metadata.message_id] = Message(reason, reply_to=message)

    def _replace(self, slot: Slot, why: str) -> None:
        number = self._slots.index(slot)
        logger.warning("worker %d is replaced: it %s", number, why)
        kill(slot.actor)
        self._slots[number] = Slot.of(self._new_actor())
