"""The page: its shell, its rooms and its static files; everything that it shows comes through the public API."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from bottega.version import __version__

HERE = Path(__file__).parent
STATIC = HERE / "static"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# No dot but that of the ending, so no name leads out of the folder.
_NAME = re.compile(r"(?:[a-z0-9_-]+/)*[a-z0-9_-]+(?P<ending>\.[a-z0-9]+)")

router = APIRouter(include_in_schema=False)
_templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)


def rooms(static: Path = STATIC) -> list[str]:
    """The names of the rooms: one for each file in `rooms/`; putting one there is all it takes to add a room."""
    return sorted(path.stem for path in (static / "rooms").glob("*.js"))


def _files(ending: str) -> list[str]:
    """The static files with this ending, as the page names them."""
    return sorted(path.relative_to(STATIC).as_posix() for path in STATIC.rglob(f"*{ending}"))


@router.get("/")
def page() -> Response:
    """The shell, which is the same for every room: the page's own code puts the room into it."""
    styles = [name for name in _files(".css") if name != "page.css"]
    modules = [name for name in _files(".js") if name not in ("before.js", "frame.js")]
    shell = _templates.get_template("page.html")
    text = shell.render(rooms=rooms(), styles=styles, modules=modules, version=__version__)
    return Response(text, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"})


for _room in rooms():
    router.add_api_route(f"/{_room}", page, methods=["GET"])


@router.get("/static/{name:path}")
def static_file(name: str, request: Request) -> Response:
    """A style, module or drawing of the page, with an ETag by its content."""
    found = _NAME.fullmatch(name)
    kind = TYPES.get(found["ending"]) if found else None
    path = STATIC / name
    if kind is None or not path.is_file():
        raise HTTPException(404, f"the page has no file {name!r}")
    content = path.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)
