"""Clients that misbehave in every way we know of, each in its own; importable in worker processes."""

import os
import threading
import time
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp

HONEST = 3  # partitions 0, 1, 2 are honest
STEP = 0.25  # what an honest client adds to every parameter

# One hostile behaviour per further partition: what it sends in place of (arrays, num_examples, metrics).
FAULTS: dict[str, Any] = {
    "raises": None,
    "nan": lambda a: ([np.full_like(x, np.nan) for x in a], 10, {}),
    "inf": lambda a: ([np.full_like(x, np.inf) for x in a], 10, {}),
    "wrong_shape": lambda a: ([np.zeros((x.size + 1,), x.dtype) for x in a], 10, {}),
    "broadcastable_shape": lambda a: ([np.zeros((1,), x.dtype) for x in a], 10, {}),
    "integers": lambda a: ([np.full(x.shape, 7) for x in a], 10, {}),
    "complex": lambda a: ([x + 1j for x in a], 10, {}),
    "strings": lambda a: ([np.full(x.shape, "x") for x in a], 10, {}),
    "missing_array": lambda a: (a[:-1], 10, {}),
    "extra_array": lambda a: ([*a, a[0]], 10, {}),
    "empty_list": lambda a: ([], 10, {}),
    "zero_examples": lambda a: ([x + 99 for x in a], 0, {}),
    "negative_examples": lambda a: ([x + 99 for x in a], -5, {}),
    "absurd_examples": lambda a: ([x + 99 for x in a], 10**12, {}),
    "returns_none": None,
}
NUM_CLIENTS = HONEST + len(FAULTS)


def fault_of(context: Context) -> str | None:
    """Return how this client misbehaves; None if it is honest."""
    partition = int(context.node_config["partition-id"])
    return None if partition < HONEST else list(FAULTS)[partition - HONEST]


class FaultyClient(NumPyClient):
    """Honest in rounds other than the second."""

    def __init__(self, fault: str | None):
        self.fault = fault

    def fit(self, parameters: Any, config: Any) -> Any:
        if self.fault is None or config["server-round"] != 2:
            return [p + np.float32(STEP) for p in parameters], 10, {}
        if self.fault == "raises":
            raise RuntimeError("no training today")
        if self.fault == "returns_none":
            return None
        return FAULTS[self.fault](parameters)


def client_fn(context: Context) -> Any:
    return FaultyClient(fault_of(context)).to_client()


classic_app = ClientApp(client_fn)

message_app = ClientApp()


@message_app.train()
def train(message: Message, context: Context) -> Message:
    record = message.content["arrays"]
    arrays = [array.numpy() for array in record.values()]
    config = dict(message.content["config"])
    fault = fault_of(context)
    if fault == "returns_none" and config["server-round"] == 2:
        return None  # type: ignore[return-value]
    new, num_examples, _ = FaultyClient(fault).fit(arrays, config)
    names = [*record, *(f"extra-{i}" for i in range(len(new) - len(record)))]
    content = RecordDict(
        {
            "arrays": ArrayRecord({n: Array(np.asarray(a)) for n, a in zip(names, new, strict=False)}),
            "metrics": MetricRecord({"num-examples": num_examples}),
        }
    )
    return Message(content, reply_to=message)


stowaway_app = ClientApp()


@stowaway_app.train()
def smuggle(message: Message, context: Context) -> Message:
    """From round 2 on, partition 3's reply holds what cannot be sent."""
    reply = Message(RecordDict({"metrics": MetricRecord({"worker": os.getpid()})}), reply_to=message)
    if int(context.node_config["partition-id"]) == 3 and message.content["config"]["server-round"] > 1:
        reply.content["metrics"].__dict__["stowaway"] = threading.Lock()
    return reply


dying_app = ClientApp()


@dying_app.train()
def die(message: Message, context: Context) -> Message:
    """Partition 0 takes its worker process down in round 1."""
    record = message.content["arrays"]
    if int(context.node_config["partition-id"]) == 0 and message.content["config"]["server-round"] == 1:
        time.sleep(0.5)  # let the others of this round go first
        os._exit(1)
    content = RecordDict(
        {
            "arrays": ArrayRecord({n: Array(a.numpy() + np.float32(STEP)) for n, a in record.items()}),
            "metrics": MetricRecord({"num-examples": 10}),
        }
    )
    return Message(content, reply_to=message)


def honest_reply(message: Message, **metrics: int) -> Message:
    """Return what an honest client would send."""
    record = message.content["arrays"]
    content = RecordDict(
        {
            "arrays": ArrayRecord({n: Array(a.numpy() + np.float32(STEP)) for n, a in record.items()}),
            "metrics": MetricRecord({"num-examples": 10, **metrics}),
        }
    )
    return Message(content, reply_to=message)


spoiling_app = ClientApp()


@spoiling_app.train()
def spoil(message: Message, context: Context) -> Message:
    """Partition 9 ends its worker, or does not answer."""
    if int(context.node_config["partition-id"]) == 9:
        if message.content["config"]["hangs"]:
            time.sleep(600)
        os._exit(1)
    return honest_reply(message)


slow_app = ClientApp()


@slow_app.train()
def work_slowly(message: Message, context: Context) -> Message:
    time.sleep(0.4)
    return honest_reply(message)


sleeping_app = ClientApp()


@sleeping_app.train()
def oversleep(message: Message, context: Context) -> Message:
    """Partition 0 does not answer in round 1."""
    if int(context.node_config["partition-id"]) == 0 and message.content["config"]["server-round"] == 1:
        time.sleep(600)
    return honest_reply(message)


counting_app = ClientApp()


@counting_app.train()
def count(message: Message, context: Context) -> Message:
    visits = int(context.state["visits"]["n"]) + 1 if "visits" in context.state else 1
    context.state["visits"] = MetricRecord({"n": visits})
    return honest_reply(message, visits=visits)


greedy_app = ClientApp()


@greedy_app.train()
def empty(message: Message, context: Context) -> Message:
    """Take everything out of the message, and tell what was there."""
    config = message.content["config"]
    seen = ConfigRecord({**config, "arrays": len(message.content["arrays"])})
    config.clear()
    message.content["arrays"].clear()
    return Message(RecordDict({"config": seen}), reply_to=message)
