"""What can be said about a model, and how several sources of it are put together."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from bottega.formats import strictjson

MAX_JSON = 16 << 20  # characters of JSON within a file's metadata
MAX_TEXT = 20_000  # characters of a description
MAX_LINE = 2_000  # of anything shorter, such as a title
MAX_WORDS = 100  # trigger words, or tags
MAX_BITS = 1024  # of an integer that is shown; of much longer ones Python refuses to write the digits


@dataclass(frozen=True)
class About:
    """What a model says about itself, as text for people; whatever nobody said is empty.

    `triggers` are the words that call forth what it was trained on; `weight` is the suggested one of an adapter.
    `permissions` are those of its licence in words, by what they permit. `source` is the address of its page, which
    nothing ever opens. `preview` is the path of the picture beside it. `notes` are the user's own. `extra` holds what
    else is worth showing, under names for people.
    """

    title: str = ""
    author: str = ""
    version: str = ""
    base_model: str = ""
    description: str = ""
    triggers: tuple[str, ...] = ()
    weight: float | None = None
    licence: str = ""
    permissions: Mapping[str, object] = field(default_factory=dict)
    source: str = ""
    tags: tuple[str, ...] = ()
    resolution: str = ""
    date: str = ""
    preview: str | None = None
    notes: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    def over(self, other: About) -> About:
        """What this one says, and what the other one says of all that this one is silent about."""
        told = {name: getattr(self, name) or getattr(other, name) for name in _NAMES}
        if self.tags and other.tags:
            told["tags"] = words([*self.tags, *other.tags])
        return About(**{**told, "extra": {**other.extra, **self.extra}})

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            name: list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
            for name in _NAMES
            for value in (getattr(self, name),)
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> About:
        """What `to_json` gave; what has another type than it should have is left out."""
        weight = told.get("weight")
        preview = told.get("preview")
        texts: dict[str, Any] = {name: told[name] for name in _TEXTS if isinstance(told.get(name), str)}
        return cls(
            **texts,
            triggers=words(told.get("triggers")),
            tags=words(told.get("tags")),
            weight=weight if isinstance(weight, (int, float)) and not isinstance(weight, bool) else None,
            preview=preview if isinstance(preview, str) else None,
            permissions=_mapping(told.get("permissions")),
            extra={name: value for name, value in _mapping(told.get("extra")).items() if isinstance(value, str)},
        )


_NAMES = tuple(entry.name for entry in fields(About))
_TEXTS = ("title", "author", "version", "base_model", "description", "licence", "source", "resolution", "date", "notes")
_EMPTY = ("", "None", "null", "undefined")  # how programs write that they know nothing


def text(value: object, limit: int = MAX_LINE) -> str:
    """A text from somebody's file, trimmed; empty if it is no text. Whatever is in it stays what it is: text."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = "" if isinstance(value, int) and value.bit_length() > MAX_BITS else str(value)
    if not isinstance(value, str):
        return ""
    value = value[: 2 * limit].strip()
    if value in _EMPTY:
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a character, which nothing could store or print
        value = value.encode(errors="replace").decode()
    return value if len(value) <= limit else f"{value[:limit].rstrip()} ..."


def long_text(value: object) -> str:
    """A description or the like, trimmed."""
    return text(value, MAX_TEXT)


def words(values: object) -> tuple[str, ...]:
    """Each of the texts in a list once, in order."""
    if not isinstance(values, (list, tuple)):
        return ()
    told = dict.fromkeys(text(value).strip(", ") for value in values[: 10 * MAX_WORDS] if isinstance(value, str))
    return tuple(word for word in told if word)[:MAX_WORDS]


def number(value: object) -> float | None:
    """A number that somebody may have written as text; None if it is none."""
    try:
        told = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return told if math.isfinite(told) else None


def address(value: object) -> str:
    """The address of a page, as text; empty if it is none that a browser should be sent to."""
    told = text(value)
    return told if re.match(r"https?://[^\s<>\"']+\Z", told, re.IGNORECASE) else ""


def size(value: object) -> str:
    """A resolution as `512x768`, from `(512, 768)`, `512,768`, `512` and their like."""
    told = text(value)
    sizes = re.findall(r"[0-9]{1,6}", told[:40])
    if re.fullmatch(r"[\s()\[\]0-9,xX×*]+", told) and len(sizes) in (1, 2):
        return f"{sizes[0]}x{sizes[-1]}"
    return told


def some(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Those of the pairs that say anything."""
    return {name: value for name, value in pairs if value}


def parsed(value: object, kind: type = dict) -> Any:
    """The object or list that a JSON text in a file spells; an empty one where it spells none, or a bottomless one."""
    if not isinstance(value, str) or len(value) > MAX_JSON or value[:1] not in ("{", "["):
        return kind()
    try:
        told = json.loads(value)
        if value.count("{") + value.count("[") > strictjson.MAX_DEPTH:  # else it can't be deeper
            strictjson.check_depth(told)
    except (ValueError, RecursionError):
        return kind()
    return told if isinstance(told, kind) else kind()


def inner(value: object, name: str) -> Mapping[str, Any]:
    """The object under a name of an object; an empty one if either is none."""
    return _mapping(value.get(name) if isinstance(value, Mapping) else None)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
