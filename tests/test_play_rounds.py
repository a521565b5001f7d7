"""Rounds that are played for examples: what comes out is what Flower would make of these updates."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.server.strategy import FedAvg as ClassicFedAvg
from flwr.serverapp.strategy import FedAvg, FedAvgM
from torch import nn

from flsec.aggregation import krum
from flsec.errors import ConfigError
from flsec.strategies import Krum, Median, RobustStrategy, Siren
from flsec.testing import play_rounds
from flsec.training import get_weights


@pytest.mark.parametrize("wrap", [lambda inner: inner, RobustStrategy], ids=["bare", "wrapped"])
@pytest.mark.parametrize("seed", range(3))
def test_rounds_of_averaging_add_up(wrap: Any, seed: int) -> None:
    updates = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(seed))
    expected = updates.double().mean(dim=1).sum(dim=0)
    torch.testing.assert_close(play_rounds(wrap(FedAvg()), updates).double(), expected, atol=1e-5, rtol=0)


def test_a_defense_sees_the_rows_as_they_are_given_and_by_their_numbers() -> None:
    updates = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    strategy = Krum(FedAvg(), num_byzantine=2)
    torch.testing.assert_close(play_rounds(strategy, updates), krum(updates, num_byzantine=2))
    assert strategy.last_report is not None
    assert strategy.last_report.kept == (int((updates == krum(updates, num_byzantine=2)).all(dim=1).nonzero()),)


def test_the_server_optimizer_keeps_what_it_remembers_between_rounds() -> None:
    strategy = FedAvgM(server_momentum=0.5)
    assert play_rounds(strategy, [[[1.0], [3.0]], [[0.0], [0.0]]]).tolist() == [3.0]


def test_training_starts_from_the_model_and_leaves_it_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    before = [array.copy() for array in get_weights(model)]
    size = sum(array.size for array in before if array.dtype.kind == "f")
    updates = torch.tensor([[0.0], [1.0], [5.0]]).expand(3, size)
    moved = play_rounds(Median(FedAvg(), state_arrays=()), updates, model=model)
    assert all((a == b).all() for a, b in zip(get_weights(model), before, strict=True))
    floats = np.concatenate([array.ravel() for array in before if array.dtype.kind == "f"])
    assert moved.shape == (size,)
    torch.testing.assert_close(moved, torch.from_numpy(floats) + 1)


def test_a_reply_that_is_not_finite_is_quarantined_by_its_number() -> None:
    strategy = Median(FedAvg())
    assert play_rounds(strategy, [[1.0], [2.0], [float("nan")], [3.0]]).tolist() == [2.0]
    assert strategy.last_report is not None
    assert [reply.client_id for reply in strategy.last_report.quarantined] == [2]


def test_what_clients_report_reaches_the_defense() -> None:
    model = nn.Linear(1, 2)
    root = torch.tensor([[1.0], [-1.0]]), torch.tensor([1, 0])
    strategy = Siren(FedAvg(), root_data=root, model_factory=lambda: nn.Linear(1, 2))
    updates = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    play_rounds(strategy, updates, model=model, metrics=[{"siren-alarm": 0}, {"siren-alarm": 1}, {}])
    assert strategy.last_report is not None
    assert list(strategy.last_report.verdicts[0].notes["alarms"]) == [1]


@pytest.mark.parametrize(
    ("strategy", "updates", "more", "message"),
    [
        (FedAvg(), [1.0, 2.0], {}, r"shape \(n, 2\)"),
        (FedAvg(), 3.0, {}, "shape"),
        (FedAvg(), [[1.0], [2.0, 3.0]], {}, "equal length"),
        (FedAvg(), "abc", {}, "numbers"),
        (FedAvg(), [[1.0], [2.0]], {"model": nn.Linear(1, 2)}, r"\(n, 4\)"),
        (FedAvg(), [[1.0], [2.0]], {"metrics": [{}]}, "each of 2 clients"),
        (FedAvg(), [[1.0]], {}, "waits for 2 clients, and there are 1"),
        (Median(FedAvg(min_available_nodes=9)), [[1.0], [2.0]], {}, "waits for 9"),
        (ClassicFedAvg(), [[1.0], [2.0]], {}, "Message API"),
        (Median(ClassicFedAvg()), [[1.0], [2.0]], {}, "Message API"),
        (Krum(FedAvg(), num_byzantine=1), [[1.0], [2.0]], {}, "at least 5 replies"),
    ],
)
def test_what_cannot_be_played_is_refused(strategy: Any, updates: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        play_rounds(strategy, updates, **more)
