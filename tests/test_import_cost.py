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
