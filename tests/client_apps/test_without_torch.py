"""What a client pays for: a decorator on uploads, labels or metrics loads no torch, nor anything else that is large."""

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flsec.parameters import parameters_of
from flsec.training import Training

HEAVY = ("torch", "scipy", "sklearn", "numba", "pandas", "ray", "matplotlib")
LIGHT = [
    *("app", "badnets", "base", "class_flipping", "client_half", "client_state", "false_alarm", "gaussian_attack"),
    *("label_flipping", "lazy_worker", "model_replacement", "noisy_client", "poison", "random_attack"),
    *("semantic_backdoor", "sign_flipping", "siren_client", "zero_attack"),
]
# Packages import all their modules today; here each is its folder alone, as one that imports on demand is.
LOADED_ALONE = """
import sys, types
import flsec
for name in ("client_apps", "attacks", "metrics", "aggregation"):
    package = types.ModuleType("flsec." + name)
    package.__path__ = [flsec.__path__[0] + "/" + name]
    sys.modules["flsec." + name] = package
"""
CHECK = f"""
sys.exit(", ".join(name for name in {HEAVY} if name in sys.modules) or 0)
"""


def _run(code):
    command = [sys.executable, "-c", LOADED_ALONE + code + CHECK]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_is_imported_without_torch(module):
    done = _run(f"import flsec.client_apps.{module}")
    assert done.returncode == 0, done.stderr


def test_a_client_without_torch_is_attacked_without_torch():
    done = _run("""
import numpy as np
from flwr.client import NumPyClient
from flsec.attacks.adversaries import Adversaries
from flsec.client_apps.badnets import BadNets
from flsec.client_apps.label_flipping import LabelFlipping
from flsec.client_apps.model_replacement import ModelReplacement
from flsec.client_apps.sign_flipping import SignFlipping

class Client(NumPyClient):
    client_id = 1
    trainset = (np.zeros((4, 6)), np.arange(4))
    def fit(self, parameters, config):
        x, y = self.trainset
        return [parameters[0] + y.sum() + x.sum()], len(y), {}

who = Adversaries(num_clients=4, ids=[1])
data = LabelFlipping(source=0, target=3, adversaries=who)
stamp = BadNets(features=[0], target=2, fraction=0.5, adversaries=who)
attacked = SignFlipping()(ModelReplacement(scale=2.0)(stamp(data(Client()))))
(uploaded,), count, _ = attacked.fit([np.zeros(2)], {"server-round": 1})
assert count == 4 and (uploaded < -2 * 9).all(), uploaded
""")
    assert done.returncode == 0, done.stderr


def _function(annotations, **known):
    """A function of a module that holds nothing but ``known``."""
    namespace = dict(known)
    exec(f"def function({annotations}): pass", namespace)
    return namespace["function"]


def test_annotations_may_use_torchs_names_without_importing_them():
    function = _function(
        "x: 'Tensor', device: 'torch.device | str', net: 'nn.Module', training: 'Training | None' = None"
    )
    hints = {name: hint for name, (hint, _) in parameters_of(function).items()}
    assert hints == {"x": Tensor, "device": torch.device | str, "net": nn.Module, "training": Training | None}


def test_a_name_of_the_modules_own_goes_first_and_an_unknown_one_may_be_anything():
    assert parameters_of(_function("x: 'Tensor'", Tensor=int))["x"][0] is int
    assert parameters_of(_function("x: 'Nothing'"))["x"][0] is Any
