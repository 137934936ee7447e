"""Every published layout is recognised by exactly one family, and nothing else is."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from headers import stable_diffusion as layouts

from bottega.families import sd1, sd2, sdxl
from bottega.formats.header import Header, TensorInfo
from bottega.spec import Match

FAMILIES = {face.family.id: face.family for face in (sd1, sd2, sdxl)}


def recognised(header: Header) -> dict[str, Match]:
    matches = {name: family.recognise(header) for name, family in FAMILIES.items()}
    return {name: match for name, match in matches.items() if match}


@pytest.mark.parametrize("name", layouts.PUBLISHED)
def test_published_layouts(name: str) -> None:
    family, variant, shapes = layouts.PUBLISHED[name]
    matches = recognised(layouts.header(shapes))
    assert list(matches) == [family]
    match = matches[family]
    assert match.variant == variant
    assert match.because
    json.dumps(match.dimensions)  # the catalog keeps it so


@pytest.mark.parametrize("name", layouts.STRANGERS)
def test_strangers(name: str) -> None:
    assert recognised(layouts.header(layouts.STRANGERS[name])) == {}


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F8_E4M3"])
def test_dtype_does_not_matter(dtype: str) -> None:
    for family, _, shapes in layouts.PUBLISHED.values():
        assert list(recognised(layouts.header(shapes, dtype))) == [family]


def test_the_layouts_have_the_published_numbers_of_parameters() -> None:
    assert layouts.header(layouts.sd1_unet()).parameters == 859_520_964
    assert layouts.header(layouts.sd2_unet()).parameters == 865_910_724
    assert layouts.header(layouts.sdxl_unet()).parameters == 2_567_463_684
    assert layouts.header(layouts.vae()).parameters == 83_653_863
    assert layouts.header(layouts.clip()).parameters == 123_060_480


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("ssd_1b", 1_331_334_404), ("vega", 745_225_604), ("koala_700m", 782_822_724), ("koala_1b", 1_161_184_324)],
)
def test_the_distilled_layouts_have_their_numbers_of_parameters_too(name: str, parameters: int) -> None:
    assert layouts.header(getattr(layouts, f"{name}_unet")()).parameters == parameters


@pytest.mark.parametrize("name", ["ssd-1b", "vega", "koala-700m", "koala-1b"])
def test_a_distilled_model_runs_as_the_whole_one_does(name: str) -> None:
    whole, header = layouts.header(layouts.PUBLISHED["sdxl"][2]), layouts.header(layouts.PUBLISHED[name][2])
    usual, match = sdxl.family.recognise(whole), sdxl.family.recognise(header)
    assert usual is not None and match is not None
    assert any(words.lower().endswith(("ssd-1b", "vega", "koala-700m", "koala-1b")) for words in match.because)
    assert sdxl.family.defaults(header, match) == sdxl.family.defaults(whole, usual)
    assert (match.parts, match.guess, match.kind) == (usual.parts, usual.guess, usual.kind)
    told = sdxl.family.varied(match, "v-prediction")
    assert (told.variant, told.dimensions["prediction"]) == ("v-prediction", "v")
    flagged = sdxl.family.recognise(layouts.header(layouts.PUBLISHED[name][2] | {"v_pred": ()}))
    assert flagged is not None and flagged.variant == "v-prediction"


def test_dimensions_of_sd1() -> None:
    match = sd1.family.recognise(layouts.header(layouts.PUBLISHED["sd1"][2]))
    assert match is not None
    unet = match.dimensions["unet"]
    assert unet["channels"] == (320, 640, 1280, 1280)
    assert unet["down"] == ((1, 1), (1, 1), (1, 1), (0, 0))
    assert unet["up"] == ((0, 0, 0), (1, 1, 1), (1, 1, 1), (1, 1, 1))
    assert (unet["middle"], unet["context"], unet["heads"], unet["linear"]) == (1, 768, (8, 8, 8, 8), False)
    assert match.dimensions["vae"]["channels"] == (128, 256, 512, 512)
    text = match.dimensions["text_encoder"]
    assert (text["width"], text["layers"], text["heads"], text["activation"]) == (768, 12, 12, "quick_gelu")
    assert match.dimensions["scale_factor"] == 0.18215
    assert dict(match.parts) == {
        "unet": "model.diffusion_model.",
        "vae": "first_stage_model.",
        "text_encoder": "cond_stage_model.transformer.",
    }


def test_dimensions_of_sdxl() -> None:
    match = sdxl.family.recognise(layouts.header(layouts.PUBLISHED["sdxl"][2]))
    assert match is not None
    unet = match.dimensions["unet"]
    assert unet["down"] == ((0, 0), (2, 2), (10, 10))
    assert (unet["heads"], unet["adm"], unet["size_width"]) == ((5, 10, 20), 2816, 256)
    second = match.dimensions["text_encoder_2"]
    assert (second["layers"], second["heads"], second["projection"], second["activation"]) == (32, 20, 1280, "gelu")
    assert match.dimensions["scale_factor"] == 0.13025


def test_sd2_runs_all_but_the_last_block_unless_a_converter_dropped_it() -> None:
    for blocks in (24, 23):
        encoders = {"cond_stage_model.model.": layouts.openclip(1024, blocks)}
        match = sd2.family.recognise(layouts.header(layouts.whole(layouts.sd2_unet(), encoders)))
        assert match is not None
        assert match.dimensions["text_encoder"]["layers"] == 23


def test_says_what_is_missing() -> None:
    bare = sd1.family.recognise(layouts.header(layouts.sd1_unet()))
    assert bare is not None
    assert bare.kind == "diffusion_model"
    assert any("without text_encoder and vae" in words for words in bare.because)
    without_vae = {name: s for name, s in layouts.PUBLISHED["sd1"][2].items() if not name.startswith("first_stage")}
    match = sd1.family.recognise(layouts.header(without_vae))
    assert match is not None
    assert match.kind == "checkpoint"
    assert any("without vae" in words for words in match.because)


SD2 = layouts.PUBLISHED["sd2"][2]


@pytest.mark.parametrize(
    ("metadata", "extra", "prediction"),
    [
        ({"modelspec.prediction_type": "v"}, {}, "v"),
        ({"modelspec.prediction_type": "epsilon"}, {"v_pred": ()}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, {}, "v"),
        ({}, {"v_pred": ()}, "v"),
        ({}, {"ztsnr": ()}, "v"),
    ],
)
def test_prediction_that_is_told(metadata: dict[str, str], extra: layouts.Shapes, prediction: str) -> None:
    header = layouts.header(SD2 | extra, metadata=metadata)
    match = sd2.family.recognise(header)
    assert match is not None
    assert (match.dimensions["prediction"], match.guess) == (prediction, False)
    assert match.variant == ("v-prediction" if prediction == "v" else "base")
    assert match.dimensions["zero_snr"] is ("ztsnr" in extra)
    side = 768 if prediction == "v" else 512
    assert sd2.family.defaults(header, match)["size"] == (side, side)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize(("spread", "prediction"), [(0.05, "epsilon"), (0.17, "v")])
def test_prediction_that_only_the_weights_tell(tmp_path: Path, dtype: str, spread: float, prediction: str) -> None:
    values = [spread if index % 2 else -spread for index in range(320)]
    packed = {
        "F32": struct.pack("<320f", *values),
        "F16": struct.pack("<320e", *values),
        "BF16": b"".join(struct.pack("<f", value)[2:] for value in values),
    }[dtype]
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"ten bytes." + packed)
    header = layouts.header(SD2, dtype)
    name = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    tensors = {**header.tensors, name: TensorInfo(dtype, (320,), file, 10, 10 + len(packed))}
    match = sd2.family.recognise(Header(file, "safetensors", tensors))
    # The header's other tensors are in no file: nothing else was read.
    assert match is not None
    assert (match.dimensions["prediction"], match.guess) == (prediction, True)


LDM = "model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    "


@pytest.mark.parametrize(
    ("config", "prediction"),
    [
        (LDM + 'parameterization: "v"\n', "v"),  # v2-inference-v.yaml, with which the 768-v model was published
        (LDM + "linear_start: 0.00085\n", "epsilon"),  # v2-inference.yaml, with which the base model was
        ("model:\r\n  params:\r\n    parameterization: v\r\n", "v"),
    ],
)
def test_prediction_that_the_config_beside_it_tells(tmp_path: Path, config: str, prediction: str) -> None:
    (tmp_path / "model.yaml").write_bytes(config.encode())
    header = Header(tmp_path / "model.safetensors", "safetensors", layouts.header(SD2).tensors)
    match = sd2.family.recognise(header)
    assert match is not None
    assert (match.dimensions["prediction"], match.guess) == (prediction, False)
    assert match.variant == ("v-prediction" if prediction == "v" else "base")
    assert any(words.startswith("the .yaml beside it says") for words in match.because)
    told = Header(header.path, "safetensors", header.tensors, metadata={"modelspec.prediction_type": "epsilon"})
    match = sd2.family.recognise(told)
    assert match is not None and match.dimensions["prediction"] == "epsilon"  # the file's own word goes first


@pytest.mark.parametrize(
    "config", [b"", b"a: [b, c]\n", b"parameterization: x0\n", b"\xff\xfe\0v", b"v" * (1 << 20) + b"\n"]
)
def test_a_config_beside_it_that_tells_nothing(tmp_path: Path, config: bytes) -> None:
    (tmp_path / "model.yaml").write_bytes(config)
    header = Header(tmp_path / "model.safetensors", "safetensors", layouts.header(SD2).tensors)
    match = sd2.family.recognise(header)
    assert match is not None and (match.variant, match.guess) == ("base", True)


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_lies_beside_it_and_is_no_file_tells_nothing(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "model.yaml"
    if kind == "pipe" and not hasattr(os, "mkfifo"):
        pytest.skip("no pipes among files here")
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    header = Header(tmp_path / "model.safetensors", "safetensors", layouts.header(SD2).tensors)
    match = sd2.family.recognise(header)
    assert match is not None and (match.variant, match.guess) == ("base", True)


@pytest.mark.parametrize(
    ("told", "size"),
    [
        ("128x128", (128, 128)),
        ("512", (512, 512)),
        ("768 x 512", (768, 512)),
        ("100x100", (512, 512)),
        ("9999x9999", (512, 512)),
        ("32x32", (512, 512)),
        ("large", (512, 512)),
        ("", (512, 512)),
    ],
)
def test_size_from_metadata(told: str, size: tuple[int, int]) -> None:
    header = layouts.header(layouts.sd1_unet(), metadata={"modelspec.resolution": told})
    match = sd1.family.recognise(header)
    assert match is not None
    assert sd1.family.defaults(header, match)["size"] == size


def test_a_pipeline_that_only_looks_alike() -> None:
    for name in ("StableDiffusionDepth2ImgPipeline", "MarigoldDepthPipeline", "StableDiffusionUpscalePipeline"):
        assert recognised(layouts.header(layouts.sd1_unet(), configs={"": {"_class_name": name}})) == {}


def test_needs_no_torch() -> None:
    program = (
        "import sys; from bottega.families import sd1, sd2, sdxl; import bottega.runtime.plan; "
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
