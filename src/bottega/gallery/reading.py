"""What a file that was made says of itself, as the gallery records it."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from bottega.engine.a1111 import draft_of
from bottega.engine.foreign import told_by
from bottega.errors import InvalidRecipe
from bottega.formats import media
from bottega.formats.infotext import Infotext
from bottega.formats.sniff import unreadable
from bottega.gallery.output import Output
from bottega.recipe import Recipe, read_recipe

# A job's outputs have its id and their number in it as their name; no other name has so long a first part.
_OF_JOB = re.compile(r"([0-9A-Za-z_-]{16,64})-(\d{1,6})")
_LARGEST_SEED = 2**63 - 1


def read_output(
    path: Path,
    *,
    id: str = "",
    job: str = "",
    index: int = 0,
    owner: str = "",
    created: float | None = None,
    seconds: float = 0.0,
) -> Output:
    """The output that a picture's file holds: with our recipe in it, or what another program says.

    Without an `id` it has that of the job whose output its name says it is, or else a new one. Without `created` it is
    as old as the file. Raises FormatError for a damaged file, FileError for one that can't be read or says nothing of
    how it was made, InvalidRecipe for a recipe that is none.
    """
    carried = media.read(path)
    recipe = read_recipe(carried.recipe) if carried.recipe is not None else None
    if recipe is not None:
        told = _by_recipe(recipe, str(carried.recipe))
    elif (foreign := told_by(carried)) is not None:
        told = _by_another(foreign)
    else:
        raise carried.without_recipe(path, "the gallery keeps what says how it was made")
    if not id:
        named = _OF_JOB.fullmatch(path.stem)
        id, job, index = (path.stem, named[1], int(named[2])) if named else (f"{secrets.token_hex(16)}-0", "", 0)
    try:
        status = path.stat()
        sha256 = hash_file(path)
    except OSError as error:
        raise unreadable(path, error) from error
    return Output(
        id=id,
        job=job,
        index=index,
        owner=owner,
        path=path,
        medium="image",
        format=carried.format,
        width=carried.width,
        height=carried.height,
        bytes=status.st_size,
        sha256=sha256,
        created=status.st_mtime if created is None else created,
        seconds=seconds,
        **told,
    )


def hash_file(path: Path) -> str:
    """SHA-256 of a plain file in hex; raises OSError."""
    with open_plain(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_plain(path: Path) -> BufferedReader:
    """Open a file that was made, and nothing that was put in its place: OSError for a link, a pipe, a device."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "no plain file", os.fspath(path))
    return open(handle, "rb")


def _by_recipe(recipe: Recipe, text: str) -> dict[str, Any]:
    model = recipe.model
    return {
        "seed": recipe.sampling.seed,
        "digest": recipe.digest,
        "task": recipe.task,
        "prompt": recipe.prompt,
        "negative": recipe.negative,
        "model": model.name if model else "",
        "model_sha256": (model.sha256 if model else None) or "",
        "recipe": text,
    }


def _by_another(told: Infotext) -> dict[str, Any]:
    """What another program says; the draft that it means is the recipe, where a recipe can say all of it."""
    draft = None
    with suppress(InvalidRecipe):
        draft = draft_of(told)
    return {
        "seed": _seed(told.fields),
        "digest": "",
        "task": draft.task if draft else "",
        "prompt": _whole(told.prompt),
        "negative": _whole(told.negative),
        "model": _whole(told.fields.get("Model", "")),
        "model_sha256": "",
        "recipe": draft.to_json() if draft else "",
    }


def _seed(fields: Mapping[str, str]) -> int | None:
    seed = fields.get("Seed", "")
    return int(seed) if seed.isascii() and seed.isdecimal() and len(seed) < 20 and int(seed) <= _LARGEST_SEED else None


def _whole(text: str) -> str:
    """The text without halves of characters, which no database takes."""
    return text.encode(errors="replace").decode()
