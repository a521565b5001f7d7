import numpy as np
import pytest
import torch

from flsec.attacks import DistributedTrigger, parts_held
from flsec.errors import ConfigError


def places(trigger, height=28, width=28):
    image = trigger.apply_to_each(torch.zeros(1, 1, height, width))[0, 0]
    return set(map(tuple, image.nonzero().tolist()))


def test_the_default_on_mnist_is_the_papers_four_bars():
    bars = [{(row, column + i) for i in range(4)} for row in (0, 3) for column in (0, 6)]
    assert places(DistributedTrigger()) == set().union(*bars)
    assert [places(DistributedTrigger().part([k])) for k in range(4)] == bars


@pytest.mark.parametrize("settings", [{}, {"parts": 3, "length": 2, "gap": 0, "margin": 1}, {"parts": 1}, {"parts": 6}])
def test_the_parts_are_disjoint_and_make_the_whole(settings):
    trigger = DistributedTrigger(**settings)
    parts = [places(trigger.part([k])) for k in range(trigger.parts)]
    assert len(set().union(*parts)) == sum(map(len, parts)) > 0
    assert set().union(*parts) == places(trigger)
    assert places(trigger.part([0, trigger.parts - 1])) == parts[0] | parts[-1]


def test_channels_have_their_own_values():
    image = DistributedTrigger(length=1, value=[0.5, 0.25]).apply_to_each(np.ones((2, 2, 8, 8)))
    assert (image[:, 0, 0, 0] == 0.5).all()
    assert (image[:, 1, 0, 0] == 0.25).all()
    assert (image[:, :, 1, 1] == 1).all()


def test_what_does_not_fit_is_refused():
    for trigger, images in (
        (DistributedTrigger(length=4), torch.zeros(1, 1, 8, 8)),
        (DistributedTrigger(), torch.zeros(3, 5)),
        (DistributedTrigger(value=[1.0, 1.0]), torch.zeros(1, 3, 28, 28)),
    ):
        with pytest.raises(ConfigError):
            trigger.apply_to_each(images)
    for settings in ({"parts": 0}, {"held": []}, {"held": [4]}, {"length": 0}):
        with pytest.raises(ConfigError, match="DistributedTrigger"):
            DistributedTrigger(**settings)


@pytest.mark.parametrize("parts", [1, 3, 4, 7])
@pytest.mark.parametrize("num_attackers", [1, 2, 4, 9])
def test_every_part_is_held_and_evenly(parts, num_attackers):
    held = [parts_held(rank, num_attackers, parts) for rank in range(num_attackers)]
    assert {part for own in held for part in own} == set(range(parts))
    assert all(held)
    holders = [sum(part in own for own in held) for part in range(parts)]
    sizes = [len(own) for own in held]
    assert max(holders) - min(holders) <= 1
    assert max(sizes) - min(sizes) <= 1
