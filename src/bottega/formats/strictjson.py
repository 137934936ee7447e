"""JSON from files that nobody vouches for: no duplicate keys, no bottomless nesting, no halves of characters."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32
_MAX_FOREIGN_DEPTH = 200  # what is deeper could not be written again


class _Refused(ValueError):
    """JSON that Python takes, and we don't."""


def parse(raw: bytes, *, constants: bool = False) -> object:
    """The value that `raw` (UTF-8) spells, or ValueError with the reason.

    `constants` admits NaN and Infinity, which are no JSON but which Python programs write into configs.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=None if constants else _refuse_constant)
        _check_surrogates(value, text)
    except (ValueError, RecursionError) as error:
        raise ValueError(reason(error)) from None
    return value


def reason(error: ValueError | RecursionError) -> str:
    """What is wrong with a JSON text that Python's `json`, or `check_depth`, has refused so."""
    if isinstance(error, RecursionError):
        return "it is nested without end"
    if isinstance(error, UnicodeDecodeError):
        return f"it is no UTF-8 text (byte {error.start:,})"
    if isinstance(error, json.JSONDecodeError):
        place = f"line {error.lineno:,}, column {error.colno:,}"
        return f"something follows its end ({place})" if error.msg == "Extra data" else str(error)
    return str(error) if isinstance(error, _Refused) else "a number in it has too many digits"


def parse_part(text: str, begin: int) -> tuple[object, int]:
    """The value that begins at this place of a JSON text, and where it ends; ValueError as for `parse`."""
    value, end = _DECODER.raw_decode(text, begin)
    _check_surrogates(value, text[begin:end])
    return value, end


def object_or_none(text: str) -> dict[str, Any] | None:
    """The object that another program's text spells, with None for NaN and its kin; None if it spells no object."""
    try:
        value = json.loads(text, parse_constant=lambda name: None, parse_float=_finite)
        check_depth(value, _MAX_FOREIGN_DEPTH)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_depth(value: object, limit: int = MAX_DEPTH) -> None:
    """ValueError when lists and objects are nested deeper than `limit`; walks level by level, so never recurses."""
    level = [value]
    for _ in range(limit + 1):
        level = [child for parent in level for child in children(parent)]
        if not level:
            return
    raise _Refused(f"it is nested more than {limit} levels deep")


def children(value: object) -> list[object]:
    """The lists and objects that a list or an object holds."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [child for child in inner if isinstance(child, dict | list)]


def _check_surrogates(value: object, text: str) -> None:
    if re.search(r"\\u[dD]", text):
        # Python takes half of a surrogate pair for a character; nothing could ever write it down again.
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise _Refused("it contains half of a surrogate pair") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Refused(f"the key {ascii(twice)[:120]} appears twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is no JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
