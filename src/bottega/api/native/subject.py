"""A subject of the native API: a router whose routes lie below `/api`, with the answers that any of them may give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, params

from bottega.api.given import Route
from bottega.api.native.shapes import ErrorAnswer

_WRONG: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "the request can't be read",
        401: "it is not known who asks",
        403: "the caller may not do this",
        404: "there is no such thing, or it is somebody else's",
        422: "something in the request is wrong: `problems` names every field",
        429: "too much is asked for: Retry-After says how long to wait",
        503: "the server is stopping, or can't do this now",
        507: "the server's disk or memory is full",
    }.items()
}


def subject(tag: str, prefix: str = "", dependencies: Sequence[params.Depends] = ()) -> APIRouter:
    """A router for what is under this heading in the description, below `/api` and the prefix."""
    wanted = list(dependencies)
    return APIRouter(prefix=f"/api{prefix}", tags=[tag], dependencies=wanted, responses=_WRONG, route_class=Route)
