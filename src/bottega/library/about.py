"""What a model file says about itself, in the words that help to choose it and to use it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bottega.formats.header import Header
from bottega.library.identify import shown_metadata


@dataclass(frozen=True)
class About:
    """What is told of a model beside its tensors; what nobody tells is empty.

    `description` is plain text, `weight` the strength that its author suggests, `source` the page that it comes from,
    `preview` the path of a picture beside it.
    """

    title: str = ""
    author: str = ""
    version: str = ""
    base_model: str = ""
    description: str = ""
    triggers: tuple[str, ...] = ()
    weight: float | None = None
    licence: str = ""
    permissions: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    tags: tuple[str, ...] = ()
    resolution: str = ""
    date: str = ""
    preview: str | None = None
    notes: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> About:
        """What `to_json` gave; names that this version does not know are left out."""
        known = {each.name for each in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items() if name in known
        }
        return cls(**values)


def about(header: Header, path: Path) -> About:
    """What the metadata in a header tell about the model at this path."""
    shown = shown_metadata(header.metadata)
    return About(
        title=shown.get("title", ""),
        author=shown.get("author", ""),
        base_model=shown.get("architecture", ""),
        description=shown.get("description", ""),
        triggers=tuple(each.strip() for each in shown.get("trigger", "").split(",") if each.strip()),
        licence=shown.get("licence", ""),
        resolution=shown.get("resolution", ""),
        date=shown.get("date", ""),
    )
