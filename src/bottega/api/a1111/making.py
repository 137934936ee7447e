"""/sdapi/v1: making pictures, watching it, and stopping it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from bottega.api.a1111 import answer
from bottega.api.a1111.asked import ImageToImage, TextToImage
from bottega.api.a1111.door import Door, door_of
from bottega.api.a1111.inputs import take_inputs
from bottega.api.a1111.translate import from_picture, from_text
from bottega.api.access.caller import Caller, need
from bottega.api.native.inside import Aside

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"])

Maker = Annotated[Caller, Depends(need("generate"))]
Reader = Annotated[Caller, Depends(need("read"))]
A1111 = Annotated[Door, Depends(door_of)]


@router.post("/txt2img")
async def txt2img(asked: TextToImage, request: Request, door: A1111, caller: Maker) -> Response:
    """Pictures from words."""
    translated = await asyncio.to_thread(from_text, asked, door.chosen.of(caller.name), door.find)
    return await door.make(asked, translated, caller.name, request)


@router.post("/img2img")
async def img2img(asked: ImageToImage, request: Request, door: A1111, aside: Aside, caller: Maker) -> Response:
    """Pictures from a picture and words, in the whole of it or where a mask is white."""
    if not asked.init_images:
        raise HTTPException(404, "Init image not found")
    inputs = await aside.take(take_inputs, asked, door.workshop)
    translated = await asyncio.to_thread(from_picture, asked, door.chosen.of(caller.name), door.find, inputs)
    return await door.make(asked, translated, caller.name, request)


@router.get("/progress")
def progress(door: A1111, caller: Reader, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the caller's job is."""
    job = next(iter(door.open_jobs(caller.name)), None)
    preview = door.workshop.preview(job.id) if job and not skip_current_image else None
    return answer.progress(door.going(job) if job else None, time.time(), preview)


@router.post("/interrupt")
def interrupt(door: A1111, caller: Maker) -> dict[str, Any]:
    """Stop what is being made for the caller's clients; nobody else's."""
    door.interrupt(caller.name)
    return {}


@router.post("/skip")
def skip(door: A1111, caller: Maker) -> dict[str, Any]:
    """Give up the picture that is being made, and go on with the next one."""
    door.skip(caller.name)
    return {}
