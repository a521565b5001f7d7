import pytest
import torch
from flwr.server.strategy import FedAvg

from flsec.aggregation.lasa import lasa, lasa_layers
from flsec.errors import ConfigError
from flsec.strategies.lasa import LASA
from tests.support.cohorts import SIZE, cohort

LAYERS = [6, 2, 8, 4]  # of the cohort's model


def updates(seed, n=9):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SIZE, generator=generator) + 0.3 * torch.randn(n, SIZE, generator=generator)


def test_each_array_is_a_layer_and_clients_are_scored_by_the_entries_they_count_in():
    rows = updates(1)
    rows[3] *= -4
    defense = LASA(FedAvg(), direction_radius=1.5, sparsity=0.2)
    torch.testing.assert_close(
        defense.on_aggregation(cohort(rows)), lasa(rows, LAYERS, direction_radius=1.5, sparsity=0.2)
    )
    kept = lasa_layers(rows, LAYERS, 2.0, 1.5, 0.2).kept
    expected = torch.stack([kept[:, k] * size for k, size in enumerate(LAYERS)]).sum(dim=0) / SIZE
    torch.testing.assert_close(defense._facts["scores"], expected, check_dtype=False)
    assert defense._facts["empty_layers"] == 0


def test_trusted_numbers_of_examples_weigh_the_rows():
    row, counts = updates(5, 1)[0], torch.arange(1.0, 6.0, dtype=torch.float64)
    rows = row * torch.tensor([0.9, 0.95, 1.0, 2.0, 2.5])[:, None]
    defense = LASA(FedAvg(), magnitude_radius=9.0, sparsity=0.0, weighting="examples")
    result = defense.on_aggregation(cohort(rows, num_examples=counts))
    torch.testing.assert_close(result, row * (0.9 * 1 + 0.95 * 2 + 1.0 * (3 + 4 + 5)) / 15)


def test_refuses_settings_before_the_run():
    with pytest.raises(ConfigError, match="sparsity"):
        LASA(FedAvg(), sparsity=1.0)
