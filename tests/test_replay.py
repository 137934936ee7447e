"""`bottega replay`: what was made can be made again, to the byte, and it says so when it can't."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, pixels
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bottega.diffusion.names import SAMPLERS
from bottega.families._stable_diffusion.toy import write_single_file
from bottega.formats import media


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1 checkpoint."""
    return write_single_file(tmp_path_factory.mktemp("toys") / "toy.safetensors", "sd1")


def make(bottega: Command, model: Path, out: Path, *words: object) -> None:
    ran = bottega("make", "image", "a house", "--model", model, "--steps", 4, "--size", "64x64", *words, "--out", out)
    assert ran.code == 0, ran.err


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("sampler", [sampler.name for sampler in SAMPLERS])
def test_every_sampler_replays_to_the_byte_from_every_format(
    sampler: str, suffix: str, bottega: Command, toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"out.{suffix}"
    make(bottega, toy, out, "--sampler", sampler)
    ran = bottega("replay", out, "--check")
    assert ran.code == 0, ran.err
    assert ran.out.strip() == "the same to the byte"


@pytest.mark.slow
def test_another_process_makes_the_same_bytes(bottega: Command, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    make(bottega, toy, out, "--sampler", "DPM++ SDE", "--set", "variation_strength=0.3")
    words = [sys.executable, "-m", "bottega", "replay", str(out), "--check"]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "the same to the byte"


def test_a_picture_from_a_picture_replays_without_the_original(bottega: Command, toy: Path, tmp_path: Path) -> None:
    init, mask, out = tmp_path / "init.png", tmp_path / "mask.png", tmp_path / "out.png"
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(init)
    Image.linear_gradient("L").resize((64, 64)).save(mask)
    make(bottega, toy, out, "--init", init, "--mask", mask)
    init.unlink()
    mask.unlink()
    assert bottega("replay", out, "--check").code == 0


@pytest.mark.slow
@pytest.mark.parametrize("role", ["init", "mask"])
@pytest.mark.parametrize("what", ["gone", "changed"])
def test_an_input_picture_that_was_lost_is_named(
    role: str, what: str, bottega: Command, toy: Path, home: Path, tmp_path: Path
) -> None:
    inputs = {"init": tmp_path / "init.png", "mask": tmp_path / "mask.png"}
    Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(inputs["init"])
    Image.linear_gradient("L").resize((64, 64)).save(inputs["mask"])
    out = tmp_path / "out.png"
    make(bottega, toy, out, "--init", inputs["init"], "--mask", inputs["mask"])
    kept = home / "inputs" / hashlib.sha256(inputs[role].read_bytes()).hexdigest()
    kept.unlink() if what == "gone" else kept.write_bytes(b"other bytes")
    ran = bottega("replay", out, "--check")
    assert ran.code == 2
    assert f"the {role} picture {kept} is {what}; copy the original to that place" in ran.err
    kept.write_bytes(inputs[role].read_bytes())
    assert bottega("replay", out, "--check").code == 0


def test_a_renamed_model_is_found_by_its_hash(bottega: Command, toy: Path, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    model, out = shelf / "first.safetensors", tmp_path / "out.png"
    model.write_bytes(toy.read_bytes())
    make(bottega, model, out)
    model.rename(shelf / "second.safetensors")
    bottega("models", "scan", shelf)
    assert bottega("replay", out, "--check").code == 0


@pytest.mark.parametrize("change", ["byte", "end"])
def test_a_changed_model_is_told(change: str, bottega: Command, toy: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model.safetensors", tmp_path / "out.png"
    model.write_bytes(toy.read_bytes())
    make(bottega, model, out)
    content = bytearray(model.read_bytes())
    if change == "byte":
        content[-100] ^= 1
    else:
        content += b"\0"
    model.write_bytes(content)
    bottega("models", "scan", tmp_path)
    ran = bottega("replay", out, "--check")
    assert ran.code == 1
    assert "was changed since" in ran.err


def test_a_changed_picture_is_told(bottega: Command, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    make(bottega, toy, out)
    picture, texts = pixels(out), PngInfo()
    texts.add_itxt("bottega", str(media.read(out).recipe))
    picture.putpixel((3, 3), (255, 0, 255))
    picture.save(out, pnginfo=texts)
    ran = bottega("replay", out, "--check")
    assert ran.code == 1
    assert "different (PSNR" in ran.err
    ran = bottega("replay", out, "--check", "--json")
    assert (ran.code, ran.json["same"]) == (1, False)  # which also says that there is one document and nothing else
    assert "different (PSNR" in ran.err


def test_a_picture_of_a1111_is_made_again_from_its_text(bottega: Command, toy: Path, tmp_path: Path) -> None:
    ours, theirs, again = tmp_path / "ours.png", tmp_path / "theirs.png", tmp_path / "again.png"
    make(bottega, toy, ours, "--sampler", "DPM++ 2M", "--schedule", "Karras", "--set", "noise_source=NV")
    hashed = bottega("models", "show", toy, "--json").json["sha256"]
    text = (
        "a house\nSteps: 4, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 11, Size: 64x64, "
        f"Model hash: {hashed[:10]}, Model: whatever-it-was-called, Version: v1.10.1"
    )
    info = PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(theirs, pnginfo=info)
    assert bottega("replay", theirs, "--out", again).code == 0
    make(bottega, toy, ours, "--sampler", "DPM++ 2M", "--set", "noise_source=NV", "--seed", 11)
    assert pixels(ours).tobytes() == pixels(again).tobytes()
    assert bottega("replay", theirs, "--check").code == 1


@pytest.mark.parametrize(
    ("title", "told"),
    [
        ("Model hash: 0123456789, Model: toy", "the hash of toy is {real}, not 0123456789; put the right one on a"),
        ("Model hash: 01234567, Model: toy", ", not 01234567; put the right one on a shelf"),
        (
            "Model hash: 0123456789, Model: tyo",
            "no model has the hash 0123456789, and none is called 'tyo'; did you mean",
        ),
        ("Model hash: 0123456789", "no model has the hash 0123456789; put it on a shelf"),
        ("Model: no such thing", "no model is called 'no such thing'"),
    ],
)
def test_it_is_told_whether_the_name_or_the_hash_of_an_a1111_picture_means_no_model(
    title: str, told: str, bottega: Command, toy: Path, tmp_path: Path
) -> None:
    path, info = tmp_path / "theirs.png", PngInfo()
    info.add_text("parameters", f"a house\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64, {title}")
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    real = bottega("models", "show", toy, "--json").json["sha256"]
    ran = bottega("replay", path)
    assert (ran.code, ran.out) == (2, "")
    assert told.format(real=real[:10]) in ran.err


@pytest.mark.parametrize("fields", ["Hires upscale: 2, ", "Denoising strength: 0.5, ", "Seed: x, "])
def test_what_can_not_be_made_again_is_refused(fields: str, bottega: Command, toy: Path, tmp_path: Path) -> None:
    path = tmp_path / "theirs.png"
    info = PngInfo()
    info.add_text("parameters", f"a house\nSteps: 4, Sampler: Euler, CFG scale: 7, {fields}Size: 64x64, Model: toy")
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    assert bottega("replay", path).code == 2


@pytest.mark.parametrize(
    ("text", "gaps"),
    [
        ("a house\nSteps: 4, Sampler: Euler, CFG scale: 7, Size: 64x64, Model: toy", "seed"),
        ("a house\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 1, Model: toy", "size"),
        ("a house\nSteps: 4, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 64x64", "model"),
        ("just a caption", "model and seed and size"),
        (
            '{"prompt": "a house", "seed": "42", "resolution": "(64, 64)", "base_model": "toy"}',
            "model and seed and size",
        ),
    ],
)
def test_some_other_picture_is_no_replay(text: str, gaps: str, bottega: Command, toy: Path, tmp_path: Path) -> None:
    path, info = tmp_path / "theirs.png", PngInfo()
    info.add_text("parameters", text)
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    ran = bottega("replay", path, "--out", tmp_path / "again.png")
    assert (ran.code, ran.out) == (2, "") and f"does not say its {gaps}" in ran.err
    assert not (tmp_path / "again.png").exists()


def test_a_picture_without_a_recipe_is_refused(bottega: Command, tmp_path: Path) -> None:
    path = tmp_path / "plain.png"
    Image.new("RGB", (8, 8)).save(path)
    ran = bottega("replay", path)
    assert ran.code == 2
    assert "carries no recipe" in ran.err


def test_a_recipe_that_is_too_long_is_told_as_that(bottega: Command, tmp_path: Path) -> None:
    path, info = tmp_path / "long.png", PngInfo()
    info.add_text("bottega", "x" * (media.MAX_TEXT + 1))
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    ran = bottega("replay", path)
    assert ran.code == 2 and "its text 'bottega' is longer than the 1,048,576 bytes that are read" in ran.err


def test_show_tells_the_recipe_and_a1111s_text(bottega: Command, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.webp"
    make(bottega, toy, out, "--negative", "rain, fog")
    told = bottega("show", out, "--json").json
    assert told["recipe"]["negative"] == "rain, fog"
    assert told["a1111"]["negative"] == "rain, fog"
    assert told["a1111"]["fields"]["Sampler"] == "DPM++ 2M"
    assert "DPM++ 2M" in bottega("show", out).out


def test_a_recipe_with_gaps_is_refused_instead_of_filled(bottega: Command, tmp_path: Path) -> None:
    path = tmp_path / "draft.png"
    path.write_bytes(media.encode(Image.new("RGB", (8, 8)), "png", recipe='{"version":1,"prompt":"a house"}'))
    ran = bottega("replay", path, "--check")
    assert ran.code == 2
    assert "a recipe with gaps" in ran.err
