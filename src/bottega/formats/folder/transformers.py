"""Transformers folders: one `config.json` and its weights; PEFT adapters; the modules of sentence-transformers.

A model whose config asks for code of its own (`auto_map`) is read as the data that it is: the weights may be usable
with a class of ours, and the code is never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bottega.errors import FormatError
from bottega.formats.folder import weights
from bottega.formats.folder.files import Files, code_asked_for
from bottega.formats.header import Header, TensorInfo, shown

MAX_TOKENIZER = 64 << 20
_MAX_TOKENIZER_CONFIG = 16 << 20
_MAX_MODULES = 32

# Configs beside the model's own that transformers takes classes from.
_MORE_CONFIGS = ("tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_KNOWN_LIBRARIES = ("transformers", "diffusers", "torch", "peft")


def read_model(files: Files, config: Mapping[str, object]) -> Header:
    """A whole model; or, where its folder only holds the weights of an adapter, that adapter."""
    names = files.names(files.root)
    if "adapter_config.json" in names and weights.has_adapter(names):
        return read_adapter(files)
    _look_for_classes(files, "config.json", config)
    _look_at_tokenizer(files, names)
    tensors = dict(weights.read(files, files.root))
    configs: dict[str, Mapping[str, object]] = {"": config}
    if "modules.json" in names:
        _add_modules(files, names, tensors, configs)
    return files.header("transformers", tensors, configs)


def read_adapter(files: Files) -> Header:
    """An adapter that PEFT or MLX saved: few tensors, and a config that names the model which they change."""
    config = files.json("adapter_config.json")
    _look_for_classes(files, "adapter_config.json", config)
    mapping = config.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if isinstance(library, str) and library.partition(".")[0] not in _KNOWN_LIBRARIES:
        files.reasons.append(f"adapter_config.json asks for classes of {shown(library)}, which Bottega never imports")
    _look_at_tokenizer(files, files.names(files.root))
    return files.header("transformers", weights.read_adapter(files, files.root), {"": config})


def _look_for_classes(files: Files, name: str, config: Mapping[str, object]) -> None:
    if asked := code_asked_for(config):
        files.reasons.append(f"{name} asks to run code of its own, which Bottega never does ({asked})")


def _look_at_tokenizer(files: Files, names: frozenset[str]) -> None:
    """What a tokenizer asks for, and whether it is larger than any; none of it is needed to read the weights."""
    for name in sorted(names.intersection(_MORE_CONFIGS)):
        try:
            _look_for_classes(files, name, files.json(name, _MAX_TOKENIZER_CONFIG))
        except FormatError as error:
            files.notes.append(f"{name}: {error.what.removeprefix(f'{error.path}: ')}")
    tokenizer = files.root / "tokenizer.json"
    if tokenizer.is_file() and (size := tokenizer.stat().st_size) > MAX_TOKENIZER:
        files.reasons.append(f"tokenizer.json takes {size:,} bytes, and none needs more than {MAX_TOKENIZER:,}")


def _add_modules(
    files: Files, names: frozenset[str], tensors: dict[str, TensorInfo], configs: dict[str, Mapping[str, object]]
) -> None:
    """The folders `1_Pooling`, `2_Dense` ... of sentence-transformers: their configs, and their tensors if any."""
    _look_at_modules(files)
    folders = sorted(name for name in names if name[:1].isdigit() and name[1:2] == "_" and name.isprintable())
    for name in folders[:_MAX_MODULES]:
        folder = files.root / name
        if not (folder / "config.json").is_file():
            continue
        configs[name] = files.json(f"{name}/config.json")
        _look_for_classes(files, f"{name}/config.json", configs[name])
        if _holds_weights(folder, files):
            tensors |= {f"{name}/{each}": info for each, info in weights.read(files, folder).items()}
    files.notes.append("made for sentence-transformers: it turns texts into vectors")


def _look_at_modules(files: Files) -> None:
    """Where sentence-transformers would import the classes of the modules from."""
    try:
        modules = files.value("modules.json")
    except FormatError as error:
        files.notes.append(f"modules.json: {error.what.removeprefix(f'{error.path}: ')}")
        return
    for module in modules if isinstance(modules, list) else ():
        kind = module.get("type") if isinstance(module, dict) else None
        if isinstance(kind, str) and kind.partition(".")[0] != "sentence_transformers":
            files.reasons.append(f"modules.json asks for the class {shown(kind)}, which Bottega never imports")
            return


def _holds_weights(folder: Path, files: Files) -> bool:
    return any(name.endswith((".safetensors", ".bin")) for name in files.names(folder))
