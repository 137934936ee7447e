"""Folders: read whatever their layout, refused when they are incomplete, lead elsewhere or want code run."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from bottega import formats
from bottega.errors import DangerousModel, FormatError
from bottega.formats import Header, folder, read_header, safetensors
from bottega.formats.header import Safety, TensorInfo
from bottega.library.disk import is_model_folder, model_name

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


@pytest.fixture
def pickles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader for which a pickle is JSON: its tensors, what is unusual of it, or that it is dangerous."""

    def read(path: Path) -> Header:
        said = json.loads(path.read_bytes()[4:])
        if "calls" in said:
            raise DangerousModel(path, "it would run code", "delete it", said["calls"])
        tensors = {name: TensorInfo("F32", (1,), path, 0, 4) for name in said["tensors"]}
        safety = Safety("unusual", tuple(said["names"]), ("it names a class",)) if "names" in said else Safety()
        return Header(path, "pickle", tensors, notes=("optimizer left out",), safety=safety)

    module = ModuleType("bottega.formats.pickled")
    module.read_header = read  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bottega.formats.pickled", module)
    monkeypatch.setattr(formats, "pickled", module, raising=False)


def pickle(path: Path, **said: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"PK\3\4" + json.dumps(said).encode())


@pytest.mark.usefixtures("pickles")
def test_pickles_are_never_taken_instead(tmp_path: Path) -> None:
    unet = pipeline(tmp_path) / "unet"
    pickle(unet / "diffusion_pytorch_model.bin", calls=["os.system"])
    header = read_header(tmp_path)
    assert "unet/unet_a" in header.tensors and header.safety.verdict == "clean"
    beside = (
        "'diffusion_pytorch_model.bin', a pickle, lies beside 'diffusion_pytorch_model.safetensors' and is not read"
    )
    assert beside in header.notes
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(DangerousModel, match="run code"):
        read_header(tmp_path)
    (unet / "diffusion_pytorch_model.bin").rename(unet / "flax_model.msgpack")
    with pytest.raises(FormatError, match=r"unet: .*only there as 'flax_model\.msgpack'.*safetensors version"):
        read_header(tmp_path)
    (unet / "flax_model.msgpack").unlink()
    with pytest.raises(FormatError, match="no weights here"):
        read_header(tmp_path)


@pytest.mark.usefixtures("pickles")
def test_parts_that_are_pickles_are_read_as_data_and_said_to_be_pickles(tmp_path: Path) -> None:
    pipeline(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    pickle(tmp_path / "unet" / "diffusion_pytorch_model.bin", tensors=["x"])
    pickle(tmp_path / "text_encoder" / "pytorch_model.bin", tensors=["y"], names=["mycorp.Foo"])
    header = read_header(tmp_path)
    assert {"unet/x", "text_encoder/y", "vae/vae_a"} <= set(header.tensors)
    assert header.safety == Safety("unusual", ("mycorp.Foo",), ("'text_encoder/pytorch_model.bin': it names a class",))
    assert any("'pytorch_model.bin': they are read as data, and nothing of it is run" in note for note in header.notes)
    assert "'unet/diffusion_pytorch_model.bin': optimizer left out" in header.notes


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
    ("file", "what"),
    [
        ("saved_model.pb", "a TensorFlow model"),
        ("coremldata.bin", "a compiled Core ML model"),
        ("Data/com.apple.CoreML/model.mlmodel", "a Core ML model"),
    ],
)
def test_a_model_of_another_program_is_called_one(tmp_path: Path, file: str, what: str) -> None:
    put(tmp_path / "Manifest.json", {})
    put(tmp_path / file, {})
    with pytest.raises(FormatError, match=f"this folder is {what}.*look on the model's page"):
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


def test_code_in_a_folder_is_named(tmp_path: Path) -> None:
    (pipeline(tmp_path) / "unet" / "modeling.py").write_text("raise SystemExit")
    (tmp_path / "SETUP.SH").write_text("exit")
    safety = read_header(tmp_path).safety
    assert safety.verdict == "unusual" and safety.names == ()
    assert safety.reasons == (
        "it comes with code, which Bottega never runs: 'SETUP.SH'",
        "it comes with code, which Bottega never runs: 'unet/modeling.py'",
    )


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "can't be read"),
        (b"{", "can't be read"),
        (b"[]", "no JSON object"),
        (b'{"a": "\xff"}', "it is no UTF-8 text"),
        (b"{} {}", "something follows its end"),
        (b'{"a": %b}' % (b"9" * 5000), "a number in it has too many digits"),
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


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors.index.json", "tokenizer_config.json", "model_index.json"]
)
def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path, name: str) -> None:
    root = language_model(tmp_path)
    if "index" in name:
        (root / "model.safetensors").unlink()
    (root / name).unlink(missing_ok=True)
    os.mkfifo(root / name)
    if name == "tokenizer_config.json":  # not needed for the weights
        assert "no regular file" in read_header(root).notes[0]
        return
    with pytest.raises(FormatError, match="no regular file") as caught:
        read_header(root)
    assert caught.value.path == root / name


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


# --- transformers -----------------------------------------------------------------------------------------------------

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64}


def language_model(root: Path, config: dict[str, object] | None = None) -> Path:
    put(root / "config.json", LLAMA | (config or {}))
    put(root / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer"})
    weights(root / "model.safetensors", "model.embed_tokens.weight", "lm_head.weight")
    return root


def test_a_transformers_model(tmp_path: Path) -> None:
    header = read_header(language_model(tmp_path))
    assert (header.format, header.path) == ("transformers", tmp_path)
    assert sorted(header.tensors) == ["lm_head.weight", "model.embed_tokens.weight"]
    assert header.configs == {"": LLAMA} and header.notes == () and header.safety == Safety()
    put(tmp_path / "config.json", {"model_type": "clip"})
    assert read_header(tmp_path).format == "transformers"


def test_shards_of_a_transformers_model(tmp_path: Path) -> None:
    language_model(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weights(tmp_path / names[0], "a", "b")
    weights(tmp_path / names[1], "c")
    header = read_header(tmp_path)
    assert set(header.tensors) == {"a", "b", "c"} and header.notes == ("2 shards without their index",)
    put(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": names[0], "c": names[1]}})
    header = read_header(tmp_path)
    assert header.tensors["c"].file.name == names[1] and set(header.tensors) == {"a", "c"}
    (tmp_path / names[1]).unlink()
    with pytest.raises(FormatError, match=r"model-00002-of-00002\.safetensors: this shard.*is missing"):
        read_header(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(FormatError, match=r"1 of its 2 shards are missing: model-00002-of-00002\.safetensors"):
        read_header(tmp_path)
    weights(tmp_path / names[1], "a")
    with pytest.raises(FormatError, match="two of its shards hold 'a'"):
        read_header(tmp_path)


@pytest.mark.usefixtures("pickles")
def test_a_transformers_model_of_pickles(tmp_path: Path) -> None:
    language_model(tmp_path)
    pickle(tmp_path / "pytorch_model.bin", calls=["os.system"])
    assert (
        "'pytorch_model.bin', a pickle, lies beside 'model.safetensors' and is not read" in read_header(tmp_path).notes
    )
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(DangerousModel) as caught:
        read_header(tmp_path)
    assert caught.value.path == tmp_path / "pytorch_model.bin"
    (tmp_path / "pytorch_model.bin").unlink()
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    pickle(tmp_path / names[0], tensors=["a"])
    pickle(tmp_path / names[1], tensors=["b"], names=["x.Y"])
    put(tmp_path / "pytorch_model.bin.index.json", {"weight_map": {"a": names[0], "b": names[1]}})
    header = read_header(tmp_path)
    assert header.tensors["b"].file.name == names[1]
    assert header.safety == Safety("unusual", ("x.Y",), (f"'{names[1]}': it names a class",))
    put(tmp_path / "pytorch_model.bin.index.json", {"weight_map": {"a": "model.safetensors"}})
    with pytest.raises(FormatError, match=r"no plain name of a \.bin file"):
        read_header(tmp_path)


@pytest.mark.usefixtures("pickles")
def test_a_bin_file_is_what_its_content_says(tmp_path: Path) -> None:
    language_model(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    assert "lm_head.weight" in read_header(tmp_path).tensors
    pickle(tmp_path / "model.safetensors", tensors=["x"])
    with pytest.raises(FormatError, match=r"model\.safetensors: this is a zip archive"):
        read_header(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "word"),
    [
        ("config.json", LLAMA | {"auto_map": {"AutoModel": "evil.Model"}}, "auto_map.*evil.Model"),
        ("config.json", LLAMA | {"custom_pipelines": {"x": {"impl": "evil.P"}}}, "custom_pipelines.*evil.P"),
        ("config.json", LLAMA | {"text_config": {"auto_map": {"AutoConfig": "evil/repo--c.C"}}}, "evil/repo--c.C"),
        ("config.json", LLAMA | {"parts": [{"auto_map": {"AutoConfig": "evil.C"}}]}, "config.json asks.*evil.C"),
        ("config.json", LLAMA | {"trust_remote_code": True}, "trust_remote_code"),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}, "tokenizer_config.*evil.T"),
        ("preprocessor_config.json", {"auto_map": {"AutoProcessor": "evil.P"}}, "preprocessor_config.*evil.P"),
    ],
)
def test_weights_of_a_model_that_asks_for_code_are_read_without_it(
    tmp_path: Path, file: str, content: dict[str, object], word: str
) -> None:
    put(language_model(tmp_path) / file, content)
    header = read_header(tmp_path)
    assert "lm_head.weight" in header.tensors and header.safety.verdict == "unusual"
    with pytest.raises(AssertionError, match=word):
        assert not header.safety.reasons, header.safety.reasons
    assert not [name for name in sys.modules if "evil" in name]


def test_code_and_huge_tokenizers_make_a_model_unusual(tmp_path: Path) -> None:
    root = language_model(tmp_path)
    for name in ("modeling_x.py", "kernels.so", "vocab.pkl", "run.exe"):
        (root / name).write_bytes(b"")
    (root / "tokenizer.json").touch()
    os.truncate(root / "tokenizer.json", (64 << 20) + 1)
    (root / "tokenizer_config.json").write_text("{")
    header = read_header(root)
    tokenizer, code = header.safety.reasons
    assert code.endswith("never runs: 'kernels.so', 'modeling_x.py', 'run.exe' and 1 more")
    assert tokenizer.startswith("tokenizer.json takes 67,108,865 bytes")
    (note,) = header.notes
    assert note.startswith("tokenizer_config.json: this config can't be read")


def test_folders_without_weights_of_their_name(tmp_path: Path) -> None:
    root = language_model(tmp_path)
    (root / "model.safetensors").rename(root / "mine.safetensors")
    assert read_header(root).notes == ("its weights have a name of their own: 'mine.safetensors'",)
    weights(root / "other.safetensors", "x")
    with pytest.raises(FormatError, match="2 safetensors files, none of which is named"):
        read_header(root)
    (root / "mine.safetensors").rename(root / "mine.gguf")
    (root / "other.safetensors").rename(root / "other.h5")
    with pytest.raises(FormatError, match=r"holds GGUF models: 'mine\.gguf'"):
        read_header(root)
    (root / "mine.gguf").unlink()
    with pytest.raises(FormatError, match=r"only there as 'other\.h5'"):
        read_header(root)


def test_an_adapter_of_peft(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8}
    put(tmp_path / "adapter_config.json", config)
    weights(tmp_path / "adapter_model.safetensors", "base_model.model.x.lora_A.weight")
    header = read_header(tmp_path)
    assert (header.format, header.configs, header.safety.verdict) == ("transformers", {"": config}, "clean")
    assert list(header.tensors) == ["base_model.model.x.lora_A.weight"]
    put(tmp_path / "config.json", LLAMA)  # some trainers put the config of the base beside it
    assert read_header(tmp_path).configs == {"": config}
    put(tmp_path / "adapter_config.json", config | {"auto_mapping": {"parent_library": "transformers_modules.evil"}})
    (reason,) = read_header(tmp_path).safety.reasons
    assert "'transformers_modules.evil', which Bottega never imports" in reason
    (tmp_path / "config.json").unlink()
    put(tmp_path / "adapter_config.json", config | {"auto_mapping": {"parent_library": "transformers.models.llama"}})
    assert read_header(tmp_path).safety.verdict == "clean"


@pytest.mark.usefixtures("pickles")
def test_an_adapter_that_is_a_pickle(tmp_path: Path) -> None:
    put(tmp_path / "adapter_config.json", {"peft_type": "LORA"})
    pickle(tmp_path / "adapter_model.bin", tensors=["x"])
    header = read_header(tmp_path)
    assert list(header.tensors) == ["x"] and "are a pickle, 'adapter_model.bin'" in header.notes[0]


def test_sentence_transformers(tmp_path: Path) -> None:
    put(tmp_path / "config.json", {"architectures": ["BertModel"], "model_type": "bert"})
    weights(tmp_path / "model.safetensors", "embeddings.word_embeddings.weight")
    put(tmp_path / "modules.json", [{"path": "", "type": "sentence_transformers.models.Transformer"}])
    put(tmp_path / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    put(tmp_path / "2_Dense" / "config.json", {"in_features": 1})
    weights(tmp_path / "2_Dense" / "model.safetensors", "linear.weight")
    (tmp_path / "3_Normalize").mkdir()
    header = read_header(tmp_path)
    assert set(header.tensors) == {"embeddings.word_embeddings.weight", "2_Dense/linear.weight"}
    assert header.configs["1_Pooling"] == {"pooling_mode_mean_tokens": True}
    assert header.notes == ("made for sentence-transformers: it turns texts into vectors",)
    assert header.safety == Safety()
    put(tmp_path / "modules.json", [{"type": "sentence_transformers.models.Pooling"}, {"type": "evil_module.Evil"}])
    (reason,) = read_header(tmp_path).safety.reasons
    assert reason == "modules.json asks for the class 'evil_module.Evil', which Bottega never imports"


def test_links_of_a_transformers_model_stay_in_its_folder(tmp_path: Path) -> None:
    root = language_model(tmp_path / "model")
    (root / "model.safetensors").rename(tmp_path / "outside.safetensors")
    (root / "model.safetensors").symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(FormatError, match="leads out of the model's folder"):
        read_header(root)


# --- which folders are models, and what may be put in one -------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("model_index.json", True),
        ("config.json model.safetensors", True),
        ("config.json diffusion_pytorch_model.fp16.safetensors", True),
        ("config.json model.safetensors.index.json model-00001-of-00002.safetensors", True),
        ("config.json model.safetensors.index.json a.safetensors b.safetensors", True),
        ("config.json pytorch_model.bin.index.fp16.json a.bin b.bin", True),
        ("config.json model-00001-of-00002.safetensors model-00002-of-00002.safetensors", True),
        ("config.json pytorch_model.bin tf_model.h5 flax_model.msgpack training_args.bin rng_state_0.pth", True),
        ("config.json pytorch_model.bin.index.json", True),
        ("config.json open_clip_pytorch_model.bin pytorch_model.bin", True),
        ("config.json generation_config.json pytorch_model.bin text.pt coarse.pt fine_2.pt", True),
        ("config.json tokenizer.json model.safetensors gemma-2b.gguf", True),
        ("adapter_config.json adapter_model.safetensors README.md", True),
        ("adapter_config.json adapter_model.bin", True),
        ("adapter_config.json adapters.safetensors 0000100_adapters.safetensors", True),
        ("adapter_config.json", False),
        ("config.json", False),
        ("config.json README.md vocab.txt", False),
        ("config.json llama-Q4_K_M.gguf llama-Q8_0.gguf", False),
        ("config.json diffusion_pytorch_model.safetensors control_canny.safetensors control_depth.pth", False),
        ("config.json my_lora.safetensors", False),
        ("model.safetensors", False),
        ("", False),
    ],
)
def test_which_folders_are_one_model(names: str, expected: bool) -> None:
    assert is_model_folder(names.split()) is expected
    assert is_model_folder(frozenset(names.split())) is expected


def test_what_a_model_is_called() -> None:
    assert model_name(Path("x/model.onnx")) == "model" and model_name(Path("x/v1.5")) == "v1.5"


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors", "lora v2.SAFETENSORS", "llama-Q4_K_M.gguf", "config.json", "model_index.json",
        "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "scheduler/scheduler_config.json",
        "model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json", "tokenizer.json", "tokenizer/vocab.json", "merges.txt",
        "spiece.model", "tokenizer.model", "preprocessor_config.json", "generation_config.json", "README.md", "LICENSE",
        "LICENSE.txt", "USE_POLICY.md", "license-apache.md", "preview.png", "x.preview.jpeg", "1_Pooling/config.json",
        "adapter_config.json", "chat_template.jinja", "Größe.webp",
    ],
)  # fmt: skip
def test_data_may_be_installed(name: str) -> None:
    assert folder.installable(name)


@pytest.mark.parametrize(
    "name",
    [
        "modeling_x.py", "x.pyc", "kernels.so", "a.dll", "a.dylib", "setup.sh", "run.exe", "run.bat", "vocab.pkl",
        "pytorch_model.bin", "model.ckpt", "model.pt", "training_args.bin", "flax_model.msgpack", "model.onnx",
        "../config.json", "unet/../config.json", "/etc/config.json", "..\\config.json", "C:config.json",
        "a\0.safetensors", "a.safetensors:stream", "", "/", "unet/", "unet//config.json", ".gitattributes",
        ".cache/config.json", "~config.json", "-rf.safetensors", "CON.safetensors", "lpt1/config.json",
        "a.safetensors.", "a.safetensors ", "a\n.safetensors", "\x1b[31m.png", "\u202egnp.safetensors",
        "x" * 250 + ".safetensors", "a/b/c/d/config.json", "a?.png", "README.md.exe", "LICENSE.sh", "readme.py",
        "config.json.py", "index.html", "x.svg", "evil.json", "\ud800.safetensors", "*.safetensors",
    ],
)  # fmt: skip
def test_code_and_odd_names_are_never_installed(name: str) -> None:
    assert not folder.installable(name)
