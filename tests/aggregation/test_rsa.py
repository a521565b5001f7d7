import numpy as np
import pytest
import torch

from flsec.aggregation import rsa_gradient, rsa_server_step
from flsec.errors import ConfigError


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(5))
def test_the_servers_step_is_equation_7(seed):
    n, d = 3 + seed, 11
    server, clients = draw(seed, d).numpy(), draw(seed + 50, n, d).numpy()
    clients[0, :4] = server[:4]  # sign(0) = 0
    mu, delta, lambda_ = 0.3, 0.7, 0.2
    expected = np.empty(d)
    for k in range(d):
        votes = sum(np.sign(server[k] - clients[j, k]) for j in range(n))
        expected[k] = server[k] - mu * (lambda_ * server[k] + delta * votes)
    updates = torch.from_numpy(clients - server)
    before = updates.clone()
    step = rsa_server_step(torch.from_numpy(server), updates, learning_rate=mu, delta=delta, lambda_=lambda_)
    np.testing.assert_allclose(server + step.numpy(), expected, rtol=1e-13)
    assert torch.equal(updates, before)
    step32 = rsa_server_step(
        torch.from_numpy(server).float(), updates.float(), learning_rate=mu, delta=delta, lambda_=lambda_
    )
    assert step32.dtype == torch.float32
    torch.testing.assert_close(step32.double(), step, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e30, -1e30])
def test_one_client_moves_no_coordinate_by_more_than_one_vote(value):
    updates, server = draw(1, 9, 20), draw(2, 20)

    def step(rows):
        return rsa_server_step(server, rows, learning_rate=0.1, delta=0.5)

    hostile = torch.cat([updates, torch.full((1, 20), value, dtype=torch.float64)])
    moved = (step(hostile) - step(updates)).abs().max()
    assert moved <= 0.1 * 0.5 * (1 + 1e-9)
    assert bool(torch.isnan(torch.tensor(value))) == (float(moved) == 0)
    mean = (hostile.mean(dim=0) - updates.mean(dim=0)).abs().max()
    assert not mean <= 1, "the plain mean withstands it, too"


def test_order_and_length_of_rows_do_not_matter():
    updates, server = draw(3, 7, 20), draw(4, 20)
    step = rsa_server_step(server, updates, learning_rate=0.1)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rsa_server_step(server, updates[order], learning_rate=0.1), step)
    assert torch.equal(rsa_server_step(server, updates * torch.rand(7, 1) * 1e-9, learning_rate=0.1), step)


def test_the_clients_direction_is_that_of_equation_6():
    own, server, gradient = draw(5, 4, 3), draw(6, 4, 3), draw(7, 4, 3)
    own[0] = server[0]
    expected = gradient.numpy() / 20 + 0.2635 * np.sign(own.numpy() - server.numpy())
    copies = [own.clone(), server.clone(), gradient.clone()]
    result = rsa_gradient(gradient, own, server, 0.2635, 1 / 20)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-14)
    for tensor, original in zip((own, server, gradient), copies, strict=True):
        assert torch.equal(tensor, original)
    np.testing.assert_allclose(rsa_gradient(None, own, server, 2.0).numpy(), 2 * np.sign((own - server).numpy()))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"updates": torch.zeros(3)}, "matrix"),
        ({"parameters": torch.zeros(4)}, r"parameters of shape \(5,\)"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"delta": -1.0}, "delta"),
        ({"lambda_": float("nan")}, "lambda_"),
    ],
)
def test_bad_settings_are_named(arguments, named):
    with pytest.raises(ConfigError, match=named):
        rsa_server_step(
            **{"parameters": torch.zeros(5), "updates": torch.zeros(2, 5), "learning_rate": 0.1, **arguments}
        )


@pytest.mark.parametrize("shapes", [((3,), (3,), (2,)), ((1,), (3,), (3,)), (None, (3, 1), (3,))])
def test_the_gradient_of_another_parameter_is_refused(shapes):
    gradient, own, server = (None if shape is None else torch.zeros(shape) for shape in shapes)
    with pytest.raises(ConfigError, match="of one shape; got"):
        rsa_gradient(gradient, own, server, delta=0.5)
