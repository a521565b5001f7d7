"""Which arrays of a model are state: by name, by module, by pattern."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from flsec.state_arrays import holds, state_by_name, state_by_pattern, state_of_module

MODELS = {
    "no norm": lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)),
    "two in a row": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4)),
    "not affine": lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False)),
    "without statistics": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)),
    "instance norm": lambda: nn.Sequential(
        nn.Conv1d(1, 4, 3), nn.InstanceNorm1d(4, affine=True, track_running_stats=True)
    ),
    "group and layer norm": lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.LayerNorm(4)),
    "half precision": lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).half(),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_three_ways_agree_on_torch_models(name: str) -> None:
    model = MODELS[name]()
    arrays = [value.numpy() for value in model.state_dict().values()]
    trained = dict(model.named_parameters())
    buffers = {i for i, key in enumerate(model.state_dict()) if key not in trained}
    assert state_of_module(model) == state_by_pattern(arrays) == state_by_name(model.state_dict()) == buffers


def test_a_module_that_exchanges_a_part_has_the_state_of_that_part() -> None:
    class Part(nn.Sequential):
        def exchanged_state(self):
            return {name: value for name, value in self.state_dict().items() if name.startswith("1.")}

    model = Part(nn.Linear(3, 4), nn.BatchNorm1d(4))
    assert state_of_module(model) == {2, 3, 4}
    assert holds(model, [np.zeros(4)] * 4 + [np.array(0)])
    assert not holds(model, list(model.state_dict().values()))


def test_names_of_keras_and_prefixes() -> None:
    names = ["bn/gamma:0", "bn/moving_mean:0", "a.b.moving_variance", "running_var", "my_running_var", "running_mean.x"]
    assert state_by_name(names) == {1, 2, 3}


@pytest.mark.parametrize(
    ("arrays", "wanted"),
    [
        ([((3,), "float32"), ((3,), "float32"), ((), "int64")], {0, 1, 2}),
        ([((3,), "float32"), ((4,), "float32"), ((), "int64")], {2}),  # a counter of something else
        ([((3,), "float32"), ((3,), "float64"), ((), "int64")], {2}),
        ([((3, 1), "float32"), ((3, 1), "float32"), ((), "int64")], {2}),
        ([((3,), "int64"), ((3,), "int64"), ((), "int64")], {0, 1, 2}),
        ([((3,), "float32"), ((), "int64")], {1}),
        ([((3,), "bool"), ((3,), "uint8"), ((3,), "float16")], {0, 1}),
        ([((3,), "V2"), ((3,), "V2"), ((), "int64")], {0, 1, 2}),  # bfloat16 as np.save writes it
        ([], set()),
    ],
)
def test_the_pattern(arrays: list[tuple[tuple[int, ...], str]], wanted: set[int]) -> None:
    assert state_by_pattern(arrays) == wanted
    assert state_by_pattern([np.zeros(shape, dtype) for shape, dtype in arrays]) == wanted


def test_a_module_counts_its_own_integers_as_state() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("steps", torch.tensor(3))
    assert state_of_module(model) == {2}


def test_neither_torch_nor_flower_is_needed() -> None:
    code = "import sys, flsec.state_arrays; sys.exit(any(name in sys.modules for name in ('torch', 'flwr')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
