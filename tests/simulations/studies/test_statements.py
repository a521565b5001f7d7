"""Statements about curves: views, terms, sentences and their intervals, against numbers worked out by hand."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flsec.errors import ConfigError
from flsec.simulations.studies.statements import Curve, Statement, check_view, interval, value_of, view_of

CURVE = Curve((0, 2, 4, 6), {1: (0.1, 0.5, 0.3, 0.9), 2: (0.2, 0.6, 0.8, 0.4)})


def flat(*values: float) -> dict[str, Curve]:
    """A curve that is measured once, after round 1, in as many seeds as there are values."""
    return {"accuracy": Curve((1,), {seed: (value,) for seed, value in enumerate(values, 1)})}


MEASURED = {
    "attacked": flat(0.1, 0.2, 0.3),
    "krum": flat(0.5, 0.6, 0.7),
    "none": flat(0.52, 0.58, 0.73),
}


def decide(paper=None, measured=MEASURED, **sentence):
    return Statement(**sentence).decide(measured, paper or {}, "accuracy", "last")


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("last", (0.9, 0.4)),
        ("last 2", (0.6, 0.6)),
        ("last 9", (0.45, 0.5)),
        ("mean", (17 / 30, 0.6)),  # of rounds 2, 4 and 6: round 0 is before training
        ("lowest", (0.3, 0.4)),
        ("highest", (0.9, 0.8)),
        ("lowest from 5", (0.9, 0.4)),
        ("highest from 3", (0.9, 0.8)),
        ("rounds to 0.5", (2, 2)),
        ("rounds to 0.8", (6, 4)),
        ("rounds to 0.85", (6, 7)),  # the second never does
    ],
)
def test_views(view, expected):
    np.testing.assert_allclose(view_of(CURVE, view), expected)


@pytest.mark.parametrize(
    "view",
    ["first", "last 0", "last -1", "lowest from", "lowest to 3", "rounds", "rounds to", "rounds from 3", "mean 3", ""],
)
def test_what_is_no_view_is_refused(view):
    with pytest.raises(ConfigError, match=re.escape(f"got {view!r}")):
        check_view(view)


def test_a_view_of_rounds_that_were_not_run_is_refused():
    with pytest.raises(ConfigError, match="nothing was measured so late; the last round is 6"):
        view_of(CURVE, "lowest from 7")


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_the_interval_is_that_of_scipy_s_t_test(values):
    low, high = interval(values)
    if np.std(values) > 1e-6:
        np.testing.assert_allclose(stats.ttest_1samp(values, 0).confidence_interval(0.95), (low, high), rtol=1e-6)
    assert low <= np.mean(values) + 1e-9
    assert high >= np.mean(values) - 1e-9


def test_one_seed_has_no_interval():
    assert interval([0.5]) is None


def test_a_difference_is_taken_seed_by_seed():
    np.testing.assert_allclose(value_of("none - krum", MEASURED, "accuracy", "last"), [0.02, -0.02, 0.03])


def test_order_goes_by_the_mean_of_paired_differences():
    outcome = decide(order=("attacked", "krum", "none"))
    assert outcome.holds
    assert [finding.text for finding in outcome.findings] == ["krum over attacked", "none over krum"]
    np.testing.assert_allclose([finding.mean for finding in outcome.findings], [0.4, 0.01])
    low, high = outcome.findings[1].interval
    assert low < 0 < high  # said, though the order holds by the mean
    assert not decide(order=("none", "krum")).holds


def test_order_is_strict_and_equal_curves_are_in_no_order():
    same = {"a": flat(0.5, 0.5, 0.5), "b": flat(0.5, 0.5, 0.5)}
    assert not decide(measured=same, order=("a", "b")).holds
    assert not decide(measured=same, order=("b", "a")).holds


@pytest.mark.parametrize(("by", "holds"), [(0.39, True), (0.41, False)])
def test_order_by_a_margin(by, holds):
    assert decide(order=("attacked", "krum"), by=by).holds is holds


@pytest.mark.parametrize(("by", "holds"), [(0.02, True), (0.005, False)])
def test_close_looks_at_the_mean_difference_from_the_first(by, holds):
    assert decide(close=("none", "krum"), by=by).holds is holds
    assert decide(close=("krum", "none"), by=by).holds is holds


@pytest.mark.parametrize(("number", "holds"), [(0.62, True), (0.58, True), (0.63, False), (0.57, False)])
def test_within_compares_with_the_paper(number, holds):
    assert decide(paper={"krum": number}, within=("krum",), by=0.02).holds is holds


@pytest.mark.parametrize(
    ("sentence", "holds"),
    [
        ({"at_least": {"krum": 0.6}}, True),
        ({"at_least": {"krum": 0.61}}, False),
        ({"at_least": {"krum": 0.5, "attacked": 0.5}}, False),
        ({"at_most": {"none - krum": 0.01}}, True),
        ({"at_most": {"none - attacked": 0.3}}, False),
    ],
)
def test_limits(sentence, holds):
    assert decide(**sentence).holds is holds


@pytest.mark.parametrize("kind", ["order", "close", "within", "at_least", "at_most"])
def test_what_is_not_a_number_never_holds(kind):
    measured = {"a": flat(math.nan, 0.5, 0.5), "b": flat(0.6, 0.6, 0.6)}
    terms = {"a": 0.5} if kind.startswith("at") else ("a",) if kind == "within" else ("a", "b")
    by = {} if kind == "order" else {"by": 9.0}
    assert not decide(measured=measured, paper={"a": 0.5}, **{kind: terms}, **by).holds


def test_a_measure_and_a_view_of_its_own_go_before_the_claim_s():
    measured = {"a": {"accuracy": Curve((1,), {1: (0.1,)}), "loss": Curve((1, 2), {1: (3.0, 2.0)})}}
    sentence = Statement(at_least={"a": 3.0}, measure="loss", of="highest")
    outcome = sentence.decide(measured, {}, "accuracy", "last")
    assert outcome.holds
    assert outcome.text == "a ≥ 3 (loss, highest)"


def test_a_measure_that_the_runs_lack_is_refused_with_those_that_they_have():
    with pytest.raises(ConfigError, match=r"krum: its runs did not measure 'acuracy'. Did you mean 'accuracy'?"):
        Statement(at_least={"krum": 0.1}, measure="acuracy").decide(MEASURED, {}, "accuracy", "last")


@pytest.mark.parametrize(
    ("sentence", "message"),
    [
        ({}, "must have exactly one of order, close, within, at_least, at_most; got none"),
        ({"order": ("krum", "none"), "at_least": {"krum": 0.1}}, "exactly one of .*; got order, at_least"),
        ({"order": ("krun", "none")}, "no curve 'krun'. Did you mean 'krum'?"),
        ({"at_most": {"krum - non": 0.1}}, "no curve 'non'. Did you mean 'none'?"),
        ({"within": ("krum",), "by": 0.1}, "paper: has no number of 'krum'"),
        ({"close": ("krum", "none")}, "needs by"),
        ({"order": ("krum", "none"), "of": "late"}, "must be last"),
    ],
)
def test_sentences_that_cannot_be_decided_are_refused(sentence, message):
    with pytest.raises(ConfigError, match=message):
        Statement(**sentence).check(list(MEASURED), {"none": 0.5})
