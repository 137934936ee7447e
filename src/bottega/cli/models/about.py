"""What a model says about itself, in lines for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bottega.cli.terminal import labelled

if TYPE_CHECKING:
    from bottega.library.about import About

LONGEST = 12  # lines of a description or of notes; `--json` has all of them


def about_rows(about: About) -> list[tuple[str, str]]:
    """Names with what is said under them; what nobody said is left out."""
    weight = "" if about.weight is None else f"{about.weight:g}"
    extra = [(name, value) for name, value in about.extra.items() if name != "licence text"]
    rows = [
        ("title", about.title),
        ("version", about.version),
        ("author", about.author),
        ("base model", about.base_model),
        *labelled("trigger", about.triggers),
        ("weight", weight),
        *_lines("description", about.description),
        *_lines("notes", about.notes),
        ("licence", " ".join(filter(None, (about.licence, about.extra.get("licence text", ""))))),
        *labelled("permits", [f"{name}: {value}" for name, value in about.permissions.items()]),
        ("source", about.source),
        ("tags", ", ".join(about.tags)),
        ("resolution", about.resolution),
        ("date", about.date),
        ("preview", about.preview or ""),
        *extra,
    ]
    return [(name, value) for name, value in rows if value]


def _lines(name: str, text: str) -> list[tuple[str, str]]:
    """A longer text under one name, its first lines only; empty lines are left out."""
    lines = [line for line in text.splitlines() if line.strip()]
    return labelled(name, lines if len(lines) <= LONGEST else [*lines[:LONGEST], "..."])
