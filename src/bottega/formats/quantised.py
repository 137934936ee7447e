"""Weights in fewer bits than the file's own dtypes have: several in each number, and beside them how to read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from bottega.formats.layout import Placed

_BITSANDBYTES = {"bitsandbytes__nf4": "NF4", "bitsandbytes__fp4": "FP4"}  # how the name of a weight's state ends
_NUMBERS_OF_BITSANDBYTES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
_PACKED = ".qweight"  # GPTQ's and AWQ's
_NUMBERS_OF_PACKED = (".qzeros", ".scales", ".g_idx")
_BITS = (2, 3, 4, 8)
SIGNS = frozenset({*_BITSANDBYTES, "qweight"})  # without such an ending of a name nothing is quantised so


class Weight(NamedTuple):
    """One weight that is stored so: what its numbers are, how many they are, and who packed them."""

    dtype: str
    elements: int
    by: str


@dataclass(frozen=True)
class Quantised:
    """The weights that are stored so, by the tensors that hold them, and the tensors that say how to read those."""

    weights: Mapping[str, Weight]
    numbers: frozenset[str]

    @property
    def because(self) -> tuple[str, ...]:
        """The evidence in words."""
        counts: dict[tuple[str, str], int] = {}
        for dtype, _, by in self.weights.values():
            counts[by, dtype] = counts.get((by, dtype), 0) + 1
        return tuple(
            f"quantised by {by}: {count} {'weight is' if count == 1 else 'weights are'} {dtype}"
            for (by, dtype), count in counts.items()
        )


NOT_QUANTISED = Quantised({}, frozenset())


def quantised_weights(rows: Mapping[str, Placed]) -> Quantised:
    """The quantised weights among tensors; what lacks a tensor that reading it takes is none."""
    weights: dict[str, Weight] = {}
    numbers: set[str] = set()
    for name in rows:
        for weight, told, beside in (*_of_bitsandbytes(rows, name), *_of_packed(rows, name)):
            weights[weight] = told
            numbers.update(each for each in beside if each in rows)
    return Quantised(weights, frozenset(numbers)) if weights else NOT_QUANTISED


def _of_bitsandbytes(rows: Mapping[str, Placed], state: str) -> Iterator[tuple[str, Weight, tuple[str, ...]]]:
    """bitsandbytes puts two numbers into a byte, and a state named after their sort beside it."""
    weight, dot, sort = state.rpartition(".quant_state.")
    row = rows.get(weight)
    if dot and sort in _BITSANDBYTES and row is not None and row.dtype == "U8":
        beside = (state, *(weight + ending for ending in _NUMBERS_OF_BITSANDBYTES))
        yield weight, Weight(_BITSANDBYTES[sort], 2 * prod(row.shape), "bitsandbytes"), beside


def _of_packed(rows: Mapping[str, Placed], weight: str) -> Iterator[tuple[str, Weight, tuple[str, ...]]]:
    """GPTQ packs the rows of a weight into numbers of 32 bits, AWQ its columns; both pack the columns of its zeros."""
    if not weight.endswith(_PACKED):
        return
    module = weight.removesuffix(_PACKED)
    row, zeros, scales = rows[weight], rows.get(f"{module}.qzeros"), rows.get(f"{module}.scales")
    if row.dtype != "I32" or zeros is None or scales is None or not len(row.shape) == len(zeros.shape) == 2:
        return
    columns = scales.shape[-1] if scales.shape else 0
    bits = 32 * zeros.shape[1] // columns if columns else 0
    if bits not in _BITS or row.shape[1] not in (columns, zeros.shape[1]):
        return
    by = "GPTQ" if row.shape[1] == columns else "AWQ"
    beside = tuple(module + ending for ending in _NUMBERS_OF_PACKED)
    yield weight, Weight(f"INT{bits}", 32 * prod(row.shape) // bits, by), beside
