"""Evaluation replies: screened as training replies are and weighted alike, so that nobody decides a measure alone."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flsec import _numbers
from flsec.strategies._metrics import LARGEST, MOST_KEYS, Metrics, averageable, cleaned, middle_of
from flsec.strategies.replies import Malformed, check_num_examples
from flsec.strategies.report import Quarantined

__all__ = ["EvaluationReply", "EvaluationRow", "Screening"]

Averaging = Literal["mean", "median"]


@dataclass(frozen=True)
class EvaluationReply:
    """One client's evaluation, the same for both APIs.

    Attributes:
        client_id: Flower's node id.
        num_examples: as sent; not yet checked.
        metrics: as sent; not yet checked.
        origin: the Flower object that it came in.
        loss: as sent, in the classic API; None in the Message API, which has it among the metrics.
        failed: why the client did not evaluate; None if it did.
        malformed: why the reply cannot be read; None if it can.
    """

    client_id: int
    num_examples: Any
    metrics: Any
    origin: Any
    loss: Any = None
    failed: str | None = None
    malformed: str | None = None


def not_finite_among(metrics: Metrics) -> str | None:
    """Return which metric is NaN or infinite; None if none is. In the Message API they are all that a reply holds."""
    for key, value in list(metrics.items())[:MOST_KEYS]:
        for number in value if isinstance(value, list | tuple) else [value]:
            if (real := _numbers.real(number)) is not None and not math.isfinite(real):
                return f"{key} is NaN or infinite"
    return None


@dataclass(frozen=True)
class EvaluationRow:
    """A reply as the wrapped strategy is given it."""

    origin: Any
    weight: float
    metrics: dict[str, Any]
    loss: float | None


@dataclass
class Screening:
    """How the evaluation replies of a round are sorted and weighed.

    Attributes:
        asked: ids of the clients that were asked to evaluate; empty if that is not known.
        max_num_examples: more than this is nothing that an honest client would report.
        uniform: whether all count alike.
        max_weight_ratio: else, no client counts more than this many times the median client.
        averaging: ``"median"`` hands one reply on, the median of all.
        quarantined: who was dropped, with the reason.
        left_out: {id: reason} of metrics that could not be averaged.
        pairs: (weight, metrics) of those that are left.
    """

    asked: frozenset[int]
    max_num_examples: int
    uniform: bool
    max_weight_ratio: int | None
    averaging: Averaging
    quarantined: list[Quarantined] = field(default_factory=list)
    left_out: dict[int, str] = field(default_factory=dict)
    pairs: list[tuple[float, Metrics]] = field(default_factory=list)

    def rows(self, replies: Sequence[EvaluationReply]) -> list[EvaluationRow]:
        """Return what the wrapped strategy is given, in the order of the clients' ids."""
        kept: dict[int, EvaluationReply] = {}
        metrics: list[Metrics] = []
        for reply in sorted(replies, key=lambda r: r.client_id):
            try:
                self._check(reply, kept)
            except Malformed as error:
                self.quarantined.append(Quarantined(reply.client_id, str(error)))
                continue
            kept[reply.client_id] = reply
            sound, why = cleaned(reply.metrics)
            metrics.append(sound)
            if why is not None:
                self.left_out[reply.client_id] = why
        if not kept:
            return []
        weights = self._weights([float(reply.num_examples) for reply in kept.values()])
        fit = averageable(metrics)
        ids = list(kept)
        self.left_out.update({ids[position]: why for position, why in fit.left_out.items()})
        losses = [None if reply.loss is None else float(reply.loss) for reply in kept.values()]
        rows = [
            EvaluationRow(reply.origin, weight, row, loss)
            for reply, weight, row, loss in zip(kept.values(), weights, fit.rows, losses, strict=True)
        ]
        self.pairs = list(zip(weights, metrics, strict=True))
        return [self._median(rows)] if self.averaging == "median" else rows

    def _check(self, reply: EvaluationReply, kept: dict[int, EvaluationReply]) -> None:
        if reply.failed is not None:
            raise Malformed(f"failed: {reply.failed}")
        if self.asked and reply.client_id not in self.asked:
            raise Malformed("was not asked this round")
        if reply.client_id in kept:
            raise Malformed("replied twice")
        if reply.malformed is not None:
            raise Malformed(reply.malformed)
        check_num_examples(reply.num_examples, self.max_num_examples)
        loss = reply.loss
        if loss is None:
            return
        number = _numbers.real(loss)
        if number is None:
            raise Malformed(f"the loss is a {type(loss).__name__}, no number")
        if not math.isfinite(number):
            raise Malformed("loss is NaN or infinite")
        if abs(number) > LARGEST:
            raise Malformed(f"loss is {number:g}, more than any measure")

    def _weights(self, counts: list[float]) -> list[float]:
        if self.uniform:
            return [1.0] * len(counts)
        most = math.inf if self.max_weight_ratio is None else middle_of(counts) * self.max_weight_ratio
        return [min(count, most) for count in counts]

    def _median(self, rows: list[EvaluationRow]) -> EvaluationRow:
        metrics = {key: middle_of([row.metrics[key] for row in rows]) for key in rows[0].metrics}
        losses = [row.loss for row in rows if row.loss is not None]
        total = sum(row.weight for row in rows)
        self.pairs = [(total, metrics)]
        return EvaluationRow(rows[0].origin, total, metrics, middle_of(losses) if losses else None)
