"""Pictures to start from: taken in once, then named by the SHA-256 of their bytes."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from pydantic import Field

from bottega.api.access import need
from bottega.api.access.refusal import Refusal
from bottega.api.native.inside import Aside, Shop
from bottega.api.native.pictures import picture, unchanged
from bottega.api.native.shapes import ErrorAnswer, Sha256, Sha256InPath, Told
from bottega.api.native.subject import subject
from bottega.errors import BottegaError, FileError, InvalidRecipe
from bottega.formats import media
from bottega.workshop import Workshop

router = subject("inputs", "/inputs")

TYPES = ("image/png", "image/jpeg", "image/webp")
PICTURE_BODY = {
    "content": {type: {"schema": {"type": "string", "format": "binary"}} for type in TYPES},
    "required": True,
}


class UnknownInput(BottegaError):
    """No picture with these bytes was taken in."""

    exit_code = 2


class InputTaken(Told):
    """A picture that recipes may name from now on, and what its file tells of how it was made."""

    sha256: Sha256
    width: int
    height: int
    recipe: dict[str, Any] | None = Field(
        description="as a draft that can be submitted: ours, or what another program's words mean; null if it has none"
    )
    refused: str | None = Field(description="why what it says of how it was made is no such draft; else null")
    parameters: str | None = Field(description="A1111's text; null if it has none")
    too_long: list[str] = Field(description="names of texts of more than 1 MiB, which are not read")


@router.post(
    "",
    summary="Take a picture in",
    openapi_extra={"requestBody": PICTURE_BODY},
    responses={413: {"model": ErrorAnswer}, 415: {"model": ErrorAnswer}},
    dependencies=[Depends(need("generate"))],
)
async def take(
    request: Request,
    shop: Shop,
    aside: Aside,
    upload: Annotated[str, Header(alias="X-Bottega-Upload", pattern="^1$", description="1: no form can send this")],
) -> InputTaken:
    """A PNG, JPEG or WebP of at most 32 MiB and 64 megapixels as the body; the same bytes always get the same name."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() not in TYPES:
        raise Refusal(415, "this is no picture that is read here", f"send {', '.join(TYPES)}")
    return await aside.draw(_take, shop, await request.body())  # whose length the gate limits


def _take(shop: Workshop, content: bytes) -> InputTaken:
    try:
        kept = shop.keep_input(content, "init")
        told = media.read(shop.input_path(kept.sha256))
    except FileError as error:
        raise type(error)("the picture", error.what.partition(": ")[2] or error.what, error.remedy) from None
    draft, refused = _draft(told)
    return InputTaken(
        sha256=kept.sha256,
        width=told.width,
        height=told.height,
        recipe=draft,
        refused=refused,
        parameters=told.parameters,
        too_long=list(told.too_long),
    )


def _draft(carried: media.Carried) -> tuple[dict[str, Any] | None, str | None]:
    """The recipe that a picture carries: ours, else what another program says, or why this version can't make that."""
    from bottega.engine.a1111 import draft_of
    from bottega.engine.foreign import told_by
    from bottega.recipe import read_recipe

    try:
        if carried.recipe:
            draft = read_recipe(carried.recipe)
        elif told := told_by(carried):
            draft = draft_of(told)
        else:
            return None, None
    except InvalidRecipe as error:
        return None, "; ".join(map(str, error.problems))
    return draft.model_dump(mode="json", exclude_none=True, exclude={"made"}), None


@router.get(
    "/{sha256}",
    summary="A picture that was taken in",
    response_class=Response,
    responses={200: {"content": {type: {} for type in TYPES}, "description": "the picture, as it was sent"}},
    dependencies=[Depends(need("read"))],
)
async def input(sha256: Sha256InPath, request: Request, shop: Shop, aside: Aside) -> Response:
    """The bytes as they were sent. Who knows them, or their hash, may have them."""
    known = unchanged(request, sha256)
    return known if known else await aside.draw(_input, shop, sha256)


def _input(shop: Workshop, sha256: str) -> Response:
    path = shop.input_path(sha256)
    try:
        content, format = path.read_bytes(), media.read(path).format
    except (OSError, FileError):
        raise UnknownInput("no picture with these bytes was taken in", "POST it to /api/inputs") from None
    return picture(content, format, sha256[:16], sha256, lasting=True)
