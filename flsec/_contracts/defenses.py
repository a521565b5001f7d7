"""The checks of a defense."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flsec._contracts.battery import check_documented, check_refuses_nonsense, equal, pickled
from flsec._contracts.faults import FAILURES, evaluation_faults, faults, first_array, odd_metrics, other_forms
from flsec._contracts.server import (
    APIS,
    FLOWER,
    HONEST,
    HOSTILE,
    MODEL,
    STRANGER,
    ClassicServer,
    MessageServer,
    NDArrays,
    Reply,
    Server,
    flower_strategy,
    honest,
    hostile_sends,
    identify,
    in_turn,
    npy_bytes,
    only_honest,
)
from flsec.strategies._round import judges_updates
from flsec.strategies.base import FlowerStrategy, RobustStrategy

FLOATS = [name for name, array in MODEL.items() if array.dtype.kind == "f"]


class DefenseBattery:
    def __init__(
        self, make: Callable[[FlowerStrategy], RobustStrategy], probe: RobustStrategy, needed: int, num_clients: int
    ):
        identify()
        self._make, self._probe, self._needed = make, probe, needed
        self._honest = HONEST[:num_clients]
        self._clients = sorted([*self._honest, *HOSTILE])

    def _server(
        self,
        api: str,
        flower: str = "FedAvg",
        clients: Sequence[int] | None = None,
        model: Mapping[str, NDArray[Any]] = MODEL,
    ) -> Server:
        clients = self._clients if clients is None else clients
        strategy = self._make(flower_strategy(api, flower, len(clients)))
        return (ClassicServer if api == "classic" else MessageServer)(strategy, clients, model)

    def is_documented(self) -> None:
        check_documented(type(self._probe))

    def refuses_bad_parameters(self) -> None:
        check_refuses_nonsense(type(self._probe), flower_strategy("classic", "FedAvg", 2))

    def gives_the_same_model_in_both_apis(self) -> None:
        for flower in FLOWER:
            models = []
            for api in APIS:
                server = self._server(api, flower).play([1, 2, 3])
                models.append(server.arrays)
                _assert_sound(server.arrays, f"{flower}, {api} API")
                moved = any(not np.array_equal(server.arrays[i], MODEL[name]) for i, name in enumerate(FLOATS))
                assert moved, f"{flower}, {api} API: three honest rounds leave the model as it was"
                assert server.arrays[-1] == MODEL["steps"] + 3, f"{flower}, {api} API: {server.arrays[-1]} steps"
            for a, b, name in zip(*models, MODEL, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=f"{name}, {flower}")

    def hands_on_the_wrapped_strategys_settings(self) -> None:
        for api, key in zip(APIS, ("proximal_mu", "proximal-mu"), strict=True):
            server = self._server(api, "FedProx").play([3])
            for config in server.configs.values():
                assert config.get(key) == 0.1, f"{api} API: FedProx's {key} does not reach the clients"
                assert config.get("server-round") == 3, f"{api} API: the clients do not learn the round"

    def reports_its_verdict(self) -> None:
        for api in APIS:
            server = self._server(api).play([1])
            report = server.strategy.last_report
            assert report is not None, "no report"
            assert report.round == 1, f"the report is of round {report.round}"
            assert [v.defense for v in report.verdicts] == [type(w).__name__ for w in server.strategy.chain()]
            verdict = report.verdicts[0]
            assert verdict.participants == self._honest, f"participants {verdict.participants}"
            assert set(verdict.kept) <= set(self._honest), f"kept {verdict.kept}"
            assert tuple(q.client_id for q in report.quarantined) == HOSTILE, "who sent nothing is not reported"
            assert "train-loss" in server.metrics, f"{api} API: the clients' metrics are lost"
            assert server.metrics["flsec-usable"] == len(self._honest), f"metrics {server.metrics}"

    def ignores_the_order_of_arrival(self) -> None:
        for api in APIS:
            sorted_, shuffled = (self._server(api, "FedAdam").play([1, 2, 3], arrival=a) for a in (0, 1))
            _assert_same(sorted_, shuffled, f"{api} API")

    def accepts_the_same_values_in_another_form(self) -> None:
        for api in APIS:
            plain, other = self._server(api), self._server(api)
            for number, what, group, answer in in_turn(other_forms(api)):
                plain.play([number], hostile_sends(*[lambda reply: reply] * len(group)))
                other.play([number], answer)
                for a, b in zip(plain.arrays, other.arrays, strict=True):
                    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=f"{what}, {api} API")

    def quarantines_malformed_replies(self) -> None:
        for api in APIS:
            without, attacked = self._server(api), self._server(api)
            for number, what, group, answer in in_turn(faults(api)):
                if any(wrapper.excluded(number) for wrapper in attacked.strategy.chain()):
                    without, attacked = self._server(api), self._server(api)  # who is banned could send no more faults
                # the same clients send NaN: each fault counts for f as every other does
                without.play([number], hostile_sends(*[_sends_nan] * len(group)))
                try:
                    attacked.play([number], answer)
                except Exception as error:
                    raise AssertionError(f"{what}, {api} API: {type(error).__name__}: {error}") from error
                for client_id, fault in group.items():
                    _assert_quarantined(attacked, client_id, f"{fault}, {api} API")
                _assert_same(without, attacked, f"{what}, {api} API")

    def counts_the_quarantined_as_faults(self) -> None:
        """F of the fewest clients send NaN: the rule runs on n - f with f - f, and is not stopped."""
        declared = [wrapper.num_tolerated(self._needed) for wrapper in self._probe.chain()]
        f = min((number for number in declared if number is not None), default=0)
        clients = HONEST[: max(self._needed, f + 1)]
        hostile = clients[:f]

        def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
            reply = honest(round, client_id, arrays)[0]
            return [first_array(reply, lambda a: a * np.nan) if client_id in hostile else reply]

        for api in APIS if f else ():
            server = self._server(api, clients=clients)
            for number in (1, 2):
                server.play([number], answer)
                what = f"round {number}, {f} of {len(clients)} send NaN, {api} API"
                _assert_new_model(server, what)
                seen = server.strategy.last_report.verdicts[0].participants
                assert seen == clients[f:], f"{what}: participants {seen}"

    def loses_no_update_because_of_metrics(self) -> None:
        for api in APIS:
            usual, odd = self._server(api), self._server(api)
            for number, what, group, answer in in_turn(odd_metrics(api)):
                usual.play([number], hostile_sends(*[lambda reply: reply] * len(group)))
                odd.play([number], answer)
                _assert_same(usual, odd, f"{what}, {api} API")
                reasons = {q.client_id: q.reason for q in odd.strategy.last_report.quarantined}
                assert not set(reasons) & {*group, *self._honest}, f"{what}, {api} API: quarantined: {reasons}"
                values = [v for v in odd.metrics.values() if isinstance(v, float)]
                assert all(abs(v) <= 1e15 for v in values), f"{what}, {api} API: the metrics are {odd.metrics}"

    def combines_integer_arrays(self) -> None:
        """One hostile client with an honest update does not set the counters."""
        for api in APIS:
            for steps in (2**40, -(2**40)):
                data = npy_bytes(np.array(steps))
                server = self._server(api).play([1], hostile_sends(partial(_with_last_array, data=data)))
                _assert_new_model(server, f"{api} API")
                counted = server.arrays[-1]
                assert counted == MODEL["steps"] + 1, f"{api} API: a client that sends {steps} steps sets {counted}"

    def works_in_every_float_type(self) -> None:
        for dtype in ("float16", "float64"):
            model = {name: a.astype(dtype) if a.dtype.kind == "f" else a for name, a in MODEL.items()}
            for api in APIS:
                what = f"{dtype}, {api} API"
                server = self._server(api, model=model).play([1, 2])
                _assert_new_model(server, what, model)
                _assert_sound(server.arrays, what, model)

    def refuses_secure_aggregation(self) -> None:
        """Every reply is the same sum: a rule that compares clients has no single updates to judge."""
        if not all(w.compares_clients for w in self._probe.chain() if judges_updates(w)):
            return
        if not any(judges_updates(wrapper) for wrapper in self._probe.chain()):
            return

        def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
            reply = honest(round, client_id, arrays)[0]
            return [replace(reply, tensors=honest(round, self._honest[0], arrays)[0].tensors)]

        for api in APIS:
            server = self._server(api).play([1], answer)
            for a, b in zip(server.arrays, MODEL.values(), strict=True):
                assert np.array_equal(a, b), f"{api} API: the model moved"
            reason = server.strategy.last_report.kept_previous_model or ""
            assert "secure aggregation" in reason, f"{api} API: the model was kept because {reason!r}"

    def quarantines_a_second_reply(self) -> None:
        def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
            replies = honest(round, client_id, arrays)
            return [*replies, first_array(replies[0], lambda a: a + 1e6)] if client_id in HOSTILE else replies

        for api in APIS:
            once, twice = self._server(api).play([1, 2], honest), self._server(api).play([1, 2], answer)
            _assert_quarantined(twice, HOSTILE[0], f"two replies, {api} API")
            _assert_same(once, twice, f"two replies, {api} API")

    def quarantines_who_was_not_asked(self) -> None:
        for api in APIS:
            attacked = self._server(api).play([1, 2], hostile_sends(lambda reply: replace(reply, sender=STRANGER)))
            _assert_quarantined(attacked, STRANGER, f"a stranger, {api} API")
            _assert_same(self._server(api).play([1, 2]), attacked, f"a stranger, {api} API")

    def goes_on_when_clients_fail(self) -> None:
        for api in APIS:
            attacked = self._server(api).play([1, 2], hostile_sends(*FAILURES.values()))
            for client_id, failure in zip(HOSTILE, FAILURES, strict=False):
                _assert_quarantined(attacked, client_id, f"{failure}, {api} API")
            _assert_same(self._server(api).play([1, 2]), attacked, f"failures, {api} API")

    def keeps_the_model_when_too_few_are_left(self) -> None:
        usable = self._honest[: self._needed - 1]

        def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
            return honest(round, client_id, arrays) if client_id in usable else []  # silence is no proof of an attack

        for flower in FLOWER:
            for api in APIS:
                what = f"{flower}, {api} API"
                disturbed = self._server(api, flower).play([1], answer)
                for a, b in zip(disturbed.arrays, MODEL.values(), strict=True):
                    assert np.array_equal(a, b), f"{what}: the model moved with {len(usable)} usable replies"
                report = disturbed.strategy.last_report
                assert report is not None, f"{what}: no report"
                assert report.kept_previous_model, f"{what}: the report does not say why the model was kept"
                disturbed.play([2]).play([3], lambda *_: []).play([4])
                _assert_same(self._server(api, flower).play([2, 4]), disturbed, f"{what}, rounds after one without")

    def screens_evaluations(self) -> None:
        for api in APIS:
            expected = self._server(api).evaluate(1, only_honest)
            server = self._server(api)
            for _, what, _, answer in in_turn(evaluation_faults(api)):
                try:
                    loss = server.evaluate(1, answer)
                except Exception as error:
                    raise AssertionError(f"{what}, {api} API: {type(error).__name__}: {error}") from error
                assert loss == expected, f"{what}, {api} API: the mean loss is {loss} instead of {expected}"
            nobody = self._server(api).evaluate(1, lambda *_: [])
            assert nobody is None, f"{api} API: a loss of {nobody} from nobody"

    def weighs_evaluations_as_updates(self) -> None:
        """Uniform unless the defense trusts counts of examples; metrics cost no evaluation."""
        trusting = self._probe.weighting == "examples"
        if trusting and self._probe.max_weight_ratio is not None:
            return
        for api in APIS:
            _assert_weighs_evaluations(self._server(api), trusting, f"{api} API")
            server = self._server(api)
            for _, what, _, odd in in_turn(odd_metrics(api)):
                loss = server.evaluate(1, odd)
                assert loss is not None, f"{what}, {api} API: no loss"
                assert 0 < loss < 1, f"{what}, {api} API: the mean loss is {loss}"

    def survives_pickling(self) -> None:
        for api in APIS:
            server = self._server(api, "FedAdam").play([1])
            copied = copy.copy(server)
            copied.strategy = pickled(server.strategy)
            _assert_same(server.play([2]), copied.play([2]), f"{api} API")

    def resumes_from_its_state(self) -> None:
        for flower in ("FedAdam", "FedAvgM"):
            for api in APIS:
                _assert_resumes(partial(self._server, api, flower), f"{flower}, {api} API")


def _sends_nan(reply: Reply) -> Reply:
    return first_array(reply, lambda array: array * np.nan)


def _with_last_array(reply: Reply, data: bytes) -> Reply:
    return replace(reply, tensors=(*reply.tensors[:-1], data))


def _assert_sound(arrays: NDArrays, what: str, model: Mapping[str, NDArray[Any]] = MODEL) -> None:
    for array, expected, name in zip(arrays, model.values(), model, strict=True):
        assert array.shape == expected.shape, f"{what}: {name} has shape {array.shape}, not {expected.shape}"
        assert array.dtype == expected.dtype, f"{what}: {name} has dtype {array.dtype}, not {expected.dtype}"
        assert np.isfinite(array).all(), f"{what}: {name} is not finite"


def _assert_new_model(server: Server, what: str, model: Mapping[str, NDArray[Any]] = MODEL) -> None:
    report = server.strategy.last_report
    assert report is not None, f"{what}: no report"
    assert report.kept_previous_model is None, f"{what}: the model was kept: {report.kept_previous_model}"
    same = all(np.array_equal(a, b) for a, b in zip(server.arrays, model.values(), strict=True))
    assert not same, f"{what}: the model is the old one"


def _assert_same(a: Server, b: Server, what: str) -> None:
    for x, y, name in zip(a.arrays, b.arrays, MODEL, strict=True):
        assert x.dtype == y.dtype, f"{what}: {name} is {x.dtype} or {y.dtype}"
        assert np.array_equal(x, y), f"{what}: {name} differs by {np.abs(x - y).max():g}"


def _assert_quarantined(server: Server, client_id: int, what: str) -> None:
    report = server.strategy.last_report
    assert report is not None, f"{what}: no report"
    reasons = {entry.client_id: entry.reason for entry in report.quarantined}
    assert reasons.get(client_id), f"{what}: the report names {reasons or 'nobody'}, not client {client_id}"
    assert set(reasons) <= {*HOSTILE, STRANGER}, f"{what}: an honest client is quarantined: {reasons}"


def _assert_weighs_evaluations(server: Server, trusting: bool, what: str) -> None:
    sent: dict[int, Reply] = {}

    def answer(round: int, client_id: int, arrays: NDArrays) -> list[Reply]:
        replies = only_honest(round, client_id, arrays)
        for reply in replies:
            sent[client_id] = reply
        return replies

    loss = server.evaluate(1, answer)
    losses = [reply.loss for reply in sent.values()]
    counts = [float(reply.num_examples) if trusting else 1.0 for reply in sent.values()]
    expected = float(np.average(losses, weights=counts))
    assert loss is not None, f"{what}: no loss"
    assert np.isclose(loss, expected, rtol=1e-6), f"{what}: the mean loss is {loss} instead of {expected}"


def _assert_resumes(make: Callable[[], Server], what: str) -> None:
    server = make().play([1, 2])
    state = server.strategy.state_dict()
    _assert_plain(state)
    kept = copy.deepcopy(state)
    fresh, used = make(), make().play([5, 6, 7])
    for resumed in (fresh, used):
        resumed.tensors = list(server.tensors)
    server.play([3, 4])
    for resumed in (fresh, used):
        resumed.strategy.load_state_dict(pickled(state))
        _assert_same(server, resumed.play([3, 4]), f"{what}, resumed after round 2")
    assert equal(state, kept), f"{what}: later rounds change a state that was taken before"
    early = make().strategy.state_dict()
    used.strategy.load_state_dict(early)
    used.tensors = [npy_bytes(array) for array in MODEL.values()]
    _assert_same(make().play([1, 2]), used.play([1, 2]), f"{what}, back at the start")


def _assert_plain(value: Any, path: str = "state") -> None:
    """A state must hold what a checkpoint can hold without pickle."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            assert isinstance(key, str | int), f"{path}: the key {key!r} is neither text nor a whole number"
            _assert_plain(entry, f"{path}[{key!r}]")
    elif isinstance(value, list | tuple):
        for i, entry in enumerate(value):
            _assert_plain(entry, f"{path}[{i}]")
    else:
        plain = bool | int | float | str | Tensor | np.ndarray | np.generic
        assert value is None or isinstance(value, plain), f"{path} is a {type(value).__name__}"
