"""The wrapper that completes attacks by several clients, and the rehearsal of a defense."""

import numpy as np
import pytest
import torch

from flsec._contracts.server import MODEL, ClassicServer, MessageServer, flower_strategy, honest, identify
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps._cohort_attack import CohortAttack
from flsec.errors import ConfigError
from flsec.strategies import DEFENSES as REGISTERED
from flsec.strategies import (
    Adversary,
    CenteredClipping,
    FoolsGold,
    Krum,
    Median,
    MultiKrum,
    NormClipping,
    RobustStrategy,
    TrimmedMean,
)
from flsec.testing import example

CLIENTS = tuple(range(8))
ATTACKERS = (2, 5)
WHO = Adversaries(num_clients=8, ids=ATTACKERS)
SERVERS = {"classic": ClassicServer, "message": MessageServer}


def flat(arrays):
    return torch.from_numpy(np.concatenate([a.ravel() for a in arrays if a.dtype.kind == "f"])).double()


class Shift(CohortAttack):
    """Everybody uploads the mean of what is known, plus ``shift``; keeps what it was shown."""

    knows_defense = True

    def __init__(self, shift=0.0, **options):
        super().__init__(**options)
        self.shift = shift
        self.views = []
        self.rehearsals = []

    def poison_cohort(self, view):
        self.views.append(view)
        rows = (view.honest.mean(dim=0) + self.shift).expand_as(view.own)
        self.rehearsals.append(view.rehearse(rows))
        view.notes["shift"] = self.shift
        return rows


@pytest.fixture(autouse=True)
def _identified():
    identify()


def play(api, wrap, attack, rounds=(1,), base="FedAvg"):
    """Return the strategy, and for each round the models before and after."""
    strategy = Adversary(wrap(flower_strategy(api, base, 8)), attacks=[attack])
    server, models = SERVERS[api](strategy, CLIENTS), [flat(MODEL.values())]
    for t in rounds:
        server.play([t], honest)
        models.append(flat(server.arrays))
    return strategy, models


@pytest.mark.parametrize("api", SERVERS)
def test_the_attackers_rows_are_replaced_and_nobody_elses(api):
    attack = Shift(10.0, adversaries=WHO)
    _, (before, after) = play(api, RobustStrategy, attack)
    rows = [flat(honest(1, client, list(MODEL.values()))[0].arrays) - before for client in CLIENTS]
    others = torch.stack([row for client, row in zip(CLIENTS, rows, strict=True) if client not in ATTACKERS])
    crafted = others.mean(dim=0) + 10
    torch.testing.assert_close(after - before, (others.sum(dim=0) + 2 * crafted) / 8, rtol=1e-5, atol=1e-5)
    (view,) = attack.views
    assert view.own_ids == ATTACKERS
    assert view.clients_per_round == 8
    torch.testing.assert_close(view.own.double(), torch.stack([rows[i] for i in ATTACKERS]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(view.others.double(), others, rtol=1e-5, atol=1e-5)


def test_who_knows_only_the_colluders_is_shown_nobody_else():
    attack = Shift(adversaries=WHO, knowledge="colluders")
    play("classic", RobustStrategy, attack)
    assert attack.views[0].others is None
    assert torch.equal(attack.views[0].honest, attack.views[0].own)


def test_a_camp_acts_alone_and_others_are_those_who_are_no_adversaries():
    who = Adversaries(num_clients=8, ids=[1, 2, 5, 6], camps={"a": 0.5, "b": 0.5})
    attack = Shift(adversaries=who, camp="a")
    play("classic", RobustStrategy, attack)
    (view,) = attack.views
    assert set(view.own_ids) == {client for client in (1, 2, 5, 6) if who.camp(client, 1) == "a"}
    assert len(view.own) == 2
    assert len(view.others) == 4


def test_rounds_without_attackers_are_as_if_it_were_not_there():
    attack = Shift(10.0, adversaries=Adversaries(num_clients=8, ids=ATTACKERS, first_round=2))
    _, attacked = play("classic", lambda base: Krum(base, num_byzantine=2), attack, rounds=(1, 2))
    server = ClassicServer(Krum(flower_strategy("classic", "FedAvg", 8), num_byzantine=2), CLIENTS).play([1], honest)
    assert torch.equal(attacked[1], flat(server.arrays))
    assert len(attack.views) == 1


DEFENSES = {
    "none": RobustStrategy,
    "multi_krum": lambda base: MultiKrum(base, num_byzantine=2),
    "median": Median,
    "trimmed_mean": lambda base: TrimmedMean(base, num_trimmed=2),
    "clipping": lambda base: NormClipping(base, max_norm=1.0),
    "nested": lambda base: NormClipping(MultiKrum(base, num_byzantine=2), max_norm=1.0),
    "with memory": lambda base: FoolsGold(NormClipping(CenteredClipping(base, radius=1.0), max_norm=1.0)),
}


@pytest.mark.parametrize("name", DEFENSES)
@pytest.mark.parametrize("shift", [0.01, 100.0])
def test_the_rehearsal_foretells_the_round_and_leaves_no_trace(name, shift):
    attack = Shift(shift, adversaries=WHO)
    strategy, models = play("classic", DEFENSES[name], attack, rounds=(1, 2, 3))
    for rehearsal, before, after in zip(attack.rehearsals, models, models[1:], strict=False):
        torch.testing.assert_close(rehearsal.aggregate.double(), after - before, rtol=1e-4, atol=1e-5)
    accepted = [client for client, yes in zip(ATTACKERS, attack.rehearsals[-1].accepted.tolist(), strict=True) if yes]
    kept = set(CLIENTS)
    for verdict in strategy.last_report.verdicts:
        kept &= {c for c in verdict.kept if (verdict.weights or {}).get(c, 1) > 0}
    assert set(accepted) == kept & set(ATTACKERS)

    class Blind(Shift):
        knows_defense = False

        def poison_cohort(self, view):
            return (view.honest.mean(dim=0) + self.shift).expand_as(view.own)

    _, blind = play("classic", DEFENSES[name], Blind(shift, adversaries=WHO), rounds=(1, 2, 3))
    for a, b in zip(models, blind, strict=True):
        assert torch.equal(a, b)


def test_rehearsing_krum_tells_who_gets_through():
    far, near = Shift(100.0, adversaries=WHO), Shift(0.0, adversaries=WHO)
    for attack in (far, near):
        play("classic", lambda base: Krum(base, num_byzantine=2), attack)
    assert far.rehearsals[0].accepted.tolist() == [False, False]
    assert near.rehearsals[0].accepted.tolist() == [True, False]  # equal rows: the first one


def test_its_verdict_judges_nobody_and_keeps_what_the_attack_chose():
    strategy, _ = play("classic", Median, Shift(3.0, adversaries=WHO))
    verdict = strategy.last_report.verdicts[0]
    assert verdict.defense == "Adversary"
    assert not verdict.judges
    assert verdict.notes["chosen"] == {"Shift": {"shift": 3.0}}


def test_rows_that_are_not_finite_are_dropped_and_named():
    strategy, (before, after) = play("classic", RobustStrategy, Shift(float("inf"), adversaries=WHO))
    assert strategy.last_report.verdicts[0].notes["not_finite"] == list(ATTACKERS)
    rows = [flat(honest(1, client, list(MODEL.values()))[0].arrays) - before for client in CLIENTS]
    others = torch.stack([row for client, row in zip(CLIENTS, rows, strict=True) if client not in ATTACKERS])
    torch.testing.assert_close(after - before, others.mean(dim=0), rtol=1e-5, atol=1e-5)


def test_attacks_act_in_order_each_on_what_the_one_before_left():
    first, second = Shift(5.0, adversaries=WHO), Shift(7.0, adversaries=WHO, knowledge="colluders")
    strategy = Adversary(flower_strategy("classic", "FedAvg", 8), attacks=[first, second])
    ClassicServer(strategy, CLIENTS).play([1], honest)
    torch.testing.assert_close(second.views[0].own, first.views[0].honest.mean(dim=0).expand(2, -1) + 5)


@pytest.mark.parametrize("api", SERVERS)
def test_it_is_refused_inside_a_defense_which_would_have_judged_already(api):
    refused = 0
    for _, member in REGISTERED.items():
        try:
            parameters = example(member, flower_strategy(api, "FedAvg", 8))
        except ConfigError:
            continue  # needs another network than the examples' one
        inside = Adversary(flower_strategy(api, "FedAvg", 8), attacks=[Shift(adversaries=WHO)])
        with pytest.raises(ConfigError, match=r"Adversary stands around all defenses\. Put it outside: Adversary\("):
            member(inside, **parameters)
        refused += 1
    assert refused > 50


def test_an_attack_without_adversaries_is_refused():
    with pytest.raises(ConfigError, match="must know who attacks"):
        Adversary(flower_strategy("classic", "FedAvg", 8), attacks=[Shift()])


def test_a_wrong_number_of_rows_is_an_error_of_the_attack():
    class Wrong(CohortAttack):
        def poison_cohort(self, view):
            return view.own[:1]

    with pytest.raises(ValueError, match="must return"):
        play("classic", Median, Wrong(adversaries=WHO))
