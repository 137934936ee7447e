"""The SHA-256 of a model's bytes: computed once, remembered until the bytes change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bottega.errors import FileError
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import Stamp, folder_files, stamp_of

CHUNK = 4 << 20

Told = Callable[[int, int], None]  # (bytes done, bytes in all)


def sha256_of(catalog: Catalog, entry: Entry, told: Told = lambda done, total: None) -> Entry:
    """The entry with the hash of its bytes as they are now, from the catalog where that is still true.

    Raises FileError if the bytes change meanwhile, OSError if they can't be read.
    """
    stamp = stamp_of(entry.path)
    if entry.sha256 and entry.stamp == stamp:
        return entry
    digest = hash_model(entry.path, stamp, told)
    if stamp_of(entry.path) != stamp:
        raise FileError(entry.path, "was changed while it was read", "try again when it is complete")
    if entry.stamp != stamp:
        raise FileError(entry.path, "was changed since it was scanned", "run `bottega models scan`")
    return catalog.keep_hash(entry, digest)


def hash_model(path: Path, stamp: Stamp, told: Told = lambda done, total: None) -> str:
    """The SHA-256 of a file, or of a model folder.

    A folder's is that of the lines "name, zero byte, SHA-256 of the file, line feed" of its files, sorted by name.
    """
    if not path.is_dir():
        return hash_file(path, lambda done: told(done, stamp.size))
    lines = hashlib.sha256()
    done = 0
    for name, file in folder_files(path):
        lines.update(os.fsencode(f"{name}\0{hash_file(file, partial(_from, told, done, stamp.size))}\n"))
        done += file.stat().st_size
    return lines.hexdigest()


def _from(told: Told, before: int, total: int, done: int) -> None:
    told(before + done, total)


def hash_file(path: Path, told: Callable[[int], None] = lambda done: None) -> str:
    """The SHA-256 of one file's bytes."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(CHUNK))
    done = 0
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            done += count
            told(done)
    return digest.hexdigest()
