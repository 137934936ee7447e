"""Pictures that leave the server: files as they are with headers that keep them pictures, and previews drawn anew."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

from fastapi import Request, Response

from bottega.errors import BottegaError, FileError
from bottega.formats.media import thumbnail
from bottega.library import Entry

TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
MAX_PREVIEW = 32 << 20  # bytes of a picture beside a model that is looked at
SHOWN = (".png", ".jpg", ".jpeg", ".webp")  # of the formats of previews, those that are read here
# Nothing in a user's file may act in the page's name, whatever a browser takes it for.
SEALED = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
FOR_EVER = "private, max-age=31536000, immutable"


class UnknownPreview(BottegaError):
    """There is no picture of this that could be shown."""

    exit_code = 2


def picture(content: bytes, format: str, name: str, tag: str, *, lasting: bool) -> Response:
    """A picture as the answer to a request; what has another format than a browser shows as a picture is downloaded."""
    shown = format in TYPES
    headers = {
        **SEALED,
        "ETag": f'"{tag}"',
        "Cache-Control": FOR_EVER if lasting else "private, no-cache",
        "Content-Disposition": f'{"inline" if shown else "attachment"}; filename="{name}{SUFFIX.get(format, "")}"',
    }
    return Response(content, media_type=TYPES.get(format, "application/octet-stream"), headers=headers)


def unchanged(request: Request, tag: str) -> Response | None:
    """The answer to somebody who has this content already, else None."""
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if f'"{tag}"' in known or known == ["*"]:
        return Response(status_code=304, headers={"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"})
    return None


def preview_of(entry: Entry) -> Path | None:
    """The picture beside a model, if it is one that is shown: no link may lead away from the model's shelf."""
    if not entry.about.preview:
        return None
    path = Path(entry.about.preview)
    if path.suffix.lower() not in SHOWN:
        return None
    if path.is_symlink():
        shelf = entry.shelf or entry.path.parent
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(shelf)):
            return None
    return path


def drawn_preview(entry: Entry, size: int, folder: Path) -> tuple[str, bytes]:
    """The picture beside a model as a WebP of at most `size` pixels a side, and a tag that changes when it does.

    It is kept in `folder` until the picture changes. Raises UnknownPreview for a model that has none, and for a file
    that is no picture, or one that is too large to look at.
    """
    path = preview_of(entry)
    tag = preview_tag(entry, size)
    if path is None or tag is None:
        raise UnknownPreview("this model has no picture beside it", "put one there under its name, as a .png")
    kept = folder / tag[:2] / f"{tag}.webp"
    try:
        return tag, kept.read_bytes()
    except OSError:
        pass
    try:
        content = drawn(path, size)
    except FileError:
        raise UnknownPreview("the file beside this model is no picture that can be shown") from None
    keep(kept, content)
    return tag, content


def preview_tag(entry: Entry, size: int) -> str | None:
    """What tells the picture beside a model, at a size, from all others; None if there is none."""
    path = preview_of(entry)
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    if path is None or status is None or status.st_size > MAX_PREVIEW:
        return None
    told = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{size}".encode(errors="surrogateescape")
    return hashlib.blake2b(told, digest_size=16).hexdigest()


def drawn(path: Path, size: int) -> bytes:
    """A picture as a WebP whose sides have at most `size` pixels; FileError for what is none."""
    target = io.BytesIO()
    thumbnail(path, size).save(target, "webp", quality=82, method=2)
    return target.getvalue()


def keep(path: Path, content: bytes) -> None:
    """Keep something that can be made again, if the disk takes it."""
    from bottega.engine.save import write_whole
    from bottega.errors import SaveError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except (OSError, SaveError):
        pass  # it will be made again
