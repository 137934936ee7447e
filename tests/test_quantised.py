"""Files of weights in few bits say how many weights they hold and what those are, not how they are packed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from bottega.cli.models.show import part_rows
from bottega.formats import Header, read_header
from bottega.formats.header import BYTES_OF_DTYPE
from bottega.library.disk import stamp_of
from bottega.library.reading import read_entry
from bottega.recognisers import all_recognisers

Tensors = Mapping[str, tuple[str, tuple[int, ...]]]
OUT, INTO, GROUP = 64, 128, 32
WEIGHT = OUT * INTO


def write(path: Path, tensors: Tensors) -> Path:
    """A file of these tensors, all of whose numbers are 0."""
    header, end = {}, 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + int(math.prod(shape) * BYTES_OF_DTYPE[dtype])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))
    return path


def bitsandbytes(name: str, sort: str, nested: bool = False) -> Tensors:
    """A linear layer's weight as bitsandbytes 0.43 and later write it (functional.py, QuantState.as_dict)."""
    absmax = {f"{name}.absmax": ("F32", (WEIGHT // 64,))}
    if nested:
        absmax = {
            f"{name}.absmax": ("U8", (WEIGHT // 64,)),
            f"{name}.nested_absmax": ("F32", (1,)),
            f"{name}.nested_quant_map": ("F32", (256,)),
        }
    return {
        name: ("U8", (WEIGHT // 2, 1)),
        **absmax,
        f"{name}.quant_map": ("F32", (16,)),
        f"{name}.quant_state.bitsandbytes__{sort}": ("U8", (90,)),
    }


def gptq(module: str, bits: int) -> Tensors:
    """A linear layer as AutoGPTQ writes it: packed along what goes in."""
    return {
        f"{module}.qweight": ("I32", (INTO * bits // 32, OUT)),
        f"{module}.qzeros": ("I32", (INTO // GROUP, OUT * bits // 32)),
        f"{module}.scales": ("F16", (INTO // GROUP, OUT)),
        f"{module}.g_idx": ("I32", (INTO,)),
    }


def awq(module: str) -> Tensors:
    """A linear layer as AutoAWQ writes it: packed along what comes out."""
    return {
        f"{module}.qweight": ("I32", (INTO, OUT // 8)),
        f"{module}.qzeros": ("I32", (INTO // GROUP, OUT // 8)),
        f"{module}.scales": ("F16", (INTO // GROUP, OUT)),
    }


PLAIN: Tensors = {"layers.0.norm.weight": ("F16", (OUT,)), "layers.0.proj.bias": ("F16", (OUT,))}
QUANTISED = [
    (bitsandbytes("layers.0.proj.weight", "nf4"), "NF4", "bitsandbytes"),
    (bitsandbytes("layers.0.proj.weight", "nf4", nested=True), "NF4", "bitsandbytes"),
    (bitsandbytes("layers.0.proj.weight", "fp4"), "FP4", "bitsandbytes"),
    (gptq("layers.0.proj", 2), "INT2", "GPTQ"),
    (gptq("layers.0.proj", 3), "INT3", "GPTQ"),
    (gptq("layers.0.proj", 4), "INT4", "GPTQ"),
    (gptq("layers.0.proj", 8), "INT8", "GPTQ"),
    (awq("layers.0.proj"), "INT4", "AWQ"),
]


@pytest.mark.parametrize(("tensors", "dtype", "by"), QUANTISED)
def test_the_weights_are_counted_and_named(tmp_path: Path, tensors: Tensors, dtype: str, by: str) -> None:
    path = write(tmp_path / "model.safetensors", {**tensors, **PLAIN})
    header = read_header(path)
    assert header.parameters == WEIGHT + 2 * OUT
    assert next(iter(header.dtypes)) == dtype
    held = next(iter(tensors))
    assert header.dtypes[dtype] == header.tensors[held].end - header.tensors[held].start
    assert header.bytes == sum(info.end - info.start for info in header.tensors.values())
    entry = read_entry(path, stamp_of(path), None, all_recognisers())
    assert (entry.dtype, entry.parameters) == (dtype, WEIGHT + 2 * OUT)
    assert entry.because[-1] == f"quantised by {by}: 1 weight is {dtype}"
    (part,) = part_rows(header, {})
    assert (part["parameters"], dtype in part["dtypes"], part["bytes"]) == (WEIGHT + 2 * OUT, True, header.bytes)


def test_what_most_of_a_file_is_stays_what_is_told_of_it(tmp_path: Path) -> None:
    encoder = {"encoder.weight": ("BF16", (OUT, 10 * INTO))}
    path = write(tmp_path / "model.safetensors", {**bitsandbytes("proj.weight", "nf4"), **encoder})
    entry = read_entry(path, stamp_of(path), None, all_recognisers())
    assert (entry.dtype, entry.parameters) == ("BF16", 11 * WEIGHT)
    assert entry.because[-1] == "quantised by bitsandbytes: 1 weight is NF4"


NOT_QUANTISED: list[Tensors] = [
    PLAIN,
    {"proj.weight.quant_state.bitsandbytes__nf4": ("U8", (90,))},  # of a weight that isn't there
    {"proj.weight": ("F16", (4, 4)), "proj.weight.quant_state.bitsandbytes__nf4": ("U8", (90,))},
    {"proj.qweight": ("I32", (4, 4))},
    {"proj.qweight": ("I32", (4, 4)), "proj.qzeros": ("I32", (1, 4)), "proj.scales": ("F16", ())},
    {"proj.qweight": ("I32", (4,)), "proj.qzeros": ("I32", (1,)), "proj.scales": ("F16", (1, 4))},
    {"proj.qweight": ("I32", (4, 9)), "proj.qzeros": ("I32", (1, 8)), "proj.scales": ("F16", (1, 64))},
    {"proj.qweight": ("I8", (64, 64)), "proj.wscales": ("BF16", (2, 64))},  # SVDQuant's, which has more to it
]


@pytest.mark.parametrize("tensors", NOT_QUANTISED)
def test_what_is_not_stored_so_is_counted_as_it_is(tmp_path: Path, tensors: Tensors) -> None:
    header = read_header(write(tmp_path / "model.safetensors", tensors))
    assert header.parameters == sum(info.elements for info in header.tensors.values())
    assert set(header.dtypes) == {info.dtype for info in header.tensors.values()}
    assert header.layout.quantised.because == ()


def test_a_folder_counts_its_parts(tmp_path: Path) -> None:
    file = read_header(write(tmp_path / "model.safetensors", bitsandbytes("proj.weight", "nf4")))
    parts = {f"{part}/{name}": info for part in ("transformer", "text_encoder") for name, info in file.tensors.items()}
    header = Header(tmp_path, "diffusers", parts)
    assert header.parameters == 2 * WEIGHT
    assert header.layout.quantised.because == ("quantised by bitsandbytes: 2 weights are NF4",)
