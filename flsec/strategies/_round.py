"""One round as a function: the stages of every wrapper in order, the wrapped strategy's step, and the stages after it.

The deployed round and an attacker's rehearsal call the same function; they differ in the server that they give it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from flsec import _numbers
from flsec.strategies.cohort import Cohort
from flsec.strategies.report import KeepPreviousModel, Verdict

if TYPE_CHECKING:
    from flsec.strategies.base import RobustStrategy

__all__ = ["HandedOn", "Outcome", "Server", "run_round"]

Model = TypeVar("Model")
Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class HandedOn:
    """What the wrapped Flower strategy is given at the end of the chain.

    Attributes:
        cohort: the rows that are left, or one row, the aggregate.
        weights: one a row.
        aggregated: whether the one row stands for all kept clients.
        metrics: (weight, metrics) of each kept client, however many rows there are.
        state: what the kept clients' counters and statistics come to; they are no weights, and no server optimizer
            steps them.
    """

    cohort: Cohort
    weights: list[float]
    aggregated: bool
    metrics: list[tuple[float, Mapping[str, Any]]]
    state: Arrays


class Server(Protocol[Model]):
    """The server's part of a round."""

    deployed: bool  # whether this is the real round, which wrappers that listen may hear

    def go_back(self, cohort: Cohort) -> None:
        """Take the cohort's global parameters, and its server state, for those that the round starts from."""

    def step(self, handed_on: HandedOn) -> Model:
        """Let the wrapped strategy make the new model; raise ``KeepPreviousModel`` if there is none."""

    def changed(self, model: Model, wrapper: "RobustStrategy", cohort: Cohort) -> Model:
        """Return the new model as the wrapper's stage after aggregation leaves it."""


@dataclass(frozen=True)
class Outcome(Generic[Model]):
    """What a round comes to.

    Attributes:
        model: the new model; None if the previous one is kept.
        reason: why it is kept; None if there is a new one.
        verdicts: one a wrapper that was reached, outermost first.
        seconds: {stage: seconds}.
        accepted: clients that no wrapper dropped or weighed with zero.
    """

    model: Model | None
    reason: str | None
    verdicts: tuple[Verdict, ...]
    seconds: Mapping[str, float]
    accepted: frozenset[int]


@dataclass
class _Pass:
    """One wrapper's part in a round."""

    wrapper: "RobustStrategy"
    given: Cohort
    kept: Cohort
    seconds: float


def run_round(
    chain: Sequence["RobustStrategy"], cohort: Cohort, server: Server[Model], one_sum: bool = False
) -> Outcome[Model]:
    """Run a round's replies through a chain of wrappers, outermost first, and the server's step.

    Pure but for the state that the wrappers declare in ``state_names``, and the server's.

    Args:
        chain: at least one wrapper.
        cohort: the well-formed replies.
        server: what is inside the chain.
        one_sum: whether Flower gave all clients one and the same reply, as its secure aggregation does.
    """
    passes: list[_Pass] = []
    seconds: dict[str, float] = {}
    accepted = frozenset(cohort.client_ids)
    model: Model | None = None
    reason: str | None = None
    try:
        if one_sum or are_one_sum(chain, cohort):
            raise KeepPreviousModel(
                "all replies hold the same arrays, as under secure aggregation: there are no single updates to judge. "
                "Take secure aggregation out (SecAgg workflow and mods), or the defense"
            )
        handed_on, accepted = _through_stages(chain, cohort, server, passes, seconds)
        begun = time.perf_counter()
        try:
            model = server.step(handed_on)
        finally:
            _add(seconds, type(chain[-1].strategy).__name__, begun)
        for part in reversed(passes):
            if part.wrapper.overrides("after_aggregation"):
                begun = time.perf_counter()
                model = server.changed(model, part.wrapper, part.kept)
                part.seconds += time.perf_counter() - begun
                _add(seconds, type(part.wrapper).__name__, begun)
    except KeepPreviousModel as refusal:
        model, reason = None, str(refusal)
    verdicts = tuple(_verdict(part) for part in passes)
    return Outcome(model, reason, verdicts, seconds, accepted)


def _through_stages(
    chain: Sequence["RobustStrategy"],
    cohort: Cohort,
    server: Server[Any],
    passes: list[_Pass],
    seconds: dict[str, float],
) -> tuple[HandedOn, frozenset[int]]:
    """Run the stages before and on aggregation of every wrapper."""
    everybody = cohort
    accepted = frozenset(cohort.client_ids)
    clients, weights_of_clients = cohort, [1.0] * len(cohort)  # the last rows that are still one a client
    weights: list[float] = []
    aggregated = False
    passed_over: set[int] = set()
    for wrapper in chain:
        if id(wrapper) in passed_over:
            continue
        begun = time.perf_counter()
        if server.deployed:
            wrapper.observe(cohort)
        _check_enough(wrapper, cohort)
        wrapper.begin_report(cohort)
        part = _Pass(wrapper, cohort, cohort, 0.0)  # until it has judged, nobody is dropped
        passes.append(part)
        try:
            aggregate = _judge(part)
        finally:
            part.seconds = time.perf_counter() - begun
        _add(seconds, type(wrapper).__name__, begun)
        passed_over.update(map(id, wrapper.passes_over()))
        kept = part.kept
        if kept.global_parameters is not cohort.global_parameters:
            server.go_back(kept)
        weights = _weights(wrapper, kept)
        if not aggregated:
            stated = wrapper.stated_weights(cohort, kept) or {}
            accepted &= frozenset(client_id for client_id in kept.clients if stated.get(client_id, 1.0) > 0)
            clients, weights_of_clients = kept, weights
        cohort = kept
        if aggregate is not None:
            cohort, weights, aggregated = as_one(kept, aggregate, sum(weights)), [sum(weights)], True
    pairs = list(zip(weights_of_clients, clients.metrics, strict=True))
    state = _state_of(chain, clients, everybody, weights_of_clients)
    return HandedOn(cohort, weights, aggregated, pairs, state), accepted


def _check_enough(wrapper: "RobustStrategy", cohort: Cohort) -> None:
    needed = max(1, wrapper.needed_now(cohort))
    if len(cohort) < needed:
        raise KeepPreviousModel(
            f"{type(wrapper).__name__} needs at least {needed} usable replies; there are {len(cohort)}"
        )


def _judge(part: _Pass) -> Tensor | None:
    """Run a wrapper's first two stages; note the rows kept, and return the aggregate."""
    wrapper, name = part.wrapper, type(part.wrapper).__name__
    try:
        kept = part.kept = wrapper.before_aggregation(part.given)
        if not len(kept):
            raise KeepPreviousModel("accepted no client")
        aggregate = wrapper.on_aggregation(kept)
    except KeepPreviousModel as refusal:
        raise KeepPreviousModel(f"{name}: {refusal}") from None
    if aggregate is not None and not _is_finite(aggregate):
        raise KeepPreviousModel(f"{name}: the aggregate is not finite")
    return aggregate


def _is_finite(vector: Tensor) -> bool:
    """Whether all entries are finite; a sum tells most times, and needs no memory."""
    return bool(vector.sum().isfinite()) or bool(vector.isfinite().all())


def _weights(wrapper: "RobustStrategy", cohort: Cohort) -> list[float]:
    weights = wrapper.weights(cohort)
    return [1.0] * len(cohort) if weights is None else [float(weight) for weight in weights]


def as_one(cohort: Cohort, aggregate: Tensor, weight: float) -> Cohort:
    """Return a cohort of one row: the aggregate, in the first client's name, counting as all together."""
    return cohort.keep([0]).replace(
        updates=aggregate.reshape(1, -1),
        num_examples=torch.tensor([weight], dtype=torch.float64),
        modified=True,
    )


def _state_of(chain: Sequence["RobustStrategy"], kept: Cohort, everybody: Cohort, weights: Sequence[float]) -> Arrays:
    """Return what the clients' counters and statistics come to.

    Their element-wise median over the clients that the rule kept, of all well-formed ones where it kept a single one:
    nobody sets them alone. Where no wrapper chooses or aggregates, statistics are averaged as the weights are.
    """
    if not kept.buffers or not kept.buffers[0]:
        return ()
    judged = any(judges_updates(wrapper) for wrapper in chain)
    rows = everybody if judged and len(kept) == 1 and everybody.buffers else kept
    columns = [list(arrays) for arrays in zip(*rows.buffers, strict=True)]
    return tuple(
        _numbers.middle(arrays)
        if judged or not _numbers.is_weight(arrays[0].dtype)
        else _numbers.mean(arrays, list(weights))
        for arrays in columns
    )


def judges_updates(wrapper: "RobustStrategy") -> bool:
    """Whether a wrapper does anything with the updates before the wrapped strategy sees them, and not as its step."""
    return wrapper.place is None and (wrapper.overrides("before_aggregation") or wrapper.overrides("on_aggregation"))


def are_one_sum(chain: Sequence["RobustStrategy"], cohort: Cohort) -> bool:
    """Whether all of several clients sent one update that moves the model, and it is to be compared: a secure sum.

    To a chain that only clips, an update whose coordinates are all alike is none: that is what clients of a
    demonstration send.
    """
    judges = [wrapper for wrapper in chain if judges_updates(wrapper)]
    updates = cohort.updates
    if not judges or not all(wrapper.compares_clients for wrapper in judges):
        return False
    if len(updates) < 2 or not _are_equal(updates[0], updates[1]) or not bool(updates[0].any()):
        return False
    clips = not any(wrapper.judges_clients or wrapper.overrides("on_aggregation") for wrapper in judges)
    if clips and bool(updates[0].max() - updates[0].min() <= 1e-4 * updates[0].abs().max()):
        return False
    return all(_are_equal(updates[0], row) for row in updates[2:])


def _are_equal(a: Tensor, b: Tensor) -> bool:
    """Whether two rows are equal; the first entries, compared in one thread, tell most times."""
    return torch.equal(a[:1024], b[:1024]) and torch.equal(a, b)


def _verdict(part: _Pass) -> Verdict:
    wrapper = part.wrapper
    return Verdict(
        defense=type(wrapper).__name__,
        participants=part.given.clients,
        kept=part.kept.clients,
        weights=wrapper.stated_weights(part.given, part.kept),
        scores=wrapper.stated_scores(part.given, part.kept),
        notes=wrapper.stated_notes(),
        seconds=part.seconds,
        judges=wrapper.judges_clients,
        threshold=wrapper.stated_threshold(),
        accused=wrapper.accused(part.given, part.kept) if len(part.kept) else (),  # else it is the rule that failed
    )


def _add(seconds: dict[str, float], name: str, begun: float) -> None:
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun
