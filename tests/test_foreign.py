"""What pictures of other programs say becomes a draft in our own names."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bottega.engine.a1111 import draft_of
from bottega.engine.foreign import told_by
from bottega.errors import InvalidRecipe
from bottega.formats import media
from bottega.gallery.reading import read_output
from bottega.recipe import Recipe, Size

FOOOCUS = {
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "clip_skip": 2,
    "full_prompt": ["a fox, cinematic"],
    "guidance_scale": 4.0,
    "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "rain",
    "performance": "Speed",
    "prompt": "a fox",
    "refiner_model": "None",
    "resolution": "(1152, 896)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "1234567890123456789",
    "steps": 30,
    "styles": "['Fooocus V2', 'SAI Cinematic']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}
SWARMUI = {
    "sui_image_params": {
        "prompt": "a fox",
        "negativeprompt": "rain",
        "model": "official/sd_xl_base_1.0.safetensors",
        "seed": 11,
        "steps": 20,
        "cfgscale": 6.5,
        "width": 1024,
        "height": 768,
        "sampler": "euler_ancestral",
        "scheduler": "karras",
        "clipstopatlayer": -2,
        "loras": ["ink", "styles/film"],
        "loraweights": ["0.5", "1"],
        "swarm_version": "0.9.8.1",
    },
    "sui_extra_data": {"date": "2026-01-25", "generation_time": "4.8 sec"},
    "sui_models": [{"name": "sd_xl_base_1.0.safetensors", "param": "model", "hash": "0xD7A9105A900FD52748F20725FE52"}],
}
INVOKEAI = {
    "app_version": "5.6.0",
    "positive_prompt": "a fox",
    "negative_prompt": "rain",
    "width": 1024,
    "height": 768,
    "seed": 2341,
    "cfg_scale": 7.5,
    "steps": 30,
    "scheduler": "euler_k",
    "model": {"name": "Juggernaut XL"},
    "loras": [{"model": {"name": "ink"}, "weight": 0.75}],
}
COMFYUI = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 5, "steps": 12, "cfg": 7.0, "sampler_name": "dpmpp_2m", "scheduler": "normal", "denoise": 1.0,
            "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "SD15\\dream.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 640, "batch_size": 1}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "rain", "clip": ["10", 1]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {"lora_name": "ink.safetensors", "strength_model": 0.8, "model": ["4", 0], "clip": ["4", 1]},
    },
    "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}  # fmt: skip


def picture(folder: Path, **texts: Any) -> Path:
    info = PngInfo()
    for name, told in texts.items():
        info.add_text(name, told if isinstance(told, str) else json.dumps(told))
    path = folder / "theirs.png"
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    return path


def draft(folder: Path, **texts: Any) -> Recipe:
    told = told_by(media.read(picture(folder, **texts)))
    assert told is not None
    return draft_of(told)


def gist(recipe: Recipe) -> tuple[object, ...]:
    """What each test compares, from the prompt to the adapters with their weights."""
    sampling, adapters = recipe.sampling, [(use.ref.name, use.weight) for use in recipe.adapters if use.kind == "lora"]
    walked = sampling.sampler, sampling.schedule, sampling.steps, sampling.guidance, sampling.seed
    return recipe.prompt.strip(), recipe.negative, recipe.model and recipe.model.name, walked, recipe.size, adapters


def test_fooocus(tmp_path: Path) -> None:
    made = draft(tmp_path, parameters=FOOOCUS, fooocus_scheme="fooocus")
    assert gist(made) == (
        "a fox", "rain", "juggernautXL_v8Rundiffusion [aeb7e9e689]",
        ("DPM++ 2M SDE", "Karras", 30, 4.0, 1234567890123456789), Size(width=1152, height=896),
        [("sd_xl_offset_example-lora_1.0", 0.1)],
    )  # fmt: skip
    assert made.knobs["clip_skip"] == 2 and made.knobs["noise_source"] == "CPU"
    assert "downcast_alphas" not in made.knobs
    with pytest.raises(InvalidRecipe, match="Refiner"):
        draft(tmp_path, parameters={**FOOOCUS, "refiner_model": "sd_xl_refiner_1.0"})


def test_swarmui(tmp_path: Path) -> None:
    made = draft(tmp_path, parameters=SWARMUI)
    assert gist(made) == (
        "a fox", "rain", "sd_xl_base_1.0 [d7a9105a900f]", ("Euler a", "Karras", 20, 6.5, 11),
        Size(width=1024, height=768), [("ink", 0.5), ("film", 1.0)],
    )  # fmt: skip
    older = {**SWARMUI["sui_image_params"], "loras": "ink, film", "loraweights": "0.25", "sampler": "strange"}
    made = draft(tmp_path, parameters={"sui_image_params": older})
    assert [(use.ref.name, use.weight) for use in made.adapters if use.kind == "lora"] == [("ink", 0.25), ("film", 1.0)]
    assert made.model is not None and made.model.name == "sd_xl_base_1.0"


def test_invokeai(tmp_path: Path) -> None:
    assert gist(draft(tmp_path, invokeai_metadata=INVOKEAI)) == (
        "a fox", "rain", "Juggernaut XL", ("Euler", "Karras", 30, 7.5, 2341), Size(width=1024, height=768),
        [("ink", 0.75)],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("dpmpp_2m", ("DPM++ 2M", "Uniform")),
        ("dpmpp_2m_k", ("DPM++ 2M", "Automatic")),
        ("euler_a", ("Euler a", "Automatic")),
        ("ddim", ("DDIM", "Automatic")),
        ("kdpm_2_a_k", ("DPM2 a", "Automatic")),
    ],
)
def test_invokeais_samplers(tmp_path: Path, theirs: str, ours: tuple[str, str]) -> None:
    sampling = draft(tmp_path, invokeai_metadata={**INVOKEAI, "scheduler": theirs}).sampling
    assert (sampling.sampler, sampling.schedule) == ours


def test_comfyui(tmp_path: Path) -> None:
    assert gist(draft(tmp_path, prompt=COMFYUI)) == (
        "a fox", "rain", "dream", ("DPM++ 2M", "Normal", 12, 7.0, 5), Size(width=512, height=640), [("ink", 0.8)],
    )  # fmt: skip


def test_a_sampler_that_nobody_has_here_is_left_open(tmp_path: Path) -> None:
    strange = {**COMFYUI, "3": {**COMFYUI["3"], "inputs": {**COMFYUI["3"]["inputs"], "sampler_name": "res_multistep"}}}
    told = told_by(media.read(picture(tmp_path, prompt=strange)))
    assert told is not None and not {"Sampler", "Schedule type"} & told.fields.keys()


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"prompt": "no json"},
        {"prompt": {"1": {"class_type": "LoadImage", "inputs": {}}}},
        {"invokeai_metadata": []},
        {"Title": "a fox"},
    ],
)
def test_nothing_is_told(tmp_path: Path, texts: dict[str, Any]) -> None:
    assert told_by(media.read(picture(tmp_path, **texts))) is None


@pytest.mark.parametrize(
    "odd",
    [
        None,
        3,
        [],
        "x",
        "a\nb",
        "9" * 400,
        10**400,
        ["a\nb:1", 1],
        [["a\nb", 1]],
        {"a": 1},
        True,
        1e300,
        [[]],
        [["a"]],
        [[1, 2]],
        ["a", 5],
    ],
)
def test_odd_values_harm_nobody(tmp_path: Path, odd: object) -> None:
    texts: list[dict[str, Any]] = []
    texts += [{"parameters": {**FOOOCUS, name: odd}} for name in FOOOCUS.keys() - {"metadata_scheme"}]
    inner = SWARMUI["sui_image_params"]
    texts += [
        {"parameters": {**SWARMUI, "sui_image_params": {**inner, name: odd}, "sui_models": odd}} for name in inner
    ]
    texts += [{"invokeai_metadata": {**INVOKEAI, name: odd}} for name in INVOKEAI]
    for each in texts:
        with suppress(InvalidRecipe):
            draft(tmp_path, **each)


def test_the_gallery_records_them(tmp_path: Path) -> None:
    output = read_output(picture(tmp_path, prompt=COMFYUI, workflow={"nodes": []}))
    assert (output.prompt, output.negative, output.model, output.seed) == ("a fox <lora:ink:0.8>", "rain", "dream", 5)
    assert json.loads(output.recipe)["sampling"]["sampler"] == "DPM++ 2M"
