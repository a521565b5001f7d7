import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.multi_metrics import multi_metrics_scores
from flsec.errors import ConfigError
from flsec.strategies.multi_metrics import MultiMetrics
from tests.support.cohorts import SIZE, cohort


def test_keeps_a_share_of_the_lowest_scores_and_reports_them():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(SIZE, generator=generator) + 0.3 * torch.randn(10, SIZE, generator=generator)
    rows[3] *= -4
    defense, model = MultiMetrics(FedAvg(), fraction=0.5), torch.linspace(-1, 3, SIZE)
    scores = multi_metrics_scores(rows, model)
    kept = defense.before_aggregation(cohort(rows, model=model)).client_ids
    assert kept == tuple(sorted(scores.argsort()[:5].tolist()))
    assert 3 not in kept
    torch.testing.assert_close(defense._facts["scores"], scores)


def test_one_client_is_always_kept():
    assert len(MultiMetrics(FedAvg()).before_aggregation(cohort(torch.ones(1, SIZE)))) == 1


def test_refuses_shares_out_of_range():
    with pytest.raises(ConfigError, match="fraction"):
        MultiMetrics(FedAvg(), fraction=1.0)
