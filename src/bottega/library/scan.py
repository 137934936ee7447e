"""Look through the shelves: find what is new or changed, read those headers, and record what each model is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType

from bottega.errors import BottegaError
from bottega.formats import read_header
from bottega.library.catalog import Catalog, Entry
from bottega.library.disk import FOLDER_MARK, MODEL_SUFFIXES, Stamp, file_stamp, folder_stamp
from bottega.library.identify import identify, reader, shown_metadata
from bottega.spec import Family

# Python's own folders are full of `.pt` and `.bin` files that are no models.
NO_SHELVES = frozenset(("__pycache__", "node_modules", "site-packages", "venv", "__MACOSX"))
BATCH = 256  # headers that are recorded at once
THREADS = 8

Told = Callable[[int, int], None]  # (done, total)
Place = tuple[int, int]  # a folder, whatever links lead to it: device and inode


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
    families: Sequence[Family],
    told: Told = lambda done, total: None,
) -> Report:
    """Bring the catalog up to date with these shelves, or folders on them.

    A header is read only where path, size, time or inode differ from what is on record, or where other code or
    other families read it. It can be interrupted at any moment, by Ctrl-C or by an exception from `told`: what was
    read until then is recorded, and the next scan goes on from there.
    """
    started = time.perf_counter()
    every_shelf = {*map(_absolute, shelves), *catalog.shelves()}
    known = {entry.path: entry for entry in catalog.entries(missing=True)}
    walk = Walk(every_shelf)
    found = {path: (stamp, shelf) for shelf in map(_absolute, shelves) for path, stamp in walk.models(shelf)}

    read_by = signature(families)
    current, pending = {}, {}
    for path, (stamp, shelf) in found.items():
        before = known.get(path)
        if before and before.stamp == stamp and before.read_by == read_by:
            current[path] = replace(before, shelf=shelf, missing=False)
        else:
            pending[path] = (stamp, shelf)
    catalog.put(entry for path, entry in current.items() if entry != known[path])

    moved = _moved(known, found, pending)
    current |= {entry.path: entry for entry in _read_all(catalog, pending, families, moved, told)}
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


def read_entry(path: Path, stamp: Stamp, shelf: Path | None, families: Sequence[Family]) -> Entry:
    """What one model is, from its header. Raises BottegaError or OSError where it can't be read."""
    header = read_header(path)
    identity = identify(header, families)
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
        read_by=signature(families),
    )


def signature(families: Iterable[Family]) -> str:
    """Who reads headers: what this code and these families make of one stays true until they change."""
    return " ".join((reader(), *sorted(family.id for family in families)))


def shelf_places(shelf: Path) -> tuple[Path, ...]:
    """The folders to look through: all of a plain folder, but only the models of another workbench's installation.

    A1111 and Forge keep embeddings beside `models`, also where `models` itself is the shelf.
    """
    models = shelf / "models"
    if models.is_dir() and any((shelf / sign).exists() for sign in ("webui.py", "launch.py", "comfy", "embeddings")):
        return tuple(
            place
            for place in (models, shelf / "embeddings", shelf / "extensions" / "sd-webui-controlnet" / "models")
            if place.is_dir()
        )
    beside = shelf.parent / "embeddings"
    if shelf.name == "models" and (shelf / "Stable-diffusion").is_dir() and beside.is_dir():
        return (shelf, beside)
    return (shelf,)


class Walk:
    """One walk over folders, each entered once, however many links and shelves lead to it.

    Real folders come before links, so that a model is known by its own path rather than by a link to it; a folder
    that is a shelf of its own is left to that shelf.
    """

    def __init__(self, shelves: Iterable[Path]) -> None:
        self.unreadable: dict[Path, str] = {}
        self._roots = {place: path for path in shelves if (place := _place(path))}
        self._entered: set[Place] = set()

    def models(self, shelf: Path) -> Iterator[tuple[Path, Stamp]]:
        """The models on a shelf with their stamps: files by their endings, and folders in diffusers' layout."""
        for place in shelf_places(shelf):
            self._links: list[Path] = []
            yield from self._look(place, root=True)
            while self._links:
                yield from self._look(self._links.pop(0))

    def covers(self, path: Path, places: Iterable[Path]) -> bool:
        """Whether a model at this path would have been found by walking these places."""
        inner = [root for root in self._roots.values() if path.is_relative_to(root)]
        return any(path.is_relative_to(place) and all(place.is_relative_to(root) for root in inner) for place in places)

    def _look(self, folder: Path, root: bool = False) -> Iterator[tuple[Path, Stamp]]:
        place = _place(folder)
        if place is None or place in self._entered or (place in self._roots and not root):
            return
        self._entered.add(place)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
            if any(entry.name == FOLDER_MARK for entry in entries):
                yield folder, folder_stamp(folder)
                return
        except OSError as error:
            self.unreadable[folder] = error.strerror or str(error)
            return
        names = {entry.name for entry in entries}
        for entry in entries:
            if entry.name.startswith((".", "~")):  # hidden, or temporary
                continue
            if _is_folder(entry):
                if entry.name in NO_SHELVES:
                    continue
                if entry.is_symlink():
                    self._links.append(Path(entry.path))
                else:
                    yield from self._look(Path(entry.path))
            elif _is_model(entry) and f"{entry.name}.aria2" not in names:  # aria2 is still downloading it
                yield Path(entry.path), file_stamp(entry.stat())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _is_model(entry: os.DirEntry[str]) -> bool:
    try:
        return os.path.splitext(entry.name)[1].lower() in MODEL_SUFFIXES and entry.is_file()
    except OSError:
        return False


def _read_all(
    catalog: Catalog,
    pending: Mapping[Path, tuple[Stamp, Path]],
    families: Sequence[Family],
    moved: Mapping[Path, Entry],
    told: Told,
) -> list[Entry]:
    """Read the pending headers in parallel; record them in batches, also those at hand when it is interrupted."""
    entries: list[Entry] = []
    recorded = 0
    told(0, len(pending))
    with _Readers(pending, families) as readers:
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

    def __init__(self, pending: Mapping[Path, tuple[Stamp, Path]], families: Sequence[Family]) -> None:
        self._families = families
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
                self._results.put(_read(*job, self._families))
            except Exception as error:  # handed over to the thread that waits for the result
                self._results.put(error)

    def _take(self) -> tuple[Path, Stamp, Path] | None:
        try:
            return self._todo.get_nowait()
        except Empty:
            return None


def _read(path: Path, stamp: Stamp, shelf: Path, families: Sequence[Family]) -> Entry:
    """What one model is; a file that is refused is recorded with the reason."""
    read_by = signature(families)
    try:
        return read_entry(path, stamp, shelf, families)
    except BottegaError as error:
        reason = str(error).removeprefix(f"{path}: ")
        if isinstance(error.__cause__, OSError):
            read_by = ""  # it may become readable without being changed: the next scan tries again
    except OSError as error:
        reason, read_by = error.strerror or str(error), ""
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # A strange file that a reader or a family stumbles over must not keep the others from being found.
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


def _place(folder: Path) -> Place | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
