"""What the files that trainings write are called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bottega.errors import FileError

# By kind, the usual one first. Of hypernetworks, stable-diffusion-webui reads `.pt` only.
ENDINGS: Mapping[str, tuple[str, ...]] = {
    "lora": (".safetensors",),
    "embedding": (".safetensors", ".pt"),
    "hypernetwork": (".safetensors", ".pt"),
    "full": (".safetensors",),
}
# What the library calls what each kind of training makes.
MADE: Mapping[str, str] = {
    "lora": "lora",
    "embedding": "embedding",
    "hypernetwork": "hypernetwork",
    "full": "checkpoint",
}


def check_name(path: Path, kind: str) -> None:
    """FileError for a name that says another format than this kind is written in."""
    if path.suffix not in ENDINGS[kind]:
        raise FileError(path, f"is no name for what is trained ({kind})", f"end it in {' or '.join(ENDINGS[kind])}")
