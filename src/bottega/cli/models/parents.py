"""Models that are named on the command line and go into new ones: found, recognised and hashed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from bottega.cli.models.shelves import all_shelves
from bottega.cli.progress import Progress
from bottega.errors import BottegaError
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.merge import Parent


def parents_of(
    references: Sequence[str], settings: Settings, catalog: Catalog, progress: Progress, *, kind: str | None = None
) -> list[Parent]:
    """The models that the references mean, those of `kind` first, with their SHA-256."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.find import find
    from bottega.library.hashes import sha256_of
    from bottega.library.identify import identify
    from bottega.library.merge import Parent
    from bottega.recognisers import all_recognisers

    anatomies = {family.id: family.anatomy for family in all_families()}
    found = []
    for reference in references:
        entry = find(catalog, reference, all_recognisers(), all_shelves(settings, catalog), kind=kind)
        header = read_header(entry.path)
        identity = identify(header, all_recognisers())
        anatomy = anatomies.get(identity.recogniser)
        sha256 = sha256_of(catalog, entry, partial(progress.update, f"hash of {entry.name}", unit="bytes")).sha256
        match, family = identity.match, identity.family
        found.append(Parent(header, match, identity.recogniser, family, anatomy, entry.name, sha256 or ""))
    return found


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
    """Numbers that are separated by commas or spaces."""
    try:
        return tuple(float(word) for word in words.replace(",", " ").split())
    except ValueError:
        raise BadNumbers(f"{words!r} is no list of numbers", "write them as 0,0.5,1") from None


class BadNumbers(BottegaError):
    """A list on the command line that holds something else than numbers."""

    exit_code = 2
