"""Telling torch's objects apart without importing torch, and tensors as arrays, and back.

Where torch has not been loaded, nothing can be one of its own: a client that trains with scikit-learn or numpy never
pays for it.
"""

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from typing_extensions import TypeIs

from flsec._numbers import is_bfloat16

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

__all__ = ["array_of", "is_loader", "is_module", "is_tensor", "tensor_of"]


def is_tensor(value: Any) -> "TypeIs[Tensor]":
    """Return whether ``value`` is a torch tensor."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def is_module(value: Any) -> "TypeIs[nn.Module]":
    """Return whether ``value`` is a ``torch.nn.Module``."""
    nn = sys.modules.get("torch.nn")
    return nn is not None and isinstance(value, nn.Module)


def is_loader(value: Any) -> "TypeIs[DataLoader[Any]]":
    """Return whether ``value`` is a torch ``DataLoader``."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(value, data.DataLoader)


def array_of(tensor: "Tensor") -> NDArray[Any]:
    """Return a tensor's numbers as an array, in the same memory if on the CPU; bfloat16 as raw bytes, dtype ``|V2``."""
    import torch

    plain = tensor.detach().cpu()
    if plain.dtype == torch.bfloat16:
        return plain.view(torch.int16).numpy().view("V2")
    return plain.numpy()


def tensor_of(array: ArrayLike) -> "Tensor":
    """Return an array's numbers as a tensor; raw 2-byte values become bfloat16. Memory is shared where it can be."""
    import torch

    # unlike ascontiguousarray, require leaves 0-d arrays 0-d; torch warns of arrays that are not writable
    known = np.require(array, requirements=["C", "W"])
    if is_bfloat16(known.dtype):
        return torch.from_numpy(known.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(known)
