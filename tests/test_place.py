"""The place is chosen by what the device can do, and the plan says before loading what will not fit."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from headers import stable_diffusion as layouts

from bottega.errors import InvalidRecipe, InvalidSetting
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
    with pytest.raises(InvalidSetting, match=r"set BOTTEGA_DEVICE, .* to one of: auto, .*cpu"):
        choose("tpu")


def test_what_may_change_the_last_bits_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    place = choose("cpu")
    assert place.threads == torch.get_num_threads()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert place.capability == "AVX2"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert (choose().threads, choose().capability) == (None, "9.0")


CONVOLUTION = """
import bottega.runtime.place
import torch
torch.nn.functional.conv2d(torch.ones(1, 64, 32, 32), torch.ones(64, 64, 3, 3))
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
@pytest.mark.parametrize("variable", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_no_variable_makes_float32_less_exact(variable: str) -> None:
    words = [sys.executable, "-c", CONVOLUTION]
    environment = {**os.environ, "ONEDNN_VERBOSE": "1", variable: "BF16"}
    ran = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    done = [line for line in ran.stdout.splitlines() if ",primitive,exec," in line]
    assert any(",convolution," in line for line in done), ran.stdout
    assert not any("fpmath" in line for line in done), ran.stdout


SWITCHES = """
import torch
from bottega.runtime.place import keep_precision
{}
keep_precision()
backends = torch.backends
operations = backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv
print(*[operation.fp32_precision for operation in operations])
print(torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "before",
    [
        "pass",
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.mkldnn.fp32_precision = 'bf16'",
        "torch.backends.cudnn.conv.fp32_precision = 'tf32'",
    ],
)
def test_no_switch_makes_float32_less_exact(before: str) -> None:
    words = [sys.executable, "-c", SWITCHES.format(before)]
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [*["ieee"] * 4, "highest", "False", "False"]


def test_memory_is_that_of_this_machine() -> None:
    assert GIB // 8 < available_memory() < 2**46
    assert choose("cpu").memory <= available_memory() * 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_the_allocator_can_be_told() -> None:
    assert keep_memory() is True
    assert places.keep_memory() is True


def planned(family: str, available: float, **asked: object) -> MemoryPlan:
    header = layouts.header(layouts.PUBLISHED[family][2])
    match = {"sd1": sd1, "sdxl": sdxl}[family].family.recognise(header)
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


def test_reckons_with_tiles_as_the_recipe_has_them() -> None:
    whole = planned("sdxl", 11, size=(1536, 1536), tiled=False)
    assert not whole.fits
    assert whole.words.endswith("decode it in tiles (vae_tiling=on)")
    in_tiles = planned("sdxl", 24, size=(1536, 1536), tiled=True)
    assert in_tiles.tile_vae
    assert in_tiles.decoding == planned("sdxl", 11, size=(1536, 1536)).decoding < whole.decoding
