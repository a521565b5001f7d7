import numpy as np
import pytest
import torch

from flsec.aggregation import scaffold_control
from flsec.errors import ConfigError


def test_it_is_what_the_clients_variates_would_say():
    """Option II for each client by hand, averaged over those who took part, |S| / N of it added to c."""
    rng = np.random.default_rng(0)
    steps, rate, everybody, dimension = 5, 0.2, 8, 6
    x, own = rng.normal(size=dimension), rng.normal(size=(everybody, dimension))
    c = own.mean(axis=0)
    taking_part = [1, 2, 6]
    local = {i: x + rng.normal(size=dimension) for i in taking_part}
    changes = [(own[i] - c + (x - local[i]) / (steps * rate)) - own[i] for i in taking_part]
    expected = c + len(taking_part) / everybody * np.mean(changes, axis=0)
    update = np.mean([local[i] - x for i in taking_part], axis=0)
    found = scaffold_control(
        torch.from_numpy(c), torch.from_numpy(update), num_steps=steps, learning_rate=rate, share=3 / 8
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_with_all_clients_it_is_the_mean_gradient_and_with_none_it_stays():
    control, update = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    all_ = scaffold_control(control, update, num_steps=4, learning_rate=0.5, share=1.0)
    torch.testing.assert_close(all_, -update / 2)
    assert torch.equal(scaffold_control(control, update, num_steps=4, learning_rate=0.5, share=0.0), control)


@pytest.mark.parametrize(
    "changed", [{"num_steps": 0}, {"learning_rate": 0.0}, {"share": 1.5}, {"share": float("nan")}, {"shape": 3}]
)
def test_refuses(changed):
    settings = {"num_steps": 1, "learning_rate": 0.1, "share": 0.5, **changed}
    shape = settings.pop("shape", 2)
    with pytest.raises(ConfigError, match="scaffold_control"):
        scaffold_control(torch.zeros(2), torch.zeros(shape), **settings)
