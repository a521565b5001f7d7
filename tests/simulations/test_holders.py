"""Attackers who are the holders of one class, whatever the partition."""

import pytest

from flsec.errors import ConfigError
from flsec.simulations.checks import check_data
from flsec.simulations.config import load_config, make_config, packaged_experiments
from flsec.simulations.resources import Resources

EXPERIMENT = """
name: trial
data: {name: digits, partition: {name: sort_and_shard, shards_per_client: 2}}
model: {name: softmax}
training: {learning_rate: 0.1}
attacks: [{name: label_flipping, source: 4, target: 9}]
adversaries: {probability: 0.5, persistence: 5, candidates: {holders_of: 4}}
simulation: {engine: inprocess, num_clients: 20, num_rounds: 30}
"""


@pytest.fixture
def config(tmp_path):
    def load(*settings):
        file = tmp_path / "trial.yaml"
        file.write_text(EXPERIMENT)
        return load_config(file, list(settings))

    return load


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_all_who_hold_the_class_and_nobody_else_ever_attack(config, seed):
    resources = Resources(config(f"seed={seed}"))
    labels = resources.dataset.train.labels
    holders = {i for i in range(20) if 4 in labels[resources.partition[i]]}
    attacked = set().union(*(resources.adversaries.active(r) for r in range(1, 31)))
    assert 0 < len(holders) < 20
    assert attacked == holders == resources.adversaries.pool()
    assert resources.attacks[0].adversaries == resources.adversaries


def test_another_seed_has_other_holders(config):
    assert len({frozenset(Resources(config(f"seed={s}")).adversaries.pool()) for s in range(1, 6)}) > 1


def test_the_setting_survives_being_written_down(config):
    first = config()
    again = make_config(first.to_dict())
    assert again.to_dict() == first.to_dict()
    assert first.to_dict()["adversaries"]["candidates"] == {"holders_of": 4}


@pytest.mark.parametrize(
    "wrong", ["{holder_of: 4}", "{holders_of: four}", "{holders_of: 4, and: 5}", "{holders_of: -1}"]
)
def test_what_is_wrong_is_said_with_what_would_do(config, wrong):
    with pytest.raises(ConfigError, match=r"adversaries.candidates.*holders_of: 4}"):
        config(f"adversaries.candidates={wrong}")


def test_a_class_that_nobody_holds(config):
    with pytest.raises(ConfigError, match=r"no client holds a sample of class 17"):
        check_data(config("adversaries.candidates={holders_of: 17}"))


def test_files_are_read_where_the_data_are_not(monkeypatch, tmp_path):
    monkeypatch.setenv("FLSEC_DATA", str(tmp_path))
    settings = load_config(packaged_experiments()["diversefl/small_backdoor"])
    assert settings.adversaries["candidates"] == {"holders_of": 4}
