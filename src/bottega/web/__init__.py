"""The page: its shell, its rooms and its static files; everything that it shows comes through the public API."""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath

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
STYLES = "all.css"  # every style in one answer
FIRST = "make"  # the room that `/` opens
FOR_EVER = "private, max-age=31536000, immutable"
# No dot but that of the ending, so no name leads out of the folder.
_NAME = re.compile(r"(?:[a-z0-9_-]+/)*[a-z0-9_-]+(?P<ending>\.[a-z0-9]+)")
_IMPORT = re.compile(r'^import\s(?:[^"]*?\sfrom\s)?"(\.[^"]+)";', re.MULTILINE)
_EARLY = re.compile(r"^export const early = (\[[^\]]*\]);", re.MULTILINE)
_SIGN = re.compile(r"^export const sign = (\{[^}]*\});", re.MULTILINE)

router = APIRouter(include_in_schema=False)
_told: set[str] = set()  # the versions that this process has named; each was that of the files at its time
_templates = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)


def rooms(static: Path = STATIC) -> dict[str, dict[str, str]]:
    """The rooms in the order of the bar, and their names there by language: one for each file in `rooms/`.

    Putting a file there that says its `sign` is all it takes to add a room.
    """
    told = {path.stem: _content(f"rooms/{path.name}", static).decode() for path in static.glob("rooms/*.js")}
    signs = {room: json.loads(found[1]) for room, text in told.items() if (found := _SIGN.search(text))}
    return {room: signs[room] for room in sorted(signs, key=lambda room: signs[room].pop("order"))}


@lru_cache(maxsize=64)
def modules(room: str, files: str) -> list[str]:
    """The modules that it takes to show a room, of these `files` (a version), as the page names them."""
    wanted = ["frame.js", f"rooms/{room}.js"]
    for name in wanted:  # grows while it is walked
        for told in _IMPORT.findall(_content(name).decode()):
            other = _joined(PurePosixPath(name).parent, told)
            if other not in wanted:
                wanted.append(other)
    return wanted


@lru_cache(maxsize=64)
def early(room: str, files: str) -> list[str]:
    """What the frame and a room say that they ask the API for first, so that it is under way before they are there."""
    found = (_EARLY.search(_content(name).decode()) for name in ("frame.js", f"rooms/{room}.js"))
    return [address for told in found if told for address in json.loads(told[1])]


def version() -> str:
    """What tells these files from all others: part of their addresses, so that browsers keep them for ever."""
    stamps = sorted((name, path.stat().st_mtime_ns, path.stat().st_size) for name, path in _all().items())
    _told.add(now := hashlib.blake2b(repr((__version__, stamps)).encode(), digest_size=6).hexdigest())
    return now


async def page(request: Request) -> Response:
    """The shell, which differs from room to room only in what is fetched first."""
    room = request.url.path.strip("/") or FIRST
    shell = _templates.get_template("page.html")
    files = version()
    # Something else may be asked for first where the address says more.
    asked = [] if request.url.query else early(room, files)
    first = {"early": asked, "modules": modules(room, files)}
    text = shell.render(rooms=json.dumps(rooms(), ensure_ascii=False), files=files, version=__version__, **first)
    return Response(text, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"})


@router.get("/static/{name:path}")
async def static_file(name: str, request: Request) -> Response:
    """A style, module or drawing of the page; under the address of its version it may be kept for ever."""
    told, _, rest = name.partition("/")
    lasting = told in _told
    name = rest if re.fullmatch(r"[0-9a-f]{12}", told) else name
    found = _NAME.fullmatch(name)
    kind = TYPES.get(found["ending"]) if found else None
    if kind is None or (name != STYLES and not (STATIC / name).is_file()):
        raise HTTPException(404, f"the page has no file {name!r}")
    content = _styles() if name == STYLES else _content(name)
    etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": FOR_EVER if lasting else "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=kind, headers=headers)


def _all() -> dict[str, Path]:
    """Every static file by its name."""
    return {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*.*") if path.suffix in TYPES}


def _styles() -> bytes:
    """All styles as one, the page's own first."""
    others = sorted(name for name in _all() if name.endswith(".css") and name != "page.css")
    return b"\n".join(_content(name) for name in ("page.css", *others))


def _content(name: str, static: Path = STATIC) -> bytes:
    status = (static / name).stat()
    return _read(static / name, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=512)
def _read(path: Path, changed: int, size: int) -> bytes:
    """The bytes of a file, kept until it changes."""
    return path.read_bytes()


def _joined(folder: PurePosixPath, told: str) -> str:
    """`../dom.js` in `parts` as `dom.js`."""
    parts: list[str] = list(folder.parts)
    for part in PurePosixPath(told).parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


router.add_api_route("/", page, methods=["GET"])
for _room in rooms():
    router.add_api_route(f"/{_room}", page, methods=["GET"])
