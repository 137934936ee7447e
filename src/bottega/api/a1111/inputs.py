"""The pictures of an img2img request: taken in, and fitted to the size that is made as A1111 would."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from bottega.api.a1111.asked import ImageToImage
from bottega.api.a1111.translate import Inputs
from bottega.api.caps import MOST_PIXELS
from bottega.api.embedded import Picture, picture_from
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.formats import media
from bottega.workshop import Workshop

if TYPE_CHECKING:
    from PIL.Image import Image

JUST_RESIZE, CROP_AND_RESIZE, RESIZE_AND_FILL = range(3)


def take_inputs(asked: ImageToImage, workshop: Workshop) -> Inputs:
    """The picture to start from and the mask, kept in the home; blocks while an address is fetched.

    Raises InvalidRecipe for more than one picture and for what this version can't do with one, and what is wrong with
    a picture itself.
    """
    assert asked.init_images
    if len(asked.init_images) > 1:
        raise _problem("init_images", f"{len(asked.init_images)} pictures were given", "send one at a time")
    mode = asked.resize_mode or JUST_RESIZE
    if mode not in (JUST_RESIZE, CROP_AND_RESIZE, RESIZE_AND_FILL):
        raise _problem("resize_mode", f"this version knows no mode {mode}", "use 0, 1 or 2")
    init = picture_from(asked.init_images[0], "init_images", workshop.settings)
    mask = picture_from(asked.mask, "mask", workshop.settings) if asked.mask else None
    size = (asked.width or 0) // 8 * 8, (asked.height or 0) // 8 * 8
    # A size that is left out, or refused later on, is no reason to touch the picture.
    fits = mode == JUST_RESIZE or not _is_allowed(size) or size[0] * init.size[1] == size[1] * init.size[0]
    if not fits:
        with init.opened() as picture:
            init = Picture(_png(_fitted(picture, size, mode)), init.field)
    if mask:
        mask = _plain(mask, asked, None if fits else size, mode)
    return Inputs(init.keep(workshop, "init"), init.size, mask.keep(workshop, "mask") if mask else None)


def _is_allowed(size: tuple[int, int]) -> bool:
    return min(size) > 0 and size[0] * size[1] <= MOST_PIXELS


def _plain(mask: Picture, asked: ImageToImage, size: tuple[int, int] | None, mode: int) -> Picture:
    """The mask in which white is made anew; the mask itself where it says so already."""
    with mask.opened() as picture:
        alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
        transparent = alpha is not None and alpha.getextrema() != (255, 255)
        if not transparent and not asked.inpainting_mask_invert and size is None:
            return mask
        # A mask that was painted on a transparent ground is meant by where there is paint, whatever its colour.
        grey = alpha.point(lambda value: 255 if value > 128 else 0) if alpha and transparent else picture.convert("L")
        if asked.inpainting_mask_invert:
            grey = grey.point(lambda value: 255 - value)
        return Picture(_png(grey if size is None else _fitted(grey, size, mode)), mask.field)


def _fitted(picture: Image, size: tuple[int, int], mode: int) -> Image:
    """The picture at another shape: its middle, or all of it with its edges drawn out to the sides."""
    from PIL import Image as images
    from PIL import ImageOps

    if mode == CROP_AND_RESIZE:
        return ImageOps.fit(picture, size, images.Resampling.LANCZOS)
    inner = ImageOps.contain(picture, size, images.Resampling.LANCZOS)
    left, top = (size[0] - inner.width) // 2, (size[1] - inner.height) // 2
    # One of the two is 0; the edge's pixels fill what is beyond it.
    whole = images.new(inner.mode, size)
    right, bottom = left + inner.width, top + inner.height
    whole.paste(inner, (left, top))
    for edge, place in (
        ((0, 0, 1, inner.height), (0, top, left, bottom)),
        ((inner.width - 1, 0, inner.width, inner.height), (right, top, size[0], bottom)),
        ((0, 0, inner.width, 1), (left, 0, right, top)),
        ((0, inner.height - 1, inner.width, inner.height), (left, bottom, right, size[1])),
    ):
        if place[0] < place[2] and place[1] < place[3]:
            whole.paste(inner.crop(edge).resize((place[2] - place[0], place[3] - place[1])), place)
    return whole


def _png(picture: Image) -> bytes:
    if picture.mode in ("RGB", "RGBA"):
        return media.encode(picture, "png")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _problem(field: str, what: str, remedy: str) -> InvalidRecipe:
    return InvalidRecipe([FieldProblem(field, what, remedy)])
