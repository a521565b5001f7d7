import numpy as np
import pytest
import torch

from flsec.aggregation.deep_sight import (
    deep_sight_accepts,
    deep_sight_ddifs,
    deep_sight_energies,
    deep_sight_suspects,
)
from flsec.errors import ConfigError


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_energies_agree_with_the_definition_in_loops(seed):
    n, p, h = 3 + seed, 2 + seed, 1 + 2 * seed
    weights, biases = draw(seed, n, p, h), draw(50 + seed, n, p)
    expected = []
    for w, b in zip(weights.tolist(), biases.tolist(), strict=True):
        energies = [abs(b[k]) + sum(abs(x) for x in w[k]) for k in range(p)]
        total = sum(energy**2 for energy in energies)
        expected.append([energy**2 / total for energy in energies])
    found = deep_sight_energies(weights, biases)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    scales = 10.0 ** draw(9, n)  # the length of an update says nothing
    scaled = deep_sight_energies(scales[:, None, None] * weights, scales[:, None] * biases)
    torch.testing.assert_close(scaled, found)
    for row in range(n):
        limit = max(0.01, 1 / p) * max(expected[row])
        expected[row] = sum(energy > limit for energy in expected[row])
    suspects = [count <= np.median(expected) / 2 for count in expected]
    assert deep_sight_suspects(found).tolist() == suspects


def test_energies_of_rows_without_change_and_of_what_is_no_number_are_zero():
    weights = torch.zeros(4, 3, 2)
    weights[1] = torch.nan
    weights[2, 0] = torch.inf
    weights[3, 1] = 1e30
    assert deep_sight_energies(weights, torch.zeros(4, 3)).tolist() == [[0, 0, 0]] * 3 + [[0, 1, 0]]


def test_above_a_hundred_outputs_the_threshold_is_a_hundredth():
    energies = torch.full((1, 200), 0.006)
    energies[0, 0] = 1.0
    assert not deep_sight_suspects(energies.repeat(3, 1)).any()  # 1 of 1: no less than the others
    energies[0, 1:] = 0.011
    many = torch.cat([energies.repeat(2, 1), torch.nn.functional.one_hot(torch.tensor([0]), 200)])
    assert deep_sight_suspects(many).tolist() == [False, False, True]


def test_ddifs_are_mean_ratios_of_probabilities_not_of_logits():
    local, reference = 3 * draw(1, 40, 5), 3 * draw(2, 40, 5)
    expected = (local.softmax(dim=1) / reference.softmax(dim=1)).mean(dim=0)
    torch.testing.assert_close(deep_sight_ddifs(local, reference), expected)
    shifted = deep_sight_ddifs(local + 100, reference - draw(3, 40, 1))  # the same predictions
    torch.testing.assert_close(shifted, expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30, -1e30])
def test_hostile_logits_give_finite_ddifs(value):
    local = torch.zeros(6, 3)
    local[2, 1] = value
    found = deep_sight_ddifs(local, torch.zeros(6, 3))
    assert bool((found >= 0).all())
    assert bool((found <= 1e30).all())


def groups(seed, counts, spread=0.01):
    """Energies, biases and DDifs of groups of clients, the last of which changed one output only."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    centres = torch.full((len(counts), 4), 0.25, dtype=torch.float64)
    for number in range(len(counts) - 1):
        centres[number, number % 4] = 0.4
    centres[-1] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    energies = (centres[labels] + spread * draw(seed, len(labels), 4)).clamp(min=0)
    biases = draw(seed + 1, len(counts), 4)[labels] + spread * draw(seed + 2, len(labels), 4)
    ddifs = draw(seed + 3, 1, len(counts), 4)[:, labels] + spread * draw(seed + 4, 3, len(labels), 4)
    return energies, biases, ddifs


def test_clusters_of_suspicious_clients_are_dropped_and_others_accepted():
    for seed in range(0, 50, 10):
        parts = groups(seed, [8, 9, 6])
        assert deep_sight_accepts(*parts).tolist() == [True] * 17 + [False] * 6


def test_a_cluster_decides_for_its_members_and_who_is_in_none_for_itself():
    energies, biases, ddifs = groups(3, [10, 7])
    energies[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # suspicious, among nine who are not: by biases and DDifs theirs
    assert deep_sight_suspects(energies)[0]
    assert deep_sight_accepts(energies, biases, ddifs).tolist() == [True] * 10 + [False] * 7
    biases[0], ddifs[:, 0] = -9 * biases[0], 1e6
    assert deep_sight_accepts(energies, biases, ddifs).tolist() == [False] + [True] * 9 + [False] * 7


def test_the_share_of_suspicious_members_that_drops_a_cluster():
    energies, biases, ddifs = groups(5, [16, 5])
    energies[:4] = torch.tensor([0.0, 1.0, 0.0, 0.0])  # a quarter of the first cluster
    accepted = [deep_sight_accepts(energies, biases, ddifs, max_suspicious=share) for share in (0.2, 0.25, 0.3)]
    assert [bool(found[4:16].all()) for found in accepted] == [False, False, True]
    assert not any(bool(found[16:].any()) for found in accepted)


@pytest.mark.parametrize("seed", range(6))
def test_follows_the_order_of_rows(seed):
    parts = groups(seed, [6, 5, 4], spread=0.3)
    expected = deep_sight_accepts(*parts, min_cluster_size=3)
    for turn in range(4):
        order = torch.randperm(15, generator=torch.Generator().manual_seed(turn))
        energies, biases, ddifs = parts[0][order], parts[1][order], parts[2][:, order]
        assert torch.equal(deep_sight_accepts(energies, biases, ddifs, min_cluster_size=3), expected[order])


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_equal_rows_and_few_rows_are_all_accepted(n):
    energies = torch.full((n, 4), 0.25)
    assert deep_sight_accepts(energies, energies, energies[None]).all()
    assert deep_sight_accepts(*groups(7, [6, 3])).sum() == 6


def test_refuses_shapes_and_settings():
    parts = groups(1, [3, 3])
    with pytest.raises(ConfigError, match=r"shapes \(n, p\), \(n, p\) and \(s, n, p\); got \(6, 4\), \(5, 4\)"):
        deep_sight_accepts(parts[0], parts[1][:5], parts[2])
    with pytest.raises(ConfigError, match="min_cluster_size=1"):
        deep_sight_accepts(*parts, min_cluster_size=1)
    with pytest.raises(ConfigError, match="of at least 2 outputs"):
        deep_sight_suspects(torch.ones(4, 1))
    with pytest.raises(ConfigError, match=r"weights \(n, p, h\) and biases \(n, p\)"):
        deep_sight_energies(torch.ones(4, 3), torch.ones(4, 3))
    with pytest.raises(ConfigError, match="matrices of logits"):
        deep_sight_ddifs(torch.ones(4, 3), torch.ones(3, 3))
