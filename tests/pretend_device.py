"""A device that is none: its tensors lie in main memory, and refuse what a GPU's would refuse beside others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:0")  # torch knows the name in every build, and needs nothing for it
_BETWEEN = {"aten::copy_", "aten::_to_copy", "aten::index", "aten::index_put_"}  # what CUDA takes from both


class OnTwoDevices(RuntimeError):
    """Tensors of two devices met, as torch says of a GPU: "Expected all tensors to be on the same device"."""


class Pretended(torch.Tensor):
    """A tensor that says it is on the device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls, real.size(), strides=real.stride(), storage_offset=0, dtype=real.dtype, device=DEVICE
        )
        made.held = real
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Called(TorchFunctionMode):
    """What torch makes on a device without dispatching it."""

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        told = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and told.get("device") is not None:
            return func(*args, **{**told, "device": "cpu"}).to(told["device"])
        if func is torch.Tensor.new_tensor and isinstance(args[0], Pretended):
            return torch.tensor(args[1], dtype=told.get("dtype", args[0].dtype)).to(DEVICE)
        return func(*args, **told)


_arrived: list[int] = []


@contextmanager
def pretended() -> Iterator[list[int]]:
    """While it is entered, tensors can be made on the device; how many numbers came there as tensors of their own."""
    _arrived.clear()
    with _Called(), _Dispatched():
        yield _arrived


def _run(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim()]
    if there and elsewhere and func._schema.name not in _BETWEEN:
        raise OnTwoDevices(f"{func}: {[tuple(tensor.shape) for tensor in elsewhere]} in main memory")
    told = kwargs.get("device")
    on_device = bool(there) if told is None else torch.device(told) == DEVICE
    if told is not None and on_device:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    if on_device and not there and func._schema.name == "aten::_to_copy":
        _arrived.extend(tensor.numel() for tensor in tensors)
    made = func(*tree_map(_real, args), **tree_map(_real, kwargs))
    if func._schema.is_mutable and args and isinstance(made, torch.Tensor):
        return args[0]
    return (
        tree_map(lambda each: Pretended(each) if isinstance(each, torch.Tensor) else each, made) if on_device else made
    )


def _real(value: Any) -> Any:
    return value.held if isinstance(value, Pretended) else value
