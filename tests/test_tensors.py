"""Tensors as arrays, and back."""

import numpy as np
import pytest
import torch

from flsec._tensors import array_of, tensor_of


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.complex64, torch.bool])
def test_they_come_back_to_the_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    array = array_of(tensor)
    assert array.shape == shape
    assert array.dtype.str == "|V2" if dtype == torch.bfloat16 else array.dtype.kind != "V"
    back = tensor_of(array)
    assert back.dtype == dtype
    assert torch.equal(back, tensor)


def test_what_requires_a_gradient_or_cannot_be_written_is_read_too() -> None:
    assert array_of(torch.ones(2, requires_grad=True)).tolist() == [1, 1]
    fixed = np.ones(3, np.float32)
    fixed.flags.writeable = False
    tensor_of(fixed).add_(1)  # a copy
    assert fixed.tolist() == [1, 1, 1]
    assert tensor_of(np.arange(6.0).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]
