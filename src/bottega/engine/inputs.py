"""Input pictures: checked, kept in the home under the hash of their bytes, and found again by it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.engine.save import write_whole
from bottega.errors import FieldProblem, InvalidRecipe, SaveError
from bottega.formats.media import check_picture, open_picture
from bottega.recipe import Media

if TYPE_CHECKING:
    from PIL.Image import Image


def keep_input(path: Path, role: str, kept: Path) -> Media:
    """Copy a picture into the folder `kept` under its SHA-256, so that recipes that name it can always run again.

    Raises FileError for what is no PNG, JPEG or WebP, SaveError where the folder can't be written.
    """
    check_picture(path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    if not _is_whole(kept / sha256):
        try:
            kept.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            raise SaveError(f"{kept}: can't be made ({reason})", "set BOTTEGA_HOME to a folder of yours") from None
        write_whole(kept / sha256, content)
    return Media(role=role, sha256=sha256)


def _is_whole(kept: Path) -> bool:
    """Whether a kept picture is there with the bytes that its name promises."""
    return kept.is_file() and hashlib.sha256(kept.read_bytes()).hexdigest() == kept.name


def open_inputs(inputs: tuple[Media, ...], kept: Path) -> dict[str, Image]:
    """The kept pictures by role; InvalidRecipe for one that is gone or whose bytes were changed."""
    pictures = {}
    for index, media in enumerate(inputs):
        path = kept / media.sha256
        if not _is_whole(path):
            raise InvalidRecipe(
                [
                    FieldProblem(
                        f"inputs.{index}",
                        f"the {media.role} picture {path} is {'changed' if path.exists() else 'gone'}",
                        "copy the original to that place; its name is its SHA-256",
                    )
                ]
            )
        pictures[media.role] = _flat(open_picture(path))
    return pictures


def _flat(picture: Image) -> Image:
    """Without transparency, which A1111 fills with white; what is hidden under it must not be painted in."""
    if picture.mode != "RGBA":
        return picture
    from PIL import Image as images

    ground = images.new("RGBA", picture.size, "white")
    return images.alpha_composite(ground, picture).convert("RGB")
