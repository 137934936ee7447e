"""Pictures that come inside of a request, as bytes or as text: checked before a pixel is decoded."""

from __future__ import annotations

import base64
import binascii
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.api.pictures import fetched, is_address
from bottega.errors import FieldProblem, FileError, InvalidRecipe
from bottega.formats import media
from bottega.formats.media import Carried
from bottega.recipe import Media
from bottega.settings import Settings
from bottega.workshop import Workshop

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 32 << 20
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Picture:
    """A PNG, JPEG or WebP file that a client sent in this field of its request. Sizes are in pixels."""

    content: bytes
    field: str

    @cached_property
    def carried(self) -> Carried:
        """What it says beside its pixels; raises InvalidRecipe for what is no picture, or a damaged one."""
        with self._file() as path:
            return media.read(path)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright."""
        return self.carried.width, self.carried.height

    @contextmanager
    def opened(self) -> Iterator[Image]:
        """Its pixels, upright, as RGB or RGBA; raises InvalidRecipe for a damaged or too large one.

        They are there until the end only, and one picture at a time: see `media.opened`.
        """
        with self._file() as path, media.opened(path) as picture:
            yield picture

    def keep(self, workshop: Workshop, role: str) -> Media:
        """Take it in as a picture of recipes; raises InvalidRecipe for a damaged or too large one."""
        try:
            return workshop.keep_input(self.content, role)
        except FileError as error:
            raise self._refused(error) from None

    @contextmanager
    def _file(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="bottega-") as folder:
            path = Path(folder) / "picture"
            path.write_bytes(self.content)
            try:
                yield path
            except FileError as error:
                raise self._refused(error) from None

    def _refused(self, error: FileError) -> InvalidRecipe:
        return _problem(self.field, error.what.removeprefix(f"{error.path}: "), error.remedy)


def picture_of(content: bytes, field: str) -> Picture:
    """A picture from its file's bytes; raises InvalidRecipe for what is none, or too large."""
    if len(content) > MOST_BYTES:
        raise _problem(field, f"has {len(content) >> 20} MiB", f"send at most {MOST_BYTES >> 20} MiB")
    picture = Picture(content, field)
    _ = picture.carried
    return picture


def picture_from(text: str, field: str, settings: Settings) -> Picture:
    """A picture from base64, bare or in a `data:` address, or from the site that an `https:` address names.

    Blocks while it is fetched. Raises InvalidRecipe for what is none.
    """
    if is_address(text):
        return picture_of(fetched(text, field, settings), field)
    encoded = _SPACE.sub("", text.partition(",")[2] if text[:5].lower() == "data:" else text)
    # Some clients leave the padding out, or use the alphabet of addresses.
    encoded = encoded.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        content = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise _problem(field, "is no base64", "send the bytes of a PNG, JPEG or WebP file as base64") from None
    return picture_of(content, field)


def _problem(field: str, what: str, remedy: str) -> InvalidRecipe:
    return InvalidRecipe([FieldProblem(field, what, remedy)])
