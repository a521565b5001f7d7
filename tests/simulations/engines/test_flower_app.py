"""The run configuration of ``flwr run``."""

import pytest
from flwr.app import Context, RecordDict

from flsec.errors import ConfigError
from flsec.simulations.engines import flower_app


def config_of(**run_config: str):
    return flower_app._config_of(Context(1, 1, {}, RecordDict(), dict(run_config)))


def test_set_takes_values_with_commas():
    config = config_of(experiment="quickstart", set="defenses=[{name: krum, num_byzantine: 2}],seed=3, name='a, b'")
    assert [(entry.name, entry.params["num_byzantine"]) for entry in config.defenses] == [("krum", 2)]
    assert (config.seed, config.name) == (3, "a, b")
    assert config_of(set="").name == "quickstart"


def test_what_is_wrong_is_named_by_its_own_part():
    with pytest.raises(ConfigError, match=r"--set seed=-1: seed: must be at least 0"):
        config_of(set="defenses=[{name: krum, num_byzantine: 2}],seed=-1")
    with pytest.raises(ConfigError, match=r"--set defenses=\[\{name: krum,seed=3:1: malformed YAML"):
        config_of(set="defenses=[{name: krum,seed=3")
