"""Tell which models lie at other paths than the catalog has them, so that what is on record of them goes along."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bottega.errors import FileError
from bottega.library.catalog import Catalog, Known, Move
from bottega.library.disk import Stamp, fingerprint_of, stamp_of
from bottega.library.hashes import hash_model
from bottega.library.reading import autov1_of

Told = Callable[[int, int], None]  # (bytes done, bytes in all)


def by_stamp(known: Mapping[str, Known], here: Mapping[str, Stamp]) -> list[Move]:
    """The records whose files, to the stamp, are `here` under other paths, and no longer under their own; also those of
    a shelf that is away, if it was on the same disk.

    Where several have one stamp (hard links) they are paired in the order of their paths, those first that were not
    missing until now.
    """
    unsettled = _unsettled(known, here)
    wanted = {here[path]: path for path in unsettled}
    lost: dict[Stamp, list[str]] = {}
    for path, before in sorted(known.items(), key=lambda each: (each[1].missing, each[0])) if unsettled else ():
        # Where files have no inodes, any two of one size and time would have the same stamp.
        if before.stamp not in wanted or not before.stamp.inode:
            continue
        if _is_lost(path, before, here) or _was_beside(path, wanted[before.stamp]):
            lost.setdefault(before.stamp, []).append(path)
    return [Move(lost[here[path]].pop(0), path, here[path], here[path]) for path in unsettled if lost.get(here[path])]


def by_hash(
    catalog: Catalog, known: Mapping[str, Known], here: Mapping[str, Stamp], moves: list[Move], told: Told
) -> list[Move]:
    """The same for what was copied over a model on record: told by the SHA-256, which is computed of such files alone
    as have the size and the AutoV1 of a record that is lost. `moves` are those that are known already.
    """
    settled = {path for move in moves for path in (move.before, move.now)}
    changed = [path for path in _unsettled(known, here) if path in known and path not in settled]
    if not changed:
        return []
    sizes = {here[path].size for path in changed}
    lost: dict[tuple[int, str], dict[str, str]] = {}
    for path, (size, autov1, sha256) in catalog.hashed().items():
        if size in sizes and path not in settled and path in known and _is_lost(path, known[path], here):
            lost.setdefault((size, autov1), {})[path] = sha256
    likely = [path for path in changed if lost.get(_key(path, here[path]), {}).keys() - {path}]
    done, total = 0, sum(here[path].size for path in likely)
    found: list[Move] = []
    for path in likely:
        with suppress(FileError, OSError):  # it is gone again, or can't be read
            stamp = here[path]
            sha256 = hash_model(Path(path), stamp, lambda part, _, done=done: told(done + part, total))  # type: ignore[misc]
            candidates = lost[_key(path, stamp)]
            of_it = [each for each, its in candidates.items() if its == sha256]
            if of_it and path not in of_it and stamp_of(Path(path)) == stamp:
                found.append(Move(of_it[0], path, known[of_it[0]].stamp, stamp))
                del candidates[of_it[0]]
        done += here[path].size
    return found


def by_fingerprint(
    catalog: Catalog, known: Mapping[str, Known], here: Mapping[str, Stamp], moves: Sequence[Move]
) -> list[Move]:
    """The same for what was copied to another disk and deleted, where the user said something of it and its SHA-256 is
    not on record: told by its fingerprint, which is computed of what is new of its size, and in the first scan that
    misses it also of what was copied before. `moves` are those that are known already.
    """
    settled = {path for move in moves for path in (move.before, move.now)}
    said = catalog.fingerprints()
    lost: dict[int, dict[str, str]] = {}
    for path, fingerprint in sorted(said.items()):
        if not fingerprint or path not in known or path in settled or path in here or os.path.lexists(path):
            continue
        if _is_lost(path, known[path], here):
            lost.setdefault(known[path].stamp.size, {})[fingerprint] = path
    if not lost:
        return []
    unsettled = set(_unsettled(known, here))
    found: list[Move] = []
    for path, stamp in sorted(here.items(), key=lambda each: (each[0] not in unsettled, each[0])):
        wanted = lost.get(stamp.size, {})
        if not wanted or path in settled or (path in said and path not in unsettled):
            continue
        if path in unsettled or not all(known[each].missing for each in wanted.values()):
            with suppress(OSError):  # it is gone again
                if before := wanted.pop(fingerprint_of(Path(path)), None):
                    found.append(Move(before, path, known[before].stamp, stamp))
    return found


def _unsettled(known: Mapping[str, Known], here: Mapping[str, Stamp]) -> list[str]:
    """Where other bytes lie than the catalog has there."""
    return sorted(path for path, stamp in here.items() if path not in known or known[path].stamp != stamp)


def _is_lost(path: str, before: Known, here: Mapping[str, Stamp]) -> bool:
    """Whether the bytes on record are no longer at this path; those of a shelf that is away may come back."""
    if path in here:
        return here[path] != before.stamp
    try:
        return stamp_of(Path(path)) != before.stamp
    except OSError:
        return before.shelf is None or os.path.isdir(before.shelf)


def _was_beside(path: str, now: str) -> bool:
    """Whether what is gone was on the disk that this file is on; one that was unplugged left none of its folders."""
    if os.path.lexists(path):
        return False
    place = next(folder for folder in Path(path).parents if folder.exists())
    try:
        return place.stat().st_dev == os.stat(now).st_dev
    except OSError:  # it is gone again
        return False


def _key(path: str, stamp: Stamp) -> tuple[int, str]:
    try:
        return stamp.size, autov1_of(Path(path))
    except OSError:  # it is a folder, or gone again
        return stamp.size, ""
