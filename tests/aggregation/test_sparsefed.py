import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flsec.aggregation import SparseFedState, choose_k, num_coordinates, sparsefed_init, sparsefed_step
from flsec.aggregation._clipped_mean import clipped_mean
from flsec.aggregation.norm_clipping import norm_clipping
from flsec.aggregation.top_k import top_k
from flsec.errors import ConfigError

VARIANTS = ("released", "paper_main", "paper_appendix")
seeds = st.integers(0, 2**31)


def draw(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def run(updates, **settings):
    """Return the deltas of some rounds, and the last state."""
    state = sparsefed_init(updates.shape[1], dtype=updates.dtype)
    deltas = []
    for update in updates:
        delta, state = sparsefed_step(state, update, **settings)
        deltas.append(delta)
    return torch.stack(deltas), state


# --- what is printed, coordinate by coordinate, in plain Python -------------------------------------------------


def largest(values, k):
    return sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:k]


def literal(updates, k, rho, variant):
    d = len(updates[0])
    v, e, deltas = [0.0] * d, [0.0] * d, []
    for u in updates:
        delta = [0.0] * d
        v = [rho * v[i] + u[i] for i in range(d)]
        if variant == "paper_main":
            e = [u[i] + e[i] for i in range(d)]
        else:
            e = [v[i] + e[i] for i in range(d)]
        for i in largest(e, k):
            delta[i] = e[i]
        if variant == "released":
            e = [0.0 if delta[i] != 0 else e[i] for i in range(d)]
            v = [0.0 if delta[i] != 0 else v[i] for i in range(d)]
        else:
            e = [e[i] - delta[i] for i in range(d)]
        if variant == "paper_main":
            v = [v[i] - delta[i] for i in range(d)]
        deltas.append(delta)
    return deltas, v, e


@given(seed=seeds, d=st.integers(1, 12), rho=st.floats(0, 0.99), variant=st.sampled_from(VARIANTS), data=st.data())
@settings(max_examples=40, deadline=None)
def test_agrees_with_what_is_printed(seed, d, rho, variant, data):
    k = data.draw(st.integers(1, d))
    updates = draw(seed, 7, d)
    deltas, state = run(updates, k=k, momentum=rho, variant=variant)
    expected, v, e = literal(updates.tolist(), k, rho, variant)
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(deltas, torch.tensor(expected, dtype=torch.float64), **close)
    torch.testing.assert_close(state.momentum, torch.tensor(v, dtype=torch.float64), **close)
    torch.testing.assert_close(state.error, torch.tensor(e, dtype=torch.float64), **close)


@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_stays_close_to_float64(variant):
    updates = draw(1, 10, 200)
    fine, _ = run(updates, k=20, variant=variant)
    coarse, _ = run(updates.float(), k=20, variant=variant)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse.double(), fine, rtol=1e-4, atol=1e-5)


# --- traps ------------------------------------------------------------------------------------------------------


def test_the_three_variants_are_three_algorithms():
    updates = draw(0, 6, 20)
    results = [run(updates, k=4, variant=variant)[0] for variant in VARIANTS]
    for i in range(3):
        assert not torch.allclose(results[i], results[i - 1])


def test_masking_clears_error_and_momentum_of_what_was_sent_and_nothing_else():
    state = SparseFedState(draw(1, 9), draw(2, 9))
    update = draw(3, 9)
    delta, after = sparsefed_step(state, update, k=3, momentum=0.9)
    sent = delta != 0
    assert int(sent.sum()) == 3
    assert bool((after.momentum[sent] == 0).all())
    assert bool((after.error[sent] == 0).all())
    assert bool((after.momentum[~sent] != 0).all())
    torch.testing.assert_close(after.momentum[~sent], (0.9 * state.momentum + update)[~sent])
    _, unmasked = sparsefed_step(state, update, k=3, momentum=0.9, variant="paper_appendix")
    assert bool((unmasked.momentum[sent] != 0).all())
    assert bool((unmasked.error[sent] == 0).all())


def test_momentum_never_reaches_the_model_in_algorithm_1():
    updates = draw(4, 8, 15)
    without, with_ = (run(updates, k=5, momentum=rho, variant="paper_main")[0] for rho in (0.0, 0.9))
    assert torch.equal(without, with_)
    for variant in ("released", "paper_appendix"):
        without, with_ = (run(updates, k=5, momentum=rho, variant=variant)[0] for rho in (0.0, 0.9))
        assert not torch.allclose(without, with_)


@pytest.mark.parametrize("variant", VARIANTS)
def test_adding_delta_descends(variant):
    """Clients upload local minus global, minus the rate times a gradient; the printed subtraction would climb."""
    target = draw(5, 30)

    def distance(sign):
        theta, state = torch.zeros(30, dtype=torch.float64), sparsefed_init(30, dtype=torch.float64)
        for _ in range(150):
            delta, state = sparsefed_step(state, -0.05 * (theta - target), k=10, momentum=0.5, variant=variant)
            theta = theta + sign * delta
        return float((theta - target).norm() / target.norm())

    assert distance(+1) < 0.05
    assert distance(-1) > 10


def test_with_all_coordinates_it_is_sgd_with_or_without_momentum():
    updates = draw(6, 6, 11)
    velocity, with_momentum = torch.zeros(11, dtype=torch.float64), []
    for u in updates:
        velocity = 0.9 * velocity + u
        with_momentum.append(velocity)
    for k in (11, 1.0):
        torch.testing.assert_close(run(updates, k=k, variant="paper_appendix")[0], torch.stack(with_momentum))
        for variant in ("released", "paper_main"):
            torch.testing.assert_close(run(updates, k=k, variant=variant)[0], updates)


@given(seed=seeds, k=st.integers(1, 10), variant=st.sampled_from(VARIANTS))
@settings(max_examples=20, deadline=None)
def test_nothing_is_lost(seed, k, variant):
    """What was sent plus what waits is all that came in: the updates, or their running momentum."""
    updates = draw(seed, 9, 10)
    state, came_in, sent = sparsefed_init(10, dtype=torch.float64), torch.zeros(10, dtype=torch.float64), 0
    for update in updates:
        came_in = came_in + update + (0 if variant == "paper_main" else 0.9 * state.momentum)
        delta, state = sparsefed_step(state, update, k=k, variant=variant)
        sent = sent + delta
    torch.testing.assert_close(sent + state.error, came_in, rtol=1e-12, atol=1e-12)


def test_small_coordinates_are_sent_sooner_or_later():
    update = torch.tensor([1.0, 0.1, 0.1, 0.1])
    deltas, _ = run(update.repeat(40, 1), k=1, momentum=0.0)
    assert bool((deltas != 0).any(dim=0).all())
    dropped = torch.stack([top_k(u, 1) for u in update.repeat(40, 1)])  # top-k without error feedback
    assert not bool((dropped[:, 1:] != 0).any())


def test_inputs_are_not_modified_and_results_share_no_memory():
    for variant in VARIANTS:
        state, update = SparseFedState(draw(1, 9), draw(2, 9)), draw(3, 9)
        before = copy.deepcopy((state, update))
        delta, after = sparsefed_step(state, update, k=3, variant=variant)
        delta += 1
        after.momentum.add_(1)
        after.error.add_(1)
        assert torch.equal(update, before[1])
        assert torch.equal(state.momentum, before[0].momentum)
        assert torch.equal(state.error, before[0].error)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_entries_that_are_not_finite_count_as_zero(variant, value):
    clean = draw(7, 5, 8)
    clean[2, 3] = 0.0
    hostile = clean.clone()
    hostile[2, 3] = value
    for a, b in zip(run(hostile, k=3, variant=variant), run(clean, k=3, variant=variant), strict=True):
        pairs = [(a, b)] if isinstance(a, torch.Tensor) else [(a.momentum, b.momentum), (a.error, b.error)]
        assert all(torch.equal(x, y) for x, y in pairs)


# --- what it defends against ------------------------------------------------------------------------------------


def test_colluders_on_coordinates_of_their_own_are_not_heard_in_a_round():
    honest = 0.01 * draw(8, 98, 200)
    honest[:, :20] += 1.0
    hostile = torch.zeros(2, 200, dtype=torch.float64)
    hostile[:, 100:] = 50.0
    updates = torch.cat([honest, hostile])
    bound = float(honest.norm(dim=1).max())

    def touched(max_norm):
        mean = clipped_mean(updates, max_norm).mean
        delta, _ = sparsefed_step(sparsefed_init(200, dtype=torch.float64), mean, k=20)
        return float(delta[100:].norm() / mean[:20].norm())

    assert touched(bound) == 0.0
    assert touched(1e9) > 0.5  # without clipping, large entries take the whole top-k
    plain = updates.mean(dim=0)
    assert float(plain[100:].norm() / plain[:20].norm()) > 0.5  # the mean hears them
    clipped = norm_clipping(updates, bound).mean(dim=0)
    assert float(clipped[100:].norm()) > 0  # and so does clipping alone


# --- the mean of clipped rows -----------------------------------------------------------------------------------


@given(seed=seeds, n=st.integers(1, 7), bound=st.floats(0.1, 10), weighted=st.booleans())
@settings(max_examples=40, deadline=None)
def test_clipped_mean_is_the_mean_of_clipped_rows(seed, n, bound, weighted):
    updates = draw(seed, n, 9)
    weights = torch.arange(1.0, n + 1) if weighted else None
    result = clipped_mean(updates, bound, weights)
    rows = torch.stack([row * min(1.0, bound / float(row.norm())) for row in updates])
    shares = torch.ones(n, dtype=torch.float64) if weights is None else weights.double()
    torch.testing.assert_close(result.mean, (shares / shares.sum()) @ rows)
    torch.testing.assert_close(result.norms, updates.norm(dim=1))
    assert result.clipped == sum(float(row.norm()) > bound for row in updates)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_that_is_not_finite_counts_as_zero(value):
    updates = draw(9, 4, 6)
    zero = updates.clone()
    zero[1] = 0.0
    updates[1, 2] = value
    for bound in (1.0, torch.inf):
        torch.testing.assert_close(
            clipped_mean(updates, bound).mean, clipped_mean(zero, bound).mean, rtol=0, atol=1e-15
        )


def test_without_a_bound_nothing_is_clipped():
    updates = 1e6 * draw(10, 4, 6)
    result = clipped_mean(updates, torch.inf)
    assert result.clipped == 0
    torch.testing.assert_close(result.mean, updates.mean(dim=0))
    with pytest.raises(ConfigError, match=r"max_norm > 0; got max_norm=0"):
        clipped_mean(updates, 0.0)


# --- k ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "size", "expected"), [(1, 7, 1), (1.0, 7, 7), (0.5, 7, 4), (0.001, 7, 1), (7, 7, 7), (1e-3, 7850, 8)]
)
def test_k_is_a_number_or_a_share(k, size, expected):
    assert num_coordinates(k, size) == expected
    delta, _ = sparsefed_step(sparsefed_init(size, dtype=torch.float64), draw(0, size), k=k)
    assert int((delta != 0).sum()) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 9}, "k must be at most the number of parameters, 8; got k=9"),
        ({"k": 0}, "k must be"),
        ({"k": 0.0}, "k must be"),
        ({"k": 1.5}, "k must be"),
        ({"k": 2, "momentum": 1.0}, "momentum must be less than 1"),
        ({"k": 2, "variant": "paper"}, "variant must be 'released', 'paper_main' or 'paper_appendix'; got 'paper'"),
    ],
)
def test_refuses_settings_that_cannot_work(settings, message):
    with pytest.raises(ConfigError, match=message):
        sparsefed_step(sparsefed_init(8), torch.ones(8), **settings)


def test_refuses_an_update_of_another_size():
    with pytest.raises(ConfigError, match=r"the state's shape, \(8,\); got \(7,\)"):
        sparsefed_step(sparsefed_init(8), torch.ones(7), k=2)


# --- Algorithm 11 -----------------------------------------------------------------------------------------------


class Line(nn.Module):
    """Logits (0, theta x): with theta = 0 and label 0 the gradient is x / 2, whatever the batch."""

    def __init__(self, d):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(d))

    def forward(self, x):
        score = x @ self.theta
        return torch.stack([torch.zeros_like(score), score], dim=1)


def halving(d=8, n=16):
    """Every sample is (1/2, 1/4, 1/8, ...): the first k entries hold 1 - 2^-k of the mass, nearly."""
    return (0.5 ** torch.arange(1, d + 1)).repeat(n, 1), torch.zeros(n, dtype=torch.int64)


@pytest.mark.parametrize(
    ("max_loss", "expected"), [(0.6, 1), (0.3, 2), (0.26, 2), (0.24, 3), (0.13, 3), (0.05, 5), (1e-6, 8), (0.0, 8)]
)
def test_k_is_the_first_that_loses_little_enough(max_loss, expected):
    x, y = halving()
    assert choose_k(Line(8), x, y, max_loss=max_loss, batch_size=2) == expected


def test_the_mass_that_is_lost_may_be_meant_instead():
    x, y = halving()
    lost = [float((0.5 * x[0, k:]).sum()) for k in range(9)]  # of the gradient x / 2
    for k in (1, 2, 3, 6):
        assert choose_k(Line(8), x, y, max_loss=lost[k] * 1.001, batch_size=2, measure="mass") == k
    assert choose_k(Line(8), x, y, max_loss=lost[1] * 1.001, batch_size=2) == 2  # a quarter of the mass


def test_k_grows_by_d_over_the_iterations_of_an_epoch():
    x, y = halving(d=8, n=16)
    assert choose_k(Line(8), x, y, max_loss=0.3, batch_size=4) == 2  # r = 4: 2, 4, 6, 8
    assert choose_k(Line(8), x, y, max_loss=0.2, batch_size=4) == 4
    assert choose_k(Line(8), x, y, max_loss=0.2, batch_size=8) == 4  # r = 2: 4, 8
    assert choose_k(Line(8), x, y, max_loss=0.2, batch_size=4, num_steps=8) == 3
    assert choose_k(Line(8), x, y, max_loss=0.2, batch_size=16) == 8  # r = 1


def test_k_agrees_with_a_search_by_hand_on_a_real_gradient():
    model = nn.Linear(6, 3)
    x, y = draw(1, 20, 6, dtype=torch.float32), torch.arange(20) % 3
    gradients = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
    magnitudes = torch.cat([g.flatten() for g in gradients]).abs().sort(descending=True).values
    for max_loss in (0.7, 0.4, 0.1):
        wanted = next(k for k in range(1, 22) if magnitudes[k:].sum() <= max_loss * magnitudes.sum())
        assert choose_k(model, x, y, max_loss=max_loss, batch_size=20, num_steps=21) == wanted


def test_choosing_k_changes_nothing_and_depends_on_the_seed_alone():
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    x, y = draw(2, 40, 6, dtype=torch.float32), torch.arange(40) % 3
    before = copy.deepcopy(model.state_dict())
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(choose_k(model, x, y, max_loss=0.3, batch_size=5, seed=7))
    assert results[0] == results[1]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_choosing_k_needs_data():
    x, y = halving()
    with pytest.raises(ConfigError, match="as many labels as inputs, and at least one; got 0 and 0"):
        choose_k(Line(8), x[:0], y[:0], max_loss=0.1, batch_size=2)
    with pytest.raises(ConfigError, match="max_loss must be greater than or equal to 0"):
        choose_k(Line(8), x, y, max_loss=-0.1, batch_size=2)


def test_a_state_of_no_parameters_is_refused():
    with pytest.raises(ConfigError, match="sparsefed_init: size"):
        sparsefed_init(0)
