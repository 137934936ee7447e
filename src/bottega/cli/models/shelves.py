"""What several actions need: the shelves, and the words for a model."""

from __future__ import annotations

from pathlib import Path

from bottega.library import Catalog, Entry
from bottega.settings import Settings


def all_shelves(settings: Settings, catalog: Catalog) -> list[Path]:
    """The shelves of the settings and those that were named in earlier scans, each once."""
    return list(dict.fromkeys(path.absolute() for path in (*settings.all_shelves, *catalog.shelves())))


def family_text(entry: Entry) -> str:
    """The family, with the variant where it is not the plain one."""
    return family_words(entry.family, entry.variant)


def family_words(family: str, variant: str) -> str:
    """A family, with the variant where it is not the plain one."""
    return " ".join(word for word in (family, variant) if word and word != "base")


def plural(count: int, one: str, many: str = "") -> str:
    """`1 model`, `2 models`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def sort_text(entry: Entry) -> str:
    """What a model is, in a few words: its kind, its family with the variant, and what it can be used for."""
    whose = family_text(entry)
    what = f"{entry.kind}, {'probably ' if entry.is_guess else ''}{whose}" if whose else entry.kind
    return what if entry.category in ("unknown", "part", entry.kind) else f"{what} ({entry.category})"
