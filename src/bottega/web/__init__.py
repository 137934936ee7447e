"""The page: its shell, its rooms and its static files; everything that it shows comes through the public API."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import RedirectResponse
from starlette.types import Receive, Scope, Send

from bottega.gallery import GalleryError
from bottega.version import __version__
from bottega.web.joining import joined

if TYPE_CHECKING:
    from bottega.api.access.caller import Caller
    from bottega.gallery import Gallery

HERE = Path(__file__).parent
STATIC = HERE / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
STYLES = "all.css"  # every style in one answer
MODULES = "all.js"  # every module in one answer
FIRST = "make"  # the room that `/` opens
FOR_EVER = "private, max-age=31536000, immutable"
# No dot but that of the ending, so no name leads out of the folder.
_NAME = re.compile(r"(?:[a-z0-9_-]+/)*[a-z0-9_-]+(?P<ending>\.[a-z0-9]+)")
_EARLY = re.compile(r"^export const early = (\[[^\]]*\]);", re.MULTILINE)

router = APIRouter(include_in_schema=False)
_templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)


def rooms(static: Path = STATIC) -> list[str]:
    """The names of the rooms: one for each file in `rooms/`; putting one there is all it takes to add a room."""
    return sorted(path.stem for path in (static / "rooms").glob("*.js"))


@lru_cache(maxsize=64)
def early(room: str, files: str) -> list[str]:
    """What the frame and a room say that they ask the API for first, so that it is under way before they are there."""
    found = (_EARLY.search(_content(name).decode()) for name in ("frame.js", f"rooms/{room}.js"))
    return [address for told in found if told for address in json.loads(told[1])]


def version() -> str:
    """What tells these files from all others: part of their addresses, so that browsers keep them for ever."""
    return _digest(tuple(sorted((name, status.st_mtime_ns, status.st_size) for name, status in _all().items())))


@lru_cache(maxsize=4)
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    return hashlib.blake2b(repr((__version__, stamps)).encode(), digest_size=6).hexdigest()


async def page(request: Request) -> Response:
    """The shell, which differs from room to room only in what is fetched first."""
    room = request.url.path.strip("/") or FIRST
    if request.url.query:  # something else may be asked for first where the address says more
        return _shell(200, [])
    return _shell(200, early(room, version()), await _first_picture(request) if room == FIRST else "")


async def _first_picture(request: Request) -> str:
    """The address of what the room Make will show first, most likely: the caller's newest output, small."""
    caller: Caller | None = request.scope.get("caller")
    if caller is None or not caller.may("read"):
        return ""
    gallery: Gallery = request.app.state.workshop.gallery
    try:
        newest = await asyncio.to_thread(gallery.newest, None if caller.admin else caller.name)
    except GalleryError:  # the room says what is wrong with it, and the others work
        return ""
    return f"/api/outputs/{newest.id}/thumbnail?size=256" if newest else ""


def _shell(status: int, asked: list[str], picture: str = "") -> Response:
    template = _templates.get_template("page.html")
    text = template.render(files=version(), version=__version__, early=asked, picture=picture)
    return Response(text, status, {"Cache-Control": "no-cache"}, "text/html; charset=utf-8")


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer for an address of the page where nothing is: who typed it with a slash at the end comes to the room."""
    request = Request(scope)
    if request.method != "GET" or "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    room = request.url.path.strip("/")
    if room in rooms():
        address = f"/{room}?{request.url.query}" if request.url.query else f"/{room}"
        await RedirectResponse(address, 308)(scope, receive, send)
    else:
        await _shell(404, [])(scope, receive, send)


@router.get("/static/{name:path}")
async def static_file(name: str, request: Request) -> Response:
    """A style, module or drawing of the page; under the address of its version it may be kept for ever."""
    told, _, rest = name.partition("/")
    lasting = told == (files := version())
    name = rest if re.fullmatch(r"[0-9a-f]{12}", told) else name
    found = _NAME.fullmatch(name)
    kind = TYPES.get(found["ending"]) if found else None
    if kind is None or (name not in (STYLES, MODULES) and not (STATIC / name).is_file()):
        raise HTTPException(404, f"the page has no file {name!r}")
    content = _styles(files) if name == STYLES else _modules(files) if name == MODULES else _content(name)
    etag = _etag(content)
    headers = {"ETag": etag, "Cache-Control": FOR_EVER if lasting else "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _all(place: str = "") -> dict[str, os.stat_result]:
    """Every static file by its name; not by `rglob`, which takes six times as long, for each file that is asked for."""
    found: dict[str, os.stat_result] = {}
    with os.scandir(STATIC / place) as entries:
        for entry in entries:
            if entry.is_dir():
                found |= _all(f"{place}{entry.name}/")
            elif os.path.splitext(entry.name)[1] in TYPES:
                found[f"{place}{entry.name}"] = entry.stat()
    return found


@lru_cache(maxsize=64)
def _etag(content: bytes) -> str:
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'


@lru_cache(maxsize=4)
def _styles(files: str) -> bytes:
    """All styles of these `files` (a version) as one, the page's own first."""
    others = sorted(name for name in _all() if name.endswith(".css") and name != "page.css")
    return b"\n".join(_content(name) for name in ("page.css", *others))


@lru_cache(maxsize=4)
def _modules(files: str) -> bytes:
    """All modules of these `files` as one, the frame's last."""
    return joined("frame.js", lambda name: _list_of_rooms() if name == "rooms.js" else _content(name).decode()).encode()


def _list_of_rooms() -> str:
    """The module that knows every room, whatever rooms there are."""
    found = {f"room{number}": room for number, room in enumerate(rooms())}
    imports = [f'import {{ default as {own} }} from "./rooms/{room}.js";\n' for own, room in found.items()]
    return "".join(imports) + f"export const rooms = [{', '.join(found)}];\n"


def _content(name: str) -> bytes:
    status = (STATIC / name).stat()
    return _read(name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read(name: str, changed: int, size: int) -> bytes:
    """The bytes of a file, kept until it changes."""
    return (STATIC / name).read_bytes()


router.add_api_route("/", page, methods=["GET"])
for _room in rooms():
    router.add_api_route(f"/{_room}", page, methods=["GET"])
routes = router.routes
