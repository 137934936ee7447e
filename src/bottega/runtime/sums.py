"""Weighted sums of stored numbers by torch's C interface, which is ready in a sixth of the time of `import torch`."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import cycle
from math import isnan
from pathlib import Path
from typing import Any

from bottega.formats.header import BYTES_OF_DTYPE

SUMMED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # the dtypes of what is summed, and torch's names
_LIBRARIES = {"win32": "torch_cpu.dll", "darwin": "libtorch_cpu.dylib"}


class WeightedSum:
    """Sums blocks of at most `elements` numbers of one dtype, in float32 and rounded once, as `torch.lerp` does.

    A result is overwritten by the one that comes `held` after it. What is called of torch is promised to stay as it is:
    torch/csrc/inductor/aoti_torch/c/shim.h.
    """

    def __init__(self, dtype: str, elements: int, held: int) -> None:
        self._width, self._elements = int(BYTES_OF_DTYPE[dtype]), elements
        self._stored, self._float = (getattr(_torch(), f"aoti_torch_dtype_{SUMMED[it]}")() for it in (dtype, "F32"))
        self._a, self._b = ((ctypes.c_float * elements)() for _ in range(2))
        self._results = cycle([(ctypes.c_char * (self._width * elements))() for _ in range(held)])

    def __call__(self, a: memoryview, b: memoryview, weight: float) -> tuple[memoryview, bool]:
        """a (1 - weight) + b weight, little-endian as both are, and whether there is a NaN in it.

        Both are writable memory of equal length, and stay as they are. Raises ValueError if they are not, or of more
        numbers than there is room for, and RuntimeError if torch fails.
        """
        count = len(a) // self._width
        if not 0 < len(a) == len(b) == count * self._width <= self._elements * self._width:
            raise ValueError(f"blocks of {len(a)} and {len(b)} bytes, with room for {self._elements} numbers")
        result, largest = next(self._results), ctypes.c_float()
        theirs, others = ((ctypes.c_char * len(block)).from_buffer(block) for block in (a, b))
        with (
            _tensor(theirs, self._stored, count) as stored_a,
            _tensor(others, self._stored, count) as stored_b,
            _tensor(result, self._stored, count) as stored,
            _tensor(self._a, self._float, count) as float_a,
            _tensor(self._b, self._float, count) as float_b,
            _tensor(ctypes.c_float(weight), self._float) as share,
            _tensor(largest, self._float) as most,
        ):
            _copy(float_a, stored_a)
            _copy(float_b, stored_b)
            _call("aten::lerp", "Tensor_out", float_a, float_b, share, float_a)
            _call("aten::max", "unary_out", float_a, most)
            _copy(stored, float_a)
        return memoryview(result).cast("B")[: len(a)], isnan(largest.value)


@contextmanager
def one_thread_here() -> Iterator[None]:
    """Sum on the calling thread alone: where others read and write meanwhile, torch's would only wait.

    That takes a torch that computes by OpenMP, as those for Linux and macOS do; with another nothing is changed.
    """
    torch, before = _torch(), ctypes.c_uint32()
    _check(torch.torch_get_num_threads(ctypes.byref(before)))  # also has torch set it now, and not after us
    if not hasattr(torch, "omp_set_num_threads"):
        yield
        return
    torch.omp_set_num_threads(1)
    try:
        yield
    finally:
        torch.omp_set_num_threads(before.value)


@cache
def _torch(kind: type[ctypes.CDLL] = ctypes.CDLL) -> ctypes.CDLL:
    """torch's library for the processor: calls by a CDLL leave Python's lock to others, those by a PyDLL keep it."""
    found = find_spec("torch")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
    path = Path(found.origin).parent / "lib" / _LIBRARIES.get(sys.platform, "libtorch_cpu.so")
    if hasattr(os, "RTLD_NOW"):  # it takes a while, and ctypes would keep Python's lock meanwhile
        ctypes.CDLL(None).dlopen(os.fsencode(path), os.RTLD_NOW)
    try:
        return kind(str(path))
    except OSError:
        import torch  # noqa: F401  which knows where what its library needs is, if the system does not

        return kind(str(path))


@contextmanager
def _tensor(memory: Any, dtype: int, count: int | None = None) -> Iterator[ctypes.c_void_p]:
    """A tensor in memory of ours: a row of numbers, or one alone."""
    torch, made = _torch(ctypes.PyDLL), ctypes.c_void_p()  # a call takes less time than to get the lock back
    shape, steps = (ctypes.c_int64 * 1)(1 if count is None else count), (ctypes.c_int64 * 1)(1)
    axes, start, device = ctypes.c_int64(count is not None), ctypes.c_int64(0), torch.aoti_torch_device_type_cpu()
    told = ctypes.byref(memory), axes, shape, steps, start, dtype, device, 0, ctypes.byref(made)
    _check(torch.aoti_torch_create_tensor_from_blob(*told))
    try:
        yield made
    finally:
        torch.aoti_torch_delete_tensor_object(made)


def _copy(target: ctypes.c_void_p, source: ctypes.c_void_p) -> None:
    _check(_torch().aoti_torch_copy_(target, source, 0))


def _call(name: str, overload: str, *tensors: ctypes.c_void_p) -> None:
    """Call what writes to the last of the tensors, and gives it back."""
    torch = _torch(ctypes.PyDLL)
    stack = (ctypes.c_void_p * len(tensors))()
    for place, tensor in enumerate(tensors):
        ours = ctypes.c_void_p()  # which the call takes
        _check(torch.aoti_torch_new_tensor_handle(tensor, ctypes.byref(ours)))
        stack[place] = ours
    _check(_torch().aoti_torch_call_dispatcher(name.encode(), overload.encode(), stack))
    torch.aoti_torch_delete_tensor_object(ctypes.c_void_p(stack[0]))


def _check(code: int) -> None:
    if code:
        told = _torch().torch_exception_get_what_without_backtrace
        told.restype = ctypes.c_char_p
        raise RuntimeError((told() or b"torch's C interface failed").decode(errors="replace"))
