"""Issue point B6: every strategy of Flower inside a defense works, or is refused before clients train."""

import re
from pathlib import Path

import flwr.server.strategy
import flwr.serverapp.strategy
import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg as MessageFedAvg

from flsec._contracts import compatibility
from flsec._contracts.compatibility import (
    DEFENSES,
    EVALUATED,
    OWN,
    as_markdown,
    build,
    compatibility_matrix,
    flower_strategies,
)
from flsec._contracts.server import APIS
from flsec.errors import ConfigError
from flsec.strategies import Median, MultiKrum, NormClipping
from tests.support.boundary import both_apis, counts, fedavg, moved, nan, play, sends

TREES = re.compile("Xgb")  # bytes of trees: there are no updates
# What judges or weighs single replies may be refused around one aggregate, which is one reply.
JUDGES = re.compile("Bulyan|Krum|FedTrimmedAvg|FedMedian|QFedAvg|DP|DifferentialPrivacy")
MUST_BE_REFUSED = re.compile("^(Bulyan|Krum|MultiKrum|FedTrimmedAvg)$")  # around Median
FAIL_ALONE = {  # found in Flower 1.42 without flsec
    ("classic", "Bulyan"),  # its default rule lacks an argument
    ("classic", "FedAvgAndroid"),  # reads raw bytes, not .npy
    ("classic", "QFedAvg"),  # needs evaluate_fn
}


@pytest.fixture(scope="module")
def matrix():
    return {(cell.api, cell.strategy, cell.defense): cell for cell in compatibility_matrix()}


def every_cell():
    for api in APIS:
        for name in flower_strategies(api):
            for defense in DEFENSES:
                yield pytest.param(api, name, defense, id=f"{api}-{name}-{defense}")


@pytest.mark.parametrize(("api", "name", "defense"), every_cell())
def test_it_works_or_is_refused_with_a_sentence(matrix, api, name, defense):
    cell = matrix[api, name, defense]
    may_be_refused = TREES.search(name) or (defense == "Median" and JUDGES.search(name)) or (api, name) in FAIL_ALONE
    if TREES.search(name):
        assert cell.outcome == "refused", f"{cell.outcome}: {cell.detail}"
    elif (api, name) in FAIL_ALONE:
        assert cell.outcome in ("fails in Flower alone", "refused"), f"{cell.outcome}: {cell.detail}"
    elif defense == "Median" and MUST_BE_REFUSED.match(name):
        assert cell.outcome == "refused", f"{cell.outcome}: {cell.detail}"
    elif may_be_refused:
        assert cell.outcome in ("works", "refused"), f"{cell.outcome}: {cell.detail}"
    else:
        assert cell.outcome == "works", f"{cell.outcome}: {cell.detail}"
    if cell.outcome == "refused":
        assert cell.detail.startswith("ConfigError: ")
        assert name.split(" ")[0] in cell.detail or "tree" in cell.detail.lower(), f"says not what: {cell.detail}"
        assert len(cell.detail.split()) >= 8, f"no sentence: {cell.detail}"


def test_the_matrix_holds_every_strategy_of_flowers_modules(matrix):
    for api, module in zip(APIS, (flwr.server.strategy, flwr.serverapp.strategy), strict=True):
        listed = {name for a, name, _ in matrix if a == api}
        assert set(module.__all__) - {"Strategy", "Result"} <= listed
        assert OWN in listed
    assert ("classic", EVALUATED, "Median") in matrix
    assert len(matrix) == 3 * sum(len(flower_strategies(api)) for api in APIS)


@both_apis
def test_a_strategy_that_flower_adds_is_noticed(api, monkeypatch):
    module = flwr.server.strategy if api == "classic" else flwr.serverapp.strategy

    class FedNew(module.FedAvg):
        pass

    monkeypatch.setattr(module, "FedNew", FedNew, raising=False)
    monkeypatch.setattr(module, "__all__", [*module.__all__, "FedNew"])
    assert "FedNew" in flower_strategies(api)
    with pytest.raises(LookupError, match=r"FedNew; add its arguments to _ARGUMENTS"):
        build(api, "FedNew")
    with pytest.raises(LookupError, match="FedNew"):
        compatibility._cell(api, "FedNew", "Median")


def test_the_matrix_prints_as_markdown(matrix):
    text = as_markdown(list(matrix.values()))
    for api in APIS:
        assert f"## {api} API" in text
        for name in flower_strategies(api):
            assert f"| {name} | " in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert all(line.count("|") == 5 for line in rows)


@pytest.mark.parametrize(
    ("strategy", "wrong"),
    [
        ("keeps", "round 1 keeps the previous model"),
        ("raises", "after clients trained: ZeroDivisionError"),
        ("forgets", "the server step differs"),
        ("breaks", "round 1 gives"),
    ],
)
def test_a_strategy_that_fails_in_a_defense_is_shown_as_failing(monkeypatch, strategy, wrong):
    """The matrix can fail: a strategy that is sound alone and not inside."""

    class Odd(MessageFedAvg):
        def aggregate_train(self, server_round, replies):
            replies = list(replies)
            if len(replies) == 10:  # alone
                return super().aggregate_train(server_round, replies)
            arrays, metrics = super().aggregate_train(server_round, replies)
            if strategy == "keeps":
                return None, None
            if strategy == "raises":
                raise ZeroDivisionError
            if strategy == "forgets" and len(replies) == 1:  # the reference's replies have no errors among them
                self.steps = getattr(type(self), "steps", 0) + 1
                type(self).steps = self.steps
                arrays = type(arrays)({k: type(a)(a.numpy() + np.float32(self.steps)) for k, a in arrays.items()})
            if strategy == "breaks":
                arrays = type(arrays)({k: type(a)(a.numpy() * np.nan) for k, a in arrays.items()})
            return arrays, metrics

    monkeypatch.setattr(compatibility, "flower_strategies", lambda api: {"Odd": Odd})
    monkeypatch.setitem(compatibility._ARGUMENTS["Message"], "Odd", {})
    cell = compatibility._cell("Message", "Odd", "Median")
    assert cell.outcome == "fails"
    if strategy == "breaks":  # a defense may notice, and keep the previous model
        assert wrong in cell.detail or "round 1 keeps" in cell.detail
    else:
        assert wrong in cell.detail, cell.detail


# --- Flower's privacy wrappers around ours, and ours around them ----------------------------------------------------

COUNTED = {
    "weight": np.linspace(-1, 1, 6, dtype=np.float32).reshape(3, 2),
    "bias": np.zeros(2, np.float32),
    "steps": np.array(7),
}
ADAPTIVE = {"noise_multiplier": 1e-7, "num_sampled_clients": 8, "clipped_count_stddev": 1e-6}
FIXED = {"noise_multiplier": 1e-7, "num_sampled_clients": 8, "clipping_norm": 5.0}
PRIVACY = {
    "DifferentialPrivacyServerSideFixedClipping": FIXED,
    "DifferentialPrivacyClientSideFixedClipping": FIXED,
    "DifferentialPrivacyServerSideAdaptiveClipping": ADAPTIVE,
    "DifferentialPrivacyClientSideAdaptiveClipping": ADAPTIVE,
}


def private(api, name, inner):
    module = flwr.server.strategy if api == "classic" else flwr.serverapp.strategy
    return getattr(module, name)(inner, **PRIVACY[name])


def trained(round, client_id, arrays):
    from flsec._contracts.server import Reply, npy_bytes

    rng = np.random.default_rng([round, client_id])
    new = [
        (a + 0.1 + 0.01 * rng.standard_normal(a.shape)).astype(a.dtype) if a.dtype.kind == "f" else a + 2
        for a in arrays
    ]
    return [Reply(tuple(map(npy_bytes, new)), 10, {"norm_bit": 1, "loss": 0.1})]


@both_apis
@pytest.mark.parametrize("name", PRIVACY)
@pytest.mark.parametrize("defense", DEFENSES)
def test_a_defense_around_flowers_privacy_wrapper_with_a_counter(api, name, defense):
    """Case 02: works, counters stay whole numbers of the honest range, or is refused before clients train."""
    makes = {
        "MultiKrum": lambda inner: MultiKrum(inner, num_byzantine=2),
        "Median": Median,
        "NormClipping": lambda inner: NormClipping(inner, max_norm=1.0),
    }
    asked = []

    def answer(round, client_id, arrays):
        asked.append(client_id)
        return trained(round, client_id, arrays)

    try:
        strategy = makes[defense](private(api, name, fedavg(api, 8)))
        played = play(api, strategy, 8, [1, 2, 3], sends({3: nan}, answer), COUNTED)
    except ConfigError:
        if asked or defense != "Median":  # the others hand on single replies, which privacy wrappers take
            raise
        return
    assert moved(played, COUNTED)
    assert strategy.last_report.kept_previous_model is None
    for array, start in zip(played.arrays, COUNTED.values(), strict=True):
        assert array.dtype == start.dtype
        assert np.isfinite(array).all()
    assert played.arrays[-1] == 7 + 3 * 2


@both_apis
@pytest.mark.parametrize("name", PRIVACY)
def test_flowers_privacy_wrapper_around_a_defense_with_a_counter(api, name):
    """Flower's wrapper sees every reply first; ours must not be what fails, with and without a NaN sender."""
    for hostile in ({}, {3: nan}):
        strategy = private(api, name, MultiKrum(fedavg(api, 8), num_byzantine=2))
        played = play(api, strategy, 8, [1, 2, 3], sends(hostile, trained), COUNTED)
        assert moved(played, COUNTED)
        assert all(np.isfinite(a).all() for a in played.arrays)
        assert played.arrays[-1] == 7 + 3 * 2
        report = strategy.strategy.last_report
        assert report.kept_previous_model is None
        assert {entry.client_id for entry in report.quarantined} == set(hostile)


@both_apis
def test_privacy_wrappers_alone_take_this_model(api):
    """So that a failure above is flsec's."""
    for name in PRIVACY:
        played = play(api, private(api, name, fedavg(api, 8)), 8, [1], trained, COUNTED)
        assert moved(played, COUNTED)
        assert counts(api, 8)


def test_the_page_of_the_documentation_is_the_matrix(matrix):
    page = (Path(__file__).parents[3] / "docs" / "compatibility.md").read_text()
    if f"Flower {flwr.__version__} " not in page:
        pytest.skip("the page is of another version of Flower")
    assert as_markdown(list(matrix.values())) in page, (
        "run: python -m flsec._contracts.compatibility > docs/compatibility.md"
    )
