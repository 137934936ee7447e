"""What the answers and requests of the native API have in common: ids, pages, cursors, and how strictly it reads."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from bottega.errors import FieldProblem, InvalidRecipe

MOST = 500  # items of a list in one answer
MANY = 1000  # ids that one request may name

JobId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{6,128}$", description="opaque id of a job")]
OutputId = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{6,140}$", description="opaque id of an output")]
ModelId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$", description="opaque id of a model")]
DatasetId = Annotated[str, Field(pattern=r"^[0-9a-f]{20}$", description="opaque id of a dataset")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of a file's bytes")]
JobInPath = Annotated[str, PathParameter(pattern=r"^[0-9A-Za-z_-]{6,128}$", description="opaque id of a job")]
OutputInPath = Annotated[str, PathParameter(pattern=r"^[0-9A-Za-z_-]{6,140}$", description="opaque id of an output")]
ModelInPath = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{16}$", description="opaque id of a model")]
DatasetInPath = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{20}$", description="opaque id of a dataset")]
Sha256InPath = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the picture's bytes")]
Seconds = float  # unix seconds

Item = TypeVar("Item")


class Asked(BaseModel):
    """Something that a client sends; a field that nobody knows is refused, and no value is taken for another."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Wished(BaseModel):
    """The query of a request, which has nothing but texts: they may mean numbers and switches."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Told(BaseModel):
    """Something that the server answers."""

    model_config = ConfigDict(frozen=True)


class Listed(Told, Generic[Item]):
    """Some items of a list, the cursor with which the next ones are asked for (null after the last), and how many
    there are in all."""

    items: list[Item]
    next: str | None = None
    total: int


class Problem(Told):
    """What is wrong with one field of a request."""

    field: str
    what: str
    remedy: str = ""


class Wrong(Told):
    """What went wrong: its class, in words, and what to do about it; `id` is also in the server's log."""

    class_: str = Field(alias="class")
    what: str
    remedy: str = ""
    problems: list[Problem] = []
    id: str = ""


class ErrorAnswer(Told):
    """The answer to every request that could not be granted."""

    error: Wrong


def cursor(*place: Any) -> str:
    """A place in a list as a text that means nothing to anybody else."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode().rstrip("=")


def place_of(told: str, *types: type | tuple[type, ...]) -> list[Any]:
    """The place that `cursor` wrote, with values of these types; InvalidRecipe for what is none."""
    try:
        place = json.loads(base64.b64decode(told + "=" * (-len(told) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        place = None
    fits = isinstance(place, list) and len(place) == len(types)
    if not fits or not all(isinstance(value, wanted) for value, wanted in zip(place, types, strict=True)):
        raise InvalidRecipe([FieldProblem("after", "is no cursor of this list", "take `next` of the page before")])
    assert isinstance(place, list)
    return place
