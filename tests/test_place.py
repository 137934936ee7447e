"""The place is chosen by what the device can do, and the plan says before loading what will not fit."""

from __future__ import annotations

import sys

import pytest
import torch
from headers import stable_diffusion as layouts

from bottega.errors import BottegaError, InvalidRecipe
from bottega.families import sd1, sdxl
from bottega.runtime import place as places
from bottega.runtime.place import choose, keep_memory
from bottega.runtime.plan import GIB, MemoryPlan, available_memory, plan

HALF = dict.fromkeys(("unet", "vae", "text_encoder", "text_encoder_2"), "bfloat16")


def cpu_with(monkeypatch: pytest.MonkeyPatch, **able: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)


@pytest.mark.parametrize(
    ("able", "dtype"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_cpu_computes_in_what_it_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], dtype: str
) -> None:
    cpu_with(monkeypatch, **able)
    place = choose("cpu")
    assert set(place.dtypes.values()) == {dtype}
    assert place.precision == dtype
    assert place.dtype("vae") is getattr(torch, dtype)
    assert place.torch_device == torch.device("cpu")


def test_precision_that_is_asked_for() -> None:
    assert choose("cpu", "float32").precision == "float32"
    assert choose("cpu", "bfloat16").precision == "bfloat16"
    with pytest.raises(InvalidRecipe, match="float16"):
        choose("cpu", "float16")
    with pytest.raises(InvalidRecipe, match="none of auto"):
        choose("cpu", "int8")


@pytest.mark.parametrize(("capability", "vae"), [((8, 0), "bfloat16"), ((7, 5), "float32")])
def test_gpus_decode_in_a_dtype_that_does_not_overflow(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], vae: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    place = choose()
    assert place.device == "cuda"
    assert (place.precision, place.dtypes["vae"]) == ("float16", vae)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(BottegaError, match=r"use one of: auto, .*cpu"):
        choose("tpu")


def test_memory_is_that_of_this_machine() -> None:
    assert GIB // 8 < available_memory() < 2**46
    assert choose("cpu").memory <= available_memory() * 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_the_allocator_can_be_told() -> None:
    assert keep_memory() is True
    assert places.keep_memory() is True


def planned(family: str, available: float, **asked: object) -> MemoryPlan:
    header = layouts.header(layouts.PUBLISHED[family][2])
    match = {"sd1": sd1, "sdxl": sdxl}[family].recognise(header)
    assert match is not None
    return plan(header, match, HALF, round(available * GIB), **{"size": (512, 512), **asked})  # type: ignore[arg-type]


def test_weights_are_counted_in_the_dtype_that_they_will_have() -> None:
    small = planned("sd1", 24)
    assert small.weights["unet"] == 2 * 859_520_964
    assert small.fits
    assert not small.tile_vae
    assert "needs" in small.words


def test_more_of_everything_takes_more() -> None:
    one = planned("sd1", 24).needed
    assert planned("sd1", 24, size=(1024, 1024)).needed > one
    assert planned("sd1", 24, batch=4).needed > one
    assert planned("sdxl", 24).needed > one


def test_says_what_to_change() -> None:
    assert planned("sd1", 1.5).words.endswith("close other programs, or use a smaller model")
    many = planned("sd1", 3, batch=16)
    assert not many.fits
    assert many.words.endswith("make fewer pictures at once")
    large = planned("sd1", 3, size=(2048, 2048))
    assert large.words.endswith("make a smaller picture")


def test_decodes_in_tiles_when_the_whole_does_not_fit() -> None:
    large = planned("sdxl", 11, size=(1536, 1536))
    assert large.tile_vae
    assert large.fits
    assert not planned("sdxl", 24, size=(1536, 1536)).tile_vae
