"""Models as they lie on disk: which files and folders they are, and when they are still the same without being read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from bottega.errors import FormatError
from bottega.formats.folder import is_model

# What models are kept in, also such as Bottega can only call by their names: people look for them on their shelves.
MODEL_SUFFIXES = frozenset((
    ".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".pkl", ".gguf", ".onnx", ".msgpack", ".h5", ".tflite",
))  # fmt: skip
PICTURE_SUFFIXES = frozenset((".png", ".webp"))  # that embeddings are kept in, too
EMBEDDING_FOLDERS = frozenset({"embeddings"})  # what workbenches call the folder for them, in lower case
FOLDER_MARK = "model_index.json"  # a folder that holds it is one model, in diffusers' layout
_PLACES, _SAMPLE = 16, 64 << 10  # where a fingerprint looks at a file, and bytes that it reads there
_AUTOV1 = 1 << 20  # where that hash does
_SIGNED = 2**63 - 1  # SQLite's integers; some file systems number their inodes beyond


class Stamp(NamedTuple):
    """What changes when the bytes do."""

    size: int
    mtime_ns: int
    inode: int


def model_name(path: PurePath) -> str:
    """What people call the model at this path: the file's name without its ending, or the folder's name."""
    return path.stem if path.suffix.lower() in MODEL_SUFFIXES | PICTURE_SUFFIXES else path.name


def is_embedding_picture(path: Path) -> bool:
    """Whether this is a picture in a folder for embeddings that holds one, and no preview of a model beside it."""
    if path.suffix.lower() not in PICTURE_SUFFIXES or path.stem.lower().endswith(".preview"):
        return False
    if not any(part.lower() in EMBEDDING_FOLDERS for part in path.parts[:-1]):
        return False
    if any(os.path.exists(path.with_suffix(suffix)) for suffix in MODEL_SUFFIXES):
        return False
    from bottega.formats import pictured

    try:
        return pictured.is_likely(path) and pictured.read_header(path) is not None
    except (FormatError, OSError):
        return False


def is_model_folder(names: Collection[str]) -> bool:
    """Whether a folder with these names in it is one model: diffusers', transformers', or an adapter of PEFT."""
    return is_model(names)


def stamp_of(path: Path) -> Stamp:
    """The stamp of a file, or of a folder with all that is in it. Raises OSError."""
    status = path.stat()
    return folder_stamp(path) if stat.S_ISDIR(status.st_mode) else file_stamp(status)


def file_stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file from its status."""
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ino & _SIGNED)


def folder_stamp(folder: Path) -> Stamp:
    """The stamp of a model folder: whichever of its files is changed, added or taken away, it changes too."""
    size = newest = 0
    digest = hashlib.blake2b(digest_size=8)
    for name, path in folder_files(folder):
        one = file_stamp(path.stat())
        size, newest = size + one.size, max(newest, one.mtime_ns)
        digest.update(os.fsencode(f"{name}\0{one.size} {one.mtime_ns} {one.inode}\n"))
    return Stamp(size, newest, int.from_bytes(digest.digest(), "big") & _SIGNED)


def fingerprint_of(path: Path) -> str:
    """A hash of what is at some places of a model's files, found in a moment: it tells it from others of its size.

    Where two have the same, so is their AutoV1. Raises OSError.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, file in folder_files(path) if path.is_dir() else [("", path)]:
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            digest.update(os.fsencode(f"{name}\0{size}\n"))
            last = max(0, size - _SAMPLE)
            for place in (_AUTOV1, *(last * index // (_PLACES - 1) for index in range(_PLACES))):
                opened.seek(place)
                digest.update(opened.read(_SAMPLE))
    return digest.hexdigest()


def folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that make up a model folder with their names in it, sorted; hidden ones don't belong to a model.

    Links to files are followed (Hugging Face's cache is made of them), links to folders are not. Raises OSError for a
    folder that can't be read.
    """

    def fail(error: OSError) -> None:
        raise error

    names = []
    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [Path(place, name).relative_to(folder).as_posix() for name in files if not name.startswith(".")]
    for name in sorted(names):
        if (path := folder / name).is_file():
            yield name, path
