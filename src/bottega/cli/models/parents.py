"""Models that are named on the command line and go into new ones: found, recognised and hashed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
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
    hashes = {path: _Hash(path, settings, stopped) for path in {parent.header.path for parent in parents}}
    try:
        yield [replace(parent, sha256=hashes[parent.header.path].result) for parent in parents]
    finally:
        stopped.set()


class _Hash:
    """The SHA-256 of one file, computed by a thread."""

    def __init__(self, path: Path, settings: Settings, stopped: Event) -> None:
        self._path, self._settings, self._stopped = path, settings, stopped
        self._made: SimpleQueue[str | BaseException] = SimpleQueue()
        Thread(target=self._make, name="hash", daemon=True).start()

    def result(self) -> str:
        """The hash, once it is known."""
        made = self._made.get()
        self._made.put(made)  # for whoever asks next
        if isinstance(made, BaseException):
            raise made
        return made

    def _make(self) -> None:
        try:
            with open_catalog(self._settings.catalog) as catalog:  # a connection of this thread's own
                entry = catalog.entry(self._path)
                assert entry is not None  # it was found, and so recorded
                self._made.put(sha256_of(catalog, entry, self._watch).sha256 or "")
        except BaseException as error:  # it is raised where the hash is asked for
            self._made.put(error)

    def _watch(self, done: int, total: int) -> None:
        if self._stopped.is_set():
            raise Interrupted("the work ended before a hash was known")


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
