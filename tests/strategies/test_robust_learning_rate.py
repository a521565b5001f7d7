import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.errors import ConfigError
from flsec.strategies.norm_clipping import NormClipping
from flsec.strategies.robust_learning_rate import RobustLearningRate
from tests.support.cohorts import SIZE, cohort


def test_flips_a_backdoors_coordinate_and_leaves_the_others():
    rows = torch.full((10, SIZE), -0.1)
    rows[7:, 3] = 3.0  # 3 of 10 push one weight up, and win the mean
    assert rows.mean(dim=0)[3] > 0
    defense = RobustLearningRate(FedAvg(), threshold=5)
    result = defense.on_aggregation(cohort(rows, model=torch.full((SIZE,), 5.0)))
    expected = rows.mean(dim=0)
    expected[3] *= -1  # not zero, and not the parameter's sign
    torch.testing.assert_close(result, expected)
    assert defense._facts["flipped"] == 1


def test_without_disagreement_nothing_is_flipped():
    rows = torch.rand(6, SIZE, generator=torch.Generator().manual_seed(0)) + 0.1
    defense = RobustLearningRate(FedAvg(), threshold=6)
    torch.testing.assert_close(defense.on_aggregation(cohort(rows)), rows.mean(dim=0))
    assert defense._facts["flipped"] == 0


def test_the_vote_is_one_client_one_vote_whatever_the_examples():
    rows = torch.tensor([1.0, 1.0, -1.0])[:, None].repeat(1, SIZE)
    counts = torch.tensor([1.0, 1.0, 8.0], dtype=torch.float64)
    trusting = RobustLearningRate(FedAvg(), threshold=2, weighting="examples")
    torch.testing.assert_close(trusting.on_aggregation(cohort(rows, num_examples=counts)), torch.full((SIZE,), 0.6))


def test_needs_as_many_replies_as_votes():
    assert RobustLearningRate(FedAvg(), threshold=4.2).minimum_clients == 5
    assert RobustLearningRate(FedAvg(), threshold=0).minimum_clients == 1
    with pytest.raises(ConfigError, match="needs at least 4 clients"):
        RobustLearningRate(RobustLearningRate(FedAvg(), threshold=4), threshold=4)  # one aggregate cannot vote
    NormClipping(RobustLearningRate(FedAvg(), threshold=4))


def test_the_threshold_is_required():
    with pytest.raises(ConfigError, match="needs threshold"):
        RobustLearningRate(FedAvg())
