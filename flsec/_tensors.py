"""Telling torch's objects apart without importing torch: where it has not been loaded, nothing can be one of its own.

A client that trains with scikit-learn or numpy never pays for torch.
"""

import sys
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeIs

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

__all__ = ["is_loader", "is_module", "is_tensor"]


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
