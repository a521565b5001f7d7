import numpy as np
import pytest

from flsec._contracts.faults import first_array
from flsec._contracts.server import ClassicServer, flower_strategy, honest, identify
from flsec.strategies import MoNNA

CLIENTS, HOSTILE = range(1, 12), {2, 7, 11}


def answer(round, client_id, arrays):
    reply = honest(round, client_id, arrays)[0]
    return [first_array(reply, lambda a: a + np.float32(5)) if client_id in HOSTILE else reply]


@pytest.mark.parametrize(("trusted", "pivots"), [(None, set(CLIENTS) - HOSTILE), (4, {4}), (7, {7})])
def test_the_pivot_is_the_client_that_is_trusted_or_the_centre(trusted, pivots):
    identify()
    strategy = MoNNA(flower_strategy("classic", "FedAvg", 11), num_byzantine=3, trusted_client=trusted)
    (verdict,) = ClassicServer(strategy, CLIENTS).play([1], answer).strategy.last_report.verdicts
    assert verdict.notes["pivot"] in pivots
    assert verdict.scores[verdict.notes["pivot"]] == 0
    assert len(verdict.kept) == 8
    assert bool(HOSTILE & set(verdict.kept)) == (trusted == 7)


def test_where_the_trusted_client_is_away_the_centre_takes_its_place():
    identify()
    strategy = MoNNA(flower_strategy("classic", "FedAvg", 11), num_byzantine=3, trusted_client=77)
    (verdict,) = ClassicServer(strategy, CLIENTS).play([1], answer).strategy.last_report.verdicts
    assert verdict.notes["pivot"] in set(CLIENTS) - HOSTILE
    assert not HOSTILE & set(verdict.kept)
