"""Outputs as one ZIP archive, written while it is sent: every file as it lies on disk, recipe and all."""

from __future__ import annotations

import re
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from bottega.gallery.output import Output, open_made

_BLOCK = 256 << 10
_LEFT_OUT = "left-out.txt"
_FIRST_YEAR, _LAST_YEAR = 1980, 2107  # of a ZIP's dates
# Names that Windows keeps for devices, whatever their ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def zipped(outputs: Sequence[Output]) -> Iterator[bytes]:
    """The archive, piece by piece. A file that can't be read any more is named in `left-out.txt` within it."""
    sink = _Sink()
    left_out = []
    taken = {_LEFT_OUT}
    with zipfile.ZipFile(sink, "w") as archive:
        for output in outputs:
            name = unique(safe_name(output), taken)
            try:
                file = open_made(output.path)
            except OSError as error:
                left_out.append(f"{name}: {error.strerror or error}")
                continue
            info = zipfile.ZipInfo(name, _date(output.created))
            info.external_attr = 0o644 << 16
            with file, archive.open(info, "w", force_zip64=output.bytes >= 1 << 31) as entry:
                while block := file.read(_BLOCK):
                    entry.write(block)
                    yield from sink.taken()
            yield from sink.taken()
        if left_out:
            archive.writestr(_LEFT_OUT, "\n".join(left_out) + "\n")
    yield from sink.taken()


def safe_name(output: Output) -> str:
    """The day and the name of the file, as every system takes them."""
    name = re.sub(r'[\x00-\x1f<>:"/\\|?*\x7f]', "_", output.path.name.encode(errors="replace").decode())
    name = name.strip(" .")[-120:] or output.id
    if _DEVICES.fullmatch(name):
        name = f"_{name}"
    return f"{time.strftime('%Y-%m-%d', time.localtime(output.created))}/{name}"


def unique(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken; case does not tell names apart, as on some systems."""
    path, number = PurePosixPath(name), 1
    while name.casefold() in taken:
        number += 1
        name = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
    taken.add(name.casefold())
    return name


def _date(created: float) -> tuple[int, int, int, int, int, int]:
    moment = time.localtime(created)
    if not _FIRST_YEAR <= moment.tm_year <= _LAST_YEAR:
        return (_FIRST_YEAR, 1, 1, 0, 0, 0)
    return moment[:6]


class _Sink:
    """A file that keeps what is written until it is taken; it can't be sought in, so the ZIP is written in one go."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, content: bytes, /) -> int:
        self._pieces.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """There is nothing to close."""

    def taken(self) -> Iterator[bytes]:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        if pieces:
            yield b"".join(pieces)
