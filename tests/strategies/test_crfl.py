"""The CRFL wrapper through real rounds of both Flower APIs."""

import numpy as np
import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec._contracts.server import MODEL, ClassicServer, MessageServer, flower_strategy, identify, npy_bytes
from flsec._state_files import load_state, save_state
from flsec.aggregation import crfl
from flsec.strategies import CRFL, Median
from tests.support.cohorts import SIZE, cohort

SERVERS = {"classic": ClassicServer, "Message": MessageServer}
CLIENTS = (1, 2, 3, 4, 5)


@pytest.fixture(autouse=True)
def _flower_process():
    identify()


def server(api="Message", flower="FedAvg", inner=None, **options):
    strategy = flower_strategy(api, flower, len(CLIENTS))
    return SERVERS[api](CRFL(inner(strategy) if inner else strategy, **options), CLIENTS)


def flat(arrays):
    return torch.from_numpy(np.concatenate([a.astype(np.float32).ravel() for a in arrays if a.dtype.kind == "f"]))


def average_after(rounds, api="Message"):
    """The model of plain averaging, as the wrapped strategy returns it."""
    return flat(SERVERS[api](Median(flower_strategy(api, "FedAvg", len(CLIENTS))), CLIENTS).play(rounds).arrays)


@pytest.mark.parametrize("api", SERVERS)
def test_the_model_is_clipped_and_not_the_update(api):
    run = server(api, inner=Median, max_norm=0.5, std=0.0).play([1])
    model = average_after([1], api)
    assert model.norm() > 1
    torch.testing.assert_close(flat(run.arrays), model * 0.5 / model.norm(), rtol=1e-5, atol=1e-6)
    start, update = flat(MODEL.values()), model - flat(MODEL.values())
    clipped_update = start + update * min(1.0, 0.5 / float(update.norm()))
    assert (flat(run.arrays) - clipped_update).norm() > 0.1
    assert run.arrays[-1] == MODEL["steps"] + 1


def test_an_update_of_zero_is_clipped_with_the_model():
    strategy = CRFL(FedAvg(), max_norm=2.0, std=0.0)
    big = torch.full((SIZE,), 3.0)
    torch.testing.assert_close(
        strategy.after_aggregation(big, cohort(torch.zeros(2, SIZE), model=big)).norm().item(), 2.0
    )


@pytest.mark.parametrize("api", SERVERS)
def test_there_is_noise_in_every_round_but_the_last(api):
    run, quiet = server(api, num_rounds=3, std=0.1, inner=Median), server(api, std=0.0, inner=Median)
    for number in (1, 2, 3):
        quiet.tensors = list(run.tensors)
        run.play([number])
        quiet.play([number])
        noise = flat(run.arrays) - flat(quiet.arrays)
        if number == 3:
            assert not noise.any()
        else:
            assert 0.03 < noise.std() < 0.3
        told = run.strategy.last_report.verdicts[0]
        assert told.notes["noise"] == (0.0 if number == 3 else 0.1)
        assert told.notes["max_norm"] == 15.0
        assert not told.judges


def test_without_the_number_of_rounds_there_is_always_noise():
    model = torch.ones(SIZE)
    strategy = CRFL(FedAvg(), std=0.1)
    for number in (1, 100):
        given = cohort(torch.zeros(2, SIZE), round=number)
        assert torch.equal(strategy.after_aggregation(model, given), crfl(model, 15.0, 0.1, 0, number))


def test_the_bound_follows_the_rounds():
    strategy = CRFL(FedAvg(), std=0.0, max_norm=1.5, initial_norm=1.0, norm_growth=0.2)
    norms = [
        float(strategy.after_aggregation(torch.ones(SIZE), cohort(torch.zeros(2, SIZE), round=t)).norm())
        for t in (1, 2, 3, 4)
    ]
    np.testing.assert_allclose(norms, [1.2, 1.4, 1.5, 1.5], rtol=1e-6)


@pytest.mark.parametrize("flower", ["FedAvg", "FedAdam", "FedAvgM"])
@pytest.mark.parametrize("api", SERVERS)
def test_a_resumed_run_has_the_same_noise(api, flower, tmp_path):
    options = {"num_rounds": 4, "std": 0.1, "max_norm": 2.0, "seed": 7}
    whole = server(api, flower, **options).play([1, 2])
    save_state(tmp_path / "2", [whole.arrays, whole.strategy.state_dict()])
    whole.play([3, 4])
    resumed = server(api, flower, **options)
    arrays, state = load_state(tmp_path / "2")
    resumed.tensors = [npy_bytes(array) for array in arrays]
    resumed.strategy.load_state_dict(state)
    resumed.play([3, 4])
    assert all(np.array_equal(a, b) for a, b in zip(whole.arrays, resumed.arrays, strict=True))
    assert (flat(server(api, flower, **{**options, "seed": 8}).play([1, 2, 3, 4]).arrays) != flat(whole.arrays)).any()


@pytest.mark.parametrize("flower", ["FedAdam", "FedAvgM"])
@pytest.mark.parametrize("api", SERVERS)
def test_server_optimizers_go_on_from_the_clipped_model(api, flower):
    run = server(api, flower, max_norm=0.5, std=0.0).play([1, 2, 3])
    assert float(flat(run.arrays).norm()) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("parameters", [{"max_norm": 0.0}, {"std": -1.0}, {"num_rounds": 0}, {"initial_norm": 0.0}])
def test_refuses_settings_before_the_run(parameters):
    with pytest.raises(ValueError, match=next(iter(parameters))):
        CRFL(FedAvg(), **parameters)
