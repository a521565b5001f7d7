"""A GPU that is none: tensors in main memory that say they are on CUDA, and refuse to meet tensors that are not.

It finds what a machine without a GPU would never show: a tensor made on the wrong device, ``numpy()`` of one on a GPU.
It says nothing of speed, or of CUDA's own kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

__all__ = ["a_gpu"]

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
_MOVES = {"aten::_to_copy", "aten::copy_"}
_INDEXED = {"aten::index.Tensor", "aten::index_put_", "aten::_index_put_impl_"}  # by positions on either device


class _OnGpu(torch.Tensor):
    """A tensor around another one in main memory."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> _OnGpu:
        made: _OnGpu = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=CUDA
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"on a pretended GPU: {self.inner}"

    # With these two, torch puts such tensors into the parameters of a network that is moved.
    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, torch.Tensor], *_: Any) -> _OnGpu:
        return _OnGpu(parts["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} met a tensor of the pretended GPU outside of it")


class _Gpu(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name + (f".{func._schema.overload_name}" if func._schema.overload_name else "")
        tensors = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, torch.Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, _OnGpu)]
        on_gpu = bool(there)
        if name not in _MOVES and on_gpu:
            checked = [args[0]] if name in _INDEXED else tensors
            if any(not isinstance(tensor, _OnGpu) and tensor.dim() for tensor in checked):
                raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        if kwargs.get("device") is not None:
            on_gpu = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = CPU
        wrapper_of = {id(tensor.inner): tensor for tensor in there}
        if name == "aten::copy_":
            on_gpu = isinstance(args[0], _OnGpu)
        plain = tree_map(lambda leaf: leaf.inner if isinstance(leaf, _OnGpu) else leaf, (args, kwargs))
        result = func(*plain[0], **plain[1])
        if name == "aten::_to_copy" and any(result is tensor for tensor in tree_flatten(plain)[0]):
            result = result.clone()

        def back(leaf: Any) -> Any:
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if id(leaf) in wrapper_of:
                return wrapper_of[id(leaf)]  # an operation in place
            return _OnGpu(leaf) if on_gpu else leaf

        return tree_map(back, result)


@contextmanager
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Let there be a GPU while this lasts: a real one, or one that is none."""
    if torch.cuda.is_available():
        yield CUDA
        return
    with monkeypatch.context() as patched, _Gpu():
        patched.setattr(torch.cuda, "_lazy_init", lambda: None)
        patched.setattr(torch.cuda, "is_available", lambda: True)
        patched.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**30, 2**30))
        torch._C._ensureCUDADeviceGuardSet()  # as torch itself does for its fake tensors
        yield CUDA
