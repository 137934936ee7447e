"""Look through the shelves: find what is new or changed, read those headers, and record what each model is."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bottega.errors import FileError
from bottega.library.catalog import Catalog, Known
from bottega.library.entry import REFUSED, UNUSUAL, Entry, Row
from bottega.library.hashes import sha256_of
from bottega.library.moves import by_fingerprint, by_hash, by_stamp
from bottega.library.readers import Readers
from bottega.library.reading import Job, autov1_of, read_entry, signature
from bottega.library.shelves import Found, Walk, shelf_places
from bottega.spec import Recogniser

__all__ = ["Report", "Told", "read_entry", "scan", "signature"]

BATCH = 256  # headers that are recorded at once

Told = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Report:
    """What a scan found: where every model is that is there now, and what changed since the last time.

    `moved` are those that were found again under another path (before, now), `gone` those that are missing since.
    `unreadable` are folders that could not be entered, with the reason; `absent` are shelves that are not there.
    """

    paths: tuple[Path, ...]
    headers_read: int
    new: int
    changed: int
    moved: tuple[tuple[Path, Path], ...]
    gone: tuple[Path, ...]
    unreadable: Mapping[Path, str]
    absent: tuple[Path, ...]
    seconds: float
    catalog: Catalog = field(repr=False, compare=False)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that was found, from the catalog: tens of thousands take a while."""
        known = {entry.path: entry for entry in self.catalog.entries()}
        return tuple(known[path] for path in self.paths if path in known)

    @cached_property
    def sorts(self) -> Counter[tuple[str, str, str]]:
        """How many of those that can be read are of each kind, family and variant."""
        return Counter(
            (kind, family, variant) for path, kind, family, variant in self.catalog.sorts() if path in self._here
        )

    @cached_property
    def refused(self) -> tuple[Entry, ...]:
        """What looks like a model and is none that can be read."""
        return self._of_verdict(REFUSED)

    @cached_property
    def unusual(self) -> tuple[Entry, ...]:
        """What can be read, but holds more than a model needs."""
        return self._of_verdict(UNUSUAL)

    def _of_verdict(self, verdict: str) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.catalog.of_verdict(verdict) if entry.path in self._here)

    @cached_property
    def _here(self) -> frozenset[Path]:
        return frozenset(self.paths)


def scan(
    catalog: Catalog,
    shelves: Sequence[Path],
    recognisers: Sequence[Recogniser],
    told: Told = lambda done, total: None,
    *,
    inspector: Sequence[str] = (),
    hashing: Told = lambda done, total: None,
) -> Report:
    """Bring the catalog up to date with these shelves, or folders on them.

    A header is read only where path, size, time, inode or the files beside differ from what is on record, or where
    other code or other recognisers read it; many are read in processes that run the command `inspector`, if it is
    given. What is on record follows its bytes: what is gone from its path is looked for at all others that are new or
    changed, by its stamp and, where its SHA-256 is on record, by the hash of such files of its size, of which `hashing`
    tells (bytes done, in all); where it is not and the user said something of it, by its fingerprint. What was on a
    shelf that is away may come back: it lends what was said of it, and keeps it.

    It can be interrupted at any moment, by Ctrl-C or by an exception from `told`: what was read until then is recorded,
    and the next scan goes on from there.
    """
    started = time.perf_counter()
    shelves = [*map(_absolute, shelves)]
    known = catalog.known()
    walk = Walk({*shelves, *catalog.shelves()})
    found = {str(each.path): (each, shelf) for shelf in shelves for each in walk.models(shelf)}

    here = {path: each.stamp for path, (each, _) in found.items()}
    moves = by_stamp(known, here)
    moves += by_hash(catalog, known, here, moves, hashing)
    away = {str(shelf) for shelf in catalog.away()}
    free = {path: before._replace(shelf=None) for path, before in known.items() if before.shelf in away}
    alike = by_fingerprint(catalog, {**known, **free}, here, moves)
    lent = [move for move in alike if move.before in free]
    moves += [move for move in alike if move.before not in free]
    aside = catalog.follow(moves)
    known = catalog.known() if moves else known

    jobs = _jobs(found, known, signature(recognisers))
    pending = {str(job.path) for job in jobs}
    catalog.place(_displaced(found, known, pending))
    _read_all(catalog, jobs, Readers(jobs, recognisers, inspector), told)

    places = [place for shelf in shelves for place in shelf_places(shelf)]
    gone = [
        Path(path)
        for path, before in known.items()
        if path not in found and not before.missing and walk.covers(Path(path), places)
    ]
    catalog.mark_missing(gone)
    catalog.lend(lent)
    new = {job.path for job in jobs if str(job.path) not in known}
    replaced = {Path(kept): Path(path) for path, kept in aside.items()}
    met = [*_reunite(catalog, new, hashing), *((Path(move.before), Path(move.now)) for move in lent)]
    reunited = [(replaced.pop(before, before), now) for before, now in dict(met).items()]
    left = {str(path) for path in gone}
    missed = {path: before for path, before in known.items() if before.missing or path in left}
    renewed = _renewed(found, missed, new, met)
    catalog.renew(renewed)
    return Report(
        paths=tuple(each.path for each, _ in found.values()),
        headers_read=len(jobs),
        new=len(new) - len(renewed) - sum(now in new for _, now in reunited),
        changed=len(jobs) - len(new) - len(moves) + len(renewed),
        moved=(*((Path(move.before), Path(move.now)) for move in moves), *reunited),
        gone=tuple(sorted({*gone, *replaced}.difference(before for before, _ in (*reunited, *renewed)))),
        unreadable=walk.unreadable,
        absent=tuple(shelf for shelf in shelves if not shelf.is_dir()),
        seconds=time.perf_counter() - started,
        catalog=catalog,
    )


def _jobs(found: Mapping[str, tuple[Found, Path]], known: Mapping[str, Known], read_by: str) -> list[Job]:
    """What has to be read: all that is not on record as it is now."""
    return [
        Job(each.path, shelf, each.stamp, each.name, each.beside)
        for path, (each, shelf) in found.items()
        if not (before := known.get(path))
        or before.stamp != each.stamp
        or (before.called, before.beside) != (each.name, each.beside)
        or before.read_by != read_by
    ]


def _displaced(
    found: Mapping[str, tuple[Found, Path]], known: Mapping[str, Known], pending: set[str]
) -> dict[str, Path]:
    """What is on record as it is now, but as missing, or as lying on another shelf."""
    return {
        path: shelf
        for path, (_, shelf) in found.items()
        if path not in pending and (known[path].missing or known[path].shelf != str(shelf))
    }


def _read_all(catalog: Catalog, jobs: Sequence[Job], readers: Readers, told: Told) -> None:
    """Read the headers in parallel; record them in batches, also those at hand when it is interrupted."""
    rows: list[Row] = []
    told(0, len(jobs))
    with readers:
        try:
            for done in range(1, len(jobs) + 1):
                rows.append(readers.next())
                if len(rows) == BATCH:
                    catalog.put_rows(rows)
                    rows = []
                told(done, len(jobs))
        finally:
            catalog.put_rows(rows)


def _reunite(catalog: Catalog, new: set[Path], hashing: Told) -> list[tuple[Path, Path]]:
    """Find what is gone among what is new, by what is on record and then by hash; (before, now)."""
    moved = catalog.reunite(new)
    candidates = _candidates(catalog, new.difference(now for _, now in moved))
    total = sum(entry.size for entry in candidates)
    done = 0
    for entry in candidates:
        with suppress(FileError, OSError):  # it changes while it is looked at: the next scan finds out
            sha256_of(catalog, entry, lambda part, _, done=done: hashing(done + part, total))  # type: ignore[misc]
        done += entry.size
    return moved + (catalog.reunite(new) if candidates else [])


def _renewed(
    found: Mapping[str, tuple[Found, Path]],
    missed: Mapping[str, Known],
    new: Collection[Path],
    met: Sequence[tuple[Path, Path]],
) -> list[tuple[Path, Path]]:
    """What is new under the name by which its program knew something else, that is gone now; (before, now).

    A store names its files by their bytes: it is to it what other bytes under the same path are to a plain folder.
    """
    settled = {path for pair in met for path in pair}
    lost = {
        (before.shelf, before.called): Path(path)
        for path, before in sorted(missed.items(), key=lambda each: (not each[1].missing, each[0]))
        if before.called and Path(path) not in settled
    }
    pairs = []
    for path in sorted(new):
        each, shelf = found[str(path)]
        if path not in settled and (before := lost.pop((str(shelf), each.name), None)):
            pairs.append((before, path))
    return pairs


def _candidates(catalog: Catalog, new: Collection[Path]) -> list[Entry]:
    """The new models that may be one that is gone and whose SHA-256 is on record: of its size, and its AutoV1."""
    lost: dict[int, set[str | None]] = {}
    away = (entry for shelf in (catalog.away() if new else ()) for entry in catalog.entries(shelf))
    for entry in (*catalog.gone(), *away):
        if entry.sha256:
            lost.setdefault(entry.size, set()).add(entry.autov1)
    if not lost:
        return []
    entries = filter(None, map(catalog.entry, sorted(new)))
    return [entry for entry in entries if not entry.error and _may_be_one_of(entry, lost.get(entry.size, set()))]


def _may_be_one_of(entry: Entry, autov1s: set[str | None]) -> bool:
    return bool(autov1s) and (None in autov1s or entry.path.is_dir() or autov1_of(entry.path) in autov1s)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))
