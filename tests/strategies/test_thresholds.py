"""A verdict's threshold parts the scores of those kept from the scores of those dropped, for every defense."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from flsec._contracts.server import APIS, ClassicServer, MessageServer, flower_strategy, honest, identify, npy_bytes
from flsec.strategies import DEFENSES, Cohort, KeepPreviousModel, RobustStrategy, Threshold
from flsec.testing import example
from tests.support.example_settings import SETTINGS as EXAMPLE_SETTINGS

N = 16
ROUNDS = range(1, 8)
SETTINGS = {
    **EXAMPLE_SETTINGS,
    "cross_round": {"compare": "updates"},
    "fl_detector": {"window": 3, "min_scores": 3},
}

# Which rules state scores that do not decide who is dropped, with the reason.
NO_THRESHOLD = {
    "flame": "the densest majority, by pairwise distances",
    "clipped_clustering": "the larger of two clusters, by pairwise distances",
    "deep_sight": "clusters, by how many of their clients are suspicious",
    "rflbat": "one of several clusters, by angles",
}
# Which rules also drop clients within their threshold.
DROPS_WITHIN = {"sign_guard": "by signs", "fl_detector": "who was removed before"}
# Which rules also keep clients outside of it.
KEEPS_OUTSIDE = {
    "fl_detector": "who has too few scores to be judged",
    "auror": "who has been watched for too few rounds, and half of all at once",
    "activate_on_suspicion": "suspects, where a defense inside is to judge them",
}


def crowd(round, client_id, arrays):
    """Some are far away, some send the opposite, and their number changes: every rule has somebody to drop."""
    reply = honest(round, client_id, arrays)[0]
    if client_id % 4 == 1 and round % 3:
        factor = -4.0 if client_id % 8 == 1 else 30.0 + client_id
        changed = [
            (a + factor * (b - a)).astype(a.dtype) if a.dtype.kind == "f" else b
            for a, b in zip(arrays, reply.arrays, strict=True)
        ]
        return [replace(reply, tensors=tuple(map(npy_bytes, changed)))]
    return [reply]


def verdicts(name, api="classic"):
    identify()
    defense = DEFENSES.get(name)
    inner = flower_strategy(api, "FedAvg", N)
    strategy = defense(inner, **example(defense, inner, **SETTINGS.get(name, {})), patience=None)
    server = (ClassicServer if api == "classic" else MessageServer)(strategy, range(1, N + 1))
    told = []
    for number in ROUNDS:
        server.play([number], crowd)
        told += [v for v in strategy.last_report.verdicts if v.defense == defense.__name__]
    return told


def is_within(threshold, score):
    low = -np.inf if threshold.at_least is None else threshold.at_least
    high = np.inf if threshold.at_most is None else threshold.at_most
    return low <= score <= high


def is_strictly_within(threshold, score):
    return is_within(threshold, score) and score not in (threshold.at_least, threshold.at_most)


@pytest.mark.parametrize("name", DEFENSES.names())
def test_the_threshold_parts_the_kept_from_the_dropped(name):
    told = verdicts(name)
    judged = [v for v in told if v.threshold is not None]
    scored = [v for v in told if v.scores and v.judges and v.dropped]
    if scored and name not in NO_THRESHOLD:
        assert judged, "it scores clients, drops some of them, and does not say where it cuts"
    for verdict in judged:
        assert verdict.scores is not None, "a threshold without scores"
        for bound in (verdict.threshold.at_least, verdict.threshold.at_most):
            assert bound is None or np.isfinite(bound)
        for client_id in verdict.kept if name not in KEEPS_OUTSIDE else ():
            assert is_within(verdict.threshold, verdict.scores[client_id]), (client_id, verdict)
        for client_id in verdict.dropped if name not in DROPS_WITHIN else ():
            assert not is_strictly_within(verdict.threshold, verdict.scores[client_id]), (client_id, verdict)


def test_enough_rules_are_seen_to_cut():
    """The test above says something of these, and of others that drop nobody here nothing."""
    for name in (
        "krum",
        "multi_krum",
        "monna",
        "three_sigma",
        "flanders",
        "multi_metrics",
        "cross_round",
        "sign_guard",
    ):
        assert any(v.threshold is not None and v.dropped for v in verdicts(name)), name


@pytest.mark.parametrize("api", APIS)
def test_multi_krums_threshold_is_the_score_of_the_last_one_kept(api):
    for verdict in verdicts("multi_krum", api):
        kept = [verdict.scores[i] for i in verdict.kept]
        assert verdict.threshold == Threshold(at_most=max(kept))
        assert max(kept) <= min(verdict.scores[i] for i in verdict.dropped)


def test_a_threshold_of_ranks_leaves_out_what_is_not_finite():
    scores = torch.tensor([3.0, -1.0, torch.inf, torch.nan])
    assert Threshold.of_kept(scores, highest=True) == Threshold(at_most=3.0)
    assert Threshold.of_kept(scores, lowest=True, highest=True) == Threshold(-1.0, 3.0)
    assert Threshold.of_kept(scores[2:], highest=True) == Threshold()


def test_a_plain_number_is_refused_as_a_threshold():
    class Cuts(RobustStrategy):
        """Does not say on which side it keeps."""

        def before_aggregation(self, cohort: Cohort) -> Cohort:
            self.report(threshold=3.2)
            return cohort

    identify()
    server = ClassicServer(Cuts(flower_strategy("classic", "FedAvg", 3)), (1, 2, 3))
    with pytest.raises(TypeError, match=r"Threshold\(at_least=\.\.\., at_most=\.\.\.\)"):
        server.play([1])


# --- a verdict of a rule that could not run ---------------------------------------------------------------------


@pytest.mark.parametrize("api", APIS)
def test_a_rule_that_stops_the_round_after_it_dropped_clients_has_dropped_them(api):
    class Stops(RobustStrategy):
        """Keeps three rows, weighs them, and finds no aggregate."""

        def before_aggregation(self, cohort: Cohort) -> Cohort:
            self.report(scores=torch.arange(len(cohort)), threshold=Threshold(at_most=2.0))
            return cohort.keep([0, 1, 2])

        def on_aggregation(self, cohort: Cohort) -> torch.Tensor:
            self.report(weights=torch.ones(len(cohort)))
            return cohort.updates.sum(dim=0) / 0

    identify()
    server = (ClassicServer if api == "classic" else MessageServer)(
        Stops(flower_strategy(api, "FedAvg", 5)), (1, 2, 3, 4, 5)
    )
    (verdict,) = server.play([1], honest).strategy.last_report.verdicts
    assert (verdict.kept, verdict.dropped) == ((1, 2, 3), (4, 5))
    assert verdict.weights == {1: 1.0, 2: 1.0, 3: 1.0}


def test_a_rule_that_cannot_judge_drops_nobody():
    class Refuses(RobustStrategy):
        """Finds nothing to judge by."""

        def before_aggregation(self, cohort: Cohort) -> Cohort:
            raise KeepPreviousModel("no reference")

    identify()
    server = ClassicServer(Refuses(flower_strategy("classic", "FedAvg", 3)), (1, 2, 3))
    report = server.play([1], honest).strategy.last_report
    assert report.kept_previous_model == "Refuses: no reference"
    assert report.verdicts[0].dropped == ()
