"""Signing in and out in a browser: a key becomes a cookie, and the page that says how to get in."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from bottega.api.access.accounts import THE_OWNER
from bottega.api.access.caller import Caller
from bottega.api.access.refusal import NotSignedIn

router = APIRouter(tags=["access"])

_TYPES = {"enter.css": "text/css; charset=utf-8", "enter.js": "text/javascript; charset=utf-8"}


class Key(BaseModel):
    """The key of a user."""

    model_config = ConfigDict(extra="forbid")
    key: str = Field(max_length=200)


@router.get("/enter", include_in_schema=False)
async def enter(request: Request) -> Response:
    """The page that tells how to get in."""
    return Response(request.app.state.access.page("unknown"), media_type="text/html")


@router.get("/enter/{name}", include_in_schema=False)
async def enter_file(request: Request, name: str) -> Response:
    """What that page is made of."""
    from bottega.api.access import PAGES

    if name not in _TYPES:
        return Response(status_code=404)
    headers = {"Cache-Control": "no-cache", "Content-Type": _TYPES[name]}
    return Response((PAGES / name).read_bytes(), headers=headers)


@router.get("/api/session")
async def session(request: Request) -> dict[str, Any]:
    """Who is signed in, if anybody: `name` and `scopes`, or nulls."""
    caller: Caller | None = request.scope.get("caller")
    return {"name": caller.name if caller else None, "scopes": sorted(caller.scopes) if caller else None}


@router.post("/api/session")
async def sign_in(request: Request, told: Key) -> Response:
    """Sign this browser in with a user's key: it gets a cookie."""
    access = request.app.state.access
    user = access.accounts.by_key(told.key)
    if user is None and access.is_machine(told.key):
        user = THE_OWNER
    if user is None:
        access.failures.add(request.client.host if request.client else "")
        raise NotSignedIn("this key is not known", "check it, or ask an admin for a new one")
    answer = JSONResponse({"name": user.name, "scopes": sorted(user.scopes)})
    answer.headers.append("set-cookie", access.set_cookie(access.accounts.open_session(user.name), _origin(request)))
    return answer


@router.delete("/api/session", status_code=204)
async def sign_out(request: Request) -> Response:
    """Sign this browser out."""
    access = request.app.state.access
    for name, value in request.cookies.items():
        if name == access.cookie:
            access.accounts.close_session(value)
    return Response(status_code=204, headers={"set-cookie": access.set_cookie("", _origin(request))})


def _origin(request: Request) -> str:
    return str(request.app.state.access.names.origin(request.headers.get("host"), request.scope.get("server")))
