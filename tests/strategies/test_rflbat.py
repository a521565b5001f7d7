import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.rflbat import rflbat
from flsec.strategies.rflbat import RFLBAT
from tests.support.cohorts import SIZE, cohort


def test_keeps_the_rows_whose_mean_the_rule_is_by_seed_and_round():
    generator = torch.Generator().manual_seed(1)
    rows = 0.3 * torch.randn(SIZE, generator=generator) + torch.randn(12, SIZE, generator=generator)
    rows[:3] = 8 * torch.randn(SIZE, generator=generator) + 0.1 * rows[:3]
    defense = RFLBAT(FedAvg(), seed=4)
    kept = defense.before_aggregation(cohort(rows, round=3))
    assert not {0, 1, 2} & set(kept.client_ids)
    torch.testing.assert_close(kept.updates.mean(dim=0), rflbat(rows, seed=4, round=3))
    assert len(defense._facts["scores"]) == 12
