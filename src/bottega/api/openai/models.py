"""/v1/models: the models that can be asked for."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from bottega.api.access.caller import Caller, need
from bottega.api.models import PICTURES, ids, running
from bottega.api.openai.door import Door, door_of
from bottega.errors import UnknownModel
from bottega.library.entry import Entry

router = APIRouter()

Reader = Annotated[Caller, Depends(need("read"))]
OpenAI = Annotated[Door, Depends(door_of)]


@router.get("/models")
def models(door: OpenAI, caller: Reader) -> dict[str, Any]:
    """Every model that makes something here, loaded or not."""
    known = ids(door.workshop.catalog, running(door.workshop, *PICTURES))
    return {"object": "list", "data": [_told(id, entry) for id, entry in known.items()]}


@router.get("/models/{id:path}")
def model(id: str, door: OpenAI, caller: Reader) -> dict[str, Any]:
    """One of them."""
    known = ids(door.workshop.catalog, running(door.workshop, *PICTURES))
    if id not in known:
        raise UnknownModel(id)
    return _told(id, known[id])


def _told(id: str, entry: Entry) -> dict[str, Any]:
    return {
        "id": id,
        "object": "model",
        "created": entry.stamp.mtime_ns // 10**9,
        "owned_by": entry.about.author or "local",
    }
