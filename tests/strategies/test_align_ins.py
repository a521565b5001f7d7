import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.align_ins import align_ins, align_ins_filter
from flsec.strategies.align_ins import AlignIns
from tests.support.cohorts import SIZE, cohort


def updates(seed, n=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator) + 0.3 * torch.randn(n, SIZE, generator=generator)


def test_computes_the_rule_with_the_model_of_the_round_and_reports_both_measures():
    model, rows = torch.linspace(-2, 2, SIZE), updates(1)
    rows[3] *= -4
    defense = AlignIns(FedAvg(), share=0.5)
    kept = defense.before_aggregation(cohort(rows, model=model))
    assert 3 not in kept.client_ids
    torch.testing.assert_close(defense.on_aggregation(kept), align_ins(rows, model, share=0.5))
    found = align_ins_filter(rows, model, 1.0, 1.0, 0.5, "smaller")
    assert defense._facts["directions"] == found.directions.tolist()
    assert defense._facts["signs"] == found.signs.tolist()


def test_trusted_numbers_of_examples_weigh_the_clipped_rows():
    row, counts = updates(5, 1)[0], torch.arange(1.0, 6.0, dtype=torch.float64)
    rows = row * torch.tensor([0.9, 0.95, 1.0, 2.0, 2.5])[:, None]
    defense = AlignIns(FedAvg(), weighting="examples")
    result = defense.on_aggregation(defense.before_aggregation(cohort(rows, num_examples=counts)))
    torch.testing.assert_close(result, row * (0.9 * 1 + 0.95 * 2 + 1.0 * (3 + 4 + 5)) / 15)
