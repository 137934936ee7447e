"""Merging gives what the definitions give in float64, and what does not fit is refused before anything is read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from changing import saved_anew
from conftest import Command, killed_in
from safetensors.torch import load_file
from scaled_models import scaled, scaled_file
from spoiling import spoil_what_arrives

from bottega.errors import BottegaError, FileError
from bottega.families import all_families, sd1, sd2, sdxl
from bottega.families._stable_diffusion import toy
from bottega.formats import read_header, safetensors
from bottega.library import writing
from bottega.library.contents import ELEMENTS
from bottega.library.extract import extract
from bottega.library.identify import identify
from bottega.library.merge import Merged, merge
from bottega.library.merge_recipe import Parent, Wish
from bottega.recognisers import all_recognisers
from bottega.runtime import blend
from bottega.runtime.weights import rows
from bottega.spec import Place

State = Mapping[str, torch.Tensor]
FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def parent(path: Path, **changes: Any) -> Parent:
    header = read_header(path)
    identity = identify(header, all_recognisers())
    anatomy = next((family.anatomy for family in all_families() if family.id == identity.recogniser), None)
    made = Parent(header, identity.match, identity.recogniser, identity.family, anatomy, path.stem, lambda: "ab" * 32)
    return replace(made, **changes)


def merged(destination: Path, *models: Path, loras: tuple[tuple[Path, float], ...] = (), **wish: Any) -> Merged:
    vae = wish.pop("vae", None)
    return merge(
        [parent(model) for model in models],
        destination,
        Wish(**wish),
        vae=parent(vae) if vae else None,
        loras=[(parent(lora), strength) for lora, strength in loras],
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three models of one family, whose numbers differ, stored in three ways."""
    folder = tmp_path_factory.mktemp("models")
    return [
        toy.write_single_file(folder / "a.safetensors", "sd1", dtype="float32", seed=1),
        toy.write_single_file(folder / "b.safetensors", "sd1", dtype="bfloat16", seed=2, old_names=True, ema=True),
        toy.write_folder(folder / "c", "sd1", dtype="float16", seed=3, old_vae=True),
    ]


def numbers(path: Path, names: Iterator[str] | None = None) -> dict[str, torch.Tensor]:
    """A model's tensors in float64 under the names of a single file."""
    model = parent(path)
    assert model.anatomy is not None
    plan = model.anatomy.relayout(model.header, model.match, "single").weights[""]
    from bottega.library.contents import Reader, dtype_of, shape_of
    from bottega.runtime.weights import DTYPES

    with Reader() as reader:
        return {
            name: torch.frombuffer(
                bytearray(b"".join(bytes(block) for block in reader.blocks(pieces))), dtype=DTYPES[dtype_of(pieces)]
            )
            .reshape(shape_of(pieces))
            .double()
            for name, pieces in plan.items()
        }


def close(path: Path, expected: State, tolerance: float = 1e-6) -> None:
    found = load_file(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=tolerance, atol=tolerance, msg=name)


# --- the methods -----------------------------------------------------------------------------------------------------


def define_slerp(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    cosine = torch.sum(a * b) / (a.norm() * b.norm())
    if not cosine.abs() <= 0.9995:
        return a * (1 - t) + b * t
    angle = torch.acos(cosine)
    return (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


def trimmed(difference: torch.Tensor, density: float) -> torch.Tensor:
    count = max(1, round(density * difference.numel()))
    limit = difference.abs().flatten().sort(descending=True).values[count - 1]
    return torch.where(difference.abs() >= limit, difference, 0)


def define_ties(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, weight: float, density: float) -> torch.Tensor:
    kept = [trimmed((each.float() - c.float()).double(), density) for each in (a, b)]
    shares = [1 - weight, weight]
    sign = torch.sign(kept[0] * shares[0] + kept[1] * shares[1])
    total, voices = torch.zeros_like(a), torch.zeros_like(a)
    for each, share in zip(kept, shares, strict=True):
        agrees = (torch.sign(each) == sign) & (sign != 0)
        total += torch.where(agrees, each * share, 0)
        voices += agrees * share
    return c + torch.where(voices > 0, total / voices.clamp_min(1e-300), 0)


def test_weighted_sum(tmp_path: Path, models: list[Path]) -> None:
    merged(tmp_path / "m.safetensors", *models[:2], weight=0.3, dtype="fp32")
    a, b = map(numbers, models[:2])
    close(tmp_path / "m.safetensors", {name: a[name] * 0.7 + b[name] * 0.3 for name in a})


def test_add_difference(tmp_path: Path, models: list[Path]) -> None:
    merged(tmp_path / "m.safetensors", *models, method="add-difference", weight=0.8, dtype="fp32")
    a, b, c = map(numbers, models)
    close(tmp_path / "m.safetensors", {name: a[name] + (b[name] - c[name]) * 0.8 for name in a})


SPOILED = "model.diffusion_model.input_blocks.0.0.weight"


def spoiled(path: Path, source: Path) -> Path:
    """A model with a NaN in one of its tensors."""
    tensors = load_file(source)
    tensors[SPOILED].view(-1)[7] = math.nan
    safetensors.write(path, rows(tensors))
    return path


@pytest.mark.parametrize("method", ["weighted", "slerp"])
@pytest.mark.parametrize("dtype", ["keep", "bf16"])
def test_a_nan_is_told_of_its_tensor(tmp_path: Path, models: list[Path], method: str, dtype: str) -> None:
    bad = spoiled(tmp_path / "bad.safetensors", models[0])
    told = merged(tmp_path / "m.safetensors", models[0], bad, method=method, weight=0.3, dtype=dtype)
    assert len(told.notes) == 1 and f"(NaN) are in '{SPOILED}'" in told.notes[0]
    assert load_file(tmp_path / "m.safetensors")[SPOILED].isnan().sum() >= 1


def test_what_a_merge_cuts_for_float8_is_told(tmp_path: Path, models: list[Path]) -> None:
    tensors = load_file(models[0])
    tensors[SPOILED].view(-1)[:3] = 1e4
    safetensors.write(tmp_path / "large.safetensors", rows(tensors))
    told = merged(tmp_path / "m.safetensors", models[0], tmp_path / "large.safetensors", weight=0.3, dtype="fp8")
    assert told.notes == (f"3 numbers were cut to 448, as float8 holds no larger ones: in '{SPOILED}'",)


@pytest.mark.parametrize(
    ("method", "weight", "which"),
    [("weighted", 0.0, 0), ("slerp", 0.0, 0), ("ties", 0.0, 0), ("dare", 0.0, 0), ("add-difference", 0.0, 0),
     ("weighted", 1.0, 1), ("slerp", 1.0, 1)],
)  # fmt: skip
def test_what_counts_nothing_spoils_nothing(
    tmp_path: Path, models: list[Path], method: str, weight: float, which: int
) -> None:
    bad = spoiled(tmp_path / "bad.safetensors", toy.write_single_file(tmp_path / "b.safetensors", "sd1", seed=2))
    parents = [models[0], bad, models[1]][: 3 if method == "add-difference" else 2]
    told = merged(tmp_path / "m.safetensors", *(parents if which == 0 else parents[::-1]), method=method, weight=weight)
    assert told.notes == ()
    close(tmp_path / "m.safetensors", numbers(models[0]), 0 if which == 0 else 1e-2)


def test_slerp(tmp_path: Path, models: list[Path]) -> None:
    merged(tmp_path / "m.safetensors", *models[:2], method="slerp", weight=0.3, dtype="fp32")
    a, b = map(numbers, models[:2])
    close(tmp_path / "m.safetensors", {name: define_slerp(a[name], b[name], 0.3) for name in a}, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_ties(tmp_path: Path, models: list[Path], weight: float) -> None:
    merged(tmp_path / "m.safetensors", *models, method="ties", weight=weight, density=0.2, dtype="fp32")
    a, b, c = map(numbers, models)
    close(tmp_path / "m.safetensors", {name: define_ties(a[name], b[name], c[name], weight, 0.2) for name in a})


def test_ties_of_two(tmp_path: Path, models: list[Path]) -> None:
    merged(tmp_path / "m.safetensors", *models[:2], method="ties", weight=0.5, density=0.1, dtype="fp32")
    a, b = map(numbers, models[:2])
    expected = {name: a[name] + trimmed((b[name].float() - a[name].float()).double(), 0.1) * 0.5 for name in a}
    close(tmp_path / "m.safetensors", expected)


def test_dare(tmp_path: Path, models: list[Path]) -> None:
    options = {"method": "dare", "weight": 0.4, "density": 0.25, "dtype": "fp32"}
    merged(tmp_path / "m.safetensors", *models, **options, seed=7)
    a, b, c = map(numbers, models)
    found = load_file(tmp_path / "m.safetensors")
    share = count = 0
    for name, tensor in found.items():
        kept = [
            torch.rand(a[name].numel(), generator=blend._generator(blend.Share(0, seed=7, name=name), which))
            .lt(0.25)
            .reshape(a[name].shape)
            for which in (0, 1)
        ]
        one, other = (a[name] - c[name]) * kept[0], (b[name] - c[name]) * kept[1]
        expected = c[name] + (one * 0.6 + other * 0.4) / 0.25
        torch.testing.assert_close(tensor.double(), expected, rtol=1e-5, atol=1e-5)
        share, count = share + int(kept[0].sum()), count + kept[0].numel()
    assert share / count == pytest.approx(0.25, abs=0.002)
    merged(tmp_path / "same.safetensors", *models, **options, seed=7)
    merged(tmp_path / "other.safetensors", *models, **options, seed=8)
    again, other = load_file(tmp_path / "same.safetensors"), load_file(tmp_path / "other.safetensors")
    assert all(torch.equal(again[name], tensor) for name, tensor in found.items())
    assert not all(torch.equal(other[name], tensor) for name, tensor in found.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_short_way_rounds_as_the_long_one(tmp_path: Path, dtype: torch.dtype) -> None:
    """torch merges 16-bit numbers in float32, and rounds once: if it ever ceases to, this fails."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(100_003, generator=generator).mul(10).to(dtype) for _ in range(2))
    for weight in (0.0, 0.1, 0.5, 0.7, 1.0):
        assert torch.equal(torch.lerp(a, b, weight), torch.lerp(a.float(), b.float(), weight).to(dtype))


def test_blocks_are_one_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every method gives the same in many blocks as in one."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1000, generator=generator) for _ in range(3)]
    for name, way in blend.WAYS.items():
        share = blend.Share(0.3, 0.4, 1, "x")
        whole = torch.cat(list(way(lambda: iter([tuple(tensors)]), share)))
        parts = torch.cat(list(way(lambda: iter(zip(*(tensor.split(16) for tensor in tensors), strict=True)), share)))
        torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-6, msg=name)


def test_parallel_and_zero_tensors_have_an_arc_of_none() -> None:
    a = torch.ones(8)
    for b in (a * 2, torch.zeros(8), -a):
        (made,) = blend.slerp(lambda b=b: iter([(a, b)]), blend.Share(0.25))
        assert torch.equal(made, a * 0.75 + b * 0.25)


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 1.0])
def test_limits_are_exact(density: float) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.zeros(5000)
    b = torch.randn(5000, generator=generator).round(decimals=1)  # with many equal numbers
    (limit,) = blend._limits(lambda: iter([(a[:3000], b[:3000]), (a[3000:], b[3000:])]), density)
    assert limit == b.abs().sort(descending=True).values[max(1, round(density * 5000)) - 1].item()


@pytest.mark.slow
def test_default_weights(tmp_path: Path, models: list[Path]) -> None:
    merged(tmp_path / "half.safetensors", *models[:2], dtype="fp32")
    a, b, c = map(numbers, models)
    close(tmp_path / "half.safetensors", {name: (a[name] + b[name]) / 2 for name in a})
    merged(tmp_path / "whole.safetensors", *models, method="add-difference", dtype="fp32")
    close(tmp_path / "whole.safetensors", {name: a[name] + b[name] - c[name] for name in a})
    merged(tmp_path / "ties.safetensors", *models, method="ties", density=0.3, dtype="fp32")
    close(tmp_path / "ties.safetensors", {name: define_ties(a[name], b[name], c[name], 0.5, 0.3) for name in a})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "count", "weight"),
    [("weighted", 2, 0.5), ("slerp", 2, 0.5), ("add-difference", 3, 1.0)]
    + [(method, count, weight) for method in ("ties", "dare") for count, weight in ((2, 1.0), (3, 0.5))],
)
def test_what_is_computed_with_is_what_is_recorded(
    tmp_path: Path, models: list[Path], method: str, count: int, weight: float
) -> None:
    merged(tmp_path / "m.safetensors", *models[:count], method=method)
    merged(tmp_path / "n.safetensors", *models[:count], method=method, weight=weight)
    metadata = read_header(tmp_path / "m.safetensors").metadata
    assert json.loads(metadata["bottega.merge"])["weight"] == weight
    assert json.loads(metadata["sd_merge_recipe"])["multiplier"] == weight
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in "mn")
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# --- blocks, channels, parts -----------------------------------------------------------------------------------------

UNET = "model.diffusion_model."


def test_block_weights(tmp_path: Path, models: list[Path]) -> None:
    names = sd1.family.anatomy.blocks(parent(models[0]).match)
    assert names == ("BASE", *(f"IN0{i}" for i in range(6)), "M00", *(f"OUT0{i}" for i in range(6)))
    weights = tuple(index / 13 for index in range(13))
    merged(tmp_path / "m.safetensors", *models[:2], weights=weights, weight=0.9, dtype="fp32")
    a, b = map(numbers, models[:2])
    of = dict(zip(names, (0.9, *weights), strict=True))
    expected = {}
    for name in a:
        block = "BASE"
        if name.startswith(UNET):
            words = name.removeprefix(UNET).split(".")
            block = {"time_embed": "IN00", "out": "OUT05", "middle_block": "M00"}.get(words[0], "")
            block = block or ("IN" if words[0] == "input_blocks" else "OUT") + f"{int(words[1]):02}"
        expected[name] = a[name] * (1 - of[block]) + b[name] * of[block]
    close(tmp_path / "m.safetensors", expected)
    merged(tmp_path / "n.safetensors", *models[:2], weights=(0.9, *weights), dtype="fp32")
    close(tmp_path / "n.safetensors", expected)
    with pytest.raises(FileError, match="13 blocks, and 12 weights"):
        merged(tmp_path / "o.safetensors", *models[:2], weights=weights[1:])


def test_published_sizes_have_the_blocks_that_people_write() -> None:
    from bottega.bench.full_size import SHAPES
    from bottega.spec import Match

    shape = SHAPES["unet"]
    assert len(sd1.family.anatomy.blocks(Match("base", {"unet": vars(shape)}))) == 26
    extra_large = replace(shape, channels=(320, 640, 1280), down=((0, 0), (2, 2), (10, 10)), up=((10,) * 3,) * 3)
    assert len(sdxl.family.anatomy.blocks(Match("base", {"unet": vars(extra_large)}))) == 20


@pytest.mark.parametrize(("variant", "channels"), [("inpainting", 9), ("instruct-pix2pix", 8)])
def test_more_channels_are_kept(tmp_path: Path, models: list[Path], variant: str, channels: int) -> None:
    wide = toy.write_single_file(tmp_path / "wide.safetensors", "sd1", variant, dtype="float32", seed=5)
    merged(tmp_path / "m.safetensors", wide, *models[1:], method="add-difference", weight=0.5, dtype="fp32")
    a, b, c = map(numbers, (wide, *models[1:]))
    name = f"{UNET}input_blocks.0.0.weight"
    found = load_file(tmp_path / "m.safetensors")[name]
    assert found.shape[1] == channels
    torch.testing.assert_close(found[:, :4].double(), a[name][:, :4] + (b[name] - c[name]) * 0.5, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[:, 4:].double(), a[name][:, 4:])
    assert sd1.family.recognise(read_header(tmp_path / "m.safetensors")).variant == variant
    with pytest.raises(FileError, match="name the one that takes more first"):
        merged(tmp_path / "n.safetensors", models[0], wide)


def test_what_one_model_lacks_comes_from_the_other(tmp_path: Path, models: list[Path]) -> None:
    bare = toy.write_single_file(tmp_path / "bare.safetensors", "sd1", seed=4, without=("vae", "text_encoder"))
    partial = toy.write_single_file(tmp_path / "partial.safetensors", "sd1", seed=4, without=("vae",))
    told = merged(tmp_path / "m.safetensors", models[0], partial)
    a = load_file(models[0])
    found = load_file(tmp_path / "m.safetensors")
    assert set(told.missing) == {name for name in a if name.startswith("first_stage_model.")}
    assert all(torch.equal(found[name], a[name]) for name in told.missing)
    with pytest.raises(FileError, match="diffusion_model of sd1"):
        merged(tmp_path / "n.safetensors", models[0], bare)


def with_more(source: Path, path: Path, more: State) -> Path:
    safetensors.write(path, rows(load_file(source) | dict(more)))
    return path


def test_what_a_family_has_no_place_for_stays(tmp_path: Path, models: list[Path]) -> None:
    ids = torch.arange(77)[None]
    embeddings = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    block = "model.diffusion_model.input_blocks.99.x"
    training = {"model_ema.decay": torch.ones(1), "optimizer.step": torch.ones(1)}
    ours = {"my.extra": torch.ones(4, 4), "both": torch.ones(3), block: torch.ones(3), embeddings: ids, **training}
    theirs = {"their.extra": torch.ones(4), "both": torch.zeros(3), **training}
    a = with_more(models[0], tmp_path / "a.safetensors", ours)
    b = with_more(models[0], tmp_path / "b.safetensors", theirs)
    told = merged(tmp_path / "m.safetensors", a, b, weights=(0.25,) * 14)
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() - load_file(models[0]).keys() == {"my.extra", "both", block, embeddings}
    assert torch.equal(found["my.extra"], ours["my.extra"]) and torch.equal(found[embeddings], ids)
    assert found["both"].tolist() == [0.75] * 3
    assert set(told.missing) == {"my.extra", block}
    a_left, b_left = told.notes
    assert a_left == "a: left out, as they have no place in the merge: 'optimizer.step', 'model_ema.decay'"
    assert b_left.startswith("b: left out") and "'their.extra'" in b_left and "both" not in b_left


def test_what_stands_beside_the_networks_hinders_no_merge(tmp_path: Path, models: list[Path]) -> None:
    ours = {"odd": torch.ones(4, 2), "lora_unet_x.lora_up.weight": torch.ones(4, 2)}
    theirs = {"odd": torch.zeros(3), "lora_unet_x.lora_up.weight": torch.zeros(4, 2)}
    loss = {"first_stage_model.loss.logvar": torch.zeros(1), "betas": torch.zeros(9)}
    a = with_more(models[0], tmp_path / "a.safetensors", {**ours, **loss})
    b = with_more(models[0], tmp_path / "b.safetensors", theirs)
    told = merged(tmp_path / "m.safetensors", a, b)
    found = load_file(tmp_path / "m.safetensors")
    assert found.keys() - load_file(models[0]).keys() == ours.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in ours.items())
    assert "'betas'" in told.notes[0] and "loss" in told.notes[0]


def test_what_a_folder_has_no_place_for_is_told(tmp_path: Path, models: list[Path]) -> None:
    folder = toy.write_folder(tmp_path / "a", "sd1")
    (unet,) = (folder / "unet").glob("*.safetensors")
    with_more(unet, unet, {"my.extra": torch.ones(4, 4)})
    told = merged(tmp_path / "m.safetensors", folder, models[0])
    assert load_file(tmp_path / "m.safetensors").keys() == load_file(models[0]).keys()
    assert told.notes == ("a: left out, as they have no place in the merge: 'unet/my.extra'",)


def test_a_vae_is_baked_in(tmp_path: Path, models: list[Path]) -> None:
    donor = toy.write_folder(tmp_path / "donor", "sd1", dtype="float16", seed=8)
    merged(tmp_path / "m.safetensors", *models[:2], vae=donor)
    found, expected = load_file(tmp_path / "m.safetensors"), numbers(donor)
    inside = [name for name in found if name.startswith("first_stage_model.")]
    assert inside and all(found[name].dtype == torch.float16 for name in inside)
    assert all(torch.equal(found[name].double(), expected[name]) for name in inside)
    alone = tmp_path / "alone.safetensors"
    kept = {name.removeprefix("first_stage_model."): found[name] for name in inside}
    safetensors.write(alone, rows(kept))
    merged(tmp_path / "n.safetensors", models[0], vae=alone, dtype="bf16")
    again = load_file(tmp_path / "n.safetensors")
    assert all(torch.equal(again[name], found[name].bfloat16()) for name in inside)
    with pytest.raises(FileError, match="holds no VAE"):
        merged(tmp_path / "o.safetensors", models[0], vae=lora_file(tmp_path / "l.safetensors", models[0]))


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_merge_of_one_dtype_keeps_it(tmp_path: Path, family: str) -> None:
    paths = [toy.write_single_file(tmp_path / f"{seed}.safetensors", family, seed=seed) for seed in (1, 2)]
    merged(tmp_path / "m.safetensors", *paths, weight=0.4)
    a, b, found = map(load_file, (*paths, tmp_path / "m.safetensors"))
    assert found.keys() == a.keys()
    for name, tensor in found.items():
        assert torch.equal(tensor, torch.lerp(a[name].float(), b[name].float(), 0.4).half()), name


# --- what is refused -------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused(tmp_path: Path, models: list[Path]) -> None:
    other = toy.write_single_file(tmp_path / "xl.safetensors", "sdxl")
    refiner = toy.write_single_file(tmp_path / "refiner.safetensors", "sdxl", "refiner")
    v = toy.write_folder(tmp_path / "v", "sd2", "v-prediction")
    epsilon = toy.write_folder(tmp_path / "epsilon", "sd2")
    lora = lora_file(tmp_path / "lora.safetensors", models[0])
    out = tmp_path / "m.safetensors"
    for words, paths, options in (
        ("merge models of one family", (models[0], other), {}),
        ("merge two of a kind", (other, refiner), {}),
        ("predicts v", (epsilon, v), {}),
        ("needs three models", models[:2], {"method": "add-difference"}),
        ("is a merge of two", models, {"method": "slerp"}),
        ("needs another model", models[:1], {"method": "ties"}),
        (r"merge models of one family|merge it into a checkpoint", (models[0], lora), {}),
    ):
        with pytest.raises(FileError, match=words):
            merged(out, *paths, **options)
    with pytest.raises(FileError, match="written as"):
        merged(tmp_path / "m.ckpt", *models[:2])
    with pytest.raises(FileError, match="is what is read"):
        merged(models[0], *models[:2], force=True)
    assert not out.exists()


def test_scaled_float8_is_refused_wherever_it_is_named(tmp_path: Path, models: list[Path]) -> None:
    model = scaled_file(tmp_path / "s.safetensors")
    lora = scaled(lora_file(tmp_path / "lora.safetensors", models[0]))
    out = tmp_path / "m.safetensors"
    for paths, options in (
        ((model, models[0]), {}),
        ((models[0], model), {}),
        ((models[0], models[1], model), {"method": "add-difference"}),
        (models[:1], {"vae": model}),
        (models[:1], {"loras": ((lora, 1.0),)}),
    ):
        with pytest.raises(FileError, match=r"scales of their own.*get it in float16"):
            merged(out, *paths, **options)
    for tuned, base in ((model, models[0]), (models[0], model)):
        with pytest.raises(FileError, match="scales of their own"):
            extract(parent(tuned), parent(base), out, 2)
    assert not out.exists()


def test_too_large_a_sum_is_not_lost_in_silence(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        value = {"a": 6e4, "b": 6e4, "c": -6e4}[name]
        safetensors.write(tmp_path / f"{name}.safetensors", rows({"x": torch.full((4,), value).half()}))
    with pytest.raises(BottegaError, match="holds none so large"):
        merged(
            tmp_path / "m.safetensors", *(tmp_path / f"{name}.safetensors" for name in "abc"), method="add-difference"
        )
    assert not (tmp_path / "m.safetensors").exists()


def test_a_weight_beyond_one_is_allowed_and_watched(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 3e4)):
        safetensors.write(tmp_path / f"{name}.safetensors", rows({"x": torch.full((4,), value).half()}))
    paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
    merged(tmp_path / "m.safetensors", *paths, weight=-1)
    assert load_file(tmp_path / "m.safetensors")["x"].tolist() == [torch.tensor(2 - 3e4).half().item()] * 4
    with pytest.raises(BottegaError, match="holds none so large"):
        merged(tmp_path / "n.safetensors", *paths, weight=3)


def test_what_was_written_wrongly_gets_no_name(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_what_arrives(monkeypatch, -3)
    with pytest.raises(BottegaError, match="not what was read"):
        merged(tmp_path / "m.safetensors", *models[:2])
    assert os.listdir(tmp_path) == []


def test_what_is_changed_while_it_is_read_is_not_merged(tmp_path: Path, models: list[Path]) -> None:
    one = toy.write_single_file(tmp_path / "one.safetensors", "sd1", seed=5)
    folder = toy.write_folder(tmp_path / "folder", "sd1", seed=6)
    (unet,) = (folder / "unet").glob("*.safetensors")
    out = tmp_path / "m.safetensors"
    for changed, named, more in (
        (one, [models[0], one], {}),
        (unet, [models[0], folder], {}),
        (unet, [models[0]], {"vae": parent(folder)}),
    ):
        with pytest.raises(FileError, match="was changed while it was read"):
            merge([parent(path) for path in named], out, Wish(), told=saved_anew(changed), **more)
    with pytest.raises(FileError, match="was changed while it was read"):
        extract(parent(one), parent(models[0]), out, 2, told=saved_anew(one))
    assert not out.exists()


# --- LoRA ------------------------------------------------------------------------------------------------------------


def places(path: Path) -> dict[str, Place]:
    model = parent(path)
    return {f"{it.part}.{it.name}": it for it in model.anatomy.places(model.header, model.match)}


def random_numbers(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator) / 4


ATTENTION = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
FEED = "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
OUT = "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "unet.down_blocks.1.resnets.0.conv1"
TEXT = "text_encoder.encoder.layers.1.self_attn.v_proj"
MLP = "text_encoder.encoder.layers.0.mlp.fc1"


def lora_file(path: Path, model: Path) -> Path:
    place = places(model)[f"{ATTENTION}.weight"]
    up, down = torch.ones(place.shape[0], 2), torch.ones(2, place.shape[1])
    safetensors.write(path, rows({f"{place.key}.lora_up.weight": up, f"{place.key}.lora_down.weight": down}))
    return path


def apply(path: Path, changes: Mapping[str, Callable[[torch.Tensor], torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A model's tensors in float64 with some weights changed, by the networks' names."""
    expected, where = numbers(path), places(path)
    for name, change in changes.items():
        place = where[name]
        stored = expected[place.tensor]
        if place.third is not None:
            count = stored.shape[0] // 3
            stored = stored[place.third * count : (place.third + 1) * count]
        weight = stored.T if place.transposed else stored
        changed = change(weight.reshape(place.shape)).reshape(weight.shape)
        stored.copy_(changed.T if place.transposed else changed)
    return expected


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_kohya_lora(tmp_path: Path, family: str) -> None:
    model = toy.write_single_file(tmp_path / "a.safetensors", family, dtype="float32")
    where = places(model)
    generator = torch.Generator().manual_seed(0)
    tensors, changes = {}, {}
    for name in (ATTENTION, FEED, OUT, TEXT, MLP, *(["text_encoder_2.text_projection"] if family == "sdxl" else [])):
        place = where[f"{name}.weight"]
        up = random_numbers((place.shape[0], 4), generator)
        down = random_numbers((4, place.shape[1]), generator)
        tensors |= {f"{place.key}.lora_up.weight": up, f"{place.key}.lora_down.weight": down}
        tensors[f"{place.key}.alpha"] = torch.tensor(2.0)
        changes[f"{name}.weight"] = lambda w, up=up, down=down: w + 0.8 * 2 / 4 * up.double() @ down.double()
    tensors["lora_unet_nobody_knows.lora_up.weight"] = torch.ones(2, 2)
    keys = {name.partition(".")[0] for name in tensors}
    if family == "sdxl":
        assert "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k" in keys
        assert {"lora_te1_text_model_encoder_layers_1_self_attn_v_proj", "lora_te2_text_projection"} <= keys
    else:
        assert "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k" in keys
        assert "lora_te_text_model_encoder_layers_1_self_attn_v_proj" in keys
    safetensors.write(tmp_path / "l.safetensors", rows(tensors))
    told = merged(tmp_path / "m.safetensors", model, loras=((tmp_path / "l.safetensors", 0.8),))
    close(tmp_path / "m.safetensors", apply(model, changes))
    assert told.left == {"l": ("lora_unet_nobody_knows.lora_up.weight",)} and told.patched == {"l": len(changes)}


SPELLINGS = [
    (f"{ATTENTION}.lora_A.weight", f"{ATTENTION}.lora_B.weight"),
    (f"base_model.model.{ATTENTION}.lora_A.default.weight", f"base_model.model.{ATTENTION}.lora_B.default.weight"),
    (f"{ATTENTION.replace('unet.', 'unet.base_model.model.')}.lora_A.weight",
     f"{ATTENTION.replace('unet.', 'unet.base_model.model.')}.lora_B.weight"),
    (f"base_model.model.diffusion_model.{ATTENTION.removeprefix('unet.')}.lora_A.weight",
     f"base_model.model.diffusion_model.{ATTENTION.removeprefix('unet.')}.lora_B.weight"),
    (f"base_model.model.{ATTENTION.removeprefix('unet.')}.lora_A.weight",
     f"base_model.model.{ATTENTION.removeprefix('unet.')}.lora_B.weight"),
    (f"{ATTENTION}.lora.down.weight", f"{ATTENTION}.lora.up.weight"),
    (ATTENTION.replace(".to_k", ".processor.to_k_lora.down.weight"),
     ATTENTION.replace(".to_k", ".processor.to_k_lora.up.weight")),
    ("lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k.lora_down.weight",
     "lora_unet_input_blocks_3_1_transformer_blocks_0_attn2_to_k.lora_up.weight"),
    ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
     "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight"),
    ("lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
     "lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight"),
    ("diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.lora_A.weight",
     "diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.lora_B.weight"),
]  # fmt: skip
TEXT_SPELLINGS = [
    ("text_encoder.text_model.encoder.layers.1.self_attn.v_proj.lora_A.weight",
     "text_encoder.text_model.encoder.layers.1.self_attn.v_proj.lora_B.weight"),
    ("text_encoder.text_model.encoder.layers.1.self_attn.v_proj.lora_linear_layer.down.weight",
     "text_encoder.text_model.encoder.layers.1.self_attn.v_proj.lora_linear_layer.up.weight"),
    ("text_encoder.text_model.encoder.layers.1.self_attn.to_v_lora.down.weight",
     "text_encoder.text_model.encoder.layers.1.self_attn.to_v_lora.up.weight"),
    ("lora_te1_text_model_encoder_layers_1_self_attn_v_proj.lora_down.weight",
     "lora_te1_text_model_encoder_layers_1_self_attn_v_proj.lora_up.weight"),
    ("text_encoders.clip_l.transformer.text_model.encoder.layers.1.self_attn.v_proj.lora_A.weight",
     "text_encoders.clip_l.transformer.text_model.encoder.layers.1.self_attn.v_proj.lora_B.weight"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "down_name", "up_name"),
    [*((ATTENTION, *pair) for pair in SPELLINGS), *((TEXT, *pair) for pair in TEXT_SPELLINGS)],
)
def test_every_spelling_is_understood(tmp_path: Path, name: str, down_name: str, up_name: str) -> None:
    model = toy.write_single_file(tmp_path / "a.safetensors", "sdxl", dtype="float32", without=("vae",))
    generator = torch.Generator().manual_seed(0)
    shape = places(model)[f"{name}.weight"].shape
    up, down = random_numbers((shape[0], 4), generator), random_numbers((4, shape[1]), generator)
    safetensors.write(tmp_path / "l.safetensors", rows({down_name: down, up_name: up}))
    merged(tmp_path / "m.safetensors", model, loras=((tmp_path / "l.safetensors", -0.5),))
    change = {f"{name}.weight": lambda w: w - 0.5 * up.double() @ down.double()}
    close(tmp_path / "m.safetensors", apply(model, change))


def test_a_scale_in_the_metadata_counts(tmp_path: Path, models: list[Path]) -> None:
    shape = places(models[0])[f"{ATTENTION}.weight"].shape
    up, down = torch.ones(shape[0], 4), torch.ones(4, shape[1])
    told = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 8})}
    tensors = {f"{ATTENTION}.lora_A.weight": down, f"{ATTENTION}.lora_B.weight": up}
    safetensors.write(tmp_path / "l.safetensors", rows(tensors), told)
    merged(tmp_path / "m.safetensors", models[0], loras=((tmp_path / "l.safetensors", 1),))
    close(tmp_path / "m.safetensors", apply(models[0], {f"{ATTENTION}.weight": lambda w: w + 2.0 * 4}))


def test_a_pattern_that_is_not_used_is_told(tmp_path: Path, models: list[Path]) -> None:
    shape = places(models[0])[f"{ATTENTION}.weight"].shape
    told = {"unet.r": 1, "unet.lora_alpha": 2, "unet.alpha_pattern": {"(?=to)to_q": 9, "(a{1,99}){1,99}": 8}}
    tensors = {
        f"{ATTENTION}.lora_A.weight": torch.ones(1, shape[1]),
        f"{ATTENTION}.lora_B.weight": torch.ones(shape[0], 1),
    }
    safetensors.write(tmp_path / "l.safetensors", rows(tensors), {"lora_adapter_metadata": json.dumps(told)})
    made = merged(tmp_path / "m.safetensors", models[0], loras=((tmp_path / "l.safetensors", 1),))
    assert made.notes == (
        "l: its config gives strengths for modules by patterns that can't be matched here, so not used: "
        "'(?=to)to_q', '(a{1,99}){1,99}'",
    )
    close(tmp_path / "m.safetensors", apply(models[0], {f"{ATTENTION}.weight": lambda w: w + 2.0}))


def variants(shape: tuple[int, ...], generator: torch.Generator) -> dict[str, tuple[dict[str, torch.Tensor], Any]]:
    """Every kind of change of a weight: its numbers in the file, and its definition in float64."""

    def some(*sizes: int) -> torch.Tensor:
        return random_numbers(sizes, generator)

    out, incoming = shape[:2]
    kernel = shape[2:]
    flat = (out, incoming * (kernel[0] * kernel[1] if kernel else 1))
    made: dict[str, tuple[dict[str, torch.Tensor], Any]] = {}

    up, down = some(out, 4, *([1, 1] if kernel else [])), some(4, incoming, *kernel)
    product = (up.flatten(1).double() @ down.flatten(1).double()).reshape(shape)
    names = {"lora_up.weight": up, "lora_down.weight": down, "alpha": torch.tensor(1.0)}
    made["lora"] = names, lambda w: w + product / 4
    for axis, length in ((0, some(out).abs() + 1), (0, (some(out) + 2).reshape(out, *[1] * (len(shape) - 1))),
                         (1, (some(incoming) + 2).reshape(1, incoming, *[1] * (len(shape) - 2)))):  # fmt: skip

        def dora(w: torch.Tensor, axis: int = axis, length: torch.Tensor = length) -> torch.Tensor:
            moved = w + product / 4
            others = [other for other in range(w.ndim) if other != axis]
            lengths = length.double().reshape([-1 if other == axis else 1 for other in range(w.ndim)])
            return moved * lengths / torch.linalg.vector_norm(moved, dim=others, keepdim=True)

        made[f"dora {tuple(length.shape)}"] = {**names, "dora_scale": length}, dora

    w1a, w1b, w2a, w2b = some(out, 4), some(4, flat[1]), some(out, 4), some(4, flat[1])
    loha = ((w1a.double() @ w1b.double()) * (w2a.double() @ w2b.double())).reshape(shape)
    made["loha"] = (
        {"hada_w1_a": w1a, "hada_w1_b": w1b, "hada_w2_a": w2a, "hada_w2_b": w2b, "alpha": torch.tensor(2.0)},
        lambda w: w + loha / 2,
    )
    one, two = some(4, 2), some(out // 4, incoming // 2, *kernel)
    four = one.double().reshape(4, 2, *[1] * len(kernel))
    lokr = torch.kron(four, two.double())
    made["lokr whole"] = {"lokr_w1": one, "lokr_w2": two, "alpha": torch.tensor(9.0)}, lambda w: w + lokr
    a, b = some(out // 4, 3), some(3, flat[1] // 2)
    small = torch.kron(one.double(), a.double() @ b.double()).reshape(shape)
    made["lokr"] = (
        {"lokr_w1": one, "lokr_w2_a": a, "lokr_w2_b": b, "alpha": torch.tensor(6.0)},
        lambda w: w + small * 2,
    )
    full = some(*shape)
    made["full"] = {"diff": full}, lambda w: w + full.double()
    if kernel:
        mid, first, last = some(4, 4, *kernel), some(4, incoming, 1, 1), some(out, 4, 1, 1)
        core = torch.einsum("nmkl,on,mi->oikl", mid.double(), last.double()[..., 0, 0], first.double()[..., 0, 0])
        made["tucker"] = (
            {"lora_mid.weight": mid, "lora_up.weight": last, "lora_down.weight": first},
            lambda w: w + core,
        )
        t1, t2 = some(4, 4, *kernel), some(4, 4, *kernel)
        p1, r1, p2, r2 = some(4, out), some(4, incoming), some(4, out), some(4, incoming)
        parts = [
            torch.einsum("ijkl,jr,ip->prkl", t.double(), r.double(), p.double())
            for t, r, p in ((t1, r1, p1), (t2, r2, p2))
        ]
        made["loha tucker"] = (
            {"hada_t1": t1, "hada_t2": t2, "hada_w1_a": p1, "hada_w1_b": r1, "hada_w2_a": p2, "hada_w2_b": r2},
            lambda w: w + parts[0] * parts[1],
        )
    return made


KINDS = [
    *((ATTENTION, kind) for kind in ("lora", "loha", "lokr whole", "lokr", "full")),
    *((CONV, kind) for kind in ("lora", "loha", "lokr whole", "lokr", "full", "tucker", "loha tucker")),
]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_every_kind_of_change(tmp_path: Path, models: list[Path], name: str, kind: str) -> None:
    place = places(models[0])[f"{name}.weight"]
    found, define = variants(place.shape, torch.Generator().manual_seed(1))[kind]
    safetensors.write(tmp_path / "l.safetensors", rows({f"{place.key}.{role}": it for role, it in found.items()}))
    merged(tmp_path / "m.safetensors", models[0], loras=((tmp_path / "l.safetensors", 0.7),))
    change = {f"{name}.weight": lambda w: w + 0.7 * (define(w) - w)}
    close(tmp_path / "m.safetensors", apply(models[0], change), 2e-6)


@pytest.mark.parametrize("name", [ATTENTION, CONV])
def test_dora_along_either_axis(tmp_path: Path, models: list[Path], name: str) -> None:
    place = places(models[0])[f"{name}.weight"]
    kinds = variants(place.shape, torch.Generator().manual_seed(1))
    dora = [kind for kind in kinds if kind.startswith("dora")]
    assert len(dora) == 3
    for kind in dora:
        found, define = kinds[kind]
        path = tmp_path / f"{kind}.safetensors"
        safetensors.write(path, rows({f"{place.key}.{role}": it for role, it in found.items()}))
        merged(tmp_path / "m.safetensors", models[0], loras=((path, 0.7),), force=True)
        change = {f"{name}.weight": lambda w, define=define: w + 0.7 * (define(w) - w)}
        close(tmp_path / "m.safetensors", apply(models[0], change), 2e-6)


def test_biases_and_norms_change_too(tmp_path: Path, models: list[Path]) -> None:
    where = places(models[0])
    norm = where["unet.down_blocks.0.resnets.0.norm1.weight"]
    conv = where[f"{CONV}.weight"]
    tensors = {f"{norm.key}.w_norm": torch.ones(norm.shape), f"{norm.key}.b_norm": torch.full(norm.shape, 2.0)}
    tensors[f"{conv.key}.diff_b"] = torch.full((conv.shape[0],), 3.0)
    safetensors.write(tmp_path / "l.safetensors", rows(tensors))
    merged(tmp_path / "m.safetensors", models[0], loras=((tmp_path / "l.safetensors", 0.5),))
    changes = {
        "unet.down_blocks.0.resnets.0.norm1.weight": lambda w: w + 0.5,
        "unet.down_blocks.0.resnets.0.norm1.bias": lambda w: w + 1.0,
        f"{CONV}.bias": lambda w: w + 1.5,
    }
    close(tmp_path / "m.safetensors", apply(models[0], changes))


def test_several_lora_and_a_merge_at_once(tmp_path: Path, models: list[Path]) -> None:
    lora = lora_file(tmp_path / "l.safetensors", models[0])
    merged(tmp_path / "m.safetensors", *models[:2], weight=0.25, dtype="fp32", loras=((lora, 1.0), (lora, 0.5)))
    a, b = map(numbers, models[:2])
    expected = {name: a[name] * 0.75 + b[name] * 0.25 for name in a}
    expected[places(models[0])[f"{ATTENTION}.weight"].tensor] += 2 * 1.5
    close(tmp_path / "m.safetensors", expected)


def test_a_lora_for_another_family_is_refused(tmp_path: Path, models: list[Path]) -> None:
    other = toy.write_single_file(tmp_path / "xl.safetensors", "sdxl")
    lora = lora_file(tmp_path / "l.safetensors", other)
    with pytest.raises(FileError, match=r"is for|changes a weight|no LoRA for"):
        merged(tmp_path / "m.safetensors", models[0], loras=((lora, 1.0),))
    with pytest.raises(FileError, match=r"no LoRA for"):
        merged(tmp_path / "m.safetensors", models[0], loras=((models[1], 1.0),))
    place = places(models[0])[f"{ATTENTION}.weight"]
    wide = {f"{place.key}.lora_up.weight": torch.ones(64, 2), f"{place.key}.lora_down.weight": torch.ones(2, 1024)}
    safetensors.write(tmp_path / "w.safetensors", rows(wide))
    with pytest.raises(FileError, match=r"64x1024, where the model's|is for sd2"):
        merged(tmp_path / "m.safetensors", models[0], loras=((tmp_path / "w.safetensors", 1.0),))
    half = {f"{place.key}.lora_up.weight": torch.ones(64, 2)}
    safetensors.write(tmp_path / "h.safetensors", rows(half))
    with pytest.raises(FileError, match=r"does not fit|no LoRA"):
        merged(tmp_path / "m.safetensors", models[0], loras=((tmp_path / "h.safetensors", 1.0),))
    assert not (tmp_path / "m.safetensors").exists()


# --- what it leaves to others -----------------------------------------------------------------------------------------


def test_torch_has_as_many_threads_afterwards(tmp_path: Path) -> None:
    a, b = (
        toy.write_single_file(tmp_path / f"{seed}.safetensors", "sd1", dtype="float16", seed=seed) for seed in (1, 2)
    )
    vae = toy.write_single_file(tmp_path / "v.safetensors", "sd1", dtype="float32", seed=3)
    before, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        merged(tmp_path / "m.safetensors", a, b, vae=vae, dtype="fp16", weight=0.3)
        other = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert (torch.get_num_threads(), *found) == (2, 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system does not list what is open")
def test_nobody_but_who_writes_it_holds_a_file_that_gets_its_name(
    tmp_path: Path, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows renames no file that anybody else has open."""
    held = []

    def settle(temporary: Path, path: Path) -> None:
        held.append(sum(temporary == Path(os.path.realpath(each)) for each in Path("/proc/self/fd").iterdir()))
        os.replace(temporary, path)

    monkeypatch.setattr("bottega.library.merge.settle_new", settle)
    merged(tmp_path.resolve() / "m.safetensors", *models[:2], weight=0.3)
    assert held == [1]


# --- large tensors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_is_read_and_sent_to_the_disk_in_pieces_is_whole(
    tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr("bottega.formats.safetensors.STRETCH", 1 << 20)
    monkeypatch.setattr(
        "bottega.formats.safetensors.write_behind", lambda handle, start, end: sent.append((start, end))
    )
    generator = torch.Generator().manual_seed(1)
    a, b = (
        {
            name: torch.randn(size, generator=generator).to(dtype)
            for name, size in (("large", 4 * ELEMENTS + 7), ("small", 5))
        }
        for _ in range(2)
    )
    for name, tensors in ("a", a), ("b", b):
        safetensors.write(tmp_path / f"{name}.safetensors", rows(tensors))
    out = tmp_path / "m.safetensors"
    merged(out, tmp_path / "a.safetensors", tmp_path / "b.safetensors", weight=0.3)
    found = load_file(out)
    for name in a:
        assert torch.equal(found[name], torch.lerp(a[name].float(), b[name].float(), 0.3).to(dtype)), name
    assert len(sent) > 1 and [start for start, _ in sent] == [0, *(end for _, end in sent[:-1])]


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_the_recipe_is_written_into_the_file(tmp_path: Path, models: list[Path]) -> None:
    told = {"modelspec.title": "A", "modelspec.hash_sha256": "0x", "modelspec.architecture": "stable-diffusion-v1"}
    first = toy.write_single_file(tmp_path / "first.safetensors", "sd1", metadata={**told, "mine": "kept"})
    lora = lora_file(tmp_path / "l.safetensors", models[0])
    digest = {"first": "1" * 64, "a": "2" * 64, "l": "3" * 64}
    parents = [parent(path, digits=lambda it=path.stem: digest[it]) for path in (first, models[0], lora)]
    merge(parents[:2], tmp_path / "m.safetensors", Wish(weight=0.3), loras=[(parents[2], 0.5)])
    metadata = read_header(tmp_path / "m.safetensors").metadata
    ours = json.loads(metadata["bottega.merge"])
    assert ours["models"] == [{"name": "first", "sha256": "1" * 64}, {"name": "a", "sha256": "2" * 64}]
    assert ours["loras"] == [{"name": "l", "sha256": "3" * 64, "weight": 0.5}]
    assert (ours["method"], ours["weight"]) == ("weighted", 0.3)
    recipe = json.loads(metadata["sd_merge_recipe"])
    assert recipe["interp_method"] == "Weighted sum" and recipe["multiplier"] == 0.3
    assert recipe["primary_model_hash"] == "1" * 64 and recipe["tertiary_model_hash"] is None
    assert set(json.loads(metadata["sd_merge_models"])) == {"1" * 64, "2" * 64}
    assert metadata["mine"] == "kept" and metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert metadata["modelspec.title"] == "m" and metadata["modelspec.merged_from"] == "first, a"
    assert "modelspec.hash_sha256" not in metadata
    again = parent(tmp_path / "m.safetensors", digits=lambda: "4" * 64)
    merge([again, parents[1]], tmp_path / "n.safetensors", Wish())
    ancestors = json.loads(read_header(tmp_path / "n.safetensors").metadata["sd_merge_models"])
    assert set(ancestors) == {"1" * 64, "2" * 64, "4" * 64}
    assert ancestors["4" * 64]["sd_merge_recipe"]["multiplier"] == 0.3


# --- extracting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_lora_that_was_merged_is_found_again(tmp_path: Path, family: str) -> None:
    base = toy.write_single_file(tmp_path / "base.safetensors", family, dtype="float32")
    where = places(base)
    generator = torch.Generator().manual_seed(0)
    tensors, changes = {}, {}
    for name in (ATTENTION, FEED, TEXT, CONV):
        place = where[f"{name}.weight"]
        kernel = place.shape[2:]
        up, down = random_numbers((place.shape[0], 2), generator), random_numbers((2, *place.shape[1:]), generator)
        tensors[f"{place.key}.lora_up.weight"] = up.reshape(*up.shape, *[1] * len(kernel))
        tensors[f"{place.key}.lora_down.weight"] = down
        changes[name] = (up.double() @ down.double().flatten(1)).reshape(place.shape)
    safetensors.write(tmp_path / "l.safetensors", rows(tensors))
    merged(tmp_path / "tuned.safetensors", base, loras=((tmp_path / "l.safetensors", 1.0),))
    tuned, first = parent(tmp_path / "tuned.safetensors"), parent(base)
    told = extract(tuned, first, tmp_path / "x.safetensors", 2, conv_rank=2)
    assert told.weights == 4 and told.share > 0.999 and not told.skipped
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == {*tensors, *(f"{name.partition('.')[0]}.alpha" for name in tensors)}
    for name, change in changes.items():
        key = where[f"{name}.weight"].key
        up, down = (found[f"{key}.lora_{role}.weight"].double().flatten(1) for role in ("up", "down"))
        torch.testing.assert_close((up @ down).reshape(change.shape), change, rtol=0, atol=5e-3)
        assert found[f"{key}.alpha"] == 2
    metadata = read_header(tmp_path / "x.safetensors").metadata
    assert metadata["ss_network_dim"] == "2" and metadata["ss_new_sd_model_hash"] == "ab" * 32
    assert metadata["ss_base_model_version"].startswith({"sd1": "sd_v1", "sd2": "sd_v2", "sdxl": "sdxl"}[family])
    assert metadata["modelspec.architecture"].endswith("/lora")
    # Without a rank for convolutions theirs is left out, and said.
    told = extract(tuned, first, tmp_path / "y.safetensors", 2)
    assert told.weights == 3 and told.skipped == (f"{CONV}.weight".removeprefix("unet."),)


def test_the_share_is_that_of_the_best_approximation() -> None:
    from bottega.runtime.deltas import factors

    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(300, 200, generator=generator) @ torch.diag(torch.linspace(1, 0, 200) ** 4)
    up, down, share = factors(matrix, 16, 0)
    values = torch.linalg.svdvals(matrix.double())
    best = (values[:16].square().sum() / values.square().sum()).item()
    assert share == pytest.approx(best, rel=2e-3)
    left = (matrix - up @ down).double().square().sum() / matrix.double().square().sum()
    assert 1 - left.item() == pytest.approx(best, rel=2e-3)


def test_two_equal_models_have_no_lora(tmp_path: Path, models: list[Path]) -> None:
    with pytest.raises(FileError, match="does not differ"):
        extract(parent(models[0]), parent(models[0]), tmp_path / "x.safetensors", 4)
    other = toy.write_single_file(tmp_path / "xl.safetensors", "sdxl")
    with pytest.raises(FileError, match="of one family"):
        extract(parent(other), parent(models[0]), tmp_path / "x.safetensors", 4)


@pytest.mark.parametrize(
    ("number", "told"), [(math.nan, "not finite"), (math.inf, "not finite"), (1e30, "too much for float16")]
)
@pytest.mark.parametrize("name", [ATTENTION, TEXT])
def test_numbers_that_no_lora_holds_are_refused(
    tmp_path: Path, bottega: Command, models: list[Path], name: str, number: float, told: str
) -> None:
    tensor = places(models[0])[f"{name}.weight"].tensor
    tensors = load_file(models[0])
    tensors[tensor] = tensors[tensor].float()
    tensors[tensor][0, 0] = number
    tuned = tmp_path / "tuned.safetensors"
    safetensors.write(tuned, rows(tensors))
    ran = bottega("models", "extract", tuned, models[0], "--out", tmp_path / "l.safetensors")
    assert ran.code == 2 and f"{tuned}: '{tensor}' " in ran.err and told in ran.err
    assert not (tmp_path / "l.safetensors").exists()


# --- the commands ----------------------------------------------------------------------------------------------------


def test_the_commands(tmp_path: Path, bottega: Command, models: list[Path]) -> None:
    out = tmp_path / "m.safetensors"
    ran = bottega("models", "merge", *models[:2], "--weight", "0.3", "--dtype", "fp16", "--out", out, "--json")
    assert ran.code == 0 and ran.json["dtypes"] == {"F16": ran.json["bytes"]}
    told = json.loads(read_header(out).metadata["bottega.merge"])
    assert told["models"][0]["sha256"] == hashlib.sha256(models[0].read_bytes()).hexdigest()
    assert len(told["models"][1]["sha256"]) == 64
    ran = bottega("models", "extract", out, models[0], "--rank", "4", "--out", tmp_path / "l.safetensors")
    assert ran.code == 0 and "% of their difference" in ran.out
    words = ["--lora", f"{tmp_path / 'l.safetensors'}:0.5", "--vae", models[2], "--out", tmp_path / "n.safetensors"]
    ran = bottega("models", "merge", out, *words)
    assert ran.code == 0 and "weights changed" in ran.out


def test_a_large_file_that_nobody_hashed_is_named_by_blake3(
    tmp_path: Path, bottega: Command, models: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from blake3 import blake3

    monkeypatch.setattr("bottega.shelfwork.LARGE", 1)
    first, second = (model.read_bytes() for model in models[:2])
    assert bottega("models", "hash", models[1]).code == 0  # so that its SHA-256 is known
    out = tmp_path / "m.safetensors"
    assert bottega("models", "merge", *models[:2], "--out", out).code == 0
    metadata = read_header(out).metadata
    sha256, fast = hashlib.sha256(second).hexdigest(), blake3(first).hexdigest()
    told = json.loads(metadata["bottega.merge"])["models"]
    assert told == [{"name": "a", "blake3": fast}, {"name": "b", "sha256": sha256}]
    recipe = json.loads(metadata["sd_merge_recipe"])
    assert (recipe["primary_model_hash"], recipe["secondary_model_hash"]) == (None, sha256)
    assert set(json.loads(metadata["sd_merge_models"])) == {f"blake3:{fast}", sha256}
    assert bottega("models", "show", fast, "--json").json["path"] == str(models[0])  # which computes its SHA-256
    assert bottega("models", "merge", *models[:2], "--out", out, "--force").code == 0
    told = json.loads(read_header(out).metadata["bottega.merge"])["models"]
    assert told == [{"name": "a", "sha256": hashlib.sha256(first).hexdigest()}, {"name": "b", "sha256": sha256}]


def test_a_home_that_cannot_be_written_is_no_hindrance(tmp_path: Path, bottega: Command, models: list[Path]) -> None:
    (tmp_path / "home").write_bytes(b"")  # so the catalog is in memory
    ran = bottega("models", "merge", *models[:2], "--out", tmp_path / "m.safetensors")
    assert ran.code == 0, ran.err
    told = json.loads(read_header(tmp_path / "m.safetensors").metadata["bottega.merge"])
    assert [each["sha256"] for each in told["models"]] == [
        hashlib.sha256(model.read_bytes()).hexdigest() for model in models[:2]
    ]
    ran = bottega("models", "extract", *models[:2], "--rank", "1", "--out", tmp_path / "l.safetensors")
    assert ran.code == 0, ran.err


def test_the_commands_refuse_in_one_line(tmp_path: Path, bottega: Command, models: list[Path]) -> None:
    out = tmp_path / "m.safetensors"
    for words in (
        [*models, models[0], "--out", out],
        [*models[:2], "--out", out, "--density", "0"],
        [*models[:2], "--out", out, "--weights", "a,b"],
        [*models[:2], "--out", out, "--weights", "1,2"],
        [*models[:2], "--out", out, "--method", "add-difference"],
        [models[0], "--out", tmp_path / "m"],
        [models[0]],
    ):
        ran = bottega("models", "merge", *words)
        assert ran.code == 2, words
        assert len(ran.err.splitlines()) == 1 and ran.err.startswith("bottega: ")
    ran = bottega("models", "extract", *models[:2], "--out", out, "--rank", "0")
    assert ran.code == 2
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["writing", "checking"])
def test_killed_while_it_works_it_leaves_nothing_under_the_name(tmp_path: Path, home: Path, phase: str) -> None:
    paths = [toy.write_single_file(tmp_path / f"{i}.safetensors", "sdxl", dtype="float32", seed=i) for i in (1, 2)]
    before = [path.read_bytes() for path in paths]
    out = tmp_path / "m.safetensors"
    words = ["models", "merge", *map(str, paths), "--out", str(out)]
    killed_in(phase, *words)
    assert [path.read_bytes() for path in paths] == before and not out.exists()
    assert len([name for name in os.listdir(tmp_path) if name.startswith(".bottega-")]) == 1  # what the kill left
    subprocess.run([sys.executable, "-m", "bottega", *words], check=True, capture_output=True)
    assert sorted(os.listdir(tmp_path)) == ["1.safetensors", "2.safetensors", "home", "m.safetensors"]


@pytest.mark.parametrize(
    "words",
    [
        ("--weight", "nan"),
        ("--weight", "inf"),
        ("--weight=-1e39",),
        ("--weights", ",".join(["0.5"] * 24 + ["nan"])),
        ("--weights", ",".join(["0.5"] * 24 + ["1e39"])),
        ("--lora", "x:nan"),
        ("--lora", "x:100.5"),
    ],
)
def test_weights_are_within_what_can_be_computed(words: tuple[str, ...], bottega: Command, tmp_path: Path) -> None:
    ran = bottega("models", "merge", "a", "b", *words, "--out", tmp_path / "m.safetensors")
    assert ran.code == 2 and "is no weight" in ran.err
    assert not (tmp_path / "m.safetensors").exists()


@pytest.mark.parametrize("weights", ["0,,0" + ",1" * 23, "," + "1," * 24 + "1", "1," * 25, "1, ,1"])
def test_a_field_without_a_weight_does_not_shift_the_others(weights: str, bottega: Command, tmp_path: Path) -> None:
    ran = bottega("models", "merge", "a", "b", "--weights", weights, "--out", tmp_path / "m.safetensors")
    assert ran.code == 2 and f"{weights!r} is no list of numbers" in ran.err


@pytest.mark.parametrize("work", ["merge", "extract"])
def test_what_a_killed_merge_left_makes_room_for_the_next(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    left = tmp_path / ".bottega-0123456789abcdef.part"
    left.write_bytes(b"half a model")
    usage = lambda path: SimpleNamespace(free=10 if left.exists() else 1 << 40)  # noqa: E731
    monkeypatch.setattr(writing.shutil, "disk_usage", usage)
    destination = tmp_path / "m.safetensors"
    if work == "merge":
        merged(destination, *models[:2])
    else:
        extract(parent(models[1]), parent(models[0]), destination, 2)
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_one_model_is_nothing_to_merge(bottega: Command, tmp_path: Path) -> None:
    ran = bottega("models", "merge", "a", "--out", tmp_path / "m.safetensors")
    assert ran.code == 2 and "nothing to merge" in ran.err
