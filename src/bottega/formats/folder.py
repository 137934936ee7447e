"""Diffusers folders: `model_index.json` and a folder for each part, read as one header; or one such part by itself.

https://huggingface.co/docs/diffusers/using-diffusers/other-formats. A folder that asks for code of its own is refused:
class names stay text here, and whoever builds a network picks the class from a table of ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from bottega.errors import FormatError
from bottega.formats import safetensors, strictjson
from bottega.formats.header import Header, TensorInfo, shown
from bottega.formats.sniff import unreadable

MAX_CONFIG = 1 << 20
MAX_INDEX = 32 << 20

# Keys that make diffusers or transformers import code which lies in the folder or on the hub.
_CODE_KEYS = ("auto_map", "custom_pipeline", "_module")

# What a part's class may come from. All but the first two are modules of diffusers that lend a class or two.
_LIBRARIES = frozenset({
    "diffusers", "transformers", "stable_diffusion", "stable_diffusion_safe", "latent_diffusion", "paint_by_example",
    "deepfloyd_if", "wuerstchen", "kandinsky", "stable_cascade", "kolors", "audioldm2", "unidiffuser", "shap_e",
})  # fmt: skip

# Where diffusers' pipelines keep a network of this class: how the tensors of a part that lies alone are named.
_HOME_OF_CLASS = {
    "UNet2DConditionModel": "unet",
    "AutoencoderKL": "vae",
    "ControlNetModel": "controlnet",
    "CLIPTextModel": "text_encoder",
    "CLIPTextModelWithProjection": "text_encoder_2",
    "MotionAdapter": "motion_adapter",
}

# Parts without weights; a pipeline from which they are missing can still be read.
_WEIGHTLESS = ("Tokenizer", "TokenizerFast", "Scheduler", "FeatureExtractor", "ImageProcessor", "Processor")
_UNUSED = frozenset({"safety_checker"})

_STEMS = ("diffusion_pytorch_model", "model")
_VARIANTS = ("", ".fp16", ".bf16", ".fp32")  # the first that is there is taken
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5")

# All that a model folder may be made of when it is installed: weights that are data, settings, vocabularies, words.
_INSTALLED_NAMES = frozenset((
    "config.json", "model_index.json", "scheduler_config.json", "generation_config.json", "preprocessor_config.json",
    "processor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    "chat_template.jinja", "chat_template.json", "quantize_config.json",
))  # fmt: skip
_INSTALLED = re.compile(
    r".+\.(safetensors|gguf)|.+\.safetensors\.index(\.\w+)?\.json|(?i:readme|licen[cs]e|notice)[\w-]*(\.(md|txt))?"
)


def installable(name: str) -> bool:
    """Whether a file of this name (or path, with slashes) may be part of a model folder: nothing that could be run.

    It is a list of what may be there, so that what nobody thought of stays outside.
    """
    last = name.rpartition("/")[2]
    return last in _INSTALLED_NAMES or _INSTALLED.fullmatch(last) is not None


def read_header(path: str | Path) -> Header:
    """The tensors of all parts as one header, each named after its part: `unet/conv_in.weight`."""
    root = Path(path)
    reader = _Reader(root, _places(root), [])
    if (root / "model_index.json").is_file():
        return reader.pipeline()
    if (root / "config.json").is_file():
        return reader.single_part()
    raise FormatError(
        root,
        "this folder is no model: it holds neither model_index.json nor config.json",
        "choose a model file in it, or `bottega models scan` the folder",
    )


@dataclass(frozen=True)
class _Reader:
    """Reads one folder: `places` are where its files may really lie, `notes` collects what is unusual."""

    root: Path
    places: tuple[Path, ...]
    notes: list[str]

    def pipeline(self) -> Header:
        index = self._config(self.root / "model_index.json")
        configs: dict[str, Mapping[str, object]] = {"": index}
        tensors: dict[str, TensorInfo] = {}
        self._note_code(self.root)
        for name, class_name in self._parts(index):
            folder = self.root / name
            needed = name not in _UNUSED and not class_name.endswith(_WEIGHTLESS)
            if not folder.is_dir():
                if needed:
                    what = f"its part {name}, named in model_index.json, is not there"
                    raise FormatError(self.root, what, "download the whole folder again")
                self.notes.append(f"no folder for the part {name}")
            elif needed:
                configs[name] = self._config(folder / "config.json")
                tensors |= self._tensors(folder, name)
            elif (folder / "scheduler_config.json").is_file():
                configs[name] = self._config(folder / "scheduler_config.json")
        return Header(self.root, "diffusers", tensors, configs=configs, notes=tuple(self.notes))

    def single_part(self) -> Header:
        config = self._config(self.root / "config.json")
        architectures = config.get("architectures")
        class_name = config.get("_class_name") or (architectures[0] if isinstance(architectures, list) else None)
        name = _HOME_OF_CLASS.get(class_name, "") if isinstance(class_name, str) else ""
        name = name or self.root.resolve().name
        tensors = self._tensors(self.root, name)
        return Header(self.root, "diffusers", tensors, configs={name: config}, notes=tuple(self.notes))

    def _parts(self, index: Mapping[str, object]) -> Iterator[tuple[str, str]]:
        """Name and class of each part; entries that are settings (`"requires_safety_checker": true`) are no parts."""
        path = self.root / "model_index.json"
        for name, value in index.items():
            if name == "_class_name" and not isinstance(value, str):
                raise _asks_for_code(path, f"_class_name {shown(str(value))}")
            if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
                continue
            if not _is_plain(name):
                raise FormatError(path, f"the part {shown(name)} is no plain folder name", "do not use this model")
            match value:
                case [str(library), str(class_name)]:
                    if library not in _LIBRARIES:
                        raise _asks_for_code(path, f"the part {name} comes from {shown(library)}")
                    yield name, class_name

    def _tensors(self, folder: Path, part: str) -> dict[str, TensorInfo]:
        """The tensors of one part's folder, whole or in shards, with the part before their names."""
        self._note_code(folder)
        names = frozenset(entry.name for entry in self._list(folder))
        weights = _choose_weights(names)
        if weights is None:
            if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
                what = f"the weights of this part are only there as {pickles[0]}, which can hide code"
                raise FormatError(folder, what, "get the .safetensors version of this model")
            what = f"no weights here: neither {_STEMS[0]}.safetensors nor {_STEMS[1]}.safetensors"
            raise FormatError(folder, what, "download the whole folder again")
        sharded = weights.endswith(".json")
        tensors = self._shards(folder, weights) if sharded else self._weights(folder / weights).tensors
        return {f"{part}/{name}": info for name, info in tensors.items()}

    def _shards(self, folder: Path, index_name: str) -> Mapping[str, TensorInfo]:
        """The tensors that a shard index promises, each from the shard that it names."""
        index_path = folder / index_name
        weight_map = self._json(index_path, MAX_INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise FormatError(index_path, "it has no weight_map", "download it again")
        headers: dict[str, Header] = {}
        tensors: dict[str, TensorInfo] = {}
        for name, shard in weight_map.items():
            if not isinstance(shard, str) or not _is_plain(shard) or not shard.endswith(".safetensors"):
                what = f"the shard {shown(str(shard))} is no plain name of a safetensors file"
                raise FormatError(index_path, what, "do not use this model")
            if shard not in headers:
                if not (folder / shard).is_file():
                    what = f"this shard, named in {index_name}, is missing"
                    raise FormatError(folder / shard, what, "download it into this folder")
                headers[shard] = self._weights(folder / shard)
            info = headers[shard].tensors.get(name)
            if info is None:
                what = f"the tensor {shown(name)}, which {index_name} promises, is not in it"
                raise FormatError(folder / shard, what, "download the shards and their index again")
            tensors[name] = info
        return tensors

    def _weights(self, path: Path) -> Header:
        self._check_place(path)
        header = safetensors.read_header(path)
        self.notes.extend(f"{path.relative_to(self.root)}: {note}" for note in header.notes)
        return header

    def _config(self, path: Path) -> dict[str, object]:
        """One config, refused by name when it asks for code of its own."""
        config = self._json(path, MAX_CONFIG)
        for key in _CODE_KEYS:
            if config.get(key):
                raise _asks_for_code(path, f"{key} {shown(str(config[key]))}")
        return config

    def _json(self, path: Path, limit: int) -> dict[str, object]:
        self._check_place(path)
        try:
            with path.open("rb") as file:
                raw = file.read(limit + 1)
        except OSError as error:
            raise unreadable(path, error) from error
        try:
            if len(raw) > limit:
                raise ValueError(f"it is larger than {limit:,} bytes")
            value = strictjson.parse(raw, constants=True)
            strictjson.check_depth(value)
            if not isinstance(value, dict):
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise FormatError(path, f"this config can't be read: {error}", "download it again") from None
        return value

    def _check_place(self, path: Path) -> None:
        """Refuse a link that leads out of the model: whoever packed the folder could make it read any file."""
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            raise FormatError(path, "there is no such file, or a link to none", "download the model again") from None
        if not any(real.is_relative_to(place) for place in self.places):
            what = f"this link leads out of the model's folder, to {shown(str(real))}"
            raise FormatError(path, what, "put the file itself here if you trust it")

    def _note_code(self, folder: Path) -> None:
        if code := sorted(entry.name for entry in self._list(folder) if entry.suffix == ".py"):
            self.notes.append(f"Python code that Bottega does not run: {', '.join(map(shown, code[:3]))}")

    def _list(self, folder: Path) -> list[Path]:
        try:
            return list(folder.iterdir())
        except OSError as error:
            raise unreadable(folder, error) from error


def _places(root: Path) -> tuple[Path, ...]:
    """Where the files of a folder may really lie: in it, or among its blobs in Hugging Face's cache.

    The cache keeps `models--org--name/blobs/<sha256>` and fills `snapshots/<revision>/` with links to them.
    """
    real = root.resolve()
    inside = next((place for place in (real, *real.parents) if place.parent.name == "snapshots"), None)
    return (real,) if inside is None else (real, inside.parent.parent / "blobs")


def _choose_weights(names: frozenset[str]) -> str | None:
    """The file, or the index of shards, to read: the plain one, else fp16, else another; whole before shards."""
    for variant in _VARIANTS:
        for stem in _STEMS:
            # Both names of an index with a variant are in use: `.index.fp16.json` and `.fp16.safetensors.index.json`.
            for name in (
                f"{stem}{variant}.safetensors",
                f"{stem}{variant}.safetensors.index.json",
                f"{stem}.safetensors.index{variant}.json",
            ):
                if name in names:
                    return name
    return None


def _is_plain(name: str) -> bool:
    """Whether a name can only mean something in the same folder, on any system."""
    return (
        name not in ("", ".", "..")
        and not any(character in name for character in "/\\:\0")
        and PurePosixPath(name).name == PureWindowsPath(name).name == name
    )


def _asks_for_code(path: Path, what: str) -> FormatError:
    return FormatError(path, f"it asks to run code of its own ({what})", "Bottega never does: get a version without it")
