"""Pictures to start from: taken in once, then named by the SHA-256 of their bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from pydantic import Field

from bottega.api.access import Caller, need
from bottega.api.access.limits import PICTURE_TYPES
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
    """No picture with these bytes was taken in from who asks."""

    exit_code = 2

    def __init__(self) -> None:
        super().__init__("no picture with these bytes was taken in", "POST it to /api/inputs")


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
)
async def take(
    request: Request,
    shop: Shop,
    aside: Aside,
    caller: Annotated[Caller, Depends(need("generate"))],
    upload: Annotated[str, Header(alias="X-Bottega-Upload", pattern="^1$", description="1: no form can send this")],
) -> InputTaken:
    """A PNG, JPEG or WebP of at most 32 MiB and 64 megapixels as the body; the same bytes always get the same name."""
    check_type(request)
    return await aside.draw(_take, shop, caller, await request.body())  # whose length the gate limits


def check_type(request: Request) -> None:
    """Raise Refusal (415) for a body that is said to be no picture that is read here."""
    if request.headers.get("content-type", "").split(";")[0].strip().lower() not in PICTURE_TYPES:
        raise Refusal(415, "this is no picture that is read here", f"send {', '.join(TYPES)}")


def _take(shop: Workshop, caller: Caller, content: bytes) -> InputTaken:
    try:
        kept = shop.keep_input(content, "init")
        told = media.read(shop.input_path(kept.sha256))
    except FileError as error:
        raise type(error)("the picture", error.what.partition(": ")[2] or error.what, error.remedy) from None
    shop.gallery.add_upload(kept.sha256, caller.name)
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
)
async def input(
    sha256: Sha256InPath,
    request: Request,
    shop: Shop,
    aside: Aside,
    caller: Annotated[Caller, Depends(need("read"))],
) -> Response:
    """The bytes as they were sent. Only who sent them, or has used them, may have them, and an admin."""
    path = await aside.look(path_of, shop, caller, sha256)
    known = unchanged(request, sha256)
    return known if known else await aside.draw(_input, path)


def path_of(shop: Workshop, caller: Caller, sha256: str) -> Path:
    """Where the picture with these bytes is, if the caller may have it; else it is unknown.

    Its hash stands in every output that was made from it, so knowing that is no right to it.
    """
    path, name = shop.input_path(sha256), caller.name
    if not path.is_file() or not (
        caller.admin or shop.gallery.has_picture(sha256, name) or shop.queue.starts_from(sha256, name)
    ):
        raise UnknownInput()
    return path


def _input(path: Path) -> Response:
    try:
        content, format = path.read_bytes(), media.read(path).format
    except (OSError, FileError):
        raise UnknownInput() from None
    return picture(content, format, path.name[:16], path.name, lasting=True)
