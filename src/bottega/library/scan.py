"""Look through the shelves: find what is new or changed, read those headers, and record what each model is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType

from bottega.errors import BottegaError
from bottega.formats import read_header
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import Stamp
from bottega.library.identify import identify, reader, shown_metadata
from bottega.library.shelves import Walk, shelf_places
from bottega.spec import Recogniser

BATCH = 256  # headers that are recorded at once
THREADS = 8

Told = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Report:
    """What a scan found: every model that is there now, and what changed since the last time.

    `unreadable` are folders that could not be entered, with the reason; `absent` are shelves that are not there.
    """

    entries: tuple[Entry, ...]
    headers_read: int
    new: int
    changed: int
    gone: tuple[Path, ...]
    unreadable: Mapping[Path, str]
    absent: tuple[Path, ...]
    seconds: float

    @property
    def refused(self) -> tuple[Entry, ...]:
        """What looks like a model and is none that can be read."""
        return tuple(entry for entry in self.entries if entry.error)


def scan(
    catalog: Catalog,
    shelves: Sequence[Path],
    recognisers: Sequence[Recogniser],
    told: Told = lambda done, total: None,
) -> Report:
    """Bring the catalog up to date with these shelves, or folders on them.

    A header is read only where path, size, time or inode differ from what is on record, or where other code or
    other recognisers read it. It can be interrupted at any moment, by Ctrl-C or by an exception from `told`: what was
    read until then is recorded, and the next scan goes on from there.
    """
    started = time.perf_counter()
    every_shelf = {*map(_absolute, shelves), *catalog.shelves()}
    known = {entry.path: entry for entry in catalog.entries(missing=True)}
    walk = Walk(every_shelf)
    found = {each.path: (each.stamp, shelf) for shelf in map(_absolute, shelves) for each in walk.models(shelf)}

    read_by = signature(recognisers)
    current, pending = {}, {}
    for path, (stamp, shelf) in found.items():
        before = known.get(path)
        if before and before.stamp == stamp and before.read_by == read_by:
            current[path] = replace(before, shelf=shelf, missing=False)
        else:
            pending[path] = (stamp, shelf)
    catalog.put(entry for path, entry in current.items() if entry != known[path])

    moved = _moved(known, found, pending)
    current |= {entry.path: entry for entry in _read_all(catalog, pending, recognisers, moved, told)}
    catalog.forget(entry.path for entry in moved.values())
    places = [place for shelf in map(_absolute, shelves) for place in shelf_places(shelf)]
    gone = [
        path for path, entry in known.items() if path not in found and not entry.missing and walk.covers(path, places)
    ]
    catalog.mark_missing(gone)
    return Report(
        entries=tuple(current[path] for path in found),
        headers_read=len(pending),
        new=sum(path not in known for path in pending),
        changed=sum(path in known for path in pending),
        gone=tuple(gone),
        unreadable=walk.unreadable,
        absent=tuple(shelf for shelf in map(_absolute, shelves) if not shelf.is_dir()),
        seconds=time.perf_counter() - started,
    )


def read_entry(path: Path, stamp: Stamp, shelf: Path | None, recognisers: Sequence[Recogniser]) -> Entry:
    """What one model is, from its header. Raises BottegaError or OSError where it can't be read."""
    header = read_header(path)
    identity = identify(header, recognisers)
    match = identity.match
    return Entry(
        path=path,
        shelf=shelf,
        stamp=stamp,
        kind=match.kind,
        category=match.category,
        family=identity.family,
        variant=match.variant,
        format=header.format,
        dtype=next(iter(header.dtypes), ""),
        parameters=header.parameters,
        bytes=header.bytes,
        dimensions=match.dimensions,
        parts=match.parts,
        because=match.because,
        metadata=shown_metadata(header.metadata),
        guess=match.guess,
        read_by=signature(recognisers),
    )


def signature(recognisers: Iterable[Recogniser]) -> str:
    """Who reads headers: what this code and these recognisers make of one stays true until they change."""
    return " ".join((reader(), *sorted(each.id for each in recognisers)))


def _read_all(
    catalog: Catalog,
    pending: Mapping[Path, tuple[Stamp, Path]],
    recognisers: Sequence[Recogniser],
    moved: Mapping[Path, Entry],
    told: Told,
) -> list[Entry]:
    """Read the pending headers in parallel; record them in batches, also those at hand when it is interrupted."""
    entries: list[Entry] = []
    recorded = 0
    told(0, len(pending))
    with _Readers(pending, recognisers) as readers:
        try:
            for done in range(1, len(pending) + 1):
                entry = readers.next()
                if before := moved.get(entry.path):
                    entry = replace(entry, sha256=before.sha256, hashed_at=before.hashed_at)
                entries.append(entry)
                if len(entries) - recorded == BATCH:
                    catalog.put(entries[recorded:])
                    recorded = len(entries)
                told(done, len(pending))
        finally:
            catalog.put(entries[recorded:])
    return entries


class _Readers:
    """Threads that read headers until there are none left, or until nobody wants them any more.

    Not concurrent.futures: its locks are taken in Python, and a Ctrl-C at the wrong moment leaves one locked for ever.
    """

    def __init__(self, pending: Mapping[Path, tuple[Stamp, Path]], recognisers: Sequence[Recogniser]) -> None:
        self._recognisers = recognisers
        self._todo: SimpleQueue[tuple[Path, Stamp, Path]] = SimpleQueue()
        self._results: SimpleQueue[Entry | Exception] = SimpleQueue()
        for path, (stamp, shelf) in pending.items():
            self._todo.put((path, stamp, shelf))
        self._threads = [Thread(target=self._work, daemon=True) for _ in range(min(THREADS, len(pending)))]

    def __enter__(self) -> _Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while self._take() is not None:
            pass  # what nobody wants any more
        for thread in self._threads:
            thread.join()

    def next(self) -> Entry:
        """The next model that was read, in any order; called once for each."""
        result = self._results.get()
        if isinstance(result, Exception):
            raise result
        return result

    def _work(self) -> None:
        while (job := self._take()) is not None:
            try:
                self._results.put(_read(*job, self._recognisers))
            except Exception as error:  # handed over to the thread that waits for the result
                self._results.put(error)

    def _take(self) -> tuple[Path, Stamp, Path] | None:
        try:
            return self._todo.get_nowait()
        except Empty:
            return None


def _read(path: Path, stamp: Stamp, shelf: Path, recognisers: Sequence[Recogniser]) -> Entry:
    """What one model is; a file that is refused is recorded with the reason."""
    read_by = signature(recognisers)
    try:
        return read_entry(path, stamp, shelf, recognisers)
    except BottegaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        if isinstance(error.__cause__, OSError):
            read_by = ""  # it may become readable without being changed: the next scan tries again
    except OSError as error:
        reason, read_by = error.strerror or str(error), ""
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A strange file that a reader or a recogniser stumbles over must not keep the others from being found.
        reason = f"Bottega stumbled over it ({type(error).__name__}: {error}); please report that as a bug"
    return Entry(path, shelf, stamp, error=reason.encode(errors="backslashreplace").decode(), read_by=read_by)


def _moved(
    known: Mapping[Path, Entry], found: Mapping[Path, object], pending: Mapping[Path, tuple[Stamp, Path]]
) -> dict[Path, Entry]:
    """For each new path the record of the same file under a path that is no more: its hash is still true."""
    lost = {entry.stamp: entry for path, entry in known.items() if path not in found and not os.path.lexists(path)}
    return {
        path: lost.pop(stamp)
        for path, (stamp, _) in pending.items()
        if path not in known and stamp.inode and stamp in lost
    }


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
