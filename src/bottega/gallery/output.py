"""What the gallery knows of one output, and of several at once."""

from __future__ import annotations

import builtins
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bottega.errors import BottegaError


class GalleryError(BottegaError):
    """The gallery can't be read or written."""


class UnknownOutput(BottegaError):
    """No output has this id."""

    exit_code = 2

    def __init__(self, id: str) -> None:
        super().__init__(f"no output has the id {id!r}", "look for it in the gallery; it may have left the trash")
        self.id = id


class BadCursor(BottegaError):
    """A cursor that no page gave."""

    exit_code = 2

    def __init__(self, cursor: str) -> None:
        super().__init__(
            f"{cursor[:40]!r} is no place in the gallery", "use `next` of the page before, or leave it out"
        )


def open_made(path: Path) -> BinaryIO:
    """The file of an output, to be read; OSError if it is gone, or something else by now.

    A link is not followed: whoever can write into the folder must not have other files shown.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "it is no file any more", str(path))
    return open(descriptor, "rb")


@dataclass(frozen=True, slots=True)
class Output:
    """One file that was made, and how.

    `job` and `index` say of which job it is the how-manieth; both are empty (and 0) for what came without one. `path`
    is for this machine only and never told to others. `bytes` and `sha256` are those of the file when it was made or
    first seen. `digest` is that of its recipe and `recipe` the JSON that the file carries; another program's picture
    has no digest, and the draft that its text means, or none. `created` and `deleted` are unix seconds; a `deleted`
    output lies in the trash. `missing` says that its file is gone, `changed` that it holds other bytes by now.
    `seconds` is what the job took for it, 0 where that is not known.
    """

    id: str
    job: str
    index: int
    owner: str
    path: Path
    medium: str
    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    seed: int | None
    digest: str
    task: str
    prompt: str
    negative: str
    model: str
    model_sha256: str
    created: float
    recipe: str = ""
    favourite: bool = False
    folder: str = ""
    deleted: float | None = None
    missing: bool = False
    changed: bool = False
    seconds: float = 0.0

    def content(self) -> builtins.bytes:
        """The bytes of its file as they are now; raises what `open_made` does."""
        with open_made(self.path) as file:
            return file.read()


class Page(NamedTuple):
    """Some outputs, newest first; `next` is the cursor (`before`) of those behind them, if there are any, and `total`
    how many there are in all."""

    items: Sequence[Output]
    next: str | None
    total: int


class Folder(NamedTuple):
    """A folder of an owner's, and how many outputs lie in it."""

    name: str
    outputs: int
