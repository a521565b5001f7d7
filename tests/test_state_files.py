from pathlib import Path

import numpy as np
import pytest
import torch

from flsec._state_files import load_state, save_state
from flsec._tensors import array_of


def test_state_comes_back_with_its_types(tmp_path: Path) -> None:
    state = {
        "tensor": torch.arange(6.0).reshape(2, 3),
        "array": np.array(7, dtype=np.int64),
        "by id": {3: torch.ones(2, dtype=torch.float64), -1: None},
        "nested": [(1, 2.5), {"text": "x", "flag": True}],
        "not finite": float("inf"),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_state(tmp_path / "state.safetensors", state)
    back = load_state(tmp_path / "state.safetensors")
    assert list(back) == list(state)
    assert torch.equal(back["tensor"], state["tensor"])
    assert back["array"].shape == ()
    assert back["array"].dtype == np.int64
    assert back["array"] == 7
    assert list(back["by id"]) == [3, -1]
    assert back["by id"][3].dtype == torch.float64
    assert back["nested"] == state["nested"]
    assert isinstance(back["nested"][0], tuple)
    assert back["not finite"] == float("inf")
    assert back["empty"].shape == (0, 3)


def test_shared_and_strided_arrays_are_saved_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    save_state(tmp_path / "s.safetensors", {"a": whole, "b": whole, "column": whole[:, 1], "np": whole.numpy().T})
    back = load_state(tmp_path / "s.safetensors")
    assert torch.equal(back["column"], whole[:, 1])
    np.testing.assert_array_equal(back["np"], whole.numpy().T)


def test_bfloat16_comes_back_to_the_bit(tmp_path: Path) -> None:
    numbers = torch.tensor([[1.5, -0.0], [float("nan"), 3e38]], dtype=torch.bfloat16)
    save_state(tmp_path / "s.safetensors", {"array": array_of(numbers), "tensor": numbers})
    back = load_state(tmp_path / "s.safetensors")
    assert back["array"].dtype.str == "|V2"
    assert back["array"].tobytes() == array_of(numbers).tobytes()
    assert torch.equal(back["tensor"].view(torch.int16), numbers.view(torch.int16))


def test_what_it_cannot_hold_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="got object"):
        save_state(tmp_path / "s.safetensors", {"a": object()})
    assert list(tmp_path.iterdir()) == []
