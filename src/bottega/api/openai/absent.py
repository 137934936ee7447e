"""The rest of OpenAI's API: what this server has no model for yet says so, in the words of each craft."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException

from bottega.api.access.caller import Caller, need

router = APIRouter()

_NO_TEXT = "this server has no text model yet; it makes pictures, at /v1/images/generations"
_NO_SOUND = "this server has no audio model yet; it makes pictures, at /v1/images/generations"
_NO_VIDEO = "this server has no video model yet; it makes pictures, at /v1/images/generations"

Anybody = Annotated[Caller, Depends(need("read"))]


@router.post("/chat/completions")
@router.post("/completions")
@router.post("/responses")
@router.post("/embeddings")
@router.post("/moderations")
def text(caller: Anybody) -> None:
    """Text from text."""
    raise HTTPException(404, _NO_TEXT)


@router.post("/audio/speech")
@router.post("/audio/transcriptions")
@router.post("/audio/translations")
def sound(caller: Anybody) -> None:
    """Sound from text, and text from sound."""
    raise HTTPException(404, _NO_SOUND)


@router.get("/audio/models")
def sound_models(caller: Anybody) -> dict[str, list[str]]:
    """The models of sound: none."""
    return {"models": []}


@router.get("/audio/voices")
def voices(caller: Anybody) -> dict[str, list[str]]:
    """The voices: none."""
    return {"voices": []}


@router.get("/videos")
def made_videos(caller: Anybody) -> dict[str, object]:
    """The videos that were made: none."""
    return {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


@router.post("/videos")
def videos(caller: Anybody) -> None:
    """Videos from text."""
    raise HTTPException(404, _NO_VIDEO)
