"""Flower's Message API (``flwr.serverapp.strategy``): its replies and its results, in flsec's terms."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from flsec import _npy
from flsec.strategies._classic import check_number, check_sender
from flsec.strategies.replies import (
    GlobalModel,
    Malformed,
    Quarantined,
    Reply,
    brief,
    check_num_examples,
    metrics_signature,
    usual_signature,
)


def global_model(arrays: ArrayRecord) -> GlobalModel:
    """Read the arrays that the round starts from."""
    return GlobalModel([array.data for array in arrays.values()], list(arrays))


def with_config(messages: Iterable[Message], config: dict[str, Any], key: str) -> list[Message]:
    """Add settings to each message's configuration.

    Flower's strategies put one RecordDict into all messages; each gets a shallow copy of its own, so that a
    client which empties its message empties no other's.
    """
    prepared = []
    for message in messages:
        content = RecordDict(dict(message.content))
        sent = content.get(key)
        content[key] = ConfigRecord({**config, **(sent if isinstance(sent, ConfigRecord) else {})})
        message.content = content
        prepared.append(message)
    return prepared


def collect(
    messages: Iterable[Message], weight_key: str, names: Sequence[str]
) -> tuple[list[Reply], list[Quarantined], list[Message]]:
    """Return the replies, those that cannot be read at all, and Flower's own error replies."""
    replies = []
    quarantined = []
    errors = []
    for message in messages:
        sender = message.metadata.src_node_id
        if message.has_error():
            quarantined.append(Quarantined(sender, f"failed: {brief(message.error.reason or 'no reason')}"))
            errors.append(message)
            continue
        try:
            replies.append(_read(message, weight_key, names))
        except Malformed as error:
            quarantined.append(Quarantined(sender, str(error)))
    return replies, quarantined, errors


def _read(message: Message, weight_key: str, names: Sequence[str]) -> Reply:
    # array_records and metric_records make dictionaries that keep track of changes, which takes longer than all else
    arrays = [record for record in message.content.values() if isinstance(record, ArrayRecord)]
    metrics = [record for record in message.content.values() if isinstance(record, MetricRecord)]
    if len(arrays) != 1 or len(metrics) != 1:
        raise Malformed(f"{len(arrays)} array records and {len(metrics)} metric records instead of one each")
    record, values = arrays[0], dict(metrics[0])
    if set(record) == set(names) and any(a.stype != "numpy.ndarray" for a in record.values()):
        raise Malformed("an array is not serialised as numpy.ndarray")
    return Reply(
        client_id=message.metadata.src_node_id,
        tensors=[array.data for array in record.values()],
        names=list(record),
        num_examples=values.get(weight_key),
        metrics=values,
        origin=message,
    )


def aggregate(
    base: Strategy,
    server_round: int,
    deliveries: Sequence[tuple[Reply, list[NDArray[Any]] | None, float]],
    metrics: Sequence[tuple[float, Any]],
    errors: Sequence[Message],
    names: Sequence[str],
) -> tuple[list[bytes] | None, MetricRecord]:
    """Hand replies to the wrapped strategy; return the new model as ``.npy`` bytes and its metrics.

    Args as in the classic API's ``aggregate``, with Flower's error replies for the failures and the model's
    array names.
    """
    weight_key: str = base.weighted_by_key  # type: ignore[attr-defined]
    messages = []
    for reply, arrays, weight in deliveries:
        records = reply.origin.content
        record = next(iter(records.array_records.values()))
        if arrays is not None:
            record = array_record(names, [_npy.write(a) for a in arrays])
        messages.append(_with_content(reply.origin, record, weight, weight_key))
    contents = [RecordDict({"metrics": MetricRecord({**values, weight_key: weight})}) for weight, values in metrics]
    function = base.train_metrics_aggr_fn  # type: ignore[attr-defined]
    base.train_metrics_aggr_fn = lambda _, key: function(contents, key)  # type: ignore[attr-defined]
    try:
        arrays_out, values_out = base.aggregate_train(server_round, [*messages, *errors])
    finally:
        base.train_metrics_aggr_fn = function  # type: ignore[attr-defined]
    tensors = None if arrays_out is None else [arrays_out[name].data for name in names]
    return tensors, values_out or MetricRecord()


def _with_content(message: Message, record: ArrayRecord, weight: float, weight_key: str) -> Message:
    """Return a copy of a reply (same sender) with these arrays and this weight."""
    metrics = next(iter(message.content.metric_records.values()))
    reply = copy.copy(message)
    reply.content = RecordDict(  # Flower refuses replies whose records have different names: use one for all
        {
            **message.content.config_records,
            "arrays": record,
            "metrics": MetricRecord({**dict(metrics), weight_key: weight}),
        }
    )
    return reply


def array_record(names: Sequence[str], tensors: Sequence[bytes]) -> ArrayRecord:
    """Return an ArrayRecord that holds ``.npy`` bytes as they are."""
    record = {}
    for name, data in zip(names, tensors, strict=True):
        view = _npy.read(data)
        record[name] = Array(dtype=str(view.dtype), shape=view.shape, stype="numpy.ndarray", data=data)
    return ArrayRecord(record)


def screen_evaluation(
    messages: Iterable[Message], asked: frozenset[int], weight_key: str, max_num_examples: int
) -> tuple[list[Message], list[Quarantined]]:
    """Split evaluation replies into those that can be averaged (and Flower's error replies) and the others."""
    errors = []
    quarantined = []
    readable = []
    for message in sorted(messages, key=lambda m: m.metadata.src_node_id):
        if message.has_error():
            errors.append(message)
            quarantined.append(
                Quarantined(message.metadata.src_node_id, f"failed: {(message.error.reason or '')[:200]}")
            )
        else:
            readable.append(message)
    # Flower looks the values up by the first reply's record name, so that the names must agree as well.
    metrics = [
        {(name, key): value for name, record in message.content.metric_records.items() for key, value in record.items()}
        for message in readable
    ]
    usual = usual_signature([m for m in metrics if m])
    kept: dict[int, Message] = {}
    for message, values in zip(readable, metrics, strict=True):
        client_id = message.metadata.src_node_id
        try:
            if len(message.content.metric_records) != 1:
                raise Malformed(f"{len(message.content.metric_records)} metric records instead of one")
            check_sender(client_id, asked, kept)
            record = next(iter(message.content.metric_records.values()))
            check_num_examples(record.get(weight_key), max_num_examples)
            if metrics_signature(values) != usual:
                raise Malformed("metrics have other names or types than most clients'")
            for key, value in record.items():
                check_number(value, key)
        except Malformed as error:
            quarantined.append(Quarantined(client_id, str(error)))
        else:
            kept[client_id] = message
    return [*errors, *kept.values()], quarantined
