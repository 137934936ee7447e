"""Bytes to headers and recipes, with the standard library alone: nothing is executed, no tensor is read unasked."""

from __future__ import annotations

from pathlib import Path

from bottega.formats.header import Header, TensorInfo, View
from bottega.formats.sniff import refusal, sniff
from bottega.formats.tensor_bytes import read_bytes

__all__ = ["Header", "TensorInfo", "View", "read_bytes", "read_header"]


def read_header(path: str | Path) -> Header:
    """What a model file or a folder of one says of itself. Whatever else it may be is refused by its name.

    A pickle that would run code raises DangerousModel; nothing of it is run to find out.
    """
    path = Path(path)
    kind = sniff(path)
    if kind == "folder":
        from bottega.formats import folder

        return folder.read_header(path)
    if kind in ("pickle", "zip"):
        from bottega.formats import pickled

        return pickled.read_header(path)
    if kind == "unknown":
        from bottega.formats import pickled

        if header := pickled.read_text_pickle(path):
            return header
        raise refusal(path, kind)
    from bottega.formats import safetensors

    return safetensors.read_header(path)
