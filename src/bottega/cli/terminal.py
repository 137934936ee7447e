"""Text as a terminal can bear it: harmless, aligned and no wider than the window; and JSON for programs."""

from __future__ import annotations

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

# Direction marks and overrides make a name look like another one; separators break a line in two.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_JOINERS = "\u200c\u200d\ufe0f"  # needed to write Persian, Indic scripts and emoji
# A word with the spaces before it; Chinese, Japanese and Korean may go on in another line after any character.
_WIDE = "\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff\uff01-\uff60"
_PIECE = re.compile(rf"\s*(?:[{_WIDE}]|[^\s{_WIDE}]+)")
_GAP = 2  # cells between columns
_NARROW = 8  # cells that a column has at least, if it has so much to show
_BESIDE = 18  # cells that a name may take if its value is to begin beside it


def printable(text: str) -> str:
    """The text with everything escaped that could steer a terminal or hide what is written."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character in _JOINERS or unicodedata.category(character) not in _UNSEEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def columns(text: str) -> int:
    """How many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if character in _JOINERS or unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int, ellipsis: str = "…") -> str:
    """The text in at most `width` cells, with an ellipsis where something is left out."""
    if columns(text) <= width:
        return text
    room = max(0, width - len(ellipsis))
    kept = ""
    for character in text:
        room -= _cells(character)
        if room < 0:
            break
        kept += character
    return (kept + ellipsis)[:width] if width < len(ellipsis) else kept + ellipsis


def window(stream: TextIO) -> int | None:
    """How many cells a line of the stream has, or None if it is no terminal (then nothing needs to fit)."""
    if not stream.isatty():
        return None
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80


def speaks(stream: TextIO, text: str) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    stream: TextIO,
    right: Sequence[int] = (),
    spare: Sequence[int] = (),
) -> str:
    """Rows under headers in aligned columns; those numbered in `right` are aligned to the right.

    On a terminal the widest columns give way until a line fits, and where that is not enough those numbered in `spare`
    are left out, the first one first, and then the last ones. Elsewhere nothing is cut, for `grep` and its kin.
    """
    cells = [list(headers), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(columns(row[index]) for row in cells) for index in range(len(headers))]
    shown = _fitted(widths, window(stream), spare)
    ellipsis = "…" if speaks(stream, "…") else "..."
    return "\n".join(_line(row, shown, ellipsis, right) for row in cells)


def _fitted(widths: Sequence[int], room: int | None, spare: Sequence[int]) -> dict[int, int]:
    """The columns that are shown, by number, with the widths at which a line has room; the first is always shown."""
    shown = dict(enumerate(widths))
    if room is None:
        return shown
    others = [index for index in reversed(range(1, len(widths))) if index not in spare]
    for index in (*spare, *others):
        if _width_of(min(width, _NARROW) for width in shown.values()) <= room:
            break
        del shown[index]
    while _width_of(shown.values()) > room and max(shown.values()) > 1:
        shown[max(shown, key=lambda index: shown[index])] -= 1
    return shown


def _width_of(widths: Iterable[int]) -> int:
    """How many cells a line of columns of these widths takes."""
    return sum(width + _GAP for width in widths) - _GAP


def _line(row: Sequence[str], widths: Mapping[int, int], ellipsis: str, right: Sequence[int]) -> str:
    padded = []
    for index, width in widths.items():
        text = cut(row[index], width, ellipsis)
        space = " " * (width - columns(text))
        padded.append(space + text if index in right else text + space)
    return (" " * _GAP).join(padded).rstrip()


class Whole(str):
    """Text that is of no use in pieces, such as a path or a command: it is kept in one line, whatever its spaces."""


def pairs(rows: Sequence[tuple[str, str]], stream: TextIO | None = None) -> str:
    """Names with what belongs to them, one to a line, aligned; a name may be empty to go on with the one above.

    If the stream is a terminal, longer values go on in further lines beside their names.
    """
    room = window(stream) if stream else None
    names = [printable(name) for name, _ in rows]
    width = max(map(columns, names), default=0)
    if room is not None:
        width = min(width, _BESIDE)
    indent = " " * (width + _GAP)
    lines = []
    for name, (_, value) in zip(names, rows, strict=True):
        beside = [f"{indent}{line}".rstrip() for line in folded(value, room and room - len(indent))]
        if columns(name) > width:
            lines.append(name)
        elif name:
            beside[0] = f"{name}{beside[0][columns(name) :]}"
        lines += beside
    return "\n".join(lines)


def folded(text: str, room: int | None) -> list[str]:
    """A text made printable, in lines of so many cells, broken at its spaces; None leaves it in one. What has no
    spaces, such as a hash, stays whole and may take more."""
    shown = printable(text)
    if room is None or isinstance(text, Whole) or columns(shown) <= room:
        return [shown]
    lines = [""]
    taken = 0
    for piece in _PIECE.findall(shown.rstrip()):
        if taken and taken + columns(piece) > room:
            lines.append("")
            taken, piece = 0, piece.lstrip()
        lines[-1] += piece
        taken += columns(piece)
    return lines


def sentence(text: str, stream: TextIO) -> str:
    """A sentence, folded to the window if the stream is a terminal."""
    return "\n".join(folded(text, window(stream)))


def wrapped(text: str, stream: TextIO) -> str:
    """A longer text, folded to the window at its spaces, its own line ends kept."""
    room = min(window(stream) or 100, 100)
    return "\n".join(line for told in text.splitlines() for line in folded(told, room))


def labelled(name: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Several values under one name, which stands at the first of them."""
    return [("" if index else name, value) for index, value in enumerate(values)]


def size_text(count: float) -> str:
    """A number of bytes as people say it."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def files_text(count: int) -> str:
    """A number of files as people say it."""
    return "1 file" if count == 1 else f"{count:,} files"


def count_text(count: float) -> str:
    """A number of parameters as people say it."""
    for unit in ("", " k", " M", " B"):
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g} T"


def time_text(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def print_json(document: Any) -> None:
    """Write the one JSON document of a command that was given `--json`.

    Escaped to ASCII: it passes every encoding, and no name in it reaches a terminal raw.
    """
    print(json.dumps(document, indent=2), file=sys.stdout)
