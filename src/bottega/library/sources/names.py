"""Names that are safe to give to files, made of what sites and servers suggest."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from bottega.library.sources.errors import Refused

LONGEST = 120  # bytes, so that what is kept beside a file has room for its own ending
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\.|$)", re.IGNORECASE)  # Windows' devices
_ALSO = " ._()+-[]"
MAX_FILES = 1000
MAX_DEPTH = 4


def safe_name(suggested: str, suffix: str) -> str:
    """A plain file name after a suggested one, with this ending, whatever path or trick the suggestion holds.

    Without an ending it is a folder's, in whose name a dot begins none.
    """
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", suggested))[-1]
    stem = last[: len(last) - len(suffix)] if last.lower().endswith(suffix) else PurePosixPath(last).stem
    stem = "".join(character if _is_plain(character) else "_" for character in stem)
    stem = _shortened(stem.strip(" ._"), LONGEST - len(suffix)).rstrip(" .")
    if not stem.strip("_"):
        stem = "model"
    return f"_{stem}{suffix}" if _RESERVED.match(stem) else f"{stem}{suffix}"


def check_paths(paths: list[str]) -> None:
    """Raises Refused unless all of these can be paths in one folder, on any system."""
    if len(paths) > MAX_FILES:
        raise Refused(f"it has {len(paths):,} files", "choose one of them")
    seen: dict[str, str] = {}
    for path in paths:
        parts = path.split("/")
        if len(parts) > MAX_DEPTH or any(not _is_safe(part) for part in parts):
            raise Refused(f"it names a file {ascii(path)[:200]}, which is no plain path", "do not use this model")
        folded = unicodedata.normalize("NFC", path).casefold()
        if folded in seen:
            raise Refused(f"its files {path} and {seen[folded]} are the same on some systems", "choose one of them")
        seen[folded] = path


def _is_safe(part: str) -> bool:
    return (
        0 < len(part.encode("utf-8", "replace")) <= LONGEST
        and all(map(_is_plain, part))
        and part[0] not in " ."
        and part[-1] not in " ."
        and not _RESERVED.match(part)
    )


def _is_plain(character: str) -> bool:
    """Letters, digits and marks of any script, and a few signs that mean nothing to any disk."""
    return character in _ALSO or unicodedata.category(character)[0] in "LNM"


def _shortened(text: str, most: int) -> str:
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")
