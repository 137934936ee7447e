"""Models that are named on the command line and go into new ones: found, recognised and hashed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from bottega.cli.models.shelves import all_shelves
from bottega.errors import BottegaError, Interrupted
from bottega.library import Catalog, open_catalog
from bottega.library.hashes import sha256_of
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.merge import Parent


def parents_of(
    references: Sequence[str], settings: Settings, catalog: Catalog, *, kind: str | None = None
) -> list[Parent]:
    """The models that the references mean, those of `kind` first."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.find import find
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
        found.append(Parent(header, identity.match, identity.recogniser, identity.family, anatomy, entry.name))
    return found


@contextmanager
def hashed(parents: Sequence[Parent], settings: Settings) -> Iterator[list[Parent]]:
    """The models with their SHA-256, which other threads compute meanwhile where it is not known."""
    stopped = Event()

    def watch(done: int, total: int) -> None:
        if stopped.is_set():
            raise Interrupted("the work ended before a hash was known")

    def sha256(path: Path) -> str:
        with open_catalog(settings.catalog) as catalog:  # a connection of this thread's own
            entry = catalog.entry(path)
            assert entry is not None  # it was found, and so recorded
            return sha256_of(catalog, entry, watch).sha256 or ""

    with ThreadPoolExecutor(2, thread_name_prefix="hash") as pool:
        hashes = {path: pool.submit(sha256, path) for path in {parent.header.path for parent in parents}}
        try:
            yield [replace(parent, sha256=hashes[parent.header.path].result) for parent in parents]
        finally:
            stopped.set()


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
