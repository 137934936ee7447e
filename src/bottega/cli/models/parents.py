"""Numbers and names on the command line of what goes into new models."""

from __future__ import annotations

import re

from bottega.errors import BottegaError


def weighted(words: str) -> tuple[str, float]:
    """`NAME:WEIGHT`, or a name whose weight is 1."""
    name, colon, weight = words.rpartition(":")
    if colon:
        try:
            return name, float(weight)
        except ValueError:
            pass  # a name may have a colon in it, as C:\\models has
    return words, 1.0


def numbers(words: str) -> tuple[float, ...]:
    """Numbers that are separated by commas or spaces; a field without one is an error, as all after it would shift."""
    try:
        return tuple(map(float, re.split(r"\s*,\s*|\s+", words.strip())))
    except ValueError:
        raise BadNumbers(f"{words!r} is no list of numbers", "write them as 0,0.5,1") from None


class BadNumbers(BottegaError):
    """A list on the command line that holds something else than numbers."""

    exit_code = 2
