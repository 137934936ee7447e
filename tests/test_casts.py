"""Casts of numbers of 64 bits round once, to nearest, and to even where two are as near."""

from __future__ import annotations

import math

import pytest
import torch

from bottega.runtime.casts import Cast
from bottega.runtime.tables import OutOfRange
from bottega.runtime.weights import DTYPES

INTEGERS = {"F16": torch.int16, "BF16": torch.int16, "F8_E4M3": torch.uint8}


def cast(numbers: torch.Tensor, target: str) -> torch.Tensor:
    made = Cast("F64", target, len(numbers), held=1).store(numbers)
    return torch.frombuffer(bytearray(made), dtype=DTYPES[target])


@pytest.mark.parametrize("target", INTEGERS)
def test_a_number_becomes_the_nearest(target: str) -> None:
    dtype = DTYPES[target]
    last = int(torch.tensor(torch.finfo(dtype).max, dtype=dtype).view(INTEGERS[target]))
    codes = torch.arange(last + 1).to(INTEGERS[target])
    lower, upper = codes[:-1], codes[1:]
    middle = (lower.view(dtype).double() + upper.view(dtype).double()) / 2
    even = torch.where(lower % 2 == 0, lower, upper)
    for numbers, wanted in (
        (middle * (1 - 2**-40), lower),
        (middle, even),
        (middle * (1 + 2**-40), upper),
        (lower.view(dtype).double(), lower),
    ):
        assert torch.equal(cast(numbers, target).view(INTEGERS[target]), wanted)
        assert torch.equal(cast(-numbers, target).double(), -wanted.view(dtype).double())


@pytest.mark.parametrize("target", ["F16", "BF16"])
def test_the_last_number_that_is_not_too_large(target: str) -> None:
    largest = torch.finfo(DTYPES[target]).max
    before = torch.tensor([largest]).to(DTYPES[target]).view(torch.int16).sub(1).view(DTYPES[target]).double()
    limit = largest + (largest - before) / 2
    assert cast(limit * (1 - 2**-40), target).tolist() == [largest]
    for numbers in (limit, torch.tensor([1e300], dtype=torch.float64)):
        with pytest.raises(OutOfRange):
            cast(numbers, target)


@pytest.mark.parametrize("target", ["F16", "BF16", "F32"])
def test_what_is_no_finite_number_stays_so(target: str) -> None:
    numbers = torch.tensor([math.inf, -math.inf, math.nan, -math.nan, 0.0, -0.0, 1e-300, -1e-300], dtype=torch.float64)
    made = cast(numbers, target).double()
    assert made[:2].tolist() == [math.inf, -math.inf] and made[2:4].isnan().all()
    assert [math.copysign(1, it) for it in made[4:].tolist()] == [1, -1, 1, -1] and not made[4:].any()
