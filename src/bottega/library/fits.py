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
    found: dict[str, list[str]] = {}
    for name, kind in catalog.of_family(entry.family):
        if (entry.kind in WHOLE) != (kind in WHOLE):
            found.setdefault(kind, []).append(name)
    return Fits({kind: tuple(sorted(names, key=str.casefold)) for kind, names in sorted(found.items())})
