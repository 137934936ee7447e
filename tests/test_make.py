"""`bottega make image`: real models in, pictures with their recipe out, and one clear line for everything wrong."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command, pixels
from PIL import Image

from bottega.families._stable_diffusion.toy import write_folder, write_single_file
from bottega.formats import media, safetensors
from bottega.recipe import read_recipe

QUICK = ("--steps", 3, "--size", "64x72", "--seed", 7)

TOYS = [
    ("sd1", "base"),
    ("sd1", "inpainting"),
    ("sd1", "instruct-pix2pix"),
    ("sd2", "base"),
    ("sd2", "v-prediction"),
    ("sdxl", "base"),
    ("sdxl", "refiner"),
    ("sdxl", "inpainting"),
]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion 1 checkpoint."""
    return write_single_file(tmp_path_factory.mktemp("toys") / "toy.safetensors", "sd1")


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, Path]:
    """A picture, and a mask that is white on its left half."""
    init, mask = tmp_path / "init.png", tmp_path / "mask.png"
    Image.radial_gradient("L").resize((96, 80)).convert("RGB").save(init)
    left = Image.new("L", (96, 80))
    left.paste(255, (0, 0, 48, 80))
    left.save(mask)
    return init, mask


@pytest.mark.slow
@pytest.mark.parametrize(("family", "variant"), TOYS)
def test_every_family_and_variant_makes_pictures_for_every_task(
    family: str, variant: str, bottega: Command, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    model = write_single_file(tmp_path / "model.safetensors", family, variant=variant)
    init, mask = pictures
    for index, inputs in enumerate([(), ("--init", init), ("--init", init, "--mask", mask)]):
        out = tmp_path / f"{index}.png"
        ran = bottega("make", "image", "a (red:1.3) [house|tower]", "--model", model, *QUICK, *inputs, "--out", out)
        assert ran.code == 0, ran.err
        assert ran.out.strip() == str(out)
        assert pixels(out).size == (64, 72)


@pytest.mark.parametrize(
    ("part", "byte", "says"),
    [
        ("model.diffusion_model.", b"\xff", "the network gave no finite numbers"),  # all ones is NaN in every type
        ("first_stage_model.decoder.", b"\xff", "the VAE gave no finite numbers"),
        ("first_stage_model.decoder.conv_out.", b"\0", "the picture is all one colour"),
    ],
)
def test_what_a_broken_network_makes_is_an_error_and_no_picture(
    part: str, byte: bytes, says: str, bottega: Command, toy: Path, tmp_path: Path
) -> None:
    header, broken, out = safetensors.read_header(toy), tmp_path / "broken.safetensors", tmp_path / "out.png"
    whole = {name: safetensors.read_tensor(header, name) for name in header.tensors}
    rows = [
        (name, info.dtype, info.shape, byte * len(whole[name]) if name.startswith(part) else whole[name])
        for name, info in header.tensors.items()
    ]
    safetensors.write(broken, rows, header.metadata)
    ran = bottega("make", "image", "a house", "--model", broken, *QUICK, "--out", out)
    assert ran.code == 1 and says in ran.err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_folder_gives_the_picture_that_its_single_file_gives(family: str, bottega: Command, tmp_path: Path) -> None:
    single, folder = tmp_path / "single.safetensors", tmp_path / "folder"
    write_single_file(single, family)
    write_folder(folder, family)
    made = []
    for model in (single, folder):
        ran = bottega("make", "image", "a house", "--model", model, *QUICK, "--out", tmp_path / "out.png")
        assert ran.code == 0, ran.err
        made.append(pixels(tmp_path / "out.png").tobytes())
    assert made[0] == made[1]


def test_json_tells_path_digest_and_seed(bottega: Command, toy: Path, tmp_path: Path) -> None:
    ran = bottega("make", "image", "a house", "--model", toy, *QUICK, "--count", 2, "--out", tmp_path / "new", "--json")
    told = ran.json
    assert [output["seed"] for output in told["outputs"]] == [7, 8]
    assert (told["path"], told["seed"]) == (told["outputs"][0]["path"], 7)
    for output in told["outputs"]:
        carried = media.read(output["path"])
        assert carried.recipe is not None
        recipe = read_recipe(carried.recipe)
        assert recipe.digest == output["digest"]
        assert recipe.count == 1 and recipe.sampling.seed == output["seed"]
        assert carried.parameters is not None and f"Seed: {output['seed']}," in carried.parameters


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["DPM++ 2M SDE", "Euler a", "DDIM"])
def test_image_i_of_a_batch_is_the_single_image_of_seed_plus_i(
    sampler: str, bottega: Command, toy: Path, tmp_path: Path
) -> None:
    words = ("make", "image", "a house", "--model", toy, "--steps", 4, "--size", "64x64", "--sampler", sampler)
    bottega(*words, "--seed", 5, "--count", 3, "--out", tmp_path / "many.png")
    bottega(*words, "--seed", 7, "--out", tmp_path / "one.png")
    assert (tmp_path / "many-3.png").read_bytes() == (tmp_path / "one.png").read_bytes()
    assert (tmp_path / "many-1.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_outputs_are_numbered_and_never_overwritten(bottega: Command, toy: Path, home: Path) -> None:
    for _ in range(2):
        assert bottega("make", "image", "a house", "--model", toy, *QUICK).code == 0
    names = sorted(path.name for path in (home / "outputs").rglob("*.png"))
    assert names == ["00000-7.png", "00001-7.png"]


def test_a_mask_keeps_what_is_black(bottega: Command, toy: Path, pictures: tuple[Path, Path], tmp_path: Path) -> None:
    init, mask = pictures
    out = tmp_path / "out.png"
    words = ("--init", init, "--mask", mask, "--strength", 0.9, "--steps", 4, "--set", "mask_blur=0", "--out", out)
    ran = bottega("make", "image", "a house", "--model", toy, "--size", "96x80", *words)
    assert ran.code == 0, ran.err
    before, after = pixels(init), pixels(out)
    right, left = (48, 0, 96, 80), (0, 0, 48, 80)
    assert before.crop(right).tobytes() == after.crop(right).tobytes()
    assert before.crop(left).tobytes() != after.crop(left).tobytes()


@pytest.mark.slow
def test_strength_says_how_much_of_the_picture_is_new(
    bottega: Command, toy: Path, pictures: tuple[Path, Path], tmp_path: Path
) -> None:
    made = {}
    for strength in (0, 0.5, 1):
        out = tmp_path / f"{strength}.png"
        words = ("--init", pictures[0], "--strength", strength, *QUICK, "--out", out)
        assert bottega("make", "image", "a house", "--model", toy, *words).code == 0
        made[strength] = pixels(out).tobytes()
    assert len(set(made.values())) == 3


def test_equal_recipes_give_equal_files_whatever_the_format(bottega: Command, toy: Path, tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "webp"):
        twice = []
        for name in ("a", "b"):
            bottega("make", "image", "a 雪 house", "--model", toy, *QUICK, "--out", tmp_path / f"{name}.{suffix}")
            twice.append((tmp_path / f"{name}.{suffix}").read_bytes())
        assert twice[0] == twice[1]


def test_a_preview_is_shown_on_the_way_and_gone_at_the_end(bottega: Command, toy: Path, home: Path) -> None:
    ran = bottega("make", "image", "a house", "--model", toy, *QUICK, "--preview")
    assert ran.code == 0
    assert re.search(f"preview: {re.escape(str(home))}/preview-[0-9a-f]+\\.png", ran.err)
    assert not list(home.glob("preview*"))


# --- wrong input -----------------------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    """The complaint, which must be the only line that is none of progress."""
    lines = [line for line in text.splitlines() if line.startswith("bottega: ")]
    assert len(lines) == 1, text
    assert "Traceback" not in text and "bug in Bottega" not in text
    return lines[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["a house", "--model", "starter-imge"], "did you mean starter-image"),
        (["a house", "--size", "100x64"], "no multiple of 8"),
        (["a house", "--size", "big"], "no size"),
        (["a house", "--steps", "-5"], "sampling.steps: -5"),
        (["a house", "--steps", "many"], "invalid int value"),
        (["a house", "--cfg", "nan"], "sampling.guidance"),
        (["a house", "--sampler", "Eulr"], "did you mean"),
        (["a house", "--set", "clip_skip"], "has no value"),
        (["a house", "--set", "colour=red"], "no setting"),
        (["a house", "--steps", "0", "--json"], "sampling.steps"),
        (["a house", "--set", "clipskip=2"], "did you mean clip_skip"),
        (["a house", "--set", "zero_snr=maybe"], "not true or false"),
        (["a house", "--set", "eta=nan"], "'nan' is not a number"),
        (["a house", "--model", ""], "--model: is empty"),
        (["-red"], "after --"),
        (["a house", "--negative", "-rain"], "write --negative=-rain"),
        (["a house", "--mask", "mask.png"], "--init"),
        (["a house", "--init", "absent.png"], "absent.png"),
        (["a house", "--out", "x.gif"], ".gif"),
        ([""], "prompt: is empty"),
        (["x" * 100_000], "100,000 characters"),
        (["a house", "--steps", "0", "--size", "9x9"], "sampling.steps"),
    ],
)
def test_wrong_words_end_in_one_clear_line(words: list[str], told: str, bottega: Command, home: Path) -> None:
    ran = bottega("make", "image", *words)
    assert ran.code == 2
    assert told in one_line(ran.err)
    assert ran.err.count("\n") == 1  # and not even a word of progress before it
    assert ran.out == ""
    assert not list(home.rglob("*.png"))


@pytest.mark.parametrize("prompt", ["-red house", "-huge house", "-h", "-1", "--red"])
def test_a_prompt_may_begin_with_a_dash(prompt: str, bottega: Command, toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    words = ("--model", toy, "--steps", 1, "--size", "64x64", "--out", out)
    assert bottega("make", "image", *words, "--", prompt).code == 0
    carried = media.read(out)
    assert carried.recipe is not None and read_recipe(carried.recipe).prompt == prompt
    if " " in prompt:
        assert bottega("make", "image", prompt, *words).code == 0


def test_names_and_values_go_by_any_case(bottega: Command, toy: Path, tmp_path: Path) -> None:
    settings = ("Zero-SNR=Yes", "old_prompt_editing=OFF", "precision=BFloat16", "clip_skip=2", "ETA=0.5")
    words = [word for setting in settings for word in ("--set", setting)]
    words += ["--sampler", "dpm++ 2m sde", "--schedule", "KARRAS"]
    ran = bottega("make", "image", "a", "--model", toy, *QUICK, *words, "--out", tmp_path / "out.png", "--json")
    recipe = ran.json["recipe"]
    assert (recipe["sampling"]["sampler"], recipe["sampling"]["schedule"]) == ("DPM++ 2M SDE", "Karras")
    told = {name: recipe["knobs"][name] for name in ("zero_snr", "old_prompt_editing", "precision", "clip_skip", "eta")}
    assert told == {
        "zero_snr": True,
        "old_prompt_editing": False,
        "precision": "bfloat16",
        "clip_skip": 2,
        "eta": 0.5,
    }


@pytest.mark.parametrize("out", ["new/", "new.png/", "v1.5", "v1.5 x", "Mr. Smith's", "two.words here"])
def test_a_name_without_a_file_ending_is_a_folder(out: str, bottega: Command, toy: Path, tmp_path: Path) -> None:
    ran = bottega("make", "image", "a house", "--model", toy, *QUICK, "--out", f"{tmp_path}/{out}")
    assert ran.code == 0, ran.err
    assert [path.name for path in (tmp_path / out).iterdir()] == ["00000-7.png"]


def test_progress_tells_which_of_several_pictures_it_is(bottega: Command, toy: Path, tmp_path: Path) -> None:
    words = ("make", "image", "a house", "--model", toy, *QUICK, "--out", tmp_path)
    several = bottega(*words, "--count", 2).err
    assert "picture 1 of 2: sample 0/3\n" in several and "picture 2 of 2: sample 0/3\n" in several
    assert "picture" not in bottega(*words).err


def broken(kind: str, toy: Path, path: Path) -> Path:
    content = toy.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "corrupted":
        path.write_bytes(content[:100] + b"\xff" * 40 + content[140:])
    elif kind == "picture":
        Image.new("RGB", (8, 8)).save(path, "png")
    elif kind == "page":
        path.write_bytes(b"<!doctype html><html><body>404</body></html>")
    elif kind == "empty":
        path.write_bytes(b"")
    return path


@pytest.mark.parametrize("kind", ["truncated", "corrupted", "picture", "page", "empty", "absent"])
def test_what_is_no_model_is_called_by_name(kind: str, bottega: Command, toy: Path, tmp_path: Path) -> None:
    model = broken(kind, toy, tmp_path / "model.safetensors")
    ran = bottega("make", "image", "a house", "--model", model, "--out", tmp_path / "out.png")
    assert ran.code == 2
    assert "model" in one_line(ran.err)
    assert not (tmp_path / "out.png").exists()


def test_an_output_folder_that_can_not_be_written_is_told_before_any_work(bottega: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    ran = bottega("make", "image", "a house", "--out", tmp_path / "file" / "out.png")
    assert ran.code == 1
    assert "can't be written" in one_line(ran.err)
    assert "load" not in ran.err


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "bottega", *map(str, words)]


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(toy: Path, home: Path, tmp_path: Path) -> None:
    """The limit on a file's size stands in for a full disk: writing fails in the middle of the file."""
    out = tmp_path / "made"
    words = command("make", "image", "a house", "--model", toy, "--size", "512x512", "--steps", 1, "--out", out)
    subprocess.run(command("models", "hash", toy), capture_output=True, check=True)  # so that the catalog is written
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (64_000, 64_000)),
    )
    assert ran.returncode == 1
    assert "could not be written" in one_line(ran.stderr)
    assert list(out.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_stops_at_once_and_leaves_nothing_behind(toy: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "made"
    words = command("make", "image", "a house", "--model", toy, "--steps", 1000, "--size", "256x256", "--out", out)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("sample"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert not out.exists()


def test_a_picture_of_one_colour_is_tried_again_and_then_refused(bottega: Command, toy: Path, tmp_path: Path) -> None:
    header = safetensors.read_header(toy)
    blank = [
        (name, info.dtype, info.shape, bytes(info.end - info.start) if "decoder.conv_out" in name else data)
        for name, info in header.tensors.items()
        for data in [safetensors.read_tensor(header, name)]
    ]
    model, out = tmp_path / "blank.safetensors", tmp_path / "out.png"
    safetensors.write(model, blank, dict(header.metadata))
    ran = bottega("make", "image", "a house", "--model", model, *QUICK, "--set", "precision=bfloat16", "--out", out)
    assert ran.code == 1
    assert "once more in float32" in ran.err
    assert "all one colour" in one_line(ran.err)
    assert not out.exists()
