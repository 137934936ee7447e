"""What models say about themselves is found in every place where programs write it, and never trusted."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, growth
from small_models import write_model

from bottega.formats.header import Header, TensorInfo
from bottega.library import companions
from bottega.library.about import About, about
from bottega.library.about.captions import trigger_words
from bottega.library.about.cards import permissions
from bottega.library.about.markup import first_paragraph, heading, plain
from bottega.library.sources.cards import known_of


def said(
    path: Path,
    metadata: Mapping[str, str] | None = None,
    *,
    format: str = "safetensors",
    configs: Mapping[str, Mapping[str, object]] | None = None,
    tensors: tuple[str, ...] = (),
) -> About:
    """What is said of a model at this path whose header has this metadata."""
    infos = {name: TensorInfo("F32", (1,), path, 0, 4) for name in tensors}
    return about(Header(path, format, infos, metadata or {}, configs or {}), path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "shelf" / "my.model.v1.safetensors"
    path.parent.mkdir()
    path.touch()
    return path


def beside(model: Path, ending: str, content: object) -> Path:
    """A file beside a model."""
    path = model.with_name(model.stem + ending)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(
            content if isinstance(content, str) else json.dumps(content), encoding="utf-8", errors="surrogatepass"
        )
    return path


# --- in the file -----------------------------------------------------------------------------------------------------


def test_nothing_is_said(model: Path) -> None:
    assert said(model) == said(model, {"format": "pt"}) == About()


def test_modelspec(model: Path) -> None:
    told = said(
        model,
        {
            "modelspec.title": "A title",
            "modelspec.author": "Ann",
            "modelspec.description": "Two\nlines",
            "modelspec.license": "CC0",
            "modelspec.trigger_phrase": "sks dog",
            "modelspec.usage_hint": "at 0.8",
            "modelspec.resolution": "1024x1024",
            "modelspec.date": "2024-05-06",
            "modelspec.tags": "dog, photo",
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
            "modelspec.thumbnail": "data:image/png;base64,AAAA",
        },
    )
    assert (told.title, told.author, told.description, told.licence) == ("A title", "Ann", "Two\nlines", "CC0")
    assert (told.triggers, told.tags, told.resolution, told.date) == (
        ("sks dog",), ("dog", "photo"), "1024x1024", "2024-05-06",
    )  # fmt: skip
    assert told.extra == {"usage": "at 0.8", "architecture": "stable-diffusion-xl-v1-base/lora"}


def test_kohya(model: Path) -> None:
    told = said(
        model,
        {
            "ss_output_name": "my_lora",
            "ss_base_model_version": "sdxl_base_v1-0",
            "ss_sd_model_name": "pony.safetensors",
            "ss_sd_model_hash": "None",
            "ss_new_sd_model_hash": "e577480d" * 8,
            "ss_network_dim": "32",
            "ss_network_alpha": "16.0",
            "ss_network_module": "lycoris.kohya",
            "ss_network_args": '{"algo": "lokr"}',
            "ss_resolution": "(1024, 768)",
            "ss_num_train_images": "120",
            "ss_epoch": "10",
            "ss_optimizer": "AdamW8bit",
            "ss_training_finished_at": "1700000000.5",
            "ss_training_comment": "None",
            "ss_tag_frequency": json.dumps(
                {"10_zwx woman": {"zwx woman": 12, "red hair": 11, "1girl": 12, "smile": 3}}
            ),
            "ss_dataset_dirs": json.dumps({"10_zwx woman": {"n_repeats": 10, "img_count": 12}}),
            "sshs_model_hash": "ab" * 32,
        },
    )
    assert (told.title, told.base_model, told.resolution, told.date) == (
        "my_lora", "SDXL 1.0", "1024x768", "2023-11-14",
    )  # fmt: skip
    assert told.triggers == ("zwx woman", "red hair")
    assert told.extra == {
        "rank": "32",
        "alpha": "16.0",
        "network": "lycoris.kohya",
        "network arguments": '{"algo": "lokr"}',
        "optimizer": "AdamW8bit",
        "epochs": "10",
        "images": "120",
        "training resolution": "1024x768",
        "trained on": "pony.safetensors",
        "base model hash": "e577480d" * 8,
        "tensor hash": "ab" * 32,
    }


@pytest.mark.parametrize(
    ("frequencies", "folders", "wanted"),
    [
        ({"10_sks dog": {}}, {}, ("sks dog",)),
        ({"10_sks dog": {"sks dog": 20}}, {"10_sks dog": {"img_count": 20}}, ("sks dog",)),
        # a style: every caption has its word, no caption has the folder's name
        ({"5_img": {"inkstyle": 50, "tree": 20}}, {"5_img": {"img_count": 50}}, ("inkstyle",)),
        ({"5_img": {"tree": 20, "house": 10}}, {"5_img": {"img_count": 50}}, ()),
        ({"1_mychar": {"1girl": 9, "solo": 9}}, {}, ("mychar",)),
        # two concepts, the larger first
        ({"1_a": {"alpha": 10, "x": 1}, "1_b": {"beta": 30, "x": 2}}, {}, ("beta", "alpha")),
        # nearly all captions
        ({"1_a": {"alpha": 95, "beta": 89}}, {"1_a": {"img_count": 100}}, ("alpha",)),
        ({"1_a": {"alpha": 10**400, "beta": 9 * 10**399, "x": 9 * 10**399 - 1}}, {}, ("alpha", "beta")),
        # the description of a single picture
        ({"1_x y": {"a cat sits": 1, "on a mat": 1}}, {"1_x y": {"img_count": 1}}, ("x y",)),
        ({"train": {"A long sentence " * 20: 5}}, {}, ()),
        ({"a": 5, "b": None, "c": {"x": "y"}, "d": {"ok": True}}, {"a": [], "c": {"img_count": "9"}}, ()),
    ],
)
def test_trigger_words(frequencies: dict[str, object], folders: dict[str, object], wanted: tuple[str, ...]) -> None:
    assert trigger_words(frequencies, folders) == wanted


def test_pictures_that_keep_a_class_as_it_was_give_no_trigger_words(model: Path) -> None:
    tags = json.dumps({"10_sks dog": {"sks dog": 20}, "1_dog": {"dog": 200}})
    own = json.dumps({"10_sks dog": {"n_repeats": 10, "img_count": 20}})
    by_folders = {"ss_dataset_dirs": own, "ss_reg_dataset_dirs": json.dumps({"1_dog": {"img_count": 200}})}
    subsets = [{"image_dir": "10_sks dog", "is_reg": False}, {"image_dir": "/data/1_dog", "is_reg": True}, None]
    by_config = {"ss_datasets": json.dumps([{"resolution": [768, 512], "subsets": subsets}, {"subsets": 3}, "x"])}
    for metadata in (by_folders, {"ss_dataset_dirs": own}, by_config):
        assert said(model, {"ss_tag_frequency": tags, **metadata}).triggers == ("sks dog",)
    assert said(model, by_config).resolution == "768x512"
    assert said(model, by_config).extra == {"training resolution": "768x512"}
    assert said(model, {"ss_datasets": '[{"resolution": 1024}]'}).resolution == "1024x1024"


def test_other_trainers_and_mergers(model: Path) -> None:
    toolkit = said(
        model,
        {
            "name": "flux dog",
            "software": json.dumps({"name": "ai-toolkit", "version": "0.1.0", "repo": "https://x"}),
            "training_info": json.dumps({"step": 2000, "epoch": 39}),
            "ss_base_model_version": "flux1",
        },
    )
    assert (toolkit.title, toolkit.base_model) == ("flux dog", "FLUX.1")
    assert toolkit.extra == {"trained with": "ai-toolkit 0.1.0", "steps": "2000", "epochs": "39"}

    onetrainer = said(model, {"ot_revision": "abc", "ot_config": json.dumps({"lora_rank": 16, "lora_alpha": 1.0})})
    assert onetrainer.extra == {"trained with": "OneTrainer", "rank": "16", "alpha": "1.0"}

    peft = {"transformer.r": 8, "transformer.lora_alpha": 8, "transformer.lora_dropout": 0.0}
    assert said(model, {"lora_adapter_metadata": json.dumps(peft)}).extra == {"rank": "8", "alpha": "8"}

    recipe = {"type": "webui", "interp_method": "Weighted sum", "multiplier": 0.3}
    models = {"ab" * 32: {"name": "a.safetensors"}, "cd" * 32: {"name": "b.ckpt"}, "ef": None}
    merged = said(model, {"sd_merge_recipe": json.dumps(recipe), "sd_merge_models": json.dumps(models)})
    assert merged.extra == {"merge": "Weighted sum 0.3", "merged from": "a.safetensors, b.ckpt"}


def test_an_embedding_is_called_by_its_file(tmp_path: Path) -> None:
    metadata = {"name": "old name", "step": "3000", "sd_checkpoint": "81761151", "sd_checkpoint_name": "v1-5"}
    told = said(tmp_path / "bad hands.pt", metadata, format="pickle", tensors=("string_to_param.*",))
    assert (told.title, told.triggers) == ("old name", ("bad hands",))
    assert told.extra == {"steps": "3000", "trained on": "v1-5", "base model hash": "81761151"}
    assert said(tmp_path / "bare.safetensors", tensors=("emb_params",)) == About(triggers=("bare",))


def test_gguf(tmp_path: Path) -> None:
    told = said(
        tmp_path / "x.gguf",
        {
            "general.architecture": "llama",
            "general.name": "Llama 3 8B Instruct",
            "general.organization": "Meta",
            "general.license": "llama3",
            "general.url": "https://example.org/x",
            "general.quantized_by": "somebody",
            "general.base_model.0.name": "Llama 3 8B",
            "general.base_model.0.organization": "Meta",
            "general.tags": '["chat", "text"]',
            "llama.context_length": "8192",
            "general.size_label": "8B",
        },
        format="gguf",
    )
    assert (told.title, told.author, told.licence, told.source) == (
        "Llama 3 8B Instruct", "Meta", "llama3", "https://example.org/x",
    )  # fmt: skip
    assert (told.base_model, told.tags) == ("Meta Llama 3 8B", ("chat", "text"))
    assert told.extra == {"quantized by": "somebody", "size": "8B", "context": "8192"}


# --- beside the file -------------------------------------------------------------------------------------------------

VERSION = {
    "id": 456,
    "modelId": 123,
    "name": "v2.0",
    "baseModel": "SDXL 1.0",
    "trainedWords": ["zwx woman", "red dress, ", "", 5],
    "description": "<p>Better <b>hands</b></p>",
    "publishedAt": "2024-02-03T04:05:06.000Z",
    "creator": {"username": "ann"},
    "model": {
        "name": "The model",
        "type": "LORA",
        "nsfw": True,
        "description": '<p>See <a href="https://example.org">the page</a></p>'
        "<ul><li>one</li><li>two &amp; three</li></ul>",
        "tags": ["woman", "photo"],
        "allowNoCredit": False,
        "allowCommercialUse": ["Image", "RentCivit"],
        "allowDerivatives": True,
        "allowDifferentLicense": False,
    },
}


def test_civitai_info(model: Path) -> None:
    beside(model, ".civitai.info", VERSION)
    told = said(model, {"modelspec.title": "theirs", "modelspec.author": "the file"})
    assert (told.title, told.version, told.author, told.base_model) == ("The model", "v2.0", "ann", "SDXL 1.0")
    assert told.description == "See the page (https://example.org)\n\n- one\n- two & three\n\nBetter hands"
    assert told.triggers == ("zwx woman", "red dress")
    assert told.source == "https://civitai.com/models/123?modelVersionId=456"
    assert (told.tags, told.date) == (("woman", "photo"), "2024-02-03")
    assert told.permissions == {
        "credit": "the author must be named",
        "commercial use": "selling what it makes, running it as a service on Civitai",
        "merges and changes": "may be shared",
        "other terms on merges": "not allowed: the same terms",
    }
    assert told.extra == {"adults only": "yes"}


@pytest.mark.parametrize(
    ("trained", "triggers", "weight"),
    [
        (["<lora:my.model.v1:0.7> neon"], ("neon",), 0.7),
        (["neon, <lora:MY.model.v1:0.7>, glow", "<lora:my.model.v1:1>"], ("neon, glow",), 0.7),
        (["<lora:as_published:-0.5:0.9>neon"], ("neon",), -0.5),
        (["<lora:another:0.7> neon"], ("neon",), None),
        (["<lora:my.model.v1:much> neon", "<lora:my.model.v1> glow"], ("neon", "glow"), None),
        (["a < b", None, "<3"], ("a < b", "<3"), None),
    ],
)
def test_a_tag_is_no_trigger_word(
    model: Path, trained: list[str | None], triggers: tuple[str, ...], weight: float | None
) -> None:
    beside(model, ".civitai.info", {**VERSION, "trainedWords": trained, "files": [{"name": "as_published.ckpt"}]})
    told = said(model)
    assert (told.triggers, told.weight) == (triggers, weight)
    beside(model, ".json", {"preferred weight": 0.4})
    assert said(model).weight == 0.4


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ("None", "none"),
        ([], "none"),
        ("Image", "selling what it makes"),
        ("{Image,Sell}", "selling what it makes, selling it or merges of it"),
        (["Rent"], "running it as a service"),
        ({"a": 1}, "none"),
    ],
)
def test_commercial_use(told: object, wanted: str) -> None:
    assert permissions({"allowCommercialUse": told}) == {"commercial use": wanted}
    assert permissions({"allowCommercialUse": None}) == {}


def test_a_model_of_civitai_with_all_its_versions(model: Path) -> None:
    versions = [{"id": 1, "name": "old"}, {"id": 2, "name": "this", "files": [None, {"name": model.name}]}]
    beside(model, ".json", {"id": 9, "name": "M", "modelVersions": versions, "creator": {"username": "bob"}})
    told = said(model)
    assert (told.title, told.version, told.author, told.source) == (
        "M", "this", "bob", "https://civitai.com/models/9?modelVersionId=2",
    )  # fmt: skip


def test_user_metadata_goes_before_everything(model: Path) -> None:
    beside(model, ".civitai.info", VERSION)
    beside(
        model,
        ".json",
        {
            "description": "mine",
            "sd version": "SD1",
            "activation text": "my words, all of them",
            "preferred weight": 0.7,
            "negative text": "blur",
            "notes": "for portraits",
            "vae": "ft-mse",
        },
    )
    told = said(model)
    assert (told.description, told.base_model, told.triggers, told.weight, told.notes) == (
        "mine", "SD1", ("my words, all of them",), 0.7, "for portraits",
    )  # fmt: skip
    assert told.extra == {"negative": "blur", "vae": "ft-mse", "adults only": "yes"}
    assert told.version == "v2.0"
    beside(model, ".json", {"preferred weight": 0, "sd version": "Unknown", "description": ""})
    told = said(model)
    assert (told.weight, told.base_model, told.triggers) == (None, "SDXL 1.0", ("zwx woman", "red dress"))


def test_a_json_of_something_else(model: Path) -> None:
    beside(model, ".json", {"learning_rate": 1e-4, "output_name": "x"})
    assert said(model) == About()


def test_stability_matrix_and_lora_manager(model: Path) -> None:
    card = beside(
        model,
        ".cm-info.json",
        {
            "ModelId": 5, "ModelName": "SM", "ModelDescription": "<p>Hello</p>", "Nsfw": False, "Tags": ["a"],
            "VersionId": 6, "VersionName": "v", "AuthorUsername": "eve", "BaseModel": "Pony", "TrainedWords": ["w"],
            "Hashes": {"SHA256": "x"}, "FileMetadata": None, "Source": "Civitai",
        },
    )  # fmt: skip
    told = said(model)
    assert (told.title, told.author, told.version, told.base_model, told.description, told.triggers, told.source) == (
        "SM", "eve", "v", "Pony", "Hello", ("w",), "https://civitai.com/models/5?modelVersionId=6",
    )  # fmt: skip
    card.unlink()
    beside(
        model,
        ".metadata.json",
        {
            "model_name": "LM", "notes": "my notes", "base_model": "Unknown", "usage_tips": '{"strength": "0.65"}',
            "tags": ["mine"], "modelDescription": "", "civitai": VERSION, "preview_url": "https://x/y.png",
        },
    )  # fmt: skip
    told = said(model)
    assert (told.title, told.notes, told.base_model, told.weight) == ("LM", "my notes", "SDXL 1.0", 0.65)
    assert (told.tags, told.preview) == (("mine", "woman", "photo"), None)


def test_what_get_kept_of_a_source(model: Path) -> None:
    hub = {"site": "huggingface", "repo": "org/name", "page": "https://huggingface.co/org/name/blob/c0/m.safetensors"}
    beside(model, ".source.json", {**hub, "licence": {"license": "other", "license_name": "open-1", "x": 1}})
    told = said(model)
    assert (told.author, told.licence, told.source) == ("org", "open-1", hub["page"])
    terms = {"allowNoCredit": False, "allowDerivatives": True}
    beside(model, ".source.json", {"site": "civitai", "licence": terms, "page": "https://civitai.com/models/1"})
    assert said(model) == About(source="https://civitai.com/models/1", permissions=permissions(terms))
    for foul in ({"licence": 7, "repo": ["a/b"], "page": "javascript:alert(1)"}, {"licence": None, "page": {}}, []):
        beside(model, ".source.json", foul)
        assert said(model).source == said(model).author == ""
    folder = model.with_name("v1.5")
    folder.mkdir()
    folder.with_name("v1.5.source.json").write_text(json.dumps({**hub, "licence": {"license": "mit"}}))
    told = said(folder)
    assert (told.licence, told.source) == ("mit", hub["page"])
    beside(model, ".source.json", {})
    beside(model, ".license.txt", "\n# The Licence\nof many words")
    assert said(model).licence == "The Licence"


def test_texts_configs_and_pictures(model: Path) -> None:
    beside(model, ".txt", "\ufeffwhat it is\r\n\r\n\r\nand more  \n")
    beside(model, ".yaml", 'model:\n  params:\n    parameterization: "v"\n')
    picture = beside(model, ".jpeg", b"x")
    told = said(model)
    assert (told.description, told.preview) == ("what it is\n\nand more", str(picture))
    assert told.extra == {"prediction": "v"}
    preview = beside(model, ".preview.webp", b"x")
    assert said(model).preview == str(preview)
    model.with_name("other.png").touch()
    assert said(model.with_name("unrelated.safetensors")) == About()


# --- folders and stores ----------------------------------------------------------------------------------------------

README = """---
license: other
license_name: flux-1-dev
license_link: LICENSE.md
base_model:
  - black-forest-labs/FLUX.1-dev
tags: [lora, diffusers]
pipeline_tag: text-to-image
instance_prompt: a photo of TOK dog
widget:
  - text: a TOK dog in a bucket
    output: {url: image.png}
---

<!-- comment -->
# The [dog](https://example.org) LoRA

![picture](x.png)

<Gallery />

This is **a LoRA** for [FLUX](https://bfl.ai) that knows one `dog` well.

## More
"""


def test_a_repository_in_the_hub_cache(tmp_path: Path) -> None:
    folder = tmp_path / "models--org--dog-lora" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(README, encoding="utf-8")
    told = said(folder, format="diffusers", configs={"": {"_class_name": "FluxPipeline"}})
    assert (told.title, told.author, told.source) == (
        "The dog (https://example.org) LoRA", "org", "https://huggingface.co/org/dog-lora",
    )  # fmt: skip
    assert (told.base_model, told.licence, told.tags, told.triggers) == (
        "black-forest-labs/FLUX.1-dev", "flux-1-dev", ("lora", "diffusers"), ("a photo of TOK dog",),
    )  # fmt: skip
    assert told.description == "This is a LoRA for FLUX (https://bfl.ai) that knows one dog well."
    assert told.extra == {"made for": "text-to-image", "example": "a TOK dog in a bucket", "licence text": "LICENSE.md"}
    assert said(folder / "dog.safetensors").licence == "flux-1-dev"
    assert said(folder / "sdxl" / "image_encoder" / "dog.safetensors").author == "org"


def test_the_many_ways_of_writing_a_readme(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()

    def of(readme: str) -> About:
        (folder / "README.md").write_text(readme, encoding="utf-8")
        return said(folder, format="diffusers", configs={"": {"_class_name": "FluxPipeline"}})

    results = "model-index:\n- name: x\n  results:\n" + "  - task: {type: [a, b]}\n\n" * 20_000
    told = of(f"---\n{results}license: mit\ntags: lora\n---\n# Dog\n\nThis is what it is, and at length.\n")
    assert (told.licence, told.tags, told.title) == ("mit", ("lora",), "Dog")
    assert told.description == "This is what it is, and at length." and not told.extra
    told = of("\n\n---\nlicense:\n- mit\n- apache-2.0\ninstance_prompt: [AAA, BBB]\n---\n")
    assert (told.licence, told.triggers) == ("mit, apache-2.0", ("AAA", "BBB"))
    told = of("You should use `AAA`, `BBB` to trigger it.\nYou should use `CCC` and `DDD` to trigger the other.")
    assert told.triggers == ("AAA", "BBB", "CCC", "DDD")
    assert of("```\n# pip install\n```\n# Model Card for Model ID\n# A name #\n").title == "A name"


def test_a_readme_is_not_about_every_file_of_a_plain_folder(model: Path) -> None:
    (model.parent / "README.md").write_text(README)
    assert said(model) == About()
    (model.parent / ".gitattributes").touch()
    assert said(model).licence == "flux-1-dev"


@pytest.mark.parametrize(
    "readme", ["", "---\n", "---\nlicense: [\n---\ntext", "---\na: &x [1]\nlicense: *x\n---\n", "\x00\x1b[31m" * 10]
)
def test_readmes_without_sense(tmp_path: Path, readme: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "README.md").write_text(readme)
    (folder / "LICENSE").write_text("\n   # MIT License\n\nCopyright")
    assert said(folder, format="transformers").licence == "MIT License"


def test_a_peft_folder(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "base_model_name_or_path": "meta-llama/Llama-3-8B"}
    told = said(tmp_path, format="transformers", configs={"": config})
    assert (told.base_model, told.extra) == ("meta-llama/Llama-3-8B", {"rank": "16", "alpha": "32"})


def test_ollama(tmp_path: Path) -> None:
    blobs, manifests = tmp_path / "blobs", tmp_path / "manifests" / "registry.ollama.ai" / "library" / "tuned"
    blobs.mkdir()
    manifests.mkdir(parents=True)
    layers = []
    for number, (kind, content) in enumerate(
        [
            ("model", b"GGUF"),
            ("adapter", b"GGUF2"),
            ("license", b"\nMIT License\nand so on"),
            ("params", b'{"stop": ["<|end|>"], "temperature": 0.5}'),
            ("system", b"You are kind."),
        ]
    ):
        digest = f"{number:064x}"
        (blobs / f"sha256-{digest}").write_bytes(content)
        layers.append({"mediaType": f"application/vnd.ollama.image.{kind}", "digest": f"sha256:{digest}"})
    for tag in ("8b", "latest"):
        (manifests / tag).write_text(json.dumps({"layers": layers}))
    told = said(blobs / f"sha256-{0:064x}", {"general.name": "Llama"}, format="gguf")
    assert (told.title, told.licence) == ("Llama", "MIT License")
    assert told.extra == {
        "names": "tuned:8b, tuned:latest",
        "parameters": '{"stop": ["<|end|>"], "temperature": 0.5}',
        "system prompt": "You are kind.",
        "adapters": f"sha256-{1:064x}",
    }


# --- hostile ---------------------------------------------------------------------------------------------------------


ODD: list[Any] = [
    None, True, 5, 1e400, float("nan"), -1, "", "x", "None", [], ["a", 5, None, ["b"]], {}, {"a": {}}, "\x00\x1b[2J",
    "\ud800", "9" * 5000, "javascript:alert(1)", "x" * 1_000_000,
]  # fmt: skip
KEYS = (
    "description", "sd version", "activation text", "preferred weight", "notes", "id", "modelId", "name", "baseModel",
    "trainedWords", "model", "creator", "tags", "allowCommercialUse", "publishedAt", "ModelName", "ModelId", "Tags",
    "TrainedWords", "usage_tips", "civitai", "model_name", "modelVersions", "ModelDescription",
)  # fmt: skip


@pytest.mark.parametrize("ending", [".json", ".civitai.info", ".cm-info.json", ".metadata.json"])
def test_cards_with_anything_in_them(model: Path, ending: str) -> None:
    for value in ODD:
        for card in (value, dict.fromkeys(KEYS, value), {"model": dict.fromkeys(KEYS, value), "modelId": 1}):
            beside(model, ending, card)
            told = said(model)
            assert About.from_json(json.loads(json.dumps(told.to_json()))) == told
            json.dumps(told.to_json(), ensure_ascii=False).encode()  # no half characters


def test_metadata_with_anything_in_it(model: Path) -> None:
    keys = (
        "ss_tag_frequency", "ss_dataset_dirs", "software", "training_info", "ot_config", "lora_adapter_metadata",
        "sd_merge_recipe", "sd_merge_models", "ss_resolution", "ss_training_finished_at", "modelspec.resolution",
        "tags", "general.tags", "general.url", "ss_network_dim",
    )  # fmt: skip
    texts = ["", "{", "[" * 100_000, "{}", "[]", "null", "9" * 5000, '{"a":' * 40 + "1" + "}" * 40, "\x00\x1b", "1e999"]
    texts += [json.dumps(dict.fromkeys(("a", "name", "step", "r"), value)) for value in ODD]
    for text in texts:
        for format in ("safetensors", "gguf"):
            told = said(model, dict.fromkeys(keys, text), format=format)
            json.dumps(told.to_json(), ensure_ascii=False).encode()


def test_a_card_that_is_too_large_is_named(model: Path) -> None:
    path = beside(model, ".civitai.info", b"{" + b" " * (4 << 20) + b"}")
    assert said(model).extra == {"not read": f"{path.name} (larger than 4 MiB)"}


CARD = {"modelId": 1, "name": "v1", "trainedWords": ["café"]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("ending", [".civitai.info", ".json"])
def test_cards_in_any_encoding(model: Path, ending: str, encoding: str) -> None:
    beside(model, ending, json.dumps(CARD, ensure_ascii=False).encode(encoding))
    beside(model, ".txt", "für das café".encode(encoding))
    told = said(model)
    assert (told.version, told.triggers, told.description, told.extra) == ("v1", ("café",), "für das café", {})


def test_a_card_of_utf_16_in_the_other_order(model: Path) -> None:
    beside(model, ".civitai.info", b"\xfe\xff" + json.dumps(CARD, ensure_ascii=False).encode("utf-16-be"))
    assert said(model).triggers == ("café",)


@pytest.mark.parametrize(
    "content",
    [json.dumps(CARD)[:-4].encode(), b"\0" * 10, b"\xff\xfe{\0", b"[" * 100_000, b"9" * 5000, b"no JSON", b"\x80\x81"],
)
@pytest.mark.parametrize("ending", [".json", ".metadata.json", ".civitai.info", ".cm-info.json", ".source.json"])
def test_a_card_that_cannot_be_read_is_named(model: Path, ending: str, content: bytes) -> None:
    path = beside(model, ending, content)
    beside(model, ".txt", "what it is")
    assert said(model) == About(description="what it is", extra={"not read": f"{path.name} (its JSON is broken)"})


def test_a_card_that_says_nothing_is_not_named(model: Path) -> None:
    for content in (b"", b"null", b"[1, 2]", b"{}"):
        beside(model, ".json", content)
        assert said(model) == About()


def test_all_that_cannot_be_read_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = beside(model, ".json", b"{")
    large = beside(model, ".civitai.info", b" " * ((4 << 20) + 1))
    locked = beside(model, ".md", b"words")
    usual = open

    def refused(path: Any, *more: Any, **named: Any) -> Any:
        if path == str(locked):
            raise PermissionError(13, "Permission denied", path)
        return usual(path, *more, **named)

    monkeypatch.setattr("builtins.open", refused)
    told = f"{broken.name} (its JSON is broken), {large.name} (larger than 4 MiB), {locked.name} (Permission denied)"
    assert said(model).extra == {"not read": told}


def test_a_broken_card_of_any_name_can_be_told_of(tmp_path: Path) -> None:
    model = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    beside(model, ".json", b"{")
    told = said(model)
    assert told.extra == {"not read": "caf?.json (its JSON is broken)"}
    json.dumps(told.to_json(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    "front", ["license: [unclosed\n\tbad: : :", "a: &a [1]\nb: *a", "[" * 20_000, "x: !!bool maybe", "x: !!int ''"]
)
def test_a_readme_whose_yaml_is_broken_is_named_and_its_words_are_read(tmp_path: Path, front: str) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "README.md").write_text(f"---\n{front}\n---\n# Title\n\nThis is what it is, and at length.\n")
    told = said(folder)
    assert (told.title, told.description) == ("Title", "This is what it is, and at length.")
    assert told.extra == {"not read": "README.md (its YAML is broken)"}


@pytest.mark.parametrize("number", [f"0x{'f' * 4000}", ":".join(["59"] * 3000)], ids=["hexadecimal", "base 60"])
def test_an_endless_number_in_a_readme_says_nothing(tmp_path: Path, number: str) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "README.md").write_text(f"---\nlicense: {number}\nmodel_name: thing\n---\n")
    assert (said(folder).title, said(folder).licence) == ("thing", "")


def test_a_long_readme_is_cut_within_no_character(tmp_path: Path) -> None:
    folder = tmp_path / "thing"
    folder.mkdir()
    (folder / "README.md").write_text("# Größe\n\na" + "é" * (256 << 10), encoding="utf-8")
    told = said(folder)
    assert told.title == "Größe" and told.description.startswith("aéé")


def test_a_pipe_beside_a_model_is_not_waited_for(model: Path) -> None:
    for ending in (".json", ".txt", ".preview.png"):
        os.mkfifo(model.with_name(model.stem + ending))
    assert said(model) == About()
    os.mkfifo(model.with_name(model.stem + companions.CIVITAI))
    assert known_of(model, model.parent, None) is None


def test_no_card_leads_to_another_sort_of_file(model: Path, tmp_path: Path) -> None:
    secret, card = tmp_path / "id_rsa", tmp_path / "shared.txt"
    secret.write_text("secret")
    card.write_text("what it is")
    beside = model.with_name(model.stem + ".txt")
    beside.symlink_to(secret)
    assert said(model) == About()
    beside.unlink()
    beside.symlink_to(card)
    assert said(model).description == "what it is"


@pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "http://a b", 'https://x"onload=', 5])
def test_only_the_addresses_of_pages_are_told(model: Path, url: Any) -> None:
    assert said(model, {"modelspec.url": str(url)}).source == ""


def test_no_lone_half_of_a_character_and_no_endless_text(model: Path) -> None:
    beside(model, ".json", '{"notes": "a\\ud800b", "description": "' + "x" * 1_000_000 + '"}')
    told = said(model)
    assert told.notes == "a?b" and len(told.description) < 21_000


def test_from_json_takes_what_it_can() -> None:
    assert About.from_json(
        {"title": 5, "triggers": "x", "weight": "1", "extra": {"a": 1, "b": "c"}, "new": 1}
    ) == About(extra={"b": "c"})


# --- HTML and Markdown -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("markup", "wanted"),
    [
        ("plain text", "plain text"),
        ("a < b & c > d", "a < b & c > d"),
        ("<p>one</p><p>two<br>three</p>", "one\n\ntwo\nthree"),
        ("<h2>Head</h2>text <b>bold</b><i>er</i>", "Head\ntext bolder"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b"),
        ('<a href="https://x.org/">https://x.org</a>', "https://x.org"),
        ('<a href="https://x.org/y">here</a>', "here (https://x.org/y)"),
        ('<a href="javascript:alert(1)">here</a>', "here"),
        ("<a href='https://x.org/?a=1&amp;b=2'></a>", "https://x.org/?a=1&b=2"),
        ("<script>alert('<p>')</script>after", "after"),
        ("<style>p {}</style ><p>x", "x"),
        ("<script>never ends", ""),
        ("<!-- <p>hidden</p> -->seen<!-- never ends", "seen"),
        ('<img src="x" onerror="alert(1)" alt="a > b">text', "text"),
        ("&lt;b&gt; &#60; &nbsp;x", "<b> < \xa0x"),
        ("<3 hearts", "<3 hearts"),
        ("<p\n class='a'\n>x</p\n>", "x"),
    ],
)
def test_html_as_text(markup: str, wanted: str) -> None:
    assert plain(markup) == wanted


@pytest.mark.parametrize(
    "piece", ["<", "<a", "<a ", '<a "', "<a '", "<p>", "<li>", "<!--", "<!", "<![CDATA[", "<a href=x>", "</a>", "&",
              "&#", "<script", "<script>", "</script", "<a href='https://x'>", "\n", " ", "<a b='\"", "[a](", "![",
              "**a"]
)  # fmt: skip
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    assert growth(plain, text) < 40
    assert growth(first_paragraph, text) < 40
    assert growth(heading, text) < 40


def test_first_paragraph() -> None:
    assert first_paragraph("# Head\n\n- a list\n- of things that is longer\n\n```\ncode " * 3) == ""
    assert first_paragraph("# Head\nThis is it, and long enough.\n\nSecond") == "This is it, and long enough."
    assert first_paragraph("[![b](x)](https://y)\n\n| a | b |\n\nA *first* __paragraph__ of `words`") == (
        "A first paragraph of words"
    )


# --- speed, and the command ------------------------------------------------------------------------------------------


def test_it_is_fast(model: Path) -> None:
    tags = {f"{number}_x": {f"some tag number {number} {tag}": tag % 50 for tag in range(8_000)} for number in range(4)}
    large = {"ss_tag_frequency": json.dumps(tags)}
    assert len(large["ss_tag_frequency"]) > 900_000

    def spent(metadata: dict[str, str]) -> float:
        began = time.process_time()
        said(model, metadata)
        return time.process_time() - began

    assert min(spent(large) for _ in range(5)) < 0.06  # 0.013 on the machine that this was written on
    assert min(spent({"format": "pt"}) for _ in range(20)) < 0.003  # 0.00015


def test_models_show_tells_it(bottega: Command, tmp_path: Path) -> None:
    path = write_model(tmp_path / "a.safetensors", metadata={"modelspec.title": "The file's"})
    beside(path, ".civitai.info", {**VERSION, "name": "v\x1b[31m"})
    ran = bottega("models", "show", path)
    assert ran.code == 0 and "\x1b" not in ran.out
    for line in ("The model", "zwx woman", "credit: the author must be named", "modelVersionId=456", "- two & three"):
        assert line in ran.out
    told = bottega("models", "show", path, "--json").json["about"]
    assert About.from_json(told).triggers == ("zwx woman", "red dress")
