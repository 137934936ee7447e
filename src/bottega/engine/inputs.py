"""Input pictures: checked, kept in the home under the hash of their bytes, and found again by it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.engine.save import write_whole
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.formats.media import open_picture
from bottega.recipe import Media

if TYPE_CHECKING:
    from PIL.Image import Image


def keep_input(path: Path, role: str, kept: Path) -> Media:
    """Copy a picture into the folder `kept` under its SHA-256, so that recipes that name it can always run again.

    Raises FileError for what is no PNG, JPEG or WebP.
    """
    open_picture(path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    target = kept / sha256
    if not target.exists():
        kept.mkdir(parents=True, exist_ok=True)
        write_whole(target, content)
    return Media(role=role, sha256=sha256)


def open_inputs(inputs: tuple[Media, ...], kept: Path) -> dict[str, Image]:
    """The kept pictures by role; InvalidRecipe for one that is gone or whose bytes were changed."""
    pictures = {}
    for index, media in enumerate(inputs):
        path = kept / media.sha256
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != media.sha256:
            raise InvalidRecipe(
                [
                    FieldProblem(
                        f"inputs.{index}",
                        f"the picture {media.sha256[:10]} ({media.role}) is not in {kept}",
                        "give the original again with --init or --mask",
                    )
                ]
            )
        pictures[media.role] = open_picture(path)
    return pictures
