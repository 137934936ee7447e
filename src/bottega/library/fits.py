"""What goes together on the shelves: the checkpoints that an adapter fits, the adapters that fit a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bottega.library.catalog import Catalog, Entry

WHOLE = ("checkpoint", "diffusion_model")  # what makes pictures, with whatever changes or completes it


@dataclass(frozen=True)
class Fits:
    """The names of what fits a model, by kind."""

    by_kind: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, list[str]]:
        """The names as plain data."""
        return {kind: list(names) for kind, names in self.by_kind.items()}


def fits(catalog: Catalog, entry: Entry) -> Fits:
    """What on the shelves is of the same family: adapters and parts for a model, models for an adapter or a part."""
    if not entry.family or entry.error:
        return Fits({})
    heard = width_heard(entry)
    found: dict[str, list[str]] = {}
    for name, kind, width in catalog.of_family(entry.family):
        if (entry.kind in WHOLE) != (kind in WHOLE) and (heard is None or width in (None, heard)):
            found.setdefault(kind, []).append(name)
    return Fits({kind: tuple(sorted(names, key=str.casefold)) for kind, names in sorted(found.items())})


def width_heard(entry: Entry) -> int | None:
    """The width of the text that a model hears, or that an adapter was made for, where its header shows it."""
    unet = entry.dimensions.get("unet")
    width = unet.get("context") if isinstance(unet, Mapping) else entry.dimensions.get("context")
    if width is None and entry.kind == "embedding":
        width = entry.dimensions.get("width")
    return width if isinstance(width, int) else None
