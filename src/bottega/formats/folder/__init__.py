"""Folders that are one model: diffusers pipelines and their parts, transformers models, PEFT adapters; data alone.

https://huggingface.co/docs/diffusers/using-diffusers/other-formats, https://huggingface.co/docs/transformers/models.
Nothing that such a folder says is imported or run: class names stay text here, and whoever builds a network picks the
class from a table of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bottega.errors import FormatError
from bottega.formats.folder import diffusers, transformers
from bottega.formats.folder.files import Files
from bottega.formats.folder.install import installable
from bottega.formats.folder.weights import adapter_weights, is_model
from bottega.formats.header import Header
from bottega.formats.sniff import OTHER_RUNTIME

__all__ = ["adapter_weights", "installable", "is_model", "read_header"]


def read_header(path: str | Path) -> Header:
    """The tensors of a model's folder as one header.

    In a diffusers folder each is named after its part (`unet/conv_in.weight`), in others as in its file. A pipeline
    that asks for code of its own is refused; other folders that do are read without it, and are unusual.
    """
    files = Files(Path(path))
    names = files.names(files.root)
    if "model_index.json" in names:
        return diffusers.read_pipeline(files)
    if "config.json" in names:
        config = files.json("config.json")
        if _is_of_transformers(config):
            return transformers.read_model(files, config)
        return diffusers.read_part(files)
    if "adapter_config.json" in names:
        return transformers.read_adapter(files)
    if words := _other_runtime(files.root, names):
        raise FormatError(files.root, f"this folder is {words}, which Bottega can't read", OTHER_RUNTIME)
    raise FormatError(
        files.root,
        "this folder is no model: it holds neither model_index.json nor config.json",
        "choose a model file in it, or scan the folder",
    )


def _other_runtime(root: Path, names: frozenset[str]) -> str:
    """What a folder is that is a model of a program which Bottega does not run; empty for others."""
    if "saved_model.pb" in names:
        return "a TensorFlow model (SavedModel)"
    if "coremldata.bin" in names:
        return "a compiled Core ML model"
    if "Manifest.json" in names and (root / "Data" / "com.apple.CoreML").is_dir():
        return "a Core ML model"
    return ""


def _is_of_transformers(config: Mapping[str, object]) -> bool:
    """Whether a config was written by transformers, and not for a text encoder of which diffusers knows the place."""
    if config.get("_class_name"):
        return False
    architectures = config.get("architectures")
    named = isinstance(architectures, list) and bool(architectures)
    return (named or isinstance(config.get("model_type"), str)) and diffusers.home_of(config) is None
