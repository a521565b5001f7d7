"""Flower's Message API (``flwr.serverapp.strategy``): its replies and its results, in flsec's terms."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords

from flsec import _npy, _numbers
from flsec.strategies._evaluation import EvaluationReply, Screening, not_finite_among
from flsec.strategies._flower import Collected, Delivery, function_replaced
from flsec.strategies._metrics import Metrics, with_metrics_of
from flsec.strategies._server_state import with_inner
from flsec.strategies.replies import Malformed, Reply
from flsec.strategies.report import Quarantined, brief

__all__ = ["MessageRound", "aggregate_evaluation", "array_record", "configured", "destinations", "setting_of"]


def setting_of(base: Strategy, name: str, default: str) -> str:
    """Return a record key that a strategy uses; of those derived from ``Strategy`` itself, Flower's usual one."""
    return next((str(getattr(inner, name)) for inner in with_inner(base) if hasattr(inner, name)), default)


def configured(
    messages: Iterable[Message], arrays: ArrayRecord, given: ArrayRecord, config: dict[str, Any], key: str
) -> list[Message]:
    """Return the messages with the model as the server sent it and with settings added to each configuration.

    Flower's strategies put one RecordDict into all messages; each gets a shallow copy of its own, so that a
    client which empties its message empties no other's.

    Args:
        messages: the wrapped strategy's.
        arrays: the server's.
        given: what the strategy was given in their place, where it cannot compute with their type.
        config: settings that the strategy does not send itself.
        key: of the record that they go into.
    """
    prepared = []
    for message in messages:
        content = RecordDict({k: arrays if record is given else record for k, record in message.content.items()})
        sent = content.get(key)
        content[key] = ConfigRecord({**config, **(sent if isinstance(sent, ConfigRecord) else {})})
        message.content = content
        prepared.append(message)
    return prepared


def destinations(sent: Iterable[Metadata]) -> dict[str, int]:
    """Return {id: destination} of messages that have been sent: an error reply may come from Flower itself."""
    return {metadata.message_id: metadata.dst_node_id for metadata in sent if metadata.message_id}


def sender_of(message: Message, asked: Mapping[str, int]) -> int:
    """Return whom a reply is about: its sender, or the client that Flower's own infrastructure answers for."""
    source = message.metadata.src_node_id
    return asked.get(message.metadata.reply_to_message_id, source) if message.has_error() else source


class MessageRound:
    """One round of training in the Message API.

    Args:
        base: the Flower strategy inside all wrappers.
        step: its ``aggregate_train``.
        server_round: the server's round.
        messages: the replies.
        arrays: the model that the clients were sent.
        asked: {message id: client} of what was sent.
    """

    def __init__(
        self,
        base: Strategy,
        step: Callable[..., Any],
        server_round: int,
        messages: Iterable[Message],
        arrays: ArrayRecord,
        asked: Mapping[str, int],
    ):
        self.base = base
        self._step = step
        self._round = server_round
        self._messages = list(messages)
        self._arrays = arrays
        self._names = list(arrays)
        self._asked = asked
        self._weight_key = setting_of(base, "weighted_by_key", "num-examples")
        self._errors: list[Message] = []
        self._record_names = ("arrays", "metrics")  # of the replies' records; strategies may look them up

    def collect(self) -> Collected:
        """Return the replies, those that cannot be read at all, and the clients that failed."""
        replies = []
        malformed = []
        silent = []
        for message in self._messages:
            sender = sender_of(message, self._asked)
            if message.has_error():
                silent.append(Quarantined(sender, f"failed: {brief(message.error.reason or 'no reason')}", "failed"))
                self._errors.append(message)
                continue
            try:
                replies.append(self._read(message))
            except Malformed as error:
                malformed.append(Quarantined(sender, str(error), error.kind))
        names = Counter(_record_names(reply.origin) for reply in replies)
        if names:
            self._record_names = min(names, key=lambda pair: (-names[pair], pair))
        return Collected(replies, malformed, silent, [])

    def _read(self, message: Message) -> Reply:
        if not message.has_content():
            raise Malformed("neither content nor error")
        # array_records and metric_records make dictionaries that keep track of changes: longer than all else
        arrays = [record for record in message.content.values() if isinstance(record, ArrayRecord)]
        metrics = [record for record in message.content.values() if isinstance(record, MetricRecord)]
        if len(arrays) != 1 or len(metrics) != 1:
            found = f"{len(arrays)} array records and {len(metrics)} metric records"
            raise Malformed(f"{found} instead of one each", "structure")
        record = arrays[0]
        if set(record) == set(self._names) and any(a.stype != "numpy.ndarray" for a in record.values()):
            raise Malformed("an array is not serialised as numpy.ndarray", "unreadable")
        values = dict(metrics[0])
        num_examples = values.pop(self._weight_key, None)
        return Reply(
            client_id=message.metadata.src_node_id,
            tensors=[array.data for array in record.values()],
            names=list(record),
            num_examples=num_examples,
            metrics=values,
            origin=message,
        )

    def hand_on(
        self, deliveries: Sequence[Delivery], metrics: Sequence[tuple[float, Metrics]]
    ) -> tuple[list[bytes] | None, Mapping[str, Any]]:
        """Let the wrapped strategy aggregate; see ``FlowerRound``."""
        messages = [self._reply(delivery) for delivery in deliveries]
        with function_replaced(self.base, "train_metrics_aggr_fn", partial(_average_of, metrics, self._weight_key)):
            arrays, values = self._step(self._round, [*messages, *self._errors])
        return (None if arrays is None else self._tensors(arrays)), dict(values or {})

    def _reply(self, delivery: Delivery) -> Message:
        """Return a copy of a reply (same sender) with its new content."""
        message: Message = delivery.reply.origin
        record = next(iter(message.content.array_records.values()))
        if delivery.arrays is not None:
            record = array_record(self._names, [_npy.write(array) for array in delivery.arrays])
        reply = copy.copy(message)
        arrays, metrics = self._record_names  # Flower refuses replies whose records have different names: one for all
        reply.content = RecordDict(
            {
                **message.content.config_records,
                arrays: record,
                metrics: MetricRecord({**delivery.metrics, self._weight_key: delivery.weight}),
            }
        )
        return reply

    def _tensors(self, arrays: ArrayRecord) -> list[bytes]:
        if set(arrays) == set(self._names):
            return [arrays[name].data for name in self._names]
        return [array.data for array in arrays.values()]  # other names: by position


def _record_names(message: Message) -> tuple[str, str]:
    """Return the names of a readable reply's array record and metric record."""
    by_kind = {type(record): name for name, record in message.content.items()}
    return by_kind[ArrayRecord], by_kind[MetricRecord]


def _average_of(
    pairs: Sequence[tuple[float, Metrics]], key: str, function: Callable[[Any, str], Any]
) -> Callable[[Any, str], MetricRecord]:
    """Return a function for metrics that sees the clients' own, cleaned, and loses only metrics if it fails on them.

    Args:
        pairs: (weight, metrics) of each client.
        key: under which a weight stands.
        function: the strategy's.
    """

    def average(_: Any, weight_key: str) -> MetricRecord:
        def of(given: Sequence[tuple[float, Metrics]]) -> MetricRecord:
            contents = [RecordDict({"metrics": MetricRecord({**values, key: weight})}) for weight, values in given]
            return MetricRecord(dict(function(contents, weight_key)))

        # Flower's own function makes wrong averages of metrics that not all report, without a word
        return with_metrics_of(pairs, of, as_sent=function is not aggregate_metricrecords) or MetricRecord()

    return average


def array_record(names: Sequence[str], tensors: Sequence[bytes], like: ArrayRecord | None = None) -> ArrayRecord:
    """Return an ArrayRecord that holds ``.npy`` bytes as they are.

    Args:
        names: of the arrays.
        tensors: their bytes.
        like: whose names for dtypes to use where the bytes have one that says less (bfloat16).
    """
    record = {}
    for name, data in zip(names, tensors, strict=True):
        view = _npy.read(data)
        known = like[name].dtype if like is not None and _numbers.is_bfloat16(view.dtype) else str(view.dtype)
        record[name] = Array(dtype=known, shape=view.shape, stype="numpy.ndarray", data=data)
    return ArrayRecord(record)


def aggregate_evaluation(
    base: Strategy,
    step: Callable[..., Any],
    server_round: int,
    messages: Iterable[Message],
    asked: Mapping[str, int],
    screening: Screening,
) -> Any:
    """Screen evaluation replies, and hand those that are left to the wrapped strategy, whose ``step`` is its method."""
    key = setting_of(base, "weighted_by_key", "num-examples")
    errors = []
    replies = []
    for message in messages:
        sender = sender_of(message, asked)
        if message.has_error():
            errors.append(message)
            reason = brief(message.error.reason or "no reason")
            replies.append(EvaluationReply(sender, None, {}, message, failed=reason))
            continue
        content = message.content if message.has_content() else RecordDict()
        records = [record for record in content.values() if isinstance(record, MetricRecord)]
        values = dict(records[0]) if len(records) == 1 else {}
        wrong = f"{len(records)} metric records instead of one" if len(records) != 1 else not_finite_among(values)
        replies.append(EvaluationReply(sender, values.pop(key, None), values, message, malformed=wrong))
    handed_on = []
    for row in screening.rows(replies):
        reply = copy.copy(row.origin)
        reply.content = RecordDict(
            {**row.origin.content.config_records, "metrics": MetricRecord({**row.metrics, key: row.weight})}
        )
        handed_on.append(reply)
    with function_replaced(base, "evaluate_metrics_aggr_fn", partial(_average_of, screening.pairs, key)):
        return step(server_round, [*errors, *handed_on])
