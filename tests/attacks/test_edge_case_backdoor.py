import math

import pytest
import torch

from flsec.attacks import edge_case_indices, split_held_out
from flsec.attacks._mixing import num_added, repeated
from flsec.errors import ConfigError


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def data(n=60, classes=4, seed=0):
    x = torch.randn(n, 1, 3, 2, generator=rng(seed))
    return x, torch.arange(n) % classes


def brute_force(x, y, target, source, tail):
    found = []
    for label in range(int(y.max()) + 1):
        rows = [i for i in range(len(y)) if int(y[i]) == label]
        if label == target or source not in (None, label) or not rows:
            continue
        mean = sum(x[i].double() for i in rows) / len(rows)
        far = sorted(rows, key=lambda i: -float(((x[i].double() - mean) ** 2).sum()))
        found += far[: math.ceil(round(tail * len(rows), 6))]
    return sorted(found)


@pytest.mark.parametrize("source", [None, 2])
@pytest.mark.parametrize("tail", [0.01, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("seed", range(5))
def test_are_the_furthest_from_their_class_mean(source, tail, seed):
    x, y = data(seed=seed)
    found = edge_case_indices(x, y, target=1, source=source, tail=tail)
    assert found.tolist() == brute_force(x, y, 1, source, tail)
    shifted = edge_case_indices(3 * x + 7, y, target=1, source=source, tail=tail)
    assert shifted.tolist() == found.tolist()


def test_planted_outliers_are_found():
    x, y = data(n=400)
    planted = [0, 10, 396, 398]  # two of class 0, two of class 2
    x[planted] += 20 * torch.randn(4, 1, 3, 2, generator=rng(1)).sign()
    assert set(planted) <= set(edge_case_indices(x, y, target=1, tail=0.02).tolist())


def test_samples_of_the_target_are_none():
    x, y = data()
    for target in range(4):
        found = edge_case_indices(x, y, target=target, tail=1.0)
        assert found.tolist() == (y != target).nonzero().flatten().tolist()


def test_a_set_of_ones_own_may_be_of_tokens():
    x, y = torch.arange(12).reshape(4, 3), torch.tensor([0, 1, 2, 0])
    assert edge_case_indices(x, y, target=1, tail=1.0).tolist() == [0, 2, 3]
    with pytest.raises(ConfigError, match=r"needs floating inputs; got torch.int64.*tail=1"):
        edge_case_indices(x, y, target=1, tail=0.5)


def test_refuses_what_cannot_be_attacked():
    x, y = data()
    with pytest.raises(ConfigError, match="source and target must differ"):
        edge_case_indices(x, y, target=1, source=1)
    with pytest.raises(ConfigError, match="same samples; got 59 and 60"):
        edge_case_indices(x[1:], y, target=1)
    assert edge_case_indices(x, y, target=1, source=77).tolist() == []


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
@pytest.mark.parametrize("count", [2, 3, 10, 101])
def test_held_out_cases_are_others_than_those_trained_on(share, count):
    indices = 3 * torch.arange(count) + 1
    train, held = split_held_out(indices, share, rng())
    assert sorted(train.tolist() + held.tolist()) == indices.tolist()
    assert len(train) > 0
    assert len(held) > 0
    assert abs(len(held) - share * count) <= 1
    assert torch.equal(indices, 3 * torch.arange(count) + 1)


def test_one_case_cannot_be_split():
    with pytest.raises(ConfigError, match=r"two samples at least.*got 1"):
        split_held_out(torch.tensor([4]), 0.5, rng())


# --- how they are mixed in --------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("own", [1, 7, 1000])
def test_the_added_samples_are_the_share_of_the_whole(fraction, own):
    added = num_added(own, fraction)
    assert added >= 1
    if added > 1:
        assert added / (own + added) == pytest.approx(fraction, abs=1 / own)


@pytest.mark.parametrize(("samples", "count"), [(5, 3), (5, 5), (5, 17), (1, 4), (3, 0)])
def test_all_samples_are_used_equally_often(samples, count):
    rows = repeated(samples, count, rng())
    assert len(rows) == count
    often = torch.bincount(rows, minlength=samples)
    assert int(often.max() - often.min()) <= 1
