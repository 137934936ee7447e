"""What goes together on the shelves: the checkpoints that an adapter fits, the adapters that fit a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from bottega.library.catalog import HEARD, Catalog, Entry, effective
from bottega.library.entry import WHOLE

VAE = "vae"


@dataclass(frozen=True)
class Fits:
    """The names of what fits a model, by kind."""

    by_kind: Mapping[str, tuple[str, ...]]

    def to_json(self) -> dict[str, list[str]]:
        """The names as plain data."""
        return {kind: list(names) for kind, names in self.by_kind.items()}


@dataclass(frozen=True)
class Mates:
    """What goes together with a model: a condition for a list, however long it is.

    `vaes` are the families with whose models it shares its VAE, its own among them.
    """

    entry: Entry
    vaes: Collection[str]

    def condition(self) -> tuple[str, list[object]]:
        """The condition in SQL, and its values: nothing goes with what is of no known family."""
        entry = self.entry
        if not entry.family or entry.error:
            return "0", []
        kind, family = effective("kind"), effective("family")
        is_whole = f"{kind} IN ({', '.join('?' * len(WHOLE))})"
        where = f"models.error = '' AND {'NOT ' if entry.kind in WHOLE else ''}{is_whole}"
        values: list[object] = [*WHOLE]
        vaes = f"{family} IN ({', '.join('?' * len(self.vaes))})"
        if entry.kind == VAE:
            return f"{where} AND {vaes}", [*values, *self.vaes]
        heard = _heard(entry)
        # What hears text of just this width fits, though nobody knows its family.
        where += f" AND ({family} = ? OR {family} = '' AND {HEARD} = ? OR {kind} = '{VAE}' AND {vaes})"
        values += [entry.family, heard, *self.vaes]
        return f"{where} AND coalesce({HEARD}, ?, 0) = coalesce(?, {HEARD}, 0)", [*values, heard, heard]


def fits(catalog: Catalog, entry: Entry) -> Fits:
    """What on the shelves is of the same family: adapters and parts for a model, models for an adapter or a part."""
    if not entry.family or entry.error:
        return Fits({})
    heard = _heard(entry)
    found: dict[str, list[str]] = {}
    for name, kind, width in catalog.of_family(entry.family):
        if (entry.kind in WHOLE) != (kind in WHOLE) and (heard is None or width in (None, heard)):
            found.setdefault(kind, []).append(name)
    return Fits({kind: tuple(sorted(names, key=str.casefold)) for kind, names in sorted(found.items())})


def _heard(entry: Entry) -> int | None:
    """The width of the text that a model hears, or that an adapter was made for, where its header shows it."""
    unet = entry.dimensions.get("unet")
    width = unet.get("context") if isinstance(unet, Mapping) else entry.dimensions.get("context")
    if width is None and entry.kind == "embedding":
        width = entry.dimensions.get("width")
    return width if isinstance(width, int) else None
