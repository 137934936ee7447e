"""How long many calls of one kind took, by the clock and of the processor."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Times:
    """Milliseconds of so many calls: the median, the 99th percentile and the slowest by the clock, and the median of
    the processor alone, which says more where other programs run."""

    count: int
    median: float
    processor: float
    percentile_99: float
    slowest: float

    def __str__(self) -> str:
        rest = f"{self.percentile_99:.1f} ms (99 %), {self.slowest:.1f} ms (slowest)"
        return f"{self.median:.1f} ms (median; {self.processor:.1f} ms of the processor), {rest}"


def times_of(call: Callable[[Value], object], values: Iterable[Value]) -> Times:
    """What a call of each value takes, one after the other."""
    return summed([time_of(call, value) for value in values])


def time_of(call: Callable[[Value], object], value: Value) -> tuple[float, float]:
    """Milliseconds that a call takes: by the clock, and of this thread on the processor."""
    began, worked = time.perf_counter(), time.thread_time()
    call(value)
    return (time.perf_counter() - began) * 1000, (time.thread_time() - worked) * 1000


def summed(spent: Sequence[tuple[float, float]]) -> Times:
    """What `time_of` told of several calls."""
    clock, processor = zip(*spent, strict=True)
    percentile = quantiles(clock, n=100, method="inclusive")[98] if len(clock) > 1 else clock[0]
    return Times(len(spent), median(clock), median(processor), percentile, max(clock))
