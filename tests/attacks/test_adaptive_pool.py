import numpy as np
import pytest
import torch

from flsec import aggregation
from flsec.attacks import adaptive_pool
from flsec.errors import ConfigError

F = 4


def honest(seed=0, h=13, d=40, mean=0.3):
    return mean + torch.randn(h, d, generator=torch.Generator().manual_seed(seed))


def among(rule, others):
    calls = []

    def aggregate_of(upload):
        calls.append(upload.clone())
        return rule(torch.cat([upload.repeat(F, 1), others]))

    return aggregate_of, calls


RULES = {
    "trimmed mean": lambda u: aggregation.trimmed_mean(u, num_trimmed=F),
    "median": aggregation.median,
    "krum": lambda u: aggregation.krum(u, num_byzantine=F),
    "clipping": lambda u: aggregation.norm_clipping(u, max_norm=3.0).mean(dim=0),
    "fltrust": lambda u: aggregation.fltrust(u, u[F:].mean(dim=0)),
}


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(2))
def test_damage_is_what_the_upload_does_and_the_best_of_all_that_was_tried(rule, seed):
    others = honest(seed)
    aggregate_of, calls = among(RULES[rule], others)
    found = adaptive_pool(others, aggregate_of, rng())
    mean = others.double().mean(dim=0)
    back = -mean / mean.norm()
    of_mean = float(aggregate_of(mean.float()).double() @ back)
    done = [float(RULES[rule](torch.cat([u.repeat(F, 1), others])).double() @ back) - of_mean for u in calls[:-1]]
    assert found.damage == pytest.approx(max(done), abs=1e-6)
    assert found.damage == pytest.approx(float(aggregate_of(found.upload).double() @ back) - of_mean, abs=1e-6)
    assert found.damage > 0
    assert found.trials == len(done) <= 65


def test_cosine_rules_are_moved_where_stepping_straight_back_does_nothing():
    """Whatever points away from the trusted update weighs nothing; the rows that pull back most still count."""
    others = honest(mean=0.3)
    aggregate_of, _ = among(RULES["fltrust"], others)
    mean = others.double().mean(dim=0)
    back = -mean / mean.norm()
    of_mean = float(aggregate_of(mean.float()).double() @ back)
    straight = max(
        float(aggregate_of((mean + g * back).float()).double() @ back) - of_mean for g in np.geomspace(0.01, 100, 50)
    )
    found = adaptive_pool(others, aggregate_of, rng())
    assert found.base != "mean"
    assert found.damage > 1.1 * straight > 0


@pytest.mark.parametrize("num_trials", [1, 2, 5, 41, 60, 65, 80])
def test_never_tries_more_often_than_told_and_more_trials_do_no_less(num_trials):
    others = honest(2)
    aggregate_of, calls = among(RULES["median"], others)
    found = adaptive_pool(others, aggregate_of, rng(), num_trials=num_trials)
    assert len(calls) == found.trials <= num_trials
    again = adaptive_pool(others, among(RULES["median"], others)[0], rng(), num_trials=num_trials + 1)
    assert num_trials >= 56 or again.damage >= found.damage  # from there on the gradient's lengths depend on the rest


def test_a_defense_that_cannot_be_moved_gets_the_mean():
    others = honest(3)
    found = adaptive_pool(others, lambda upload: others[0], rng())
    torch.testing.assert_close(found.upload, others.mean(dim=0))
    assert (found.damage, found.base, found.direction, found.gamma) == (0.0, "mean", "none", 0.0)


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e15, 3e37])
@pytest.mark.parametrize("h", [1, 2, 9])
def test_odd_rounds_give_finite_uploads(scale, h):
    others = (scale * honest(h=h)).clamp(-3e38, 3e38)
    found = adaptive_pool(others, among(aggregation.median, others)[0], rng())
    assert found.upload.isfinite().all()
    assert found.upload.dtype == others.dtype


def test_the_order_of_rows_does_not_matter_before_the_gradient():
    others = honest(5)
    order = torch.randperm(len(others), generator=torch.Generator().manual_seed(1))
    one, other = (
        adaptive_pool(rows, among(RULES["trimmed mean"], rows)[0], rng(), num_trials=50)
        for rows in (others, others[order])
    )
    torch.testing.assert_close(one.upload, other.upload)


def test_refuses_settings_that_cannot_work():
    with pytest.raises(ConfigError, match="adaptive_pool: num_trials"):
        adaptive_pool(honest(), lambda u: u, rng(), num_trials=0)
    with pytest.raises(ConfigError, match="at least 1 row"):
        adaptive_pool(honest(h=0), lambda u: u, rng())
