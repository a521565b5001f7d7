"""The classic Flower API (``flwr.server.strategy``): its replies and its results, in flsec's terms."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flwr.common import Code, EvaluateRes, FitIns, FitRes, Parameters
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FaultTolerantFedAvg, FedAvgM, Strategy

from flsec import _npy
from flsec.errors import ConfigError
from flsec.strategies._evaluation import EvaluationReply, Screening
from flsec.strategies._flower import Collected, Delivery, function_replaced
from flsec.strategies._metrics import Metrics, with_metrics_of
from flsec.strategies._server_state import with_inner
from flsec.strategies.replies import Reply
from flsec.strategies.report import Quarantined, brief

__all__ = ["ClassicRound", "aggregate_evaluation", "configured", "node_id", "refuse_secure_aggregation"]

Result = tuple[ClientProxy, FitRes]
Failures = list[tuple[ClientProxy, FitRes] | BaseException]


def node_id(proxy: ClientProxy) -> int:
    """Return Flower's node id; a proxy made by hand may have only a numeric ``cid``."""
    known = getattr(proxy, "node_id", None)
    return int(proxy.cid) if known is None else int(known)


def configured(
    instructions: Sequence[tuple[ClientProxy, FitIns]], sent: Parameters, given: Parameters, config: dict[str, Any]
) -> list[tuple[ClientProxy, FitIns]]:
    """Return the instructions with the model as the server sent it and with settings added to each configuration.

    Args:
        instructions: the wrapped strategy's; what it shares among clients is not touched.
        sent: the server's model.
        given: what the strategy was given in its place, where it cannot compute with its type.
        config: settings that the strategy does not send itself.
    """
    return [
        (proxy, FitIns(sent if ins.parameters is given else ins.parameters, {**config, **ins.config}))
        for proxy, ins in instructions
    ]


def refuse_secure_aggregation() -> None:
    """Raise ``ConfigError`` if Flower's secure aggregation is calling: no reply will hold a single client's update."""
    frame = sys._getframe(1)
    for _ in range(6):
        if frame is None or frame.f_back is None:
            return
        frame = frame.f_back
        if ".workflow.secure_aggregation" in str(frame.f_globals.get("__name__", "")):
            raise ConfigError(
                "under secure aggregation the server sees the sum of all updates only, and there is nothing to judge "
                "single clients by. Run the defense without the SecAgg workflow and its mods, or secure aggregation "
                "without the defense."
            )


class ClassicRound:
    """One round of training in the classic API.

    Args:
        base: the Flower strategy inside all wrappers.
        server_round: the server's round.
        results: Flower's.
        failures: Flower's, which some strategies read.
    """

    def __init__(self, base: Strategy, server_round: int, results: Sequence[Result], failures: Failures):
        self.base = base
        self._round = server_round
        self._results = results
        self._failures = failures

    def collect(self) -> Collected:
        """Return the replies, the clients that failed, and the reasons of failures without a name."""
        replies = []
        silent = []
        nameless = []
        for proxy, result in self._results:
            if result.status.code != Code.OK:
                silent.append(_failed(proxy, result))
                continue
            tensors = result.parameters.tensors
            replies.append(Reply(node_id(proxy), tensors, None, result.num_examples, result.metrics, (proxy, result)))
        for failure in self._failures:
            if isinstance(failure, BaseException):
                nameless.append(brief(failure) or type(failure).__name__)
            else:
                silent.append(_failed(*failure))
        objects = {id(result.parameters) for _, result in self._results}
        return Collected(replies, [], silent, nameless, one_sum=len(self._results) > 1 and len(objects) == 1)

    def hand_on(
        self, deliveries: Sequence[Delivery], metrics: Sequence[tuple[float, Metrics]]
    ) -> tuple[list[bytes] | None, dict[str, Any]]:
        """Let the wrapped strategy aggregate; see ``FlowerRound``."""
        results = [_result(delivery) for delivery in deliveries]
        for inner in with_inner(self.base):
            if isinstance(inner, FedAvgM) and self._round > 1 and inner.momentum_vector is None and results:
                # FedAvgM stops the run if round 1 gave no model; from zero momentum it takes the step it would have.
                inner.momentum_vector = [0.0] * len(results[0][1].parameters.tensors)  # type: ignore[list-item]
        pairs = [(count_of(weight), values) for weight, values in metrics]
        with function_replaced(self.base, "fit_metrics_aggregation_fn", partial(_average_of, pairs)):
            parameters, values = self.base.aggregate_fit(
                self._round, results, self._failures_to_tell(len(metrics), len(results))
            )
        return (None if parameters is None else parameters.tensors), dict(values or {})

    def _failures_to_tell(self, clients: int, handed_on: int) -> Failures:
        """Return the failures; none where a strategy would compare their number with that of one aggregate."""
        for inner in with_inner(self.base):
            if isinstance(inner, FaultTolerantFedAvg) and handed_on < clients:
                completed = clients / (clients + len(self._failures))
                return [] if completed >= inner.completion_rate_fit else self._failures
        return self._failures


def _failed(proxy: ClientProxy, result: FitRes) -> Quarantined:
    return Quarantined(node_id(proxy), f"failed: {brief(result.status.message)}", "failed")


def _result(delivery: Delivery) -> Result:
    proxy, result = delivery.reply.origin
    parameters = result.parameters
    if delivery.arrays is not None:
        parameters = Parameters([_npy.write(array) for array in delivery.arrays], "numpy.ndarray")
    return proxy, replace(
        result, parameters=parameters, num_examples=count_of(delivery.weight), metrics=dict(delivery.metrics)
    )


def count_of(weight: float) -> int:
    """Return a weight as a count of examples: what Flower's type for it asks for, and never zero."""
    return max(1, round(weight))


def _average_of(
    pairs: Sequence[tuple[int, Metrics]], function: Callable[[Any], Any]
) -> Callable[[Any], dict[str, Any]]:
    """Return a function for metrics that sees the clients' own, cleaned, and loses only metrics if it fails on them."""

    def average(_: Any) -> dict[str, Any]:
        copies = [(weight, dict(values)) for weight, values in pairs]
        return with_metrics_of(copies, lambda given: dict(function(given)), as_sent=True) or {}

    return average


def aggregate_evaluation(
    base: Strategy,
    server_round: int,
    results: Sequence[tuple[ClientProxy, EvaluateRes]],
    failures: Any,
    screening: Screening,
) -> tuple[float | None, dict[str, Any]]:
    """Screen evaluation replies, and hand those that are left to the wrapped strategy."""
    replies = []
    for proxy, result in results:
        failed = brief(result.status.message) or "no reason" if result.status.code != Code.OK else None
        lacking = "no loss" if result.loss is None else None
        origin = (proxy, result)
        replies.append(
            EvaluationReply(node_id(proxy), result.num_examples, result.metrics, origin, result.loss, failed, lacking)
        )
    rows = screening.rows(replies)
    handed_on = [
        (row.origin[0], replace(row.origin[1], loss=row.loss, num_examples=count_of(row.weight), metrics=row.metrics))
        for row in rows
    ]
    pairs = [(count_of(weight), metrics) for weight, metrics in screening.pairs]
    with function_replaced(base, "evaluate_metrics_aggregation_fn", partial(_average_of, pairs)):
        loss, values = base.aggregate_evaluate(server_round, handed_on, failures)
    return loss, dict(values or {})
