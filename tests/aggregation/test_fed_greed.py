import math

import numpy as np
import pytest
import torch

from flsec.aggregation.fed_greed import fed_greed, greedy_selection


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Quadratic:
    """The squared distance from an optimum, and how often it was asked for."""

    def __init__(self, seed, d):
        self.optimum, self.calls = draw(seed, d), 0

    def __call__(self, update):
        self.calls += 1
        return float((update.double() - self.optimum).square().sum())


def literal(rows, optimum):
    """Sort, add one after the other, stop when the loss rises."""
    losses = [float(np.square(row - optimum).sum()) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: losses[i])
    tried = []
    for count in range(1, len(rows) + 1):
        now = float(np.square(rows[order[:count]].mean(axis=0) - optimum).sum())
        if tried and now > tried[-1]:
            break
        tried.append(now)
    return sorted(order[: 1 + int(np.argmin(tried))])


@pytest.mark.parametrize("seed", range(10))
def test_agrees_with_literal_loops(seed):
    n, d = 1 + seed, 2 + seed
    loss = Quadratic(seed, d)
    rows = loss.optimum + (0.5 + torch.arange(n))[:, None] * draw(50 + seed, n, d)
    expected = literal(rows.numpy(), loss.optimum.numpy())
    assert greedy_selection(rows, loss).selected.tolist() == expected
    torch.testing.assert_close(fed_greed(rows, loss), rows[expected].mean(dim=0))


def test_several_are_taken_where_their_mean_is_better_and_evaluation_ends_when_it_rises():
    loss = Quadratic(0, 40)
    rows = torch.cat([loss.optimum + draw(1, 8, 40), -5 * loss.optimum + draw(2, 12, 40)])
    found = greedy_selection(rows, loss)
    assert len(found.selected) >= 4
    assert int(found.selected.max()) < 8
    assert loss.calls <= 20 + len(found.selected)


@pytest.mark.parametrize("size", [-1.0, -100.0, 1e6, 1e30])
def test_with_one_honest_row_the_loss_is_no_higher_than_its(size):
    loss = Quadratic(3, 6)
    rows = size * (loss.optimum + 0.1 * draw(5, 10, 6))
    rows[7] = 0.5 * loss.optimum
    assert loss(fed_greed(rows, loss)) <= loss(rows[7])


def overflowing(update):
    value = float(update.sum())
    return value**2 if abs(value) < 1e6 else math.nan


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
def test_what_has_no_finite_loss_is_never_taken(value):
    rows = torch.tensor([[1.0], [value], [-1.0], [value], [value]])
    assert greedy_selection(rows, overflowing).selected.tolist() == [0, 2]
    assert fed_greed(rows[[1, 3]], overflowing).tolist() == [0.0]
