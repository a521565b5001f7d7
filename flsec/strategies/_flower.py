"""What a round needs of Flower, whichever of its two APIs: replies, the wrapped strategy's step, results."""

import contextlib
import inspect
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import flwr.server.strategy as classic
import flwr.serverapp.strategy as message
import numpy as np
from flwr.common import Parameters
from numpy.typing import NDArray
from torch import Tensor

from flsec import _npy, _numbers
from flsec.errors import ConfigError
from flsec.strategies._metrics import Metrics, averageable
from flsec.strategies._round import HandedOn
from flsec.strategies._server_state import put_back, take, tell_changed_model, with_inner
from flsec.strategies.cohort import Cohort
from flsec.strategies.replies import GlobalModel, Reply
from flsec.strategies.report import KeepPreviousModel, Quarantined

__all__ = [
    "Collected",
    "Delivery",
    "FlowerRound",
    "FlowerServer",
    "check_can_be_wrapped",
    "function_replaced",
    "only_flowers_own",
]

logger = logging.getLogger("flsec")

Strategy = classic.Strategy | message.Strategy


@dataclass(frozen=True)
class Collected:
    """What came back in a round, before any reply is looked into.

    Attributes:
        replies: those that hold a model.
        malformed: replies that cannot be read at all.
        silent: clients that failed or sent nothing, with what is known of the reason.
        nameless: reasons of failures that Flower does not say the client of.
        one_sum: whether all replies are one object, the sum that Flower's secure aggregation puts in their place.
    """

    replies: list[Reply]
    malformed: list[Quarantined]
    silent: list[Quarantined]
    nameless: list[str]
    one_sum: bool = False


@dataclass(frozen=True)
class Delivery:
    """One reply for the wrapped strategy.

    Attributes:
        reply: the client's, in whose form it goes.
        arrays: its new arrays; None: as the client sent them.
        weight: its number of examples.
        metrics: what it reports beside.
    """

    reply: Reply
    arrays: list[NDArray[Any]] | None
    weight: float
    metrics: Metrics


class FlowerRound(Protocol):
    """One round in one of Flower's APIs."""

    base: Any  # the Flower strategy inside all wrappers

    def collect(self) -> Collected:
        """Return what came back."""

    def hand_on(
        self, deliveries: Sequence[Delivery], metrics: Sequence[tuple[float, Metrics]]
    ) -> tuple[list[bytes] | None, Mapping[str, Any]]:
        """Let the wrapped strategy aggregate; return its model as ``.npy`` bytes and its metrics.

        Args:
            deliveries: one a row, or a single one for all.
            metrics: (weight, metrics) of the real clients, which may be more than the replies handed on.
        """


class FlowerServer:
    """The deployed server's part of a round: the wrapped Flower strategy takes its step.

    Args:
        flower: the round in its API.
        model: what the round starts from.
        replies: the round's, in the order that ``Cohort.sources`` counts.
    """

    deployed = True

    def __init__(self, flower: FlowerRound, model: GlobalModel, replies: Sequence[Reply]):
        self._flower = flower
        self._model = model
        self._in_float32 = model.has_bfloat16 and only_flowers_own(flower.base)
        self._replies = replies
        self._before: dict[str, Any] | None = None
        self._returned: list[NDArray[Any]] = []
        self._bytes: list[bytes] = []
        self.metrics: Mapping[str, Any] = {}

    def go_back(self, cohort: Cohort) -> None:
        """Start the round from the cohort's model instead, with what the strategy remembered at that time."""
        self._model.start_from(cohort.global_parameters, cohort.global_state)
        if cohort.server_state is not None:
            put_back(self._flower.base, dict(cohort.server_state))

    def step(self, handed_on: HandedOn) -> list[NDArray[Any]]:
        """Hand on the rows; return the arrays that the wrapped strategy makes of them."""
        base = self._flower.base
        name = type(base).__name__
        self._before = _take_what_can_be(base)
        tensors, self.metrics = self._flower.hand_on(self._deliveries(handed_on), handed_on.metrics)
        if tensors is None:
            raise KeepPreviousModel(f"{name} returned no model")
        arrays = [_npy.read(data) for data in tensors]
        shapes = [slot.shape for slot in self._model.layout.slots]
        if [array.shape for array in arrays] != shapes:
            raise KeepPreviousModel(f"{name} returned a model of other arrays than the one that it was given")
        self._returned, self._bytes = arrays, tensors
        state = iter(handed_on.state)
        return [
            array if slot.start is not None else next(state)
            for slot, array in zip(self._model.layout.slots, arrays, strict=True)
        ]

    def _deliveries(self, handed_on: HandedOn) -> list[Delivery]:
        cohort = handed_on.cohort
        reports = averageable([metrics for _, metrics in handed_on.metrics]).rows
        if handed_on.aggregated:
            reports = [mean_of(reports, [weight for weight, _ in handed_on.metrics])]
        as_sent = not cohort.modified and not self._in_float32
        deliveries = []
        for row, (source, weight, report) in enumerate(zip(cohort.sources, handed_on.weights, reports, strict=True)):
            if as_sent:
                arrays = self._model.in_usable_dtypes(self._replies[source])
            else:
                state = handed_on.state if handed_on.aggregated else cohort.buffers[row]
                arrays = self._arrays(cohort, cohort.updates[row], state)
            deliveries.append(Delivery(self._replies[source], arrays, weight, report))
        return deliveries

    def _arrays(self, cohort: Cohort, update: Tensor, state: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the model that an update leads to; float32 for bfloat16 where Flower's own code computes with it."""
        flat, moved = (v.detach().cpu().numpy() for v in (update, cohort.global_parameters + update))
        beside = iter(_numbers.widened(state) if self._in_float32 else state)
        arrays: list[NDArray[Any]] = []
        for slot, start in zip(self._model.layout.slots, self._model.arrays, strict=True):
            if slot.start is None:
                arrays.append(next(beside))
            elif self._in_float32 and _numbers.is_bfloat16(slot.dtype):
                arrays.append(moved[slot.start : slot.stop].reshape(slot.shape))
            elif slot.dtype.itemsize > 4 * (1 + (slot.dtype.kind == "c")):  # the vector would round the global model
                wide = _numbers.floats_of(start) + flat[slot.start : slot.stop]
                arrays.append(_numbers.in_dtype(wide, slot.shape, slot.dtype))
            else:
                arrays.append(_numbers.in_dtype(moved[slot.start : slot.stop], slot.shape, slot.dtype))
        return arrays

    def changed(self, model: list[NDArray[Any]], wrapper: Any, cohort: Cohort) -> list[NDArray[Any]]:
        """Return the model as a wrapper's stage after aggregation leaves it; state is not its affair."""
        layout = self._model.layout
        vector = wrapper.after_aggregation(layout.flatten(model), cohort)
        return layout.unflatten(vector, layout.buffers(model))

    def finished(self, model: list[NDArray[Any]] | None) -> list[bytes]:
        """Return the new model as ``.npy`` bytes in the dtypes that clients know; the previous one where there is none.

        Flower's FedAdam returns float64 for a float32 model from round 2 on; clients keep what they started with.

        Raises:
            KeepPreviousModel: the new model is not finite. The wrapped strategy's step leaves no trace.
        """
        base = self._flower.base
        if model is None:
            if self._before is not None:
                put_back(base, self._before)
            return self._model.tensors
        slots = self._model.layout.slots
        with np.errstate(over="ignore"):
            cast = [_numbers.cast(array, slot.dtype) for array, slot in zip(model, slots, strict=True)]
        if not all(map(_numbers.is_finite, cast)):
            if self._before is not None:
                put_back(base, self._before)
            raise KeepPreviousModel(f"{type(base).__name__} returned a model that is not finite")
        if any(new is not old for new, old in zip(model, self._returned, strict=True)):
            tell_changed_model(base, self._returned, model)
        unchanged = {id(array): data for array, data in zip(self._returned, self._bytes, strict=True)}
        return [unchanged.get(id(array)) or _npy.write(array) for array in cast]


def _take_what_can_be(base: Any) -> dict[str, Any] | None:
    try:
        return take(base)
    except ConfigError:  # said where it matters: when it is resumed, or a defense goes back
        return None


def mean_of(reports: Sequence[Metrics], weights: Sequence[float]) -> dict[str, Any]:
    """Return the weighted mean of metrics that all have the same keys; of texts the first client's."""
    total = sum(weights)

    def mean(values: Sequence[Any]) -> Any:
        if isinstance(values[0], list | tuple):
            return [mean(column) for column in zip(*values, strict=True)]
        if isinstance(values[0], str | bytes):
            return values[0]
        return sum(weight * float(value) for weight, value in zip(weights, values, strict=True)) / total

    return {key: mean([report[key] for report in reports]) for key in reports[0]} if reports else {}


@contextlib.contextmanager
def function_replaced(base: Strategy, name: str, wrap: Callable[[Callable[..., Any]], Any]) -> Iterator[None]:
    """Replace a function that a strategy was given, such as the one for its metrics, while it works.

    Args:
        base: the strategy; those inside it are seen to as well.
        name: the attribute with the function.
        wrap: makes of the function what takes its place.
    """
    changed: list[tuple[Any, Callable[..., Any]]] = []
    for inner in with_inner(base):
        function = getattr(inner, name, None)
        if function is not None:
            changed.append((inner, function))
            setattr(inner, name, wrap(function))
    try:
        yield
    finally:
        for inner, function in reversed(changed):  # a wrapper among them passes its attribute through
            setattr(inner, name, function)


_TREES_AND_BYTES = (
    classic.FedXgbBagging, classic.FedXgbCyclic, classic.FedXgbNnAvg, classic.FedAvgAndroid,
    message.FedXgbBagging, message.FedXgbCyclic,
)  # fmt: skip
_JUDGE_SINGLE_REPLIES = (
    classic.Krum, classic.Bulyan, classic.FedTrimmedAvg, classic.QFedAvg,
    message.Krum, message.MultiKrum, message.Bulyan, message.FedTrimmedAvg, message.QFedAvg,
)  # fmt: skip
_CLIP_SINGLE_REPLIES = (
    classic.DifferentialPrivacyServerSideFixedClipping, classic.DifferentialPrivacyServerSideAdaptiveClipping,
    classic.DPFedAvgFixed, classic.DPFedAvgAdaptive,
    message.DifferentialPrivacyServerSideFixedClipping, message.DifferentialPrivacyServerSideAdaptiveClipping,
)  # fmt: skip


def _says_how_many_to_keep(bulyan: classic.Bulyan) -> bool:
    parameters = inspect.signature(bulyan.first_aggregation_rule).parameters
    return "to_keep" not in parameters or "to_keep" in bulyan.aggregation_rule_kwargs


def only_flowers_own(base: Strategy) -> bool:
    """Whether Flower's own code aggregates, which cannot compute with the raw bytes that bfloat16 numbers come in."""
    name = "aggregate_fit" if isinstance(base, classic.Strategy) else "aggregate_train"
    methods = [getattr(type(inner), name) for inner in with_inner(base)]
    return all(method.__module__.startswith("flwr.") for method in methods)


def check_can_be_wrapped(name: str, base: Strategy, hands_on_one: bool) -> None:
    """Refuse a Flower strategy that a wrapper cannot defend.

    Args:
        name: the wrapper's class.
        base: the Flower strategy inside.
        hands_on_one: whether the wrapper hands on one reply, whatever the number of clients.

    Raises:
        ConfigError: trees or raw bytes; or a strategy that needs single replies inside a rule that makes one of them.
    """
    for inner in with_inner(base):
        kind = type(inner).__name__
        if isinstance(inner, _TREES_AND_BYTES):
            raise ConfigError(
                f"{name} cannot defend {kind}: its clients send trees or raw bytes, no arrays of numbers that could be "
                "compared. Use a strategy that averages arrays, such as FedAvg, or run it undefended."
            )
        first = getattr(inner, "initial_parameters", None)
        if first is not None and not isinstance(first, Parameters):
            raise ConfigError(
                f"initial_parameters of {kind} must be Flower's Parameters; got a {type(first).__name__}. For example: "
                "initial_parameters=ndarrays_to_parameters([...])."
            )
        if isinstance(inner, classic.Bulyan) and not _says_how_many_to_keep(inner):
            raise ConfigError(
                f"{kind} of Flower's classic API fails with its defaults: its first rule, Krum, is not told to_keep. "
                "Give it to_keep, such as Bulyan(num_malicious_clients=1, to_keep=0), or use flsec's Bulyan."
            )
        if isinstance(inner, classic.QFedAvg) and inner.evaluate_fn is None:
            raise ConfigError(
                f"{kind} of Flower's classic API weighs clients by the loss that evaluate_fn finds, and fails without "
                "it. Give it evaluate_fn, or use another strategy."
            )
        if hands_on_one and isinstance(inner, _JUDGE_SINGLE_REPLIES):
            raise ConfigError(
                f"{name} hands one aggregate to {kind}, which judges single replies and would have nothing to judge. "
                f"Take a strategy that averages, such as {name}(FedAvg(...))."
            )
        if hands_on_one and isinstance(inner, _CLIP_SINGLE_REPLIES):
            raise ConfigError(
                f"{name} hands one aggregate to {kind}, which must clip each client's reply for its noise to protect "
                f"them. Put it around: {kind}({name}(...), ...)."
            )
