"""Bytes to headers and recipes, with the standard library alone: nothing is executed, no tensor is read unasked."""

from __future__ import annotations

from pathlib import Path

from bottega.formats import folder, safetensors
from bottega.formats.header import Header, TensorInfo, View

__all__ = ["Header", "TensorInfo", "View", "read_header"]


def read_header(path: str | Path) -> Header:
    """What a model file or a diffusers folder says of itself. Whatever else it may be is refused by its name."""
    path = Path(path)
    return folder.read_header(path) if path.is_dir() else safetensors.read_header(path)
