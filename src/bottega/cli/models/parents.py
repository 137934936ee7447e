"""Models that are named on the command line and go into new ones: found, recognised and hashed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

from bottega.cli.models.shelves import all_shelves
from bottega.errors import BottegaError, Interrupted
from bottega.library import Catalog, Entry
from bottega.library.disk import stamp_of
from bottega.library.hashes import hash_model, keep_sha256
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.merge_recipe import Parent


class Named(NamedTuple):
    """A model that was named: what it is, and its entry in the catalog."""

    parent: Parent
    entry: Entry


def parents_of(
    references: Sequence[str], settings: Settings, catalog: Catalog, *, kind: str | None = None
) -> list[Named]:
    """The models that the references mean, those of `kind` first."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.find import find
    from bottega.library.identify import identify
    from bottega.library.merge_recipe import Parent
    from bottega.recognisers import all_recognisers

    anatomies = {family.id: family.anatomy for family in all_families()}
    found = []
    for reference in references:
        entry = find(catalog, reference, all_recognisers(), all_shelves(settings, catalog), kind=kind)
        header = read_header(entry.path)
        identity = identify(header, all_recognisers())
        anatomy = anatomies.get(identity.recogniser)
        parent = Parent(header, identity.match, identity.recogniser, identity.family, anatomy, entry.name)
        found.append(Named(parent, entry))
    return found


@contextmanager
def hashed(models: Sequence[Named], catalog: Catalog) -> Iterator[list[Parent]]:
    """The models with their SHA-256, which other threads compute meanwhile where it is not known."""
    stopped = Event()
    entries = {entry.path: entry for _, entry in models}
    hashes = {path: _Hash(entry, catalog, stopped) for path, entry in entries.items()}
    try:
        yield [replace(parent, sha256=hashes[entry.path].result) for parent, entry in models]
    finally:
        stopped.set()


class _Hash:
    """The SHA-256 of one model, computed by a thread; the catalog is this thread's affair alone."""

    def __init__(self, entry: Entry, catalog: Catalog, stopped: Event) -> None:
        self._entry, self._catalog, self._stopped = entry, catalog, stopped
        self._stamp = stamp_of(entry.path)
        self._known = entry.sha256 if entry.stamp == self._stamp else None
        self._made: SimpleQueue[str | BaseException] = SimpleQueue()
        if not self._known:
            Thread(target=self._make, name="hash", daemon=True).start()

    def result(self) -> str:
        """The hash, once it is known; the catalog keeps it."""
        if not self._known:
            made = self._made.get()
            if isinstance(made, BaseException):
                self._made.put(made)  # for whoever asks next
                raise made
            keep_sha256(self._catalog, self._entry, self._stamp, made)
            self._known = made
        return self._known

    def _make(self) -> None:
        try:
            self._made.put(hash_model(self._entry.path, self._stamp, self._watch))
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
