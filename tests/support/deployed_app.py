"""The client app of deployments in tests: flsec's, and what the run configuration has some clients do instead."""

import os
import time
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from flsec._contracts.faults import faults
from flsec._contracts.server import Change, Reply
from flsec.simulations.engines.flower_app import client_app as honest_app

LIARS = 4  # clients 1 to 4; client 0 is honest


def lies() -> dict[str, Change]:
    """Return {name: change of an honest reply} of what a hostile client sends, for models of two arrays."""
    written_for_four = ("NaN in the last float", "fractions for a counter")
    return {name: change for name, change in faults("Message").items() if name not in written_for_four}


def lie_of(partition: int, round_: int) -> str:
    """Return which lie a client tells in a round."""
    names = list(lies())
    return names[((round_ - 1) * LIARS + partition - 1) % len(names)]


class _App(ClientApp):
    def __call__(self, message: Message, context: Context) -> Message:
        behaviour = str(context.run_config.get("behaviour", ""))
        partition = int(context.node_config["partition-id"])
        config = next(iter(message.content.config_records.values()), ConfigRecord())
        round_ = config.get("server-round", 0)
        assert isinstance(round_, int)
        if round_ and behaviour == "lies" and partition > 0:
            return _lie(honest_app(message, context), lie_of(partition, round_))
        if round_ and behaviour.startswith("/"):
            _stand_still(Path(behaviour) / f"{partition}-{round_}")
        return honest_app(message, context)


def _lie(reply: Message, name: str) -> Message:
    record = reply.content.array_records["arrays"]
    said = lies()[name](Reply(tuple(array.data for array in record.values())))
    reply.content = RecordDict(dict(said.content(list(record))))
    assert isinstance(reply.content.get("arrays", ArrayRecord()), ArrayRecord)
    return reply


def _stand_still(order: Path) -> None:
    """Where a file says so, wait for so many seconds, or until another says "go"; say before that it has begun."""
    if order.is_file():
        until = time.monotonic() + float(order.read_text())
        os.replace(order, order.with_suffix(".begun"))
        while time.monotonic() < until and not order.with_suffix(".go").exists():
            time.sleep(0.2)


client_app = _App()
