"""What nodes say of their partitions, and what is wrong with it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from flsec.client_apps.partition import KEYS, QUESTION, SAID
from flsec.errors import ConfigError
from flsec.strategies.report import brief

__all__ = ["Claim", "conflicts_among", "question", "read_claim", "refusal"]

_SHOWN = 50  # nodes that a message lists at most


@dataclass(frozen=True)
class Claim:
    """What a node says of itself.

    Attributes:
        partition_id: as it stands in ``node_config``; None if nothing does.
        num_partitions: likewise.
        failure: why there is no answer at all; None if there is one.
    """

    partition_id: Any = None
    num_partitions: Any = None
    failure: str | None = None

    def __str__(self) -> str:
        if self.failure is not None:
            return f"no answer ({self.failure})"
        said = ((key, value) for key, value in zip(KEYS, (self.partition_id, self.num_partitions), strict=True))
        return " ".join(f"{key}={brief(repr(value))}" for key, value in said if value is not None) or "nothing"


def question(node_id: int, ttl: float | None = None) -> Message:
    """Return the message that asks a node for its partition."""
    return Message(RecordDict(), node_id, QUESTION, ttl=ttl)


def read_claim(reply: Message) -> Claim:
    """Return what a node has answered; anything may stand in its reply."""
    if reply.has_error():
        return Claim(failure=brief(reply.error.reason or "no reason"))
    said = reply.content.get(SAID) if reply.has_content() else None
    if not isinstance(said, ConfigRecord):
        return Claim(failure="a reply without the record that was asked for")
    partition_id, num_partitions = (said.get(key) for key in KEYS)
    return Claim(partition_id, num_partitions)


def conflicts_among(claims: Mapping[int, Claim], num_partitions: int, *, complete: bool = True) -> list[str]:
    """Return what keeps nodes from having one partition each, a sentence for each reason.

    Args:
        claims: by node id.
        num_partitions: how many partitions there are.
        complete: whether nodes that gave no answer, and partitions that nobody has, are reasons as well.
    """
    claimants: dict[int, list[int]] = defaultdict(list)
    problems = []
    for node_id, claim in sorted(claims.items()):
        if claim.failure is not None:
            continue
        if not _is_count(claim.partition_id) or not 0 <= claim.partition_id < num_partitions:
            said = "no" if claim.partition_id is None else brief(repr(claim.partition_id))
            problems.append(f"node {node_id} has partition-id {said} instead of one of 0 to {num_partitions - 1}")
        else:
            claimants[claim.partition_id].append(node_id)
        if claim.num_partitions is not None and claim.num_partitions != num_partitions:
            said = brief(repr(claim.num_partitions))
            problems.append(f"node {node_id} counts {said} partitions instead of {num_partitions}")
    problems += [
        f"partition {partition} is claimed by nodes {_listed(nodes)}"
        for partition, nodes in sorted(claimants.items())
        if len(nodes) > 1
    ]
    if complete:
        silent = [node_id for node_id, claim in sorted(claims.items()) if claim.failure is not None]
        missing = [partition for partition in range(num_partitions) if partition not in claimants]
        problems += [f"node {node_id} gave {claims[node_id]}" for node_id in silent[:_SHOWN]]
        problems += [f"no node has partition {_listed(missing)}"] if missing else []
    return problems


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _listed(values: Iterable[int]) -> str:
    values = list(values)
    return ", ".join(map(str, values[:_SHOWN])) + (f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else "")


def refusal(problems: Iterable[str], claims: Mapping[int, Claim], num_partitions: int) -> ConfigError:
    """Return the error that says all: the reasons, what each node said, and what to do."""
    said = [f"{node_id}: {claim}" for node_id, claim in sorted(claims.items())]
    more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    return ConfigError(
        f"the SuperNodes do not have one of {num_partitions} partitions each: {'; '.join(problems)}. They said: "
        f"{'; '.join(said[:_SHOWN]) or 'nothing, none is connected'}{more}. Start each SuperNode with a partition of "
        f"its own, for example --node-config 'partition-id=0 num-partitions={num_partitions}'."
    )
