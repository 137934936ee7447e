"""/v1/images: pictures from words, from pictures, and in parts of pictures; at once or as they become."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from bottega.api.access.caller import Caller, need
from bottega.api.native.inside import Aside
from bottega.api.openai import inputs
from bottega.api.openai.asked import Making
from bottega.api.openai.door import Door
from bottega.api.openai.models import OpenAI
from bottega.api.openai.stream import stream
from bottega.api.openai.translate import draft
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.gallery import Output, UnknownOutput
from bottega.recipe import Media

router = APIRouter(prefix="/images")

Maker = Annotated[Caller, Depends(need("generate"))]
Viewer = Annotated[Caller, Depends(need("read"))]
MOST_PICTURES = 17  # 16 that OpenAI takes for an edit, and the mask

_FILE = {"type": "string", "format": "binary"}
_FORM: Any = {
    "requestBody": {
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _FILE, "mask": _FILE, **Making.model_json_schema()["properties"]},
                }
            }
        },
        "required": True,
    }
}


@router.post("/generations")
async def generations(asked: Making, request: Request, door: OpenAI, caller: Maker) -> Response:
    """Pictures from words."""
    return await _made(asked, (), "image_generation", request, door, caller)


@router.post("/edits", openapi_extra=_FORM)
async def edits(request: Request, door: OpenAI, aside: Aside, caller: Maker) -> Response:
    """Pictures from a picture and words; with a mask, or a picture that is transparent in parts, only there."""
    asked, pictures = await _form(request)
    taken = await aside.take(inputs.to_edit, pictures, door.workshop)
    return await _made(asked, taken, "image_edit", request, door, caller)


@router.post("/variations", openapi_extra=_FORM)
async def variations(request: Request, door: OpenAI, aside: Aside, caller: Maker) -> Response:
    """Pictures like a picture. What it shows is taken from its own recipe where the request does not say it; a picture
    without one is varied without words."""
    asked, pictures = await _form(request)
    taken, said = await aside.take(inputs.to_vary, pictures, door.workshop)
    if asked.prompt is None:
        asked = asked.model_copy(update={"prompt": said.prompt, "negative_prompt": said.negative})
    return await _made(asked, taken, "image_generation", request, door, caller)


@router.get("/files/{id}")
def file(id: str, door: OpenAI, caller: Viewer) -> Response:
    """A picture that an answer gave the address of."""
    output = door.workshop.gallery.output(id)
    if not caller.sees(output.owner) or output.deleted or output.missing:
        raise UnknownOutput(id)
    return Response(output.content(), media_type=f"image/{output.format}")


async def _made(
    asked: Making, taken: Sequence[Media], kind: str, request: Request, door: Door, caller: Caller
) -> Response:
    recipe = await asyncio.to_thread(draft, asked, door.find, taken)
    job = await door.submit(recipe, caller.name, request)
    if asked.stream:
        return stream(door, job, asked, kind, request)
    job = await door.waiting.finished(job.id, request)
    outputs = await door.outputs(job)
    return JSONResponse(await asyncio.to_thread(_answer, asked, outputs, request), headers={"X-Job-Id": job.id})


def _answer(asked: Making, outputs: Sequence[Output], request: Request) -> dict[str, Any]:
    first = outputs[0]
    return {
        "created": int(time.time()),
        "data": [_told(asked, output, request) for output in outputs],
        "background": "opaque",
        "output_format": first.format,
        "quality": asked.quality if asked.quality in ("low", "medium", "high") else "high",
        "size": f"{first.width}x{first.height}",
    }


def _told(asked: Making, output: Output, request: Request) -> dict[str, Any]:
    """A picture as it was asked for; to who did not say how, its address and its bytes: some clients look for the one,
    some for the other."""
    told: dict[str, Any] = {"revised_prompt": output.prompt}
    if asked.response_format != "url":
        told["b64_json"] = base64.b64encode(output.content()).decode("ascii")
    if asked.response_format != "b64_json":
        told["url"] = f"{request.base_url}v1/images/files/{output.id}"
    return told


async def _form(request: Request) -> tuple[Making, Mapping[str, list[bytes]]]:
    """The fields and the pictures of a form; `image` and `image[]` are one."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise InvalidRecipe([FieldProblem("image", "is missing", "send a form (multipart/form-data) with a file")])
    async with request.form(max_files=MOST_PICTURES, max_fields=64) as form:
        fields: dict[str, Any] = {}
        pictures: dict[str, list[bytes]] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                pictures.setdefault(name.removesuffix("[]"), []).append(await value.read())
            elif not name.endswith("[]"):
                fields[name] = value
    try:
        return Making.model_validate(fields), pictures
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None
