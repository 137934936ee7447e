"""Bytes to headers and recipes, with the standard library alone: nothing is executed, no tensor is read unasked."""

from __future__ import annotations

from pathlib import Path

from bottega.formats import folder, gguf, safetensors
from bottega.formats.header import Header, TensorInfo, View
from bottega.formats.sniff import sniff

__all__ = ["Header", "TensorInfo", "View", "read_header"]

_READERS = {"folder": folder.read_header, "gguf": gguf.read_header}


def read_header(path: str | Path) -> Header:
    """What a model file or a model's folder says of itself. Whatever else it may be is refused by its name."""
    return _READERS.get(sniff(path), safetensors.read_header)(path)
