"""The pictures of a form: what is to be edited and where, or what is to be varied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bottega.api.embedded import Picture, picture_of
from bottega.engine.foreign import told_by
from bottega.errors import BottegaError, FieldProblem, InvalidRecipe
from bottega.formats import media
from bottega.recipe import Media, read_recipe
from bottega.workshop import Workshop

if TYPE_CHECKING:
    from PIL.Image import Image

_OPAQUE = 128  # alpha from which on a part of a mask is kept


@dataclass(frozen=True)
class Said:
    """What a picture says that it shows."""

    prompt: str = ""
    negative: str = ""


def to_edit(pictures: Mapping[str, Sequence[bytes]], workshop: Workshop) -> tuple[Media, ...]:
    """The picture to start from, and the mask where there is one; both are kept in the home.

    OpenAI marks what is to be made anew by transparency, in the mask or in the picture itself.
    """
    image, given = _one(pictures), pictures.get("mask")
    with (picture_of(given[0], "mask") if given else image).opened() as marked:
        hole = _hole(marked)
    if given and hole is None:
        raise _problem("mask", "is nowhere transparent", "make transparent what is to be made anew")
    init = image.keep(workshop, "init")
    return (init,) if hole is None else (init, workshop.keep_input(hole, "mask"))


def to_vary(pictures: Mapping[str, Sequence[bytes]], workshop: Workshop) -> tuple[tuple[Media, ...], Said]:
    """The picture to start from, kept in the home, and what it carries of how it was made."""
    image = _one(pictures)
    return (image.keep(workshop, "init"),), _said(image)


def _one(pictures: Mapping[str, Sequence[bytes]]) -> Picture:
    given = pictures.get("image", ())
    if not given:
        raise _problem("image", "is missing", "send one as a file")
    if len(given) > 1:
        raise _problem("image", f"{len(given)} pictures were given", "this version starts from one")
    return picture_of(given[0], "image")


def _hole(picture: Image) -> bytes | None:
    """A mask of ours, white where the picture is transparent; None where it is so nowhere."""
    if picture.mode != "RGBA":
        return None
    hole = picture.getchannel("A").point(lambda alpha: 0 if alpha >= _OPAQUE else 255)
    return media.encode(hole, "png") if hole.getextrema()[1] else None


def _said(picture: Picture) -> Said:
    carried = picture.carried
    try:
        if carried.recipe is not None:
            recipe = read_recipe(carried.recipe)
            return Said(recipe.prompt, recipe.negative)
    except BottegaError:
        return Said()  # another's recipe, or a later version's: the request may still say what it shows
    told = told_by(carried)
    return Said(told.prompt, told.negative) if told else Said()


def _problem(field: str, what: str, remedy: str) -> InvalidRecipe:
    return InvalidRecipe([FieldProblem(field, what, remedy)])
