"""What an import loads: what is used, and nothing beside it. Modules are asserted, not seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import flsec

HEAVY = {"PIL", "matplotlib", "numba", "pandas", "pydantic", "scipy", "sklearn", "torch", "torchvision"}
ROOMS = ("aggregation", "attacks", "client_apps", "data", "metrics", "models", "reconstruction", "strategies")
FOLDER = Path(flsec.__file__).parent


def loaded_by(statement: str) -> set[str]:
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.splitlines()[-1]))


def heavy(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules} & HEAVY


@pytest.mark.parametrize("room", ROOMS)
def test_a_package_alone_loads_none_of_its_modules_and_nothing_heavy(room: str) -> None:
    modules = loaded_by(f"import flsec.{room}")
    assert f"flsec.{room}" in modules
    assert not {name for name in modules if name.startswith(f"flsec.{room}.")}
    assert not heavy(modules)
    assert "flwr" not in modules


@pytest.mark.parametrize("statement", ["import flsec.aggregation.krum", "from flsec.aggregation import krum"])
def test_krum_loads_no_other_rule(statement: str) -> None:
    modules = loaded_by(statement)
    rules = {f"flsec.aggregation.{path.stem}" for path in (FOLDER / "aggregation").glob("[!_]*.py")}
    assert len(rules) > 20
    assert rules & modules == {"flsec.aggregation.krum"}
    assert heavy(modules) == {"torch"}


def test_a_registry_loads_no_other_registry_s_package() -> None:
    modules = loaded_by("from flsec.data import PARTITIONERS; PARTITIONERS.names()")
    assert "flsec.data.partitioners.iid" in modules
    assert not {name for name in modules if name.startswith(("flsec.data.datasets", "flsec.models"))}


@pytest.mark.parametrize("name", ["SignFlipping", "LabelFlipping", "Adversaries"])
def test_an_attack_on_a_client_does_not_load_torch(name: str) -> None:
    """Every client process of a deployment pays for what its decorator imports."""
    assert not heavy(loaded_by(f"from flsec.client_apps import {name}"))


@pytest.mark.parametrize("name", ["sign_flipping", "model_replacement", "Adversaries"])
def test_mathematics_on_arrays_does_not_load_torch(name: str) -> None:
    assert not heavy(loaded_by(f"from flsec.attacks import {name}"))


DEPLOYED = """
import numpy as np
from flwr.client import NumPyClient
from flwr.clientapp import ClientApp
from flsec.client_apps import Adversaries, LabelFlipping, SignFlipping, numpy_client_app, siren_client

class Client(NumPyClient):
    client_id = 0
    trainset = (np.zeros((20, 3)), np.arange(20) % 10)
    def fit(self, parameters, config):
        return [parameters[0] + 0.1], len(self.trainset[1]), {}

who = Adversaries(num_clients=4, ids=[0])
half = siren_client(accuracy_fn=lambda client, parameters, x, y: 0.5)
flip = LabelFlipping(pairs=[(3, 9)], adversaries=who)
attack = SignFlipping(scale=4.0, adversaries=who)
client = attack(flip(half(Client())))
for round_ in (1, 2):
    (uploaded,), _, _ = client.fit([np.zeros(2)], {"server-round": round_})
    assert (uploaded < 0).all(), uploaded
numpy_client_app(lambda context: Client().to_client(), mods=[attack.mod, flip.mod, half.mod])
ClientApp(lambda context: Client().to_client(), mods=[attack.mod])
"""
# What flsec asks for and Flower does not: absent where flsec was installed without what it depends on.
NOT_FLOWERS = (*(HEAVY - {"pydantic"}), "ray", "safetensors", "threadpoolctl")


def test_a_numpy_client_with_attacks_and_a_half_trains_without_anything_heavy() -> None:
    modules = loaded_by(DEPLOYED)
    assert not heavy(modules)
    assert not {"ray", "flsec.training", "flsec.strategies", "flsec.simulations"} & modules


def test_a_numpy_client_works_where_nothing_but_flower_is_installed() -> None:
    loaded_by(f"sys.modules.update(dict.fromkeys({NOT_FLOWERS}))\n{DEPLOYED}")


def test_that_test_can_fail() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        loaded_by(f"sys.modules.update(dict.fromkeys({NOT_FLOWERS}))\nfrom flsec.client_apps import TorchClient")


FIRST_CLIENT = """
import json
from flwr.app import Context, RecordDict
from flsec.simulations.engines import flower_app
context = Context(1, 1, {"partition-id": 0}, RecordDict(), {})
flower_app.client_fn(json.dumps(flower_app._config_of(context).to_dict()), context)
"""


def test_flsec_s_own_client_process_loads_torch_and_no_part_of_the_server() -> None:
    """Up to its first fit; the quickstart names one defense and one attack."""
    modules = loaded_by(FIRST_CLIENT)
    assert heavy(modules) == {"torch", "pydantic"}
    assert "ray" not in modules
    rooms = ("simulations.engines.loop", "simulations.engines.grid", "simulations.run_folder", "reconstruction")
    assert not {name for name in modules if name.startswith(tuple(f"flsec.{room}" for room in rooms))}
    assert "flsec.strategies.multi_krum" in modules
    assert not {f"flsec.strategies.{name}" for name in ("bulyan", "flame", "fedinv", "siren")} & modules
    assert not {f"flsec.client_apps.{name}" for name in ("badnets", "krum_attack", "back_gradient")} & modules
