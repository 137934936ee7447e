"""Where outputs go, and that they get there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Protocol

from bottega.errors import FileError, SaveError
from bottega.formats.atomic import atomic, remove_stale, settle_new
from bottega.formats.media import FORMATS

_ENDING = re.compile(r"\.(?=\d*[a-zA-Z])[a-zA-Z0-9]{1,5}")  # a number alone is a version's


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all; SaveError with the system's reason."""
    with atomic(path) as file:
        file.write(content)


@cache
def _tidy(folder: Path) -> None:
    """Once in the life of a process: remove what another one was writing here when it was killed."""
    remove_stale(folder)


class Target(Protocol):
    """Where outputs go."""

    def prepare(self) -> None:
        """Make sure that something can be written there; SaveError if it can't."""

    def write(self, content: bytes, index: int, count: int, seed: int, suffix: str) -> Path:
        """Write output `index` of `count`; its path. SaveError if it can't be written."""


def make_writable(folder: Path, remedy: str, what: str = "") -> None:
    """Make a folder and write a byte into it, so that nothing is made in vain; SaveError if it can't be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise SaveError(f"{what}{folder}: can't be written to ({error.strerror or error})", remedy) from None


@dataclass(frozen=True)
class Destination:
    """Where outputs go: a folder that numbers them as A1111 does (`00007-<seed>.png`), or one named file."""

    folder: Path
    name: str | None = None

    def prepare(self) -> None:
        """Make sure that the folder can be made and written; SaveError if it can't. There is no new one before there is
        something to put into it."""
        new = [folder for folder in (self.folder, *self.folder.parents) if not os.path.lexists(folder)]
        try:
            make_writable(self.folder, "choose another place with --out")
            _tidy(self.folder)
        finally:
            with suppress(OSError):
                for folder in new:
                    folder.rmdir()

    def write(self, content: bytes, index: int, count: int, seed: int, suffix: str) -> Path:
        """Write output `index` of `count`; its path. Only a name that the user chose is ever overwritten."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"{self.folder}: can't be made ({error.strerror or error})"
            raise SaveError(what, "choose another place with --out") from None
        if self.name is not None:
            stem, ending = os.path.splitext(self.name)
            path = self.folder / (self.name if count == 1 else f"{stem}-{index + 1}{ending}")
            write_whole(path, content)
            return path
        while True:
            path = self.folder / f"{_next_number(self.folder):05d}-{seed}{suffix}"
            try:
                with atomic(path, settle_new) as file:
                    file.write(content)
                return path
            except FileExistsError:
                continue  # another process took this number meanwhile


@dataclass(frozen=True)
class Named:
    """Where the outputs of a job go: `<folder>/<job>-<index>.png`. Made again, they take the place of themselves."""

    folder: Path
    job: str

    def prepare(self) -> None:
        """Make the folder, and make sure that it can be written; SaveError if it can't."""
        remedy = "see that Bottega may write there, or name another folder for outputs in settings.toml"
        make_writable(self.folder, remedy, "the folder of outputs ")
        _tidy(self.folder)

    def write(self, content: bytes, index: int, count: int, seed: int, suffix: str) -> Path:
        """Write output `index`; its path."""
        path = self.folder / f"{self.job}-{index}{suffix}"
        write_whole(path, content)
        return path


def _next_number(folder: Path) -> int:
    numbers = (re.match(r"(\d{5,})-", entry.name) for entry in os.scandir(folder))
    return max((int(found[1]) for found in numbers if found), default=-1) + 1


def destination(out: str | Path | None, outputs: Path) -> tuple[Destination, str | None]:
    """What `--out` means: a folder, or a file whose ending also says the format (png, jpeg, webp).

    A text that ends with a slash means a folder, and so does a name without a file ending: that of `v1.5 x` is none.
    Raises FileError for a file ending that is no format of ours.
    """
    if out is None:
        return Destination(outputs / date.today().isoformat()), None
    path = Path(out)
    slashed = isinstance(out, str) and out.endswith((os.sep, os.altsep or os.sep))
    if slashed or path.is_dir() or not _ENDING.fullmatch(path.suffix):
        return Destination(path), None
    try:
        return Destination(path.parent, path.name), FORMATS[path.suffix.lower()]
    except KeyError:
        remedy = f"use one of {', '.join(FORMATS)}, or end the name of a folder with a slash"
        raise FileError(path, f"no format is called {path.suffix}", remedy) from None


def sha256_of(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()
