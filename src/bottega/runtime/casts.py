"""Numbers of 32 and 64 bits to other dtypes, block by block, as they lie in files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from threading import Lock

import torch

from bottega.runtime.tables import OutOfRange
from bottega.runtime.weights import DTYPES


class Cast:
    """Casts blocks of at most `elements` numbers of float32 or float64 to another dtype, rounding to nearest.

    What is too large, which `clipped` counts, and how long results last is as with `Table`, which casts smaller ones.
    """

    def __init__(self, source: str, target: str, elements: int, held: int) -> None:
        self._source, self._target = DTYPES[source], DTYPES[target]
        self._results = cycle([torch.empty(elements, dtype=self._target) for _ in range(held)])
        self.clipped = 0
        self._largest = torch.finfo(self._target).max
        self._narrows = self._largest < torch.finfo(self._source).max

    def __call__(self, block: memoryview) -> memoryview:
        """The same numbers in the other dtype."""
        return self.store(torch.frombuffer(block, dtype=self._source))

    def store(self, numbers: torch.Tensor) -> memoryview:
        """Numbers of the source's dtype in the other one."""
        result = next(self._results)[: len(numbers)]
        if self._narrows and not self._fits(numbers):
            numbers = self._narrowed(numbers)
        result.copy_(self._near(numbers))
        return memoryview(result.view(torch.uint8).numpy())

    def _fits(self, numbers: torch.Tensor) -> bool:
        low, high = torch.aminmax(numbers)
        return -self._largest <= low.item() and high.item() <= self._largest  # false if there is a NaN

    def _narrowed(self, numbers: torch.Tensor) -> torch.Tensor:
        if self._target.itemsize == 1:
            self.clipped += int((numbers.abs() > self._largest).sum())
            return numbers.clamp(-self._largest, self._largest)
        lost = numbers[torch.isfinite(numbers) & ~torch.isfinite(self._near(numbers).to(self._target))]
        if len(lost):
            raise OutOfRange(len(lost), lost.abs().max().item())
        return numbers

    def _near(self, numbers: torch.Tensor) -> torch.Tensor:
        """Numbers that torch rounds to those of the target which are nearest to the given ones."""
        if numbers.dtype == torch.float64 and self._target.itemsize < 4:
            return _rounded_to_odd(numbers)
        return numbers


def _rounded_to_odd(numbers: torch.Tensor) -> torch.Tensor:
    """Numbers of float64 in float32: of the two beside one that float32 lacks, that whose last bit is set.

    To a smaller dtype torch rounds by way of float32, where rounding to nearest makes ties of what is none. The odd
    number lies on the right side of each (Boldo and Melquiond 2008).
    """
    nearest = numbers.float()
    bits = nearest.view(torch.int32)
    other = bits + torch.where(nearest.double().abs() < numbers.abs(), 1, -1).int()
    moves = (nearest != numbers) & ~numbers.isnan() & (bits % 2 == 0)
    return torch.where(moves, other, bits).view(torch.float32)


_alone = 0  # how many compute on one thread now
_before = 1
_counting = Lock()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on the calling thread alone: where others read and write meanwhile, torch's would only wait.

    Several may do so at the same time; when the last of them has ended, torch has as many threads as before the first.
    """
    global _alone, _before
    with _counting:
        if not _alone:
            _before = torch.get_num_threads()
            torch.set_num_threads(1)
        _alone += 1
    try:
        yield
    finally:
        with _counting:
            _alone -= 1
            if not _alone:
                torch.set_num_threads(_before)
