import pytest
import torch

from flsec.aggregation.flanders import flanders_forecast
from flsec.errors import ConfigError


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near_identity(seed, n, size=0.2):
    return torch.eye(n, dtype=torch.float64) + size * draw(seed, n, n) / n**0.5


def brute_force(past, iterations, ridge):
    """The two least squares of each turn as one stacked system each, after dividing by the largest value."""
    size = past.abs().max()
    x, y = past[:-1] / size, past[1:] / size
    k, m = past.shape[1:]
    a, b = torch.eye(k, dtype=torch.float64), torch.eye(m, dtype=torch.float64)
    for _ in range(iterations):
        given = torch.cat([step @ b for step in x], dim=1)  # (k, m steps): wanted = A given
        root = (ridge * given.square().sum() / k).sqrt() * torch.eye(k, dtype=torch.float64)
        a = torch.linalg.lstsq(torch.cat([given, root], dim=1).T, torch.cat([*y, root], dim=1).T).solution.T
        given = torch.cat([a @ step for step in x])  # (k steps, m): wanted = given B
        root = (ridge * given.square().sum() / m).sqrt() * torch.eye(m, dtype=torch.float64)
        b = torch.linalg.lstsq(torch.cat([given, root]), torch.cat([*y, root])).solution
    return a @ past[-1] @ b


@pytest.mark.parametrize(("k", "m", "rounds"), [(1, 1, 2), (3, 5, 2), (6, 4, 7), (2, 9, 4)])
@pytest.mark.parametrize("iterations", [1, 4])
def test_agrees_with_stacked_least_squares(k, m, rounds, iterations):
    past = 30 * draw(k + m, rounds, k, m)
    expected = brute_force(past, iterations, 0.05)
    torch.testing.assert_close(flanders_forecast(past, iterations, 0.05), expected, rtol=1e-7, atol=1e-7)
    assert flanders_forecast(past.float(), iterations, 0.05).dtype == torch.float64


def test_finds_an_autoregression_that_is_there():
    a, b = near_identity(1, 4), near_identity(2, 6)
    series = [draw(3, 4, 6)]
    for _ in range(12):
        series.append(a @ series[-1] @ b)
    past, following = torch.stack(series[:-1]), series[-1]
    forecast = flanders_forecast(past, num_iterations=200, ridge=1e-10)
    assert (forecast - following).norm() < 1e-2 * (past[-1] - following).norm()


def test_follows_the_order_of_parameters_and_clients_and_the_scale():
    past = draw(4, 5, 6, 7)
    forecast = flanders_forecast(past)
    rows, columns = torch.randperm(6), torch.randperm(7)
    torch.testing.assert_close(flanders_forecast(past[:, rows][:, :, columns]), forecast[rows][:, columns])
    torch.testing.assert_close(flanders_forecast(1e-3 * past), 1e-3 * forecast)


def test_a_heavy_penalty_and_a_single_round_say_as_the_last_one():
    past = draw(5, 4, 3, 5)
    torch.testing.assert_close(flanders_forecast(past, ridge=1e9), past[-1], rtol=1e-6, atol=1e-6)
    assert torch.equal(flanders_forecast(past[:1]), past[0])


@pytest.mark.parametrize("value", [0.0, torch.nan, torch.inf, 3e38])
def test_values_that_foretell_nothing_never_raise(value):
    past = draw(6, 4, 3, 5)
    past[1, :, 2] = value
    assert flanders_forecast(past).shape == (3, 5)
    constant = torch.full((3, 2, 2), value, dtype=torch.float64)
    torch.testing.assert_close(flanders_forecast(constant), constant[-1], equal_nan=True)


def test_refuses_what_is_no_series():
    with pytest.raises(ConfigError, match=r"shape \(L, k, m\), L >= 1; got \(3, 2\)"):
        flanders_forecast(torch.ones(3, 2))
    with pytest.raises(ConfigError, match="got ridge=0"):
        flanders_forecast(torch.ones(3, 2, 2), ridge=0.0)
