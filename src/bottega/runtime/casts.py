"""Numbers from one dtype to another, block by block, as they lie in files."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle

import torch

from bottega.runtime.weights import DTYPES

FLOATS = frozenset(("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"))
_HELD = 4  # results that are kept from being overwritten
_EIGHT_BITS = ("F8_E4M3", "F8_E5M2")


class OutOfRange(ValueError):
    """A number that is finite and would not be so in the dtype that it is to be cast to."""


class Cast:
    """Casts blocks of one dtype to another, rounding to nearest.

    What is too large for float8 becomes its largest number; for float16 and bfloat16 that raises OutOfRange, as such a
    model would make nothing but black pictures. A result is overwritten by the fourth after it.
    """

    def __init__(self, source: str, target: str, elements: int) -> None:
        self._source, self._target = DTYPES[source], DTYPES[target]
        self._results = cycle([torch.empty(elements, dtype=self._target) for _ in range(_HELD)])
        narrower = torch.finfo(self._target).max < torch.finfo(self._source).max
        self._limit = torch.finfo(self._target).max if narrower else None
        self._clamps = target in _EIGHT_BITS

    def __call__(self, block: memoryview) -> memoryview:
        """The same numbers in the other dtype."""
        numbers = torch.frombuffer(block, dtype=self._source)
        result = next(self._results)[: len(numbers)]
        if self._clamps:
            if numbers.dtype.itemsize == 1:
                numbers = numbers.float()
            numbers = numbers.clamp(-torch.finfo(self._target).max, torch.finfo(self._target).max)
        result.copy_(numbers)
        if self._limit is not None and not self._clamps:
            self._check(numbers, result)
        return memoryview(result.view(torch.uint8).numpy())

    def _check(self, numbers: torch.Tensor, result: torch.Tensor) -> None:
        low, high = torch.aminmax(numbers)
        if -self._limit <= low.item() and high.item() <= self._limit:  # false for NaN, which is looked at more closely
            return
        lost = numbers[torch.isfinite(numbers) & ~torch.isfinite(result)]
        if len(lost):
            raise OutOfRange(f"{len(lost)} numbers up to {lost.abs().max().item():.3g}")


def cast_all(blocks: Iterator[memoryview], source: str, target: str, elements: int) -> Iterator[memoryview]:
    """Blocks of at most `elements` numbers in the other dtype."""
    return map(Cast(source, target, elements), blocks)
