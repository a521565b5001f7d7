import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from flsec._contracts.faults import first_array
from flsec._contracts.server import MODEL, ClassicServer, flower_strategy, honest, identify
from flsec.aggregation import rfa
from flsec.strategies import RFA, GeometricMedian

CLIENTS = (1, 2, 3, 4, 5, 6, 7)


def answer(round, client_id, arrays):
    reply = honest(round, client_id, arrays)[0]
    return [first_array(reply, lambda a: a + np.float32(3)) if client_id == 4 else reply]


def flat(arrays):
    return np.concatenate([a.astype(np.float64).ravel() for a in arrays if a.dtype.kind == "f"])


def rows():
    start = list(MODEL.values())
    return np.stack([flat(answer(1, c, start)[0].arrays) - flat(start) for c in CLIENTS])


def play(strategy):
    identify()
    server = ClassicServer(strategy, CLIENTS).play([1], answer)
    (verdict,) = strategy.last_report.verdicts
    return flat(server.arrays) - flat(MODEL.values()), verdict


def wrapped():
    return flower_strategy("classic", "FedAvg", len(CLIENTS))


@pytest.mark.parametrize("options", [{}, {"weighting": "examples"}])
def test_the_step_minimises_the_sum_of_distances(options):
    step, verdict = play(GeometricMedian(wrapped(), **options))
    alpha = np.array([10 + c % 5 for c in CLIENTS]) if options else np.ones(len(CLIENTS))
    u = rows()

    def objective(v):
        return float(alpha @ np.linalg.norm(u - v, axis=1))

    best = minimize(objective, u.mean(axis=0), method="BFGS", options={"gtol": 1e-9}).fun
    assert objective(step) <= best * (1 + 1e-6)
    assert objective(u.mean(axis=0)) > best * 1.01
    assert sum(verdict.weights.values()) == pytest.approx(1)
    assert min(verdict.weights, key=verdict.weights.get) == 4
    assert not verdict.judges


def test_rfa_takes_four_steps_and_from_the_mean_where_it_is_told_to():
    """Weiszfeld by hand; the exact rule goes further."""
    u = rows()
    v = u.mean(axis=0)
    for _ in range(4):
        w = 1 / np.linalg.norm(u - v, axis=1)
        v = w @ u / w.sum()
    step, _ = play(RFA(wrapped(), start_from="mean"))
    np.testing.assert_allclose(step, v, rtol=1e-4, atol=1e-6)
    step, _ = play(RFA(wrapped()))
    np.testing.assert_allclose(step, rfa(torch.from_numpy(u)).numpy(), rtol=1e-4, atol=1e-6)
    assert np.abs(step - v).max() > 1e-5
    exact, _ = play(GeometricMedian(wrapped()))
    assert np.abs(exact - v).max() > 1e-5
    longer, _ = play(RFA(wrapped(), max_iterations=200, tolerance=1e-12))
    np.testing.assert_allclose(longer, exact, rtol=1e-3, atol=1e-5)
