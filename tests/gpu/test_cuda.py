"""On a GPU: batches agree with single pictures, number formats agree with each other, and the plan is right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Command, pixels
from test_lora import write_lora
from test_turns import Small, draft

from bottega.families._stable_diffusion.toy import write_single_file
from bottega.runtime.plan import WAITING

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1 checkpoint."""
    return write_single_file(tmp_path_factory.mktemp("toys") / "toy.safetensors", "sd1")


def array(path: Path) -> np.ndarray:
    return np.asarray(pixels(path), dtype=np.int16)


@pytest.mark.parametrize("sampler", ["DPM++ 2M", "Euler a", "DPM++ SDE", "DPM adaptive"])
@pytest.mark.parametrize("source", ["CPU", "NV", "GPU"])
def test_image_i_of_a_batch_is_within_2_of_the_single_image(
    sampler: str, source: str, bottega: Command, toy: Path, tmp_path: Path
) -> None:
    words = ("make", "image", "a house", "--model", toy, "--steps", 6, "--sampler", sampler, "--size", "64x64")
    words = (*words, "--set", f"noise_source={source}", "--set", "precision=float32")
    assert bottega(*words, "--seed", 5, "--count", 4, "--out", tmp_path / "many.png").code == 0
    assert bottega(*words, "--seed", 8, "--out", tmp_path / "one.png").code == 0
    assert np.abs(array(tmp_path / "many-4.png") - array(tmp_path / "one.png")).max() <= 2


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_makes_nearly_the_picture_of_float32(precision: str, bottega: Command, tmp_path: Path) -> None:
    made = {}
    for name in ("float32", precision):
        out = tmp_path / f"{name}.png"
        words = ("--seed", 7, "--set", f"precision={name}", "--out", out)
        assert bottega("make", "image", "a red house by the sea at noon, flat", *words).code == 0
        made[name] = array(out)
    error = float(((made["float32"] - made[precision]) ** 2).mean())
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 20


def test_a_gpu_picture_replays(bottega: Command, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert bottega("make", "image", "a house", "--model", toy, "--steps", 4, "--out", out).code == 0
    assert bottega("replay", out, "--check").code == 0


def test_an_nv_picture_is_the_same_on_the_cpu(
    bottega: Command, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("make", "image", "a house", "--model", toy, "--steps", 6, "--seed", 3)
    words = (*words, "--set", "noise_source=NV", "--set", "precision=float32")
    assert bottega(*words, "--out", tmp_path / "cuda.png").code == 0
    monkeypatch.setenv("BOTTEGA_DEVICE", "cpu")
    assert bottega(*words, "--out", tmp_path / "cpu.png").code == 0
    assert np.abs(array(tmp_path / "cuda.png") - array(tmp_path / "cpu.png")).max() <= 2


@pytest.mark.parametrize("away", WAITING)
def test_parts_that_take_turns_make_the_same_picture(away: frozenset[str], toy: Path, tmp_path: Path) -> None:
    write_lora(tmp_path / "home" / "models" / "neon.safetensors", toy)
    small = Small(tmp_path / "home", "cuda")
    recipe = small.bench.resolve(draft(toy, prompt="a house <lora:neon:1>"))
    plain, _ = small.make(recipe)
    small.bench.let_go()
    small.fit(recipe, away)
    made, _ = small.make(recipe)
    assert small.pipe.place.away == away & {"unet", "vae", "text_encoder"}
    assert made == plain


def test_a_lora_is_attached_there_and_taken_away_to_the_bit(
    bottega: Command, home: Path, toy: Path, tmp_path: Path
) -> None:
    write_lora(home / "models" / "neon.safetensors", toy)
    words = ("--model", toy, "--steps", 4, "--seed", 3, "--set", "precision=float32")
    for name, prompt in (("lora", "a house <lora:neon:1>"), ("plain", "a house")):
        assert bottega("make", "image", prompt, *words, "--out", tmp_path / f"{name}.png").code == 0
    assert bottega("replay", tmp_path / "lora.png", "--check").out.strip() == "the same to the byte"
    assert np.abs(array(tmp_path / "lora.png") - array(tmp_path / "plain.png")).max() > 2
