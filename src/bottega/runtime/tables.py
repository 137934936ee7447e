"""Casts numbers of at most 16 bits by looking each one up: faster than computing it, and without torch's import."""

from __future__ import annotations

from itertools import cycle

import numpy as np

_EXACT = np.dtype(np.float64)
BITS = {"F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8}  # the dtypes of which all numbers fit into a table
_NAN = {"F16": 0x7E00, "BF16": 0x7FC0, "F8_E4M3": 0x7F, "F8_E5M2": 0x7E}
_PART = 1 << 16  # numbers looked up in one call, whose indices stay in the processor's cache


class OutOfRange(ValueError):
    """Numbers that are finite and would not be so in the dtype that they are to be cast to."""

    def __init__(self, count: int, largest: float) -> None:
        super().__init__(f"{count} number{'s' if count > 1 else ''} up to {largest:.3g}")


class Table:
    """Casts blocks of at most `elements` numbers from one of BITS to float32 or another of them, rounding to nearest.

    What is too large for float8 becomes its largest number, and `clipped` counts it; for float16 and bfloat16 that
    raises OutOfRange, as such a model would make nothing but black pictures. A result is overwritten by the one that
    comes `held` after it.
    """

    def __init__(self, source: str, target: str, elements: int, held: int) -> None:
        with np.errstate(invalid="ignore"):  # of NaN that signal
            self._numbers = _numbers(source)
            self._table = self._numbers.astype("<f4") if target == "F32" else _nearest(self._numbers, target)
            limit = _overflow(target)
        self._clips = BITS.get(target) == 8
        self.clipped = 0
        self._codes = np.dtype(f"<u{BITS[source] // 8}")
        self._results = cycle([np.empty(elements, self._table.dtype) for _ in range(held)])
        # Codes grow with the magnitudes that they stand for, so that what is too large is one range of them.
        positive = self._numbers[: len(self._numbers) // 2]
        if self._clips:
            lost = positive > _finite(target)[-1]
        else:
            lost = np.isfinite(positive) & (positive >= limit)
        self._lost = range(int(lost.argmax()), int(lost.argmax() + lost.sum()))

    def __call__(self, block: memoryview) -> memoryview:
        """The same numbers in the other dtype."""
        codes = np.frombuffer(block, self._codes)
        if self._lost:
            self._look(codes)
        result = next(self._results)[: len(codes)]
        for at in range(0, len(codes), _PART):
            part = slice(at, at + _PART)
            np.take(self._table, codes[part], out=result[part], mode="wrap")
        return memoryview(result.view(np.uint8))

    def _look(self, codes: np.ndarray) -> None:
        """Look for what is too large."""
        magnitudes = codes & self._codes.type(len(self._numbers) // 2 - 1)
        lost = (magnitudes >= self._lost.start) & (magnitudes < self._lost.stop)
        count = int(lost.sum())
        if count and not self._clips:
            raise OutOfRange(count, self._numbers[magnitudes[lost].max()])
        self.clipped += count


def _numbers(dtype: str) -> np.ndarray:
    """What every code of a dtype stands for, in float64."""
    codes = np.arange(1 << BITS[dtype], dtype=np.uint16)
    match dtype:
        case "F16":
            return codes.view(np.float16).astype(_EXACT)
        case "BF16":
            return (codes.astype(np.uint32) << 16).view(np.float32).astype(_EXACT)
        case "F8_E5M2":
            return (codes << 8).view(np.float16).astype(_EXACT)
        case _:  # E4M3FN: no infinities, and one NaN of each sign (Micikevicius et al. 2022, arXiv:2209.05433)
            exponent, mantissa = codes >> 3 & 15, (codes & 7) / 8
            magnitude = np.where(exponent == 0, mantissa * 2.0**-6, (1 + mantissa) * 2.0 ** (exponent - 7.0))
            magnitude[codes & 127 == 127] = np.nan
            return np.where(codes & 128, -magnitude, magnitude)


def _nearest(numbers: np.ndarray, target: str) -> np.ndarray:
    """The code of a dtype that is nearest to each number; of two that are equally near, the even one."""
    finite = _finite(target)
    magnitudes = np.abs(numbers)
    above = np.searchsorted(finite, magnitudes).clip(1, len(finite) - 1)
    middle = (finite[above - 1] + finite[above]) / 2
    codes = np.where((magnitudes > middle) | ((magnitudes == middle) & (above % 2 == 0)), above, above - 1)
    codes = np.where(magnitudes >= _overflow(target), len(finite), codes)  # the code after the largest is infinity's
    codes = np.where(np.isnan(numbers), _NAN[target], codes)
    signs = np.signbit(numbers).astype(codes.dtype) << (BITS[target] - 1)
    return (codes | signs).astype(f"<u{BITS[target] // 8}")


def _finite(dtype: str) -> np.ndarray:
    """The numbers that are finite and not negative, in the order of their codes, which is that of their size."""
    positive = _numbers(dtype)[: 1 << (BITS[dtype] - 1)]
    return positive[np.isfinite(positive)]


def _overflow(dtype: str) -> float:
    """From which magnitude on a number becomes infinite in a dtype; float8 has its largest number for all of those."""
    if BITS.get(dtype) != 16:
        return np.nan  # which nothing reaches
    largest, before = _finite(dtype)[:-3:-1]
    return float(largest + (largest - before) / 2)
