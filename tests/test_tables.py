"""Casts by tables round as torch does, number for number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bottega.runtime.tables import BITS, OutOfRange, Table
from bottega.runtime.weights import DTYPES

LARGEST = 448.0


def cast(numbers: torch.Tensor, source: str, target: str) -> torch.Tensor:
    table = Table(source, target, len(numbers), held=2)
    made = table(memoryview(numbers.view(torch.uint8).numpy()))
    return torch.frombuffer(bytearray(made), dtype=DTYPES[target])


def all_of(dtype: str) -> torch.Tensor:
    """Every number of a dtype, NaN and infinities included."""
    codes = torch.from_numpy(np.arange(1 << BITS[dtype], dtype=f"<u{BITS[dtype] // 8}"))
    return codes.view(DTYPES[dtype])


@pytest.mark.parametrize("source", BITS)
@pytest.mark.parametrize("target", ["F32", "F16", "BF16", "F8_E4M3"])
def test_every_number_becomes_what_torch_makes_of_it(source: str, target: str) -> None:
    numbers = all_of(source)
    wanted = numbers.float()
    if target == "F8_E4M3":
        wanted = wanted.clamp(-LARGEST, LARGEST)
    wanted = wanted.to(DTYPES[target])
    if target == "F16":
        fits = ~wanted.isinf() | numbers.float().isinf()
        numbers, wanted = numbers.float()[fits].to(DTYPES[source]), wanted[fits]
    made = cast(numbers, source, target)
    known = ~wanted.float().isnan()
    assert torch.equal(made.float().isnan(), ~known)
    bits = torch.int32 if target == "F32" else torch.int16 if BITS[target] == 16 else torch.uint8
    assert torch.equal(made.view(bits)[known], wanted.view(bits)[known]), "signs of zeros included"


def test_the_first_number_that_float16_lacks_is_refused() -> None:
    fits = torch.tensor([65024.0, -65024.0, float("inf"), float("nan")]).bfloat16()
    assert cast(fits, "BF16", "F16")[:3].tolist() == [65024.0, -65024.0, float("inf")]
    too_large = torch.tensor([65536.0, -131072.0, 1.0]).bfloat16()
    with pytest.raises(OutOfRange, match=r"2 numbers up to 1\.31e\+05"):
        cast(too_large, "BF16", "F16")
