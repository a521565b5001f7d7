"""Up to f clients send anything at all, the others are honest and differ: the round goes on, within the rule's bound.

500 cases in every run, 50,000 with ``-m slow``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from flsec.strategies import SLSGD, Bulyan, Krum, Median, MultiKrum, NormClipping, TrimmedMean
from tests.support.boundary import assert_bounded, both_apis, fedavg, play, quarantined, report, why_kept
from tests.support.hostile import KINDS, MODEL, NAMES, SILENT, STRANGER, Case, cases, kinds

Box = tuple[NDArray[np.float64], NDArray[np.float64]]
FLOATS = [name for name in NAMES if MODEL[name].dtype.kind == "f"]
GLOBAL = np.concatenate([MODEL[name].ravel().astype(np.float64) for name in FLOATS])
MAX_NORM, ALPHA = 3.0, 0.5
CASES, SLOW_CASES = 500, 50_000


# --- what each rule promises: all that follows from its precondition, no more -------------------------------------


def hull(honest: NDArray[np.float64]) -> Box:
    """Each coordinate lies between the honest clients' smallest and largest value."""
    return honest.min(axis=0), honest.max(axis=0)


def widened(honest: NDArray[np.float64], by: Any) -> Box:
    low, high = hull(honest)
    return low - by, high + by


def diameter(honest: NDArray[np.float64]) -> float:
    return float(max(np.linalg.norm(a - b) for a in honest for b in honest))


def krum_radius(honest: NDArray[np.float64], n: int, f: int) -> float:
    """Return how far the row of the lowest score can be from the nearest honest one.

    An honest row has n - f - 1 honest others within the diameter D, so that the lowest n - f scores are at most
    (n - f - 2) D^2. A hostile row of such a score has at least n - 2f - 1 honest rows among its n - f - 2 neighbours,
    so that one of them is within D sqrt((n - f - 2) / (n - 2f - 1)).
    """
    return diameter(honest) * float(np.sqrt((n - f - 2) / (n - 2 * f - 1)))


def clipped(honest: NDArray[np.float64]) -> NDArray[np.float64]:
    updates = honest - GLOBAL
    norms = np.linalg.norm(updates, axis=1, keepdims=True)
    return GLOBAL + updates * np.minimum(1, MAX_NORM / np.maximum(norms, 1e-30))


def toward(honest: NDArray[np.float64]) -> Box:
    """SLSGD goes a part of the way from the global model to the trimmed mean."""
    low, high = hull(honest)
    return np.minimum(low, GLOBAL), np.maximum(high, GLOBAL)


@dataclass(frozen=True)
class Rule:
    """A defense, the f that it declares, its precondition, and the box that holds the new model."""

    make: Callable[[Any], Any]
    f: int
    needed: Callable[[int], int]
    box: Callable[[NDArray[np.float64], int, int], Box]


RULES = {
    "Krum": Rule(
        lambda inner: Krum(inner, num_byzantine=2),
        2,
        lambda f: 2 * f + 3,
        lambda honest, n, f: widened(honest, krum_radius(honest, n, f)),
    ),
    "MultiKrum": Rule(
        lambda inner: MultiKrum(inner, num_byzantine=2),
        2,
        lambda f: 2 * f + 3,
        lambda honest, n, f: widened(honest, krum_radius(honest, n, f)),
    ),
    # At most f of the theta = n - 2f selected are hostile: their median is in the honest hull, and the theta - 2f
    # values nearest to it are no farther from it than the hull is wide.
    "Bulyan": Rule(
        lambda inner: Bulyan(inner, num_byzantine=2),
        2,
        lambda f: 4 * f + 3,
        lambda honest, n, f: widened(honest, np.ptp(honest, axis=0)),
    ),
    "TrimmedMean": Rule(
        lambda inner: TrimmedMean(inner, num_trimmed=2), 2, lambda f: 2 * f + 1, lambda honest, n, f: hull(honest)
    ),
    "SLSGD": Rule(
        lambda inner: SLSGD(inner, alpha=ALPHA, num_trimmed=2),
        2,
        lambda f: 2 * f + 1,
        lambda honest, n, f: toward(honest),
    ),
    "NormClipping(MultiKrum)": Rule(
        lambda inner: NormClipping(MultiKrum(inner, num_byzantine=2), max_norm=MAX_NORM),
        2,
        lambda f: 2 * f + 3,
        lambda honest, n, f: widened(clipped(honest), krum_radius(clipped(honest), n, f)),
    ),
    "MultiKrum(TrimmedMean)": Rule(
        lambda inner: MultiKrum(TrimmedMean(inner, num_trimmed=2), num_byzantine=2),
        2,
        lambda f: 2 * f + 3,  # leaves n - 2 clients, and 2 f + 1 are enough for the trimmed mean
        lambda honest, n, f: widened(honest, krum_radius(honest, n, f)),
    ),
    "Median": Rule(lambda inner: Median(inner), 2, lambda f: 1, lambda honest, n, f: hull(honest)),
}
FEWEST = {name: max(rule.needed(rule.f), 2 * rule.f + 1) for name, rule in RULES.items()}  # the median needs a majority


# --- one case ---------------------------------------------------------------------------------------------------


def check(api: str, name: str, case: Case) -> None:
    """Play the round, and compare what happened with what the fates of the replies say must happen."""
    rule = RULES[name]
    options = {"fit_metrics_aggregation_fn": _mean_of_the_first_ones_metrics} if api == "classic" else {}
    strategy = rule.make(fedavg(api, case.num_clients, **options))
    played = play(api, strategy, case.num_clients, answer=case.answer(api), model=MODEL)
    fates = case.fates()
    content = {i for i, fate in fates.items() if fate == "content"}
    either = {i for i, fate in fates.items() if fate == "either"}
    fine = {i for i, fate in fates.items() if fate == "fine"}
    silent = {i for i, fate in fates.items() if fate == "silent"} | set(case.dropouts)

    accused = set(quarantined(played))
    honest_ones = set(case.honest())
    assert not accused & honest_ones, f"honest clients are quarantined: {quarantined(played)}"
    assert content <= accused, f"not quarantined: { ({i: case.hostile[i] for i in content - accused}) }"
    assert_bounded(played)
    for array, start in zip(played.arrays, MODEL.values(), strict=True):
        assert array.dtype == start.dtype, f"a new dtype: {array.dtype}"
        assert array.shape == start.shape
        assert array.dtype.kind != "f" or np.isfinite(array).all()

    # (usable replies, faults that are left) for every number of "either" replies that are quarantined
    outcomes = [
        (case.num_clients - len(silent) - q, rule.f - q) for q in range(len(content), len(content | either) + 1)
    ]
    can_work = [usable >= max(1, rule.needed(f)) for usable, f in outcomes]
    kept = why_kept(played)
    if kept is not None:
        assert not all(can_work), f"{outcomes} (usable, f) suffice, but: {kept}"
        for array, start in zip(played.arrays, MODEL.values(), strict=True):
            np.testing.assert_array_equal(array, start)
        return
    assert any(can_work), f"a new model although {outcomes} (usable, f) are too few for {name}"
    participants = set(report(played).verdicts[0].participants)
    assert honest_ones | fine <= participants, f"left out: {sorted((honest_ones | fine) - participants)}"
    assert not participants & (content | silent), f"took part: {sorted(participants & (content | silent))}"
    if name == "Median" and len(participants - honest_ones) >= len(honest_ones):
        return  # no majority, and no precondition that would say so
    honest = np.stack([_flat(case.honest_arrays(i)) for i in sorted(honest_ones)])
    f = rule.f - len(content) - len(either - participants)
    assert len(participants) >= rule.needed(f), (
        f"{len(participants)} clients with f = {f} are outside {name}'s guarantee"
    )
    low, high = rule.box(honest, len(participants), f)
    slack = 1e-5 * (1 + np.abs(honest).max())
    new = _flat(played.arrays)
    assert (new >= low - slack).all(), f"{name}: {new} falls below {low}"
    assert (new <= high + slack).all(), f"{name}: {new} exceeds {high}"
    _check_steps(played, case, participants, honest_ones)


def _check_steps(played: Any, case: Case, participants: set[int], honest: set[int]) -> None:
    """The counter is in the honest range, where the honest ones are the majority of those that it is made from."""
    kept = set(report(played).verdicts[-1].kept)
    made_from = kept if len(kept) > 1 else participants
    if len(made_from - honest) > (len(made_from) - 1) // 2:
        return
    steps = [int(case.honest_arrays(i)[-1]) for i in made_from & honest]
    assert min(steps) <= int(played.arrays[-1]) <= max(steps), f"{played.arrays[-1]} steps where honest are {steps}"


def _flat(arrays: Any) -> NDArray[np.float64]:
    return np.concatenate([a.ravel().astype(np.float64) for a in arrays if a.dtype.kind == "f"])


def _mean_of_the_first_ones_metrics(pairs: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    """Average as Flower's tutorials do: it raises as soon as clients differ."""
    total = sum(count for count, _ in pairs)
    return {key: sum(count * metrics[key] for count, metrics in pairs) / total for key in pairs[0][1]}


def configured(number: int) -> Any:
    each = -(-number // (2 * len(RULES)))
    return settings(
        max_examples=each, deadline=None, suppress_health_check=list(HealthCheck), database=None, print_blob=False
    )


def run_cases(api: str, name: str, number: int) -> None:
    @configured(number)
    @given(case=cases(api, RULES[name].f, FEWEST[name]))
    def holds(case: Case) -> None:
        check(api, name, case)

    holds()


@both_apis
@pytest.mark.parametrize("name", RULES)
def test_any_replies_of_up_to_f_clients(name, api):
    run_cases(api, name, CASES)


@pytest.mark.slow
@both_apis
@pytest.mark.parametrize("name", RULES)
def test_any_replies_of_up_to_f_clients_in_50000_cases(name, api):
    run_cases(api, name, SLOW_CASES)


# --- the examples themselves ------------------------------------------------------------------------------------


def one_hostile(kind: str, **changes: Any) -> Case:
    settings = {"hostile": {2: kind}, "metrics": {}, "dropouts": {}, "spread": 0.05, "shift": 0.1, "seed": 1}
    return Case(num_clients=7, **{**settings, **changes})


def every_kind():
    for api in ("classic", "Message"):
        for name in kinds(api):
            yield pytest.param(api, name, id=f"{api}-{name}")


@pytest.mark.parametrize(("api", "kind"), every_kind())
@pytest.mark.parametrize("rule", ["Krum", "Median"])
def test_each_kind_alone(api, kind, rule):
    """Every kind once around a rule that drops and one that aggregates, whatever the generator draws."""
    check(api, rule, one_hostile(kind))


@pytest.mark.parametrize(("api", "kind"), every_kind())
def test_each_kind_has_the_fate_that_it_is_said_to_have(api, kind):
    """The oracle of the property tests, checked reply by reply against one round of the median."""
    played = play(api, Median(fedavg(api, 7)), 7, answer=one_hostile(kind).answer(api), model=MODEL)
    took_part = 2 in report(played).verdicts[0].participants
    fate = KINDS[kind].fate
    assert set(quarantined(played)) <= {2, STRANGER}
    if fate in ("content", "silent"):
        assert not took_part
        assert 2 in quarantined(played)
    elif fate == "fine":
        assert took_part


def drawn(api: str, number: int) -> dict[str, set[Any]]:
    """Return what the cases of so many examples are made of."""
    seen: dict[str, set[Any]] = {"hostile": set(), "dropouts": set(), "metrics": set(), "number": set(), "room": set()}

    @settings(max_examples=number, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=cases(api, 2, 7))
    def look(case: Case) -> None:
        seen["hostile"] |= set(case.hostile.values())
        seen["dropouts"] |= set(case.dropouts.values())
        seen["metrics"] |= set(case.metrics.values())
        seen["number"].add((len(case.hostile), len(set(case.hostile.values()))))
        seen["room"].add(case.num_clients)
        assert not set(case.hostile) & set(case.dropouts)
        assert set(case.hostile) | set(case.dropouts) <= set(case.clients())

    look()
    return seen


@both_apis
def test_the_generator_makes_cases_of_all_sorts(api):
    seen = drawn(api, 600)
    assert len(seen["hostile"]) > len(kinds(api)) / 2
    assert seen["dropouts"] == set(SILENT)
    assert len(seen["metrics"]) >= 8
    assert seen["number"] >= {(0, 0), (1, 1), (2, 1), (2, 2)}, "nobody, one, two colluders, two of different kinds"
    assert seen["room"] == {7, 8, 9}


@pytest.mark.slow
@both_apis
def test_the_generator_makes_every_kind(api):
    assert drawn(api, 6000)["hostile"] == set(kinds(api))


def test_honest_clients_differ():
    case = one_hostile("nothing")
    rows = [_flat(case.honest_arrays(i)) for i in case.clients()]
    assert diameter(np.stack(rows)) > 0


@pytest.mark.parametrize("name", RULES)
def test_the_bounds_are_no_walls_of_paper(name):
    """A model moved by one hostile client that the mean lets in breaks every box."""
    rule, case = RULES[name], one_hostile("1e4")
    honest = np.stack([_flat(case.honest_arrays(i)) for i in case.honest()])
    poisoned = (honest.sum(axis=0) + 1e4) / (len(honest) + 1)
    n = FEWEST[name]
    low, high = rule.box(honest, n, rule.f)
    assert not ((poisoned >= low) & (poisoned <= high)).any()
    inside = GLOBAL + ALPHA * (np.median(honest, axis=0) - GLOBAL) if name == "SLSGD" else np.median(honest, axis=0)
    assert ((inside >= low) & (inside <= high)).all()
