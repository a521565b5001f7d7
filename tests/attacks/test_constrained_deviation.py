import math

import numpy as np
import pytest
import torch

from flsec.attacks import half_angle_cosine, most_hostile
from flsec.errors import ConfigError


def vectors(d, seed):
    random = torch.Generator().manual_seed(seed)
    return (torch.randn(d, generator=random, dtype=torch.float64) for _ in range(2))


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


@pytest.mark.parametrize("min_cosine", [-0.5, 0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("d", [2, 3, 40])
@pytest.mark.parametrize("seed", range(4))
def test_it_keeps_the_bounds_and_no_other_vector_that_does_goes_farther(min_cosine, d, seed):
    reference, hostile = vectors(d, seed)
    v = most_hostile(reference, hostile, min_cosine=min_cosine, min_norm=0.5, max_norm=2.0)
    assert cosine(v, reference) >= min_cosine - 1e-9
    assert 0.5 - 1e-9 <= float(v.norm()) <= 2.0 + 1e-9
    random = torch.Generator().manual_seed(100 + seed)
    others = torch.randn(4000, d, generator=random, dtype=torch.float64)
    others += reference / reference.norm() * torch.linspace(-2, 6, 4000, dtype=torch.float64)[:, None] * d**0.5
    others /= others.norm(dim=1, keepdim=True)
    passing = others[others @ reference / reference.norm() >= min_cosine]
    reached = (passing @ hostile).clamp(min=0) * 2.0 + (passing @ hostile).clamp(max=0) * 0.5
    assert not len(reached) or float(v @ hostile) >= float(reached.max()) - 1e-9


def test_what_passes_anyway_is_gone_for_at_full_length():
    reference, hostile = torch.tensor([1.0, 0.0]).double(), torch.tensor([3.0, 4.0]).double()
    v = most_hostile(reference, hostile, min_cosine=0.5, min_norm=1.0, max_norm=10.0)
    torch.testing.assert_close(v, torch.tensor([6.0, 8.0]).double())


def test_opposite_and_absent_vectors():
    reference = torch.tensor([3.0, 0.0, 4.0]).double()
    v = most_hostile(reference, -2 * reference, min_cosine=0.2, min_norm=1.0, max_norm=2.0)
    assert cosine(v, reference) == pytest.approx(0.2)
    assert float(v.norm()) == pytest.approx(1.0)  # it can only do harm, so little of it
    one = torch.tensor([2.0]).double()
    assert float(most_hostile(one, -one, min_cosine=0.2, min_norm=1.0, max_norm=2.0)) == 1.0
    for a, b in ((reference * 0, reference), (reference, reference * 0)):
        assert not most_hostile(a, b, min_cosine=0.2, min_norm=1.0, max_norm=2.0).any()


@pytest.mark.parametrize("seed", range(5))
def test_the_half_angle_is_where_trust_times_deviation_is_largest(seed):
    reference, hostile = vectors(6, seed)
    theta = math.acos(cosine(reference, hostile))
    best = max(np.linspace(0, math.pi / 2, 20001), key=lambda phi: math.cos(phi) * math.cos(theta - phi))
    assert half_angle_cosine(reference, hostile) == pytest.approx(math.cos(best), abs=1e-3)
    assert half_angle_cosine(reference, -reference) == pytest.approx(0.0, abs=1e-6)
    assert half_angle_cosine(reference, reference) == pytest.approx(1.0)


def test_refuses_settings_that_cannot_work():
    reference, hostile = vectors(3, 0)
    for settings in ({"min_norm": 3.0}, {"min_cosine": 1.1}, {"min_norm": -1.0}):
        with pytest.raises(ConfigError, match="most_hostile"):
            most_hostile(reference, hostile, **{"min_cosine": 0.1, "min_norm": 1.0, "max_norm": 2.0, **settings})
