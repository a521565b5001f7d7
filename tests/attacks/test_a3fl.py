"""A3FL's trigger: what it is fitted to, against its own objective computed the slow way."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from flsec.attacks import OptimisedTrigger, adapted_trigger, patch_mask
from flsec.errors import ConfigError
from flsec.models.build import build_model
from flsec.training import get_weights
from tests.client_apps.toys import same

SHAPE, CLASSES = (1, 6, 6), 3
MASK = patch_mask(SHAPE, size=2, margin=1)


def network():
    return build_model("mlp", SHAPE, CLASSES, seed=3, hidden=[8])


def data(seed=0):
    return torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(seed)), torch.arange(20) % CLASSES


def fitted(**settings):
    x, y = data()
    return adapted_trigger(
        network(), x, y, MASK, **{"target": 2, "generator": torch.Generator().manual_seed(1), **settings}
    )


def loss_of(trigger, model=None):
    x, _ = data()
    with torch.no_grad():
        stamped = torch.where(MASK, trigger, x)
        return float(cross_entropy((model or network())(stamped), torch.full((20,), 2)))


def test_one_step_goes_against_the_sign_of_the_gradient():
    x, _ = data()
    start = torch.full(SHAPE, 0.5, requires_grad=True)
    cross_entropy(network()(torch.where(MASK, start, x)), torch.full((20,), 2)).backward()
    expected = (start - 0.02 * start.grad.sign()).detach()
    torch.testing.assert_close(fitted(iterations=1, balance=0.0), expected)
    assert (expected[MASK] != 0.5).all()
    assert (fitted(iterations=1, balance=0.0)[~MASK] == 0.5).all()


def test_the_fit_lowers_the_loss_and_stays_in_range():
    trigger = fitted()
    assert loss_of(trigger) < loss_of(torch.full(SHAPE, 0.5)) - 0.01
    assert 0 <= float(trigger.min()) <= float(trigger.max()) <= 1
    wide = fitted(low=-3.0, value=1.0, iterations=100)
    assert -3 <= float(wide.min()) < 0
    assert loss_of(wide) < loss_of(trigger)


def test_it_is_the_best_that_a_search_over_the_corners_of_the_range_finds():
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    best = min(loss_of(torch.zeros(SHAPE).masked_scatter(MASK, corner)) for corner in corners)
    assert loss_of(fitted(iterations=60, balance=0.0)) <= best + 0.02


def test_the_twin_that_resists_changes_the_trigger():
    strong = {"balance": 1e3, "adversarial_epochs": 150, "iterations": 12, "adversarial_every": 12}
    assert not torch.equal(fitted(**strong), fitted(balance=0.0, iterations=12))
    assert torch.equal(fitted(**strong), fitted(**strong))


def test_nothing_is_changed_in_place():
    x, y = data()
    model = network()
    adapted_trigger(model, x, y, MASK, target=2, generator=torch.Generator())
    assert same(get_weights(model), get_weights(network()))
    assert torch.equal(x, data()[0])
    assert all(p.requires_grad for p in model.parameters())
    assert model.training


def test_the_stamp_sets_the_masked_places_of_both_kinds_of_arrays():
    trigger = OptimisedTrigger(np.arange(36.0, dtype=np.float32).reshape(SHAPE), MASK.numpy())
    x, _ = data()
    for inputs in (x, x.numpy(), x.half()):
        stamped = trigger.apply_to_each(inputs)
        assert (type(stamped), stamped.dtype) == (type(inputs), inputs.dtype)
        flat = np.asarray(stamped, np.float32)
        assert (flat[:, MASK.numpy()] == trigger.values[MASK.numpy()]).all()
        assert (flat[:, ~MASK.numpy()] == np.asarray(inputs, np.float32)[:, ~MASK.numpy()]).all()
    with pytest.raises(ConfigError, match="made for inputs of shape"):
        trigger.apply_to_each(np.zeros((2, 6, 6)))


def test_what_has_no_place_for_it_is_refused():
    for shape in ((6,), (1, 2, 9)):
        with pytest.raises(ConfigError, match="A3FL: a patch of size=2"):
            patch_mask(shape, size=2, margin=1)
    with pytest.raises(ConfigError, match="needs samples"):
        adapted_trigger(nn.Linear(1, 2), torch.zeros(0, *SHAPE), torch.zeros(0), MASK, target=0, generator=None)
    with pytest.raises(ConfigError, match="low must be less"):
        fitted(low=1.0)
