"""Which files of a folder are its weights, whole or in shards: safetensors, and pickles only where there are none.

The names are those that diffusers, transformers and PEFT write: `model.safetensors`, `model.fp16.safetensors`,
`model.safetensors.index.json` and the shards that it names, and the same with `pytorch_model` and `.bin`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePath

from bottega.errors import FormatError
from bottega.formats import safetensors
from bottega.formats.folder.files import Files, is_plain
from bottega.formats.header import Header, TensorInfo, shown
from bottega.formats.sniff import sniff

MAX_INDEX = 32 << 20

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model", "consolidated")
_ADAPTER = ("adapter_model", "adapters")  # PEFT's name, and MLX's
_VARIANTS = ("", ".fp16", ".bf16", ".fp32")  # the first that is there is taken
_SHARD = re.compile(r"(?P<stem>[^/]+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.safetensors")

# What else programs keep weights in: told by name where a folder holds nothing better.
_OTHER = (".gguf", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".ot")

_WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf")
# Weights, states of training and exports as they lie in repositories of models, beside those that are read.
_AT_HOME = re.compile(
    r"(?:open_clip_)?(?:pytorch_|diffusion_pytorch_|adapter_|tf_|flax_|rust_)?model(?:[-._].*)?|consolidated(?:\..*)?"
    r"|training_args|optimizer|scheduler|scaler|rng_state.*|random_states.*"
)
# Files that only repositories of models have, so that whatever lies beside them is of the same model.
_COMPANIONS = frozenset((
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model",
    "preprocessor_config.json", "generation_config.json", "modules.json",
))  # fmt: skip


def is_model(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is one model, and not a folder with several models.

    A config that was saved into a folder full of other models does not make them one; an index of shards does,
    whatever they are called.
    """
    if "model_index.json" in names:
        return True
    if "config.json" in names and _choose(names, _STEMS):
        if any(name.endswith(".json") for name in (*_plain(names, _STEMS), *_pickles(names, _STEMS))):
            return True
        weights = [path for path in map(PurePath, names) if path.suffix.lower() in _WEIGHTS]
        return not _COMPANIONS.isdisjoint(names) or all(_AT_HOME.fullmatch(path.stem) for path in weights)
    return "adapter_config.json" in names and bool(_choose(names, _ADAPTER))


def read(files: Files, folder: Path) -> Mapping[str, TensorInfo]:
    """The tensors of the model or part that lies in this folder."""
    return _read(files, folder, _STEMS)


def read_adapter(files: Files, folder: Path) -> Mapping[str, TensorInfo]:
    """The tensors of the adapter that lies in this folder."""
    return _read(files, folder, _ADAPTER)


def has_adapter(names: Collection[str]) -> bool:
    """Whether there are weights of an adapter, and none of a whole model."""
    return bool(_choose(names, _ADAPTER)) and not _choose(names, _STEMS)


def adapter_weights(names: Collection[str]) -> str:
    """The weights of the adapter that a folder with these names in it is; empty where it is none."""
    return _choose(names, _ADAPTER) if "adapter_config.json" in names and not _choose(names, _STEMS) else ""


def _read(files: Files, folder: Path, stems: tuple[str, ...]) -> Mapping[str, TensorInfo]:
    names = files.names(folder)
    files.look_for_code(folder, names)
    pickle = next(_pickles(names, stems), None)
    if weights := next(_plain(names, stems), None):
        if pickle:
            files.notes.append(f"{shown(pickle)}, a pickle, lies beside {shown(weights)} and is not read")
    elif shards := _shards_without_index(folder, names, stems):
        files.notes.append(f"{len(shards)} shards without their index")
        return _merged(folder, (files.take(_read_file(files, folder / shard)) for shard in shards))
    elif pickle:
        weights = pickle
        files.notes.append(
            f"its weights are a pickle, {shown(pickle)}: they are read as data, and nothing of it is run"
        )
    else:
        weights = _only_one(files, folder, names)
    if weights.endswith(".json"):
        return _promised(files, folder, weights)
    return files.take(_read_file(files, folder / weights))


def _choose(names: Collection[str], stems: tuple[str, ...]) -> str:
    """The weights by which a folder is known to be a model."""
    shards = (name for name in names if (shard := _SHARD.fullmatch(name)) and shard["stem"] in stems)
    return next(_plain(names, stems), "") or next(shards, "") or next(_pickles(names, stems), "")


def _plain(names: Collection[str], stems: tuple[str, ...]) -> Iterator[str]:
    """The safetensors to read, or the index of their shards, the best first: plain, then fp16; whole before shards."""
    for variant in _VARIANTS:
        for stem in stems:
            # Both names of an index with a variant are in use: `.index.fp16.json` and `.fp16.safetensors.index.json`.
            for name in (
                f"{stem}{variant}.safetensors",
                f"{stem}{variant}.safetensors.index.json",
                f"{stem}.safetensors.index{variant}.json",
            ):
                if name in names:
                    yield name


def _pickles(names: Collection[str], stems: tuple[str, ...]) -> Iterator[str]:
    """The same for pickles."""
    for variant in _VARIANTS:
        for stem in stems:
            for name in (
                f"{stem}{variant}.bin",
                f"{stem}{variant}.bin.index.json",
                f"{stem}.bin.index{variant}.json",
            ):
                if name in names:
                    yield name


def _shards_without_index(folder: Path, names: frozenset[str], stems: tuple[str, ...]) -> list[str]:
    """All shards of a model whose index is missing; each says how many there are."""
    for stem in stems:
        shards = {name: match for name in names if (match := _SHARD.fullmatch(name)) and match["stem"] == stem}
        if not shards:
            continue
        count = next(iter(shards.values()))["count"]
        every = [f"{stem}-{number:05}-of-{count}.safetensors" for number in range(1, min(int(count), 1000) + 1)]
        if missing := [name for name in every if name not in shards]:
            what = f"{len(missing)} of its {int(count)} shards are missing: {', '.join(missing[:3])}"
            raise FormatError(folder, what, "download them into this folder")
        return every
    return []


def _only_one(files: Files, folder: Path, names: frozenset[str]) -> str:
    """The only safetensors file that there is, whatever its name; or the error that tells what there is instead."""
    found = sorted(name for name in names if name.endswith(".safetensors"))
    if len(found) == 1:
        files.notes.append(f"its weights have a name of their own: {shown(found[0])}")
        return found[0]
    if found:
        what = f"{len(found)} safetensors files, none of which is named as a folder's weights: {shown(found[0])} ..."
        raise FormatError(folder, what, "choose one of these files")
    if models := sorted(name for name in names if name.endswith(".gguf")):
        raise FormatError(folder, f"this folder holds GGUF models: {shown(models[0])}", "choose one of these files")
    if others := sorted(name for name in names if name.lower().endswith(_OTHER)):
        what = f"the weights of this part are only there as {shown(others[0])}"
        raise FormatError(folder, what, "get the .safetensors version of this model")
    what = "no weights here: neither diffusion_pytorch_model.safetensors nor model.safetensors"
    raise FormatError(folder, what, "download the whole folder again")


def _promised(files: Files, folder: Path, index_name: str) -> Mapping[str, TensorInfo]:
    """The tensors that a shard index promises, each from the shard that it names."""
    index = folder / index_name
    weight_map = files.json(index.relative_to(files.root).as_posix(), MAX_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise FormatError(index, "it has no weight_map", "download it again")
    ending = ".bin" if ".bin.index" in index_name else ".safetensors"
    shards: dict[str, Mapping[str, TensorInfo]] = {}
    tensors: dict[str, TensorInfo] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not is_plain(shard) or not shard.endswith(ending):
            what = f"the shard {shown(str(shard))} is no plain name of a {ending} file"
            raise FormatError(index, what, "do not use this model")
        if shard not in shards:
            if not (folder / shard).is_file():
                what = f"this shard, named in {index_name}, is missing"
                raise FormatError(folder / shard, what, "download it into this folder")
            shards[shard] = files.take(_read_file(files, folder / shard))
        info = shards[shard].get(name)
        if info is None:
            what = f"the tensor {shown(name)}, which {index_name} promises, is not in it"
            raise FormatError(folder / shard, what, "download the shards and their index again")
        tensors[name] = info
    return tensors


def _merged(folder: Path, shards: Iterator[Mapping[str, TensorInfo]]) -> Mapping[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        if twice := next((name for name in shard if name in tensors), None):
            raise FormatError(folder, f"two of its shards hold {shown(twice)}", "download the shards and their index")
        tensors |= shard
    return tensors


def _read_file(files: Files, path: Path) -> Header:
    files.check(path)
    if path.suffix == ".safetensors" or sniff(path) == "safetensors":
        return safetensors.read_header(path)
    from bottega.formats import pickled

    return pickled.read_header(path)
