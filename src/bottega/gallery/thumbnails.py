"""Small pictures of outputs, made when they are asked for and kept by the hash of what they show."""

from __future__ import annotations

import io
import os
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bottega.errors import FileError, SaveError
from bottega.formats import media
from bottega.formats.atomic import atomic

SIZES = (128, 256, 384, 512)  # pixels of the longer side
MOST_BYTES = 512 << 20  # that all of them may take: some 60,000 of 256 pixels
_ROOM = 0.9  # of that is left full when it has to be made
_QUALITY = 82
_TOUCHED_AFTER = 3600.0  # seconds after which a thumbnail that is shown is noted as used


class Thumbnails:
    """The thumbnails in a folder; safe to share between threads.

    Once `tidy` was called they take no more than `most_bytes`; before that nobody knows how many there are.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder
        self._most_bytes = most_bytes
        self._counting = threading.Lock()
        self._bytes: int | None = None  # of all of them, once they were counted

    def of(self, picture: Path, key: str, size: int, check: Callable[[], None] = lambda: None) -> bytes:
        """The WebP of a picture, not larger than the next of SIZES from `size` on; `key` is what names its bytes.

        `check` is asked before it is made, and raises for a picture that is not to be shown. Raises FileError for one
        that is gone, damaged or too large.
        """
        kept = self.kept(key, size)
        if kept is not None:
            return kept
        check()
        content = _small(picture, _side(size))
        self._keep(self._place(key, size), content)
        return content

    def kept(self, key: str, size: int) -> bytes | None:
        """The WebP of the picture whose bytes `key` names, if it was made before."""
        path = self._place(key, size)
        with suppress(OSError):
            content = path.read_bytes()
            if time.time() - path.stat().st_mtime > _TOUCHED_AFTER:
                os.utime(path)
            return content
        return None

    def _place(self, key: str, size: int) -> Path:
        return self.folder / key[:2] / f"{key}-{_side(size)}.webp"

    def forget(self, key: str) -> None:
        """Remove the thumbnails of these bytes."""
        for size in SIZES:
            with suppress(OSError):
                (self.folder / key[:2] / f"{key}-{size}.webp").unlink()

    def _keep(self, path: Path, content: bytes) -> None:
        """Keep a thumbnail where that can be done: it can be made again."""
        with suppress(OSError, SaveError):
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write(content)
        with self._counting:
            if self._bytes is None:
                return
            self._bytes += len(content)
            full = self._bytes > self._most_bytes
        if full:
            self.tidy()

    def tidy(self) -> None:
        """Count them all, and where they take too much remove those that were not shown for longest.

        Takes some time where there are many; thumbnails are made and shown meanwhile.
        """
        kept = sorted(self._kept())
        total = sum(size for _, size, _ in kept)
        if total > self._most_bytes:
            for _, size, path in kept:
                if total <= self._most_bytes * _ROOM:
                    break
                with suppress(OSError):
                    path.unlink()
                    total -= size
        with self._counting:
            self._bytes = total

    def _kept(self) -> list[tuple[float, int, Path]]:
        """When each was last known to be shown, its bytes, and where it is; only files of our own making."""
        kept = []
        for path in self.folder.glob("??/*.webp"):
            if re.fullmatch(r"[0-9a-f]+-[0-9]+\.webp", path.name):
                with suppress(OSError):
                    status = path.stat()
                    kept.append((status.st_mtime, status.st_size, path))
        return kept


def _side(size: int) -> int:
    return next((each for each in SIZES if each >= size), SIZES[-1])


def _small(picture: Path, side: int) -> bytes:
    if picture.is_symlink():  # whoever can write into the folder must not have other pictures shown
        raise FileError(picture, "is a link by now, and no picture that was made here")
    buffer = io.BytesIO()
    media.thumbnail(picture, side).save(buffer, "WEBP", quality=_QUALITY, method=2)
    return buffer.getvalue()
