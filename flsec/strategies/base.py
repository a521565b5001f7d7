"""What all defenses share: one wrapper for both Flower APIs, quarantine, nesting, verdicts and state."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import Parameters
from flwr.server.client_manager import ClientManager
from flwr.server.strategy import Strategy as ClassicStrategy
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy as MessageStrategy
from numpy.typing import NDArray
from torch import Tensor

from flsec import _npy
from flsec.aggregation._device import computing_on
from flsec.errors import ConfigError
from flsec.parameters import PositiveCount, check_parameters, checked
from flsec.strategies import _classic, _message
from flsec.strategies._snapshot import optimizer_state, restore_attributes, snapshot_attributes
from flsec.strategies.cohort import Cohort
from flsec.strategies.replies import GlobalModel, Quarantined, Reply
from flsec.training import pick_device

__all__ = ["KeepPreviousModel", "RobustStrategy", "RoundReport", "Verdict", "Weighting"]

logger = logging.getLogger("flsec")

Weighting = Literal["uniform", "examples"]
FlowerStrategy = ClassicStrategy | MessageStrategy


@dataclass(frozen=True)
class Verdict:
    """What one defense decided about the clients of one round.

    Attributes:
        defense: the wrapper's class name.
        participants: ids of the clients it saw.
        kept: ids of those it handed on; equal to ``participants`` for a rule that judges coordinates.
        weights: {id: weight in the aggregate} where the rule weights clients.
        scores: {id: score} where the rule scores clients.
        notes: other facts worth a line, by name.
        seconds: time in its three stages.
        judges: whether it drops or weights clients at all, so that detection figures make sense.
    """

    defense: str
    participants: tuple[int, ...]
    kept: tuple[int, ...]
    weights: Mapping[int, float] | None = None
    scores: Mapping[int, float] | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    judges: bool = False


@dataclass(frozen=True)
class RoundReport:
    """All that happened to the replies of one round.

    Attributes:
        round: the server's round.
        quarantined: replies dropped before any rule, and clients that sent none, with the reason.
        verdicts: one a wrapper, outermost first.
        kept_previous_model: why the global model was not changed; None if it was.
        seconds: {stage: seconds} for parsing, each wrapper, the wrapped strategy and serialising.
    """

    round: int
    quarantined: tuple[Quarantined, ...]
    verdicts: tuple[Verdict, ...]
    kept_previous_model: str | None
    seconds: Mapping[str, float]


class KeepPreviousModel(Exception):
    """Raised by a stage when this round's replies cannot give a new model; the message says why."""


class RobustStrategy(ClassicStrategy, MessageStrategy):
    """A defense around a Flower strategy of either API.

    A subclass overrides the stages it needs: ``before_aggregation`` (drop, clip or mix rows),
    ``on_aggregation`` (the robust aggregate) and ``after_aggregation`` (change the new global model). The wrapped
    strategy keeps its job: rows that a defense keeps reach it as the clients sent them, a robust aggregate reaches it
    as one reply, so that FedAdam, FedAvgM, FedProx and the rest still take their server step. Wrappers nest; the
    outermost parses the replies once and the cohort passes from one to the next.

    Args:
        strategy: a strategy of ``flwr.server.strategy`` or ``flwr.serverapp.strategy``, or another defense.
        weighting: ``"uniform"`` counts every surviving client alike, because ``num_examples`` is a number that
            the attacker writes; ``"examples"`` trusts it.
        max_weight_ratio: with ``"examples"``, no client counts more than this many times the median client.
        max_num_examples: a reply that claims more examples is quarantined.
        device: where matrices of updates are multiplied, summed and ranked, and networks on the server run: ``"cpu"``,
            ``"cuda"``, or ``"auto"``, the GPU where there is one. Replies stay in main memory; a copy is kept on the
            GPU if it fits, else blocks of columns go there one at a time, so that a cohort may have any size. Of nested
            wrappers the outermost's counts.

    Raises:
        ConfigError: ``"cuda"`` without a usable GPU, a parameter out of its range, or a nesting that cannot work.

    Always on: a reply with a wrong shape, a wrong kind of number, NaN or infinity, or an impossible
    ``num_examples`` is quarantined. If too few replies are left, the previous global model is kept.
    """

    state_names: ClassVar[tuple[str, ...]] = ()  # attributes that a resumed run needs
    client_half: ClassVar[str | None] = None  # "module:Class" of what the clients do; simulations put it around them

    def __init__(
        self,
        strategy: FlowerStrategy,
        *,
        weighting: Weighting = "uniform",
        max_weight_ratio: PositiveCount | None = None,
        max_num_examples: PositiveCount = 10**9,
        device: Literal["auto", "cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__()
        options = {
            "strategy": strategy,
            "weighting": weighting,
            "max_weight_ratio": max_weight_ratio,
            "max_num_examples": max_num_examples,
            "device": device,
        }
        check_parameters(RobustStrategy, options, name=type(self).__name__)
        self.strategy = strategy
        self.weighting = weighting
        self.max_weight_ratio = max_weight_ratio
        self.max_num_examples = max_num_examples
        self.device = pick_device(device)
        self.last_report: RoundReport | None = None
        self._global: Parameters | ArrayRecord | None = None
        self._selected: frozenset[int] = frozenset()
        self._evaluating: frozenset[int] = frozenset()
        self._dtypes: list[np.dtype[Any]] | None = None
        self._facts: dict[str, Any] = {}
        if isinstance(strategy, RobustStrategy) and self._overrides("on_aggregation"):
            needed = max(wrapper.minimum_clients for wrapper in strategy.chain())
            if needed > 1:
                raise ConfigError(
                    f"{type(self).__name__} hands one aggregate to {type(strategy).__name__}, which with its "
                    f"parameters needs at least {needed} clients. Put {type(self).__name__} inside instead."
                )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        checked(cls)

    # --- the three stages -----------------------------------------------------------------------------------

    def before_aggregation(self, cohort: Cohort) -> Cohort:
        """Drop, clip or mix rows; by default return the cohort as it is.

        A cohort with other ``global_parameters`` than the one given says that the new model is to be made from those:
        if there can be no new one, they take its place.
        """
        return cohort

    def on_aggregation(self, cohort: Cohort) -> Tensor | None:
        """Return the (d,) robust aggregate of the updates, or None to leave it to the wrapped strategy."""
        return None

    def after_aggregation(self, parameters: Tensor, cohort: Cohort) -> Tensor:
        """Return the new global model after clipping, noise, ...; by default as it is.

        Args:
            parameters: (d,) float32, the model that the wrapped strategy returned.
            cohort: the cohort that this wrapper was given.
        """
        return parameters

    # --- what a subclass can use or state -------------------------------------------------------------------

    @property
    def minimum_clients(self) -> int:
        """The fewest replies that this rule can work with."""
        return 1

    @property
    def judges_clients(self) -> bool:
        """Whether dropping a client is this rule's verdict on it; by default, if it drops rows at all."""
        return self._overrides("before_aggregation")

    def client_config(self, server_round: int) -> dict[str, Any]:
        """Return settings that this defense's client half reads from the fit configuration."""
        return {}

    def weights(self, cohort: Cohort) -> Tensor | None:
        """Return (n,) float64 weights of the rows, or None where all count alike."""
        if self.weighting == "uniform":
            return None
        counts = cohort.num_examples
        if self.max_weight_ratio is not None and len(cohort):
            counts = counts.clamp(max=float(counts.quantile(0.5)) * self.max_weight_ratio)
        return counts

    def report(
        self,
        *,
        scores: Tensor | None = None,
        weights: Tensor | None = None,
        **notes: Any,
    ) -> None:
        """State scores and weights (n,) of this stage's rows, and other facts, for the round's verdict."""
        stated = {"scores": scores, "weights": weights}
        self._facts.update({name: value for name, value in stated.items() if value is not None}, **notes)

    def chain(self) -> list["RobustStrategy"]:
        """Return this wrapper and the wrappers inside it, outermost first."""
        inner = self.strategy
        return [self, *(inner.chain() if isinstance(inner, RobustStrategy) else [])]

    @property
    def base(self) -> FlowerStrategy:
        """The Flower strategy inside all wrappers."""
        return self.chain()[-1].strategy

    def _overrides(self, stage: str) -> bool:
        return getattr(type(self), stage) is not getattr(RobustStrategy, stage)

    # --- state ----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, of this wrapper and of what it wraps, as a copy."""
        inner = self.strategy
        if isinstance(inner, RobustStrategy):
            inner_state = inner.state_dict()
        else:
            inner_state = snapshot_attributes(inner)
        own = {name: copied(getattr(self, name)) for name in self.state_names}
        return {"defense": type(self).__name__, "state": own, "strategy": inner_state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state_dict`` returned.

        Raises:
            ConfigError: the state is another defense's.
        """
        if state["defense"] != type(self).__name__:
            raise ConfigError(f"this state is of {state['defense']}; it cannot continue {type(self).__name__}.")
        for name in self.state_names:
            setattr(self, name, copied(state["state"][name]))
        if isinstance(self.strategy, RobustStrategy):
            self.strategy.load_state_dict(state["strategy"])
        else:
            restore_attributes(self.strategy, state["strategy"])

    # --- one round, the same for both APIs ------------------------------------------------------------------

    def _run_round(
        self,
        server_round: int,
        model: GlobalModel,
        replies: Sequence[Reply],
        quarantined: list[Quarantined],
        deliver: Callable[..., tuple[list[bytes] | None, Any]],
        check_metrics: bool,
        failures: Sequence[str] = (),
    ) -> tuple[list[bytes] | None, Any]:
        """Parse, pass through the chain, and return the new model's ``.npy`` bytes (None: keep) and metrics."""
        started = time.perf_counter()
        seconds: dict[str, float] = {}
        expected = [r for r in replies if not self._selected or r.client_id in self._selected]
        strangers = sorted({r.client_id for r in replies} - {r.client_id for r in expected})
        quarantined += [Quarantined(client_id, "was not asked this round") for client_id in strangers]
        cohort, malformed = model.parse(
            expected,
            round=server_round,
            max_num_examples=self.max_num_examples,
            check_metrics=check_metrics,
        )
        quarantined += malformed
        silent = self._selected - {r.client_id for r in replies} - {q.client_id for q in quarantined}
        why = f"sent no reply; failures this round: {'; '.join(sorted(set(failures)))}" if failures else "sent no reply"
        quarantined += [Quarantined(client_id, why) for client_id in sorted(silent)]
        for entry in quarantined:
            logger.warning("round %d: client %d quarantined: %s", server_round, entry.client_id, entry.reason)
        seconds["parse"] = time.perf_counter() - started
        verdicts: list[Verdict] = []
        tensors: list[bytes] | None = None
        metrics: Any = None
        reason: str | None = None
        try:
            with computing_on(None if self.device.type == "cpu" else self.device):
                tensors, metrics = self._pass_on(cohort, model, expected, deliver, verdicts, seconds)
        except KeepPreviousModel as refusal:
            reason = str(refusal)
            logger.warning("round %d: the previous global model is kept: %s", server_round, reason)
        self.last_report = RoundReport(server_round, tuple(quarantined), tuple(verdicts), reason, seconds)
        return tensors, metrics

    def _pass_on(
        self,
        cohort: Cohort,
        model: GlobalModel,
        replies: Sequence[Reply],
        deliver: Callable[..., tuple[list[bytes] | None, Any]],
        verdicts: list[Verdict],
        seconds: dict[str, float],
    ) -> tuple[list[bytes] | None, Any]:
        """Run this wrapper's stages around what it wraps."""
        name = type(self).__name__
        started = time.perf_counter()
        needed = max(1, self.minimum_clients)
        if len(cohort) < needed:
            raise KeepPreviousModel(f"{name} needs at least {needed} usable replies; there are {len(cohort)}")
        self._facts = {}
        place = len(verdicts)
        kept, aggregate, why = self._judge(cohort)
        if kept.global_parameters is not cohort.global_parameters:
            model.start_from(kept.global_parameters)
        verdicts.append(self._verdict(cohort, kept, time.perf_counter() - started))
        if why is not None:
            raise KeepPreviousModel(f"{name}: {why}")
        seconds[name] = seconds.get(name, 0.0) + verdicts[place].seconds
        inner = self.strategy
        if isinstance(inner, RobustStrategy):
            handed = kept if aggregate is None else as_one(kept, aggregate, self.weights(kept))
            tensors, metrics = inner._pass_on(handed, model, replies, deliver, verdicts, seconds)
        else:
            begun = time.perf_counter()
            tensors, metrics = deliver(*self._deliveries(kept, aggregate, replies))
            if tensors is not None:
                tensors = _with_buffers(tensors, kept)
            seconds[type(inner).__name__] = time.perf_counter() - begun
        if tensors is not None and self._overrides("after_aggregation"):
            begun = time.perf_counter()
            arrays = [_npy.read(data) for data in tensors]
            vector = self.after_aggregation(model.layout.flatten(arrays), kept)
            changed = model.layout.unflatten(vector, model.layout.buffers(arrays))
            tensors = [_npy.write(array) for array in changed]
            _tell_server_optimizer(self.base, changed)
            spent = time.perf_counter() - begun
            seconds[name] += spent
            verdicts[place] = self._verdict(cohort, kept, verdicts[place].seconds + spent)
        return tensors, metrics

    def _judge(self, cohort: Cohort) -> tuple[Cohort, Tensor | None, str | None]:
        """Run the first two stages; return the rows kept, the aggregate, and why there can be no new model."""
        nobody = cohort.keep([])
        try:
            kept = self.before_aggregation(cohort)
            if not len(kept):
                return kept, None, "accepted no client"
            aggregate = self.on_aggregation(kept)
        except KeepPreviousModel as refusal:
            return nobody, None, str(refusal)
        if aggregate is not None and not bool(torch.isfinite(aggregate).all()):
            return kept, None, "the aggregate is not finite"
        return kept, aggregate, None

    def _deliveries(
        self, cohort: Cohort, aggregate: Tensor | None, replies: Sequence[Reply]
    ) -> tuple[list[tuple[Reply, list[NDArray[Any]] | None, float]], list[tuple[float, Any]]]:
        """Return what the wrapped Flower strategy is given: survivors as sent, changed rows, or one aggregate."""
        weights = self.weights(cohort)
        shares = [1.0] * len(cohort) if weights is None else weights.tolist()
        pairs = list(zip(shares, cohort.metrics, strict=True))
        layout = cohort.layout
        if aggregate is not None:
            cohort = as_one(cohort, aggregate, weights)
            shares = [sum(shares)]
        if not cohort.modified:
            rows = [(replies[i], None, share) for i, share in zip(cohort.sources, shares, strict=True)]
            return list(rows), pairs
        return [
            (replies[source], layout.unflatten(cohort.global_parameters + update, buffers), share)
            for source, update, buffers, share in zip(
                cohort.sources, cohort.updates, cohort.buffers, shares, strict=True
            )
        ], pairs

    def _verdict(self, cohort: Cohort, kept: Cohort, seconds: float) -> Verdict:
        facts = dict(self._facts)
        scores, weights = facts.pop("scores", None), facts.pop("weights", None)

        def by_client(values: Tensor | None) -> dict[int, float] | None:
            if values is None:
                return None
            ids = cohort.client_ids if len(values) == len(cohort) else kept.client_ids
            return dict(zip(ids, values.tolist(), strict=True))

        return Verdict(
            defense=type(self).__name__,
            participants=cohort.client_ids,
            kept=kept.client_ids,
            weights=by_client(weights),
            scores=by_client(scores),
            notes=facts,
            seconds=seconds,
            judges=self.judges_clients,
        )

    def _finish(
        self, model: GlobalModel, tensors: list[bytes] | None, server_round: int, optimizer: Mapping[str, Any]
    ) -> list[bytes]:
        """Return the new model in the first model's dtypes, or the previous one where there is no sound new one.

        Flower's FedAdam returns float64 for a float32 model from round 2 on; clients keep what they started with.
        """
        if self._dtypes is None:
            self._dtypes = [array.dtype for array in model.arrays]
        reason = f"{type(self.base).__name__} returned no model"
        if tensors is not None:
            arrays = [_npy.read(data) for data in tensors]
            if all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays):
                return [
                    data if array.dtype == dtype else _npy.write(array.astype(dtype))
                    for data, array, dtype in zip(tensors, arrays, self._dtypes, strict=True)
                ]
            reason = f"{type(self.base).__name__} returned a model that is not finite"
        assert self.last_report is not None
        if self.last_report.kept_previous_model is None:
            logger.warning("round %d: the previous global model is kept: %s", server_round, reason)
            self.last_report = replace(self.last_report, kept_previous_model=reason)
        for name, value in optimizer.items():  # a step that was not taken leaves no trace in momentum
            setattr(self.base, name, value)
        return model.tensors

    # --- classic API ----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.strategy!r})"

    def initialize_parameters(self, client_manager: ClientManager) -> Parameters | None:
        """Forward to the wrapped strategy."""
        return self._classic.initialize_parameters(client_manager)

    def configure_fit(self, server_round: int, parameters: Parameters, client_manager: ClientManager) -> Any:
        """Forward to the wrapped strategy, remember the model, and add the round and this defense's settings."""
        self._global = parameters
        instructions = self._classic.configure_fit(
            server_round=server_round, parameters=parameters, client_manager=client_manager
        )
        self._selected = frozenset(_classic.node_id(proxy) for proxy, _ in instructions)
        config = {"server-round": server_round, **self.client_config(server_round)}
        return _classic.with_config(instructions, config)

    def aggregate_fit(
        self, server_round: int, results: list[_classic.Result], failures: _classic.Failures
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Screen the replies, run the three stages of every wrapper, and let the wrapped strategy step."""
        if not isinstance(self._global, Parameters):
            raise RuntimeError("aggregate_fit before configure_fit: the model that clients started from is unknown.")
        model = _classic.global_model(self._global)
        replies, quarantined, nameless = _classic.collect(results, failures)
        base = self.base
        assert isinstance(base, ClassicStrategy)

        optimizer: dict[str, Any] = {}

        def deliver(deliveries: Any, pairs: Any) -> tuple[list[bytes] | None, dict[str, Any]]:
            optimizer.update(optimizer_state(base))
            return _classic.aggregate(base, server_round, deliveries, pairs, failures)

        check_metrics = getattr(base, "fit_metrics_aggregation_fn", None) is not None
        tensors, metrics = self._run_round(server_round, model, replies, quarantined, deliver, check_metrics, nameless)
        finished = self._finish(model, tensors, server_round, optimizer)
        return Parameters(finished, "numpy.ndarray"), {**(metrics or {}), **self._summary(lists=False)}

    def evaluate(self, server_round: int, parameters: Parameters) -> Any:
        """Forward to the wrapped strategy."""
        return self._classic.evaluate(server_round, parameters=parameters)

    @property
    def _classic(self) -> ClassicStrategy:
        if not isinstance(self.strategy, ClassicStrategy):
            raise TypeError(f"{self.strategy!r} has no classic API; use aggregate_train and its kin.")
        return self.strategy

    # --- Message API ----------------------------------------------------------------------------------------

    def summary(self) -> None:
        """Log the defense, then forward to the wrapped strategy."""
        logger.info("%s around %s", type(self).__name__, type(self.strategy).__name__)
        self._message.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Forward to the wrapped strategy, remember the model, and add the round and this defense's settings."""
        self._global = arrays
        messages = list(self._message.configure_train(server_round, arrays, config, grid))
        self._selected = frozenset(message.metadata.dst_node_id for message in messages)
        added = {"server-round": server_round, **self.client_config(server_round)}
        return _message.with_config(messages, added, getattr(self.base, "configrecord_key", "config"))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Screen the replies, run the three stages of every wrapper, and let the wrapped strategy step."""
        if not isinstance(self._global, ArrayRecord):
            raise RuntimeError(
                "aggregate_train before configure_train: the model that clients started from is unknown."
            )
        model = _message.global_model(self._global)
        base = self.base
        assert isinstance(base, MessageStrategy)
        names = list(self._global)
        parsed, quarantined, errors = _message.collect(replies, getattr(base, "weighted_by_key", "num-examples"), names)

        optimizer: dict[str, Any] = {}

        def deliver(deliveries: Any, pairs: Any) -> tuple[list[bytes] | None, MetricRecord]:
            optimizer.update(optimizer_state(base))
            return _message.aggregate(base, server_round, deliveries, pairs, errors, names)

        tensors, metrics = self._run_round(server_round, model, parsed, quarantined, deliver, check_metrics=True)
        finished = self._finish(model, tensors, server_round, optimizer)
        record = MetricRecord({**dict(metrics or {}), **self._summary(lists=True)})
        return _message.array_record(names, finished), record

    @property
    def _message(self) -> MessageStrategy:
        if not isinstance(self.strategy, MessageStrategy):
            raise TypeError(f"{self.strategy!r} has no Message API; use aggregate_fit and its kin.")
        return self.strategy

    # --- the two methods whose name both APIs use -----------------------------------------------------------

    def configure_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Forward to the wrapped strategy: (parameters, client_manager) or (arrays, config, grid)."""
        instructions: list[Any] = list(self.strategy.configure_evaluate(server_round, *args, **kwargs))
        self._evaluating = frozenset(
            entry.metadata.dst_node_id if isinstance(entry, Message) else _classic.node_id(entry[0])
            for entry in instructions
        )
        return instructions

    def aggregate_evaluate(self, server_round: int, *args: Any, **kwargs: Any) -> Any:
        """Drop evaluation replies that are malformed, then forward: (results, failures) or (replies)."""
        base = self.base
        if isinstance(base, MessageStrategy):
            replies = args[0] if args else kwargs["replies"]
            key = getattr(base, "weighted_by_key", "num-examples")
            kept, quarantined = _message.screen_evaluation(replies, self._evaluating, key, self.max_num_examples)
            self._log_evaluation(server_round, quarantined)
            return base.aggregate_evaluate(server_round, kept)
        results, failures = args if args else (kwargs["results"], kwargs["failures"])
        check_metrics = getattr(base, "evaluate_metrics_aggregation_fn", None) is not None
        screened, quarantined = _classic.screen_evaluation(
            results, self._evaluating, self.max_num_examples, check_metrics
        )
        self._log_evaluation(server_round, quarantined)
        return base.aggregate_evaluate(server_round, screened, failures)

    def _log_evaluation(self, server_round: int, quarantined: Sequence[Quarantined]) -> None:
        for entry in quarantined:
            logger.warning(
                "round %d: evaluation of client %d quarantined: %s", server_round, entry.client_id, entry.reason
            )

    # --- what Flower's metrics dictionary is told -----------------------------------------------------------

    def _summary(self, *, lists: bool) -> dict[str, Any]:
        report = self.last_report
        assert report is not None
        judged = [v for v in report.verdicts if v.judges]
        participants = len(report.verdicts[0].participants) if report.verdicts else 0
        kept = judged[-1].kept if judged else (report.verdicts[-1].kept if report.verdicts else ())
        summary: dict[str, Any] = {
            "flsec-usable": participants,
            "flsec-kept": len(kept),
            "flsec-quarantined": len(report.quarantined),
            "flsec-kept-previous-model": int(report.kept_previous_model is not None),
            "flsec-seconds": sum(report.seconds.values()),
        }
        if lists:
            summary["flsec-kept-ids"] = list(kept)
            summary["flsec-quarantined-ids"] = [entry.client_id for entry in report.quarantined]
        else:
            summary["flsec-kept-ids"] = ",".join(map(str, kept))
            summary["flsec-quarantined-ids"] = ",".join(str(entry.client_id) for entry in report.quarantined)
        return summary


def as_one(cohort: Cohort, aggregate: Tensor, weights: Tensor | None) -> Cohort:
    """Return a cohort of one row: the aggregate, in the first client's name, counting as all together."""
    total = float(len(cohort)) if weights is None else float(weights.sum())
    return replace(
        cohort,
        updates=aggregate.reshape(1, -1),
        num_examples=torch.tensor([total], dtype=torch.float64),
        client_ids=cohort.client_ids[:1],
        metrics=cohort.metrics[:1],
        buffers=(_middle_buffers(cohort.buffers),),
        sources=cohort.sources[:1],
        modified=True,
    )


def _with_buffers(tensors: Sequence[bytes], cohort: Cohort) -> list[bytes]:
    """Put the clients' integer arrays in the place of what averaging made of them (classic FedAvg: zeros)."""
    middle = iter(_middle_buffers(cohort.buffers))
    return [
        data if slot.start is not None else _npy.write(next(middle))
        for data, slot in zip(tensors, cohort.layout.slots, strict=True)
    ]


def _middle_buffers(buffers: Sequence[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    """Return the element-wise lower median of integer arrays: no minority can move it out of the others' range."""
    return tuple(
        np.sort(np.stack(arrays), axis=0, kind="stable")[(len(arrays) - 1) // 2]
        for arrays in zip(*buffers, strict=True)
    )


def _tell_server_optimizer(base: FlowerStrategy, arrays: list[NDArray[Any]]) -> None:
    """Let a strategy that remembers the global model (FedAdam, FedAvgM) step from the changed one."""
    if hasattr(base, "current_weights"):
        base.current_weights = arrays
    if getattr(base, "initial_parameters", None) is not None:  # where the classic FedAvgM keeps it
        base.initial_parameters = Parameters(  # type: ignore[union-attr]
            [_npy.write(array) for array in arrays], "numpy.ndarray"
        )
    current = getattr(base, "current_arrays", None)
    if isinstance(current, dict):
        base.current_arrays = dict(zip(current, arrays, strict=True))  # type: ignore[union-attr]
    elif isinstance(current, ArrayRecord):
        base.current_arrays = _message.array_record(  # type: ignore[union-attr]
            list(current), [_npy.write(array) for array in arrays]
        )


def copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: copied(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(entry) for entry in value)
    return value
