"""Diffusers folders: read whatever their layout, refused when they are incomplete, lead elsewhere or want code run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bottega.errors import FormatError
from bottega.formats import folder, read_header, safetensors

FOUR = bytes(4)
INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.30.0",
    "requires_safety_checker": True,
    "feature_extractor": [None, None],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


def weights(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.write(path, [(name, "F32", (1,), FOUR) for name in names])


def put(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def pipeline(root: Path) -> Path:
    """A small Stable Diffusion 1 folder with everything in its usual place."""
    put(root / "model_index.json", INDEX)
    put(root / "scheduler" / "scheduler_config.json", {"prediction_type": "v_prediction"})
    (root / "tokenizer").mkdir()
    for part, stem in STEMS.items():
        put(root / part / "config.json", {"_class_name": INDEX[part][1]})
        weights(root / part / f"{stem}.safetensors", f"{part}_a", f"{part}_b")
    return root


def shard(
    root: Path, weight_map: dict[str, object], index: str = "diffusion_pytorch_model.safetensors.index.json"
) -> None:
    (root / "unet" / "diffusion_pytorch_model.safetensors").unlink(missing_ok=True)
    put(root / "unet" / index, {"metadata": {}, "weight_map": weight_map})


def test_a_pipeline_is_one_header(tmp_path: Path) -> None:
    header = read_header(pipeline(tmp_path))
    assert header.format == "diffusers" and header.path == tmp_path
    assert sorted(header.tensors) == [f"{part}/{part}_{end}" for part in sorted(STEMS) for end in "ab"]
    assert header.tensors["unet/unet_a"].file == tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    assert safetensors.read_tensor(header, "vae/vae_b") == FOUR
    assert header.configs[""]["_class_name"] == "StableDiffusionPipeline"
    assert header.configs["scheduler"]["prediction_type"] == "v_prediction"
    assert set(header.configs) == {"", "scheduler", *STEMS}
    assert header.notes == ("no folder for the part safety_checker",)


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        (("", ".fp16", ".bf16"), ""),
        ((".fp16", ".bf16"), ".fp16"),
        ((".bf16",), ".bf16"),
    ],
)
def test_the_plain_file_is_preferred_then_fp16(tmp_path: Path, there: tuple[str, ...], chosen: str) -> None:
    unet = pipeline(tmp_path) / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    for variant in there:
        weights(unet / f"diffusion_pytorch_model{variant}.safetensors", f"from{variant}")
    weights(unet / "diffusion_pytorch_model.non_ema.safetensors", "x")
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"PK\3\4")
    assert f"unet/from{chosen}" in read_header(tmp_path).tensors


@pytest.mark.parametrize(
    "index",
    [
        "diffusion_pytorch_model.safetensors.index.json",
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
    ],
)
def test_shards_are_read_as_one(tmp_path: Path, index: str) -> None:
    pipeline(tmp_path)
    weights(tmp_path / "unet" / "a-00001-of-00002.safetensors", "x", "y", "not in the map")
    weights(tmp_path / "unet" / "a-00002-of-00002.safetensors", "z", "x")
    first, second = (f"a-0000{number}-of-00002.safetensors" for number in (1, 2))
    shard(tmp_path, {"x": first, "y": first, "z": second}, index)
    header = read_header(tmp_path)
    assert {name for name in header.tensors if name.startswith("unet/")} == {"unet/x", "unet/y", "unet/z"}
    assert header.tensors["unet/x"].file.name == first and header.tensors["unet/z"].file.name == second


@pytest.mark.parametrize(
    ("weight_map", "word"),
    [
        ({"x": "b.safetensors"}, "b.safetensors: this shard.*is missing"),
        ({"not there": "a.safetensors"}, "'not there'.*is not in it"),
        ({"x": "../vae/diffusion_pytorch_model.safetensors"}, "no plain name"),
        ({"x": "/etc/passwd"}, "no plain name"),
        ({"x": "..\\a.safetensors"}, "no plain name"),
        ({"x": "C:a.safetensors"}, "no plain name"),
        ({"x": "a.bin"}, "no plain name"),
        ({"x": "a\0.safetensors"}, "no plain name"),
        ({"x": "a.txt:b.safetensors"}, "no plain name"),
        ({"x": 1}, "no plain name"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
    ],
)
def test_a_shard_index_that_lies_is_refused(tmp_path: Path, weight_map: dict[str, object], word: str) -> None:
    pipeline(tmp_path)
    weights(tmp_path / "unet" / "a.safetensors", "x")
    shard(tmp_path, weight_map)
    with pytest.raises(FormatError, match=word) as caught:
        read_header(tmp_path)
    assert caught.value.remedy


def test_a_cut_shard_is_named(tmp_path: Path) -> None:
    pipeline(tmp_path)
    path = tmp_path / "unet" / "a.safetensors"
    weights(path, "x")
    shard(tmp_path, {"x": "a.safetensors"})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"a\.safetensors: cut short.*1 are missing"):
        read_header(tmp_path)


def test_pickles_are_never_taken_instead(tmp_path: Path) -> None:
    unet = pipeline(tmp_path) / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(FormatError, match="no weights here"):
        read_header(tmp_path)
    (unet / "diffusion_pytorch_model.bin").write_bytes(b"PK\3\4")
    with pytest.raises(FormatError, match=r"unet: .*only there as diffusion_pytorch_model\.bin.*safetensors version"):
        read_header(tmp_path)


def test_missing_parts(tmp_path: Path) -> None:
    pipeline(tmp_path)
    os.rename(tmp_path / "vae", tmp_path / "elsewhere")
    with pytest.raises(FormatError, match=r"its part vae.* is not there"):
        read_header(tmp_path)
    os.rename(tmp_path / "elsewhere", tmp_path / "vae")
    (tmp_path / "unet" / "config.json").rename(tmp_path / "config.json")
    with pytest.raises(FormatError, match=r"unet/config\.json: there is no such file"):
        read_header(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "unet" / "config.json")
    (tmp_path / "tokenizer").rmdir()
    assert "no folder for the part tokenizer" in read_header(tmp_path).notes


def test_an_unused_part_may_be_a_pickle(tmp_path: Path) -> None:
    pipeline(tmp_path)
    put(tmp_path / "safety_checker" / "config.json", {})
    (tmp_path / "safety_checker" / "pytorch_model.bin").write_bytes(b"PK\3\4")
    assert "unet/unet_a" in read_header(tmp_path).tensors


@pytest.mark.parametrize(
    ("class_name", "part"),
    [("UNet2DConditionModel", "unet"), ("AutoencoderKL", "vae"), ("Whatever", "mine"), (["a"], "mine"), (None, "mine")],
)
def test_a_part_by_itself(tmp_path: Path, class_name: object, part: str) -> None:
    root = tmp_path / "mine"
    put(root / "config.json", {"_class_name": class_name})
    weights(root / "diffusion_pytorch_model.fp16.safetensors", "x")
    header = read_header(root)
    assert list(header.tensors) == [f"{part}/x"] and set(header.configs) == {part}


def test_a_text_encoder_by_itself(tmp_path: Path) -> None:
    put(tmp_path / "config.json", {"architectures": ["CLIPTextModelWithProjection"]})
    weights(tmp_path / "model.safetensors", "x")
    assert list(read_header(tmp_path).tensors) == ["text_encoder_2/x"]


def test_other_folders_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"neither model_index\.json nor config\.json"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"auto_map": {"AutoModel": "evil.Model"}}, "auto_map"),
        ({"custom_pipeline": "someone/evil"}, "custom_pipeline"),
        ({"_module": "evil"}, "_module"),
    ],
)
def test_configs_that_ask_for_code_are_refused(tmp_path: Path, config: dict[str, object], word: str) -> None:
    pipeline(tmp_path)
    for path in (tmp_path / "model_index.json", tmp_path / "unet" / "config.json"):
        before = json.loads(path.read_text())
        put(path, before | config)
        with pytest.raises(FormatError, match=f"asks to run code of its own.*{word}") as caught:
            read_header(tmp_path)
        assert caught.value.path == path
        put(path, before)


@pytest.mark.parametrize(
    ("entry", "word"),
    [
        ({"_class_name": ["pipeline", "Evil"]}, "_class_name"),
        ({"unet": ["evil_module", "UNet2DConditionModel"]}, "'evil_module'"),
        ({"../../x": ["diffusers", "UNet2DConditionModel"]}, "no plain folder name"),
        ({"..": ["diffusers", "UNet2DConditionModel"]}, "no plain folder name"),
        ({"/etc": ["diffusers", "UNet2DConditionModel"]}, "no plain folder name"),
    ],
)
def test_pipelines_that_lead_elsewhere_are_refused(tmp_path: Path, entry: dict[str, object], word: str) -> None:
    put(pipeline(tmp_path) / "model_index.json", INDEX | entry)
    with pytest.raises(FormatError, match=word):
        read_header(tmp_path)


def test_python_files_are_noted(tmp_path: Path) -> None:
    (pipeline(tmp_path) / "unet" / "modeling.py").write_text("raise SystemExit")
    assert "Python code that Bottega does not run: 'modeling.py'" in read_header(tmp_path).notes


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "can't be read"),
        (b"{", "can't be read"),
        (b"[]", "no JSON object"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}", "32 levels"),
        (b'{"a": ' + b"[" * 100_000, "without end"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "larger than"),
        (b"\xff", "can't be read"),
    ],
)
def test_hostile_configs(tmp_path: Path, raw: bytes, word: str) -> None:
    path = pipeline(tmp_path) / "unet" / "config.json"
    path.write_bytes(raw)
    with pytest.raises(FormatError, match=word) as caught:
        read_header(tmp_path)
    assert caught.value.path == path


def test_infinity_in_a_config_is_read(tmp_path: Path) -> None:
    (pipeline(tmp_path) / "unet" / "config.json").write_text('{"limit": [0.0, Infinity]}')
    assert read_header(tmp_path).configs["unet"]["limit"] == [0.0, float("inf")]


def test_links_stay_in_the_folder(tmp_path: Path) -> None:
    root = pipeline(tmp_path / "model")
    path = root / "unet" / "diffusion_pytorch_model.safetensors"
    path.rename(root / "shared.safetensors")
    path.symlink_to(root / "shared.safetensors")
    assert "unet/unet_a" in read_header(root).tensors
    (root / "shared.safetensors").rename(tmp_path / "outside.safetensors")
    with pytest.raises(FormatError, match="link to none"):
        read_header(root)
    path.unlink()
    path.symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(FormatError, match="leads out of the model's folder"):
        read_header(root)
    path.unlink()
    weights(path, "x")
    (root / "unet" / "config.json").unlink()
    (tmp_path / "config.json").write_text("{}")
    (root / "unet" / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(FormatError, match="leads out of the model's folder"):
        read_header(root)


def test_a_link_to_the_whole_folder_is_the_users_own(tmp_path: Path) -> None:
    pipeline(tmp_path / "big disk" / "model")
    (tmp_path / "shelf").symlink_to(tmp_path / "big disk" / "model")
    assert "unet/unet_a" in read_header(tmp_path / "shelf").tensors


@pytest.mark.parametrize("part", ["", "unet"])
def test_hugging_faces_cache_keeps_its_files_among_blobs(tmp_path: Path, part: str) -> None:
    repository = tmp_path / "models--org--name"
    root = pipeline(repository / "snapshots" / "0123abc")
    (repository / "blobs").mkdir()
    for number, path in enumerate(path for path in sorted(root.rglob("*")) if path.is_file()):
        path.rename(repository / "blobs" / str(number))
        path.symlink_to(os.path.relpath(repository / "blobs" / str(number), path.parent))
    header = folder.read_header(root / part)
    assert "unet/unet_a" in header.tensors
    config = root / "unet" / "config.json"
    config.unlink()
    put(tmp_path / "models--other" / "blobs" / "1", {})
    config.symlink_to(tmp_path / "models--other" / "blobs" / "1")
    with pytest.raises(FormatError, match="leads out"):
        read_header(root / part)
