"""Bytes to headers and recipes, with the standard library alone: nothing is executed, no tensor is read unasked."""

from __future__ import annotations

from pathlib import Path

from bottega.formats.header import Header, TensorInfo, View
from bottega.formats.sniff import refusal, sniff
from bottega.formats.tensor_bytes import read_bytes
from bottega.formats.wrappers import unwrapped

__all__ = ["Header", "TensorInfo", "View", "read_bytes", "read_header"]


def read_header(path: str | Path) -> Header:
    """What a model file or a folder of one says of itself. Whatever else it may be is refused by its name.

    Tensors have the names that they have in no wrapper, such as `module.`. A pickle that would run code raises
    DangerousModel; nothing of it is run to find out.
    """
    return unwrapped(_read_header(Path(path)))


def _read_header(path: Path) -> Header:
    kind = sniff(path)
    # Each reader is imported when it is needed: most shelves hold one format, and most commands read none.
    match kind:
        case "folder":
            from bottega.formats import folder

            return folder.read_header(path)
        case "gguf":
            from bottega.formats import gguf

            return gguf.read_header(path)
        case "pickle" | "zip":
            from bottega.formats import pickled

            return pickled.read_header(path)
        case "png" | "webp":
            from bottega.formats import pictured

            if header := pictured.read_header(path):
                return header
            raise refusal(path, kind)
        case "unknown" | "text":
            from bottega.formats import pickled

            if header := pickled.read_text_pickle(path):
                return header
            raise refusal(path, kind)
        case _:
            from bottega.formats import safetensors

            return safetensors.read_header(path)
