"""What lies in the outputs folder, compared with what is on record: new, gone, back, moved, or changed by others."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bottega.errors import BottegaError
from bottega.formats import database
from bottega.formats.media import FORMATS
from bottega.gallery import rows
from bottega.gallery.output import Output
from bottega.gallery.reading import hash_file, read_output
from bottega.gallery.rows import Stamp
from bottega.gallery.store import Store

AT_ONCE = 20  # files that are recorded in one go: what is added meanwhile waits that long at most
_ROWS_AT_ONCE = 2000

Told = Callable[[int, int], None]


@dataclass
class Adopted:
    """What came of looking through the outputs: how many files are there, and how many of them are new on record, gone
    since, back again, moved, or hold other bytes than they did."""

    files: int = 0
    new: int = 0
    gone: int = 0
    back: int = 0
    moved: int = 0
    changed: int = 0


@dataclass(frozen=True)
class _Known:
    """The little of a record that a file is compared with."""

    number: int
    path: Path
    stamp: Stamp
    sha256: str
    missing: bool
    changed: bool


def adopt(store: Store, home: Path, folder: Path, told: Told, owner_of: Callable[[str], str]) -> Adopted:
    """Bring the record up to date with the files; see `Gallery.adopt`. `home` is where relative paths begin."""
    report = Adopted()
    strange: list[Path] = []
    places: set[Path] = set()
    for place, files in _places(folder):
        told(0, 0)
        places.add(place)
        report.files += len(files)
        known = {each.path.name: each for each in _known_in(store, home, place)}
        _compare(store, known.values(), files, report)
        left = _left_alone(store, home, place)
        strange += [
            place / name
            for name, stamp in files.items()
            if name not in known and left.get(name) != stamp and Path(name).suffix.lower() in FORMATS
        ]
    for elsewhere in _known_outside(store, home, folder, places):
        told(0, 0)
        _compare(store, elsewhere, {}, report)
    for done in range(0, len(strange), AT_ONCE):
        told(done, len(strange))
        _take_in(store, home, strange[done : done + AT_ONCE], owner_of, report)
    told(len(strange), len(strange))
    return report


def _places(folder: Path) -> Iterator[tuple[Path, dict[str, Stamp]]]:
    """Every folder with its files; links lead elsewhere, and what is hidden is being written."""
    waiting = [folder]
    while waiting:
        place = waiting.pop()
        files: dict[str, Stamp] = {}
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or isinstance(database.text(entry.name), bytes):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(place / entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        files[entry.name] = status.st_size, status.st_mtime_ns
        except OSError:
            continue  # gone meanwhile, or not ours to read: its outputs are looked for one by one
        yield place, files


# --- what is on record


_KNOWN = (
    "SELECT id, path, size, mtime_ns, sha256, missing, changed FROM details JOIN outputs USING (id) "
    "WHERE path > ? AND path < ? AND {} ORDER BY path LIMIT ?"
)


def _known_in(store: Store, home: Path, place: Path) -> Iterator[_Known]:
    """The outputs on record whose files lie in this folder itself."""
    prefix = _prefix(home, place)
    within = f"instr(substr(path, {len(prefix) + 1}), '/') = 0"
    for some in _known(store, home, prefix, within):
        yield from some


def _known_outside(store: Store, home: Path, folder: Path, places: Collection[Path]) -> Iterator[list[_Known]]:
    """The outputs on record whose files lie in none of these folders, some at a time."""
    for some in _known(store, home, "", "1"):
        yield [each for each in some if each.path.parent not in places]


def _known(store: Store, home: Path, prefix: str, condition: str) -> Iterator[list[_Known]]:
    """The outputs on record whose paths begin so, by path, some at a time."""
    after, end = prefix, f"{prefix}\U0010ffff"
    while True:
        with store.reading() as connection:
            found = connection.execute(_KNOWN.format(condition), (after, end, _ROWS_AT_ONCE)).fetchall()
        yield [
            _Known(number, home / path, (size, mtime_ns), sha256, bool(missing), bool(changed))
            for number, path, size, mtime_ns, sha256, missing, changed in found
        ]
        if len(found) < _ROWS_AT_ONCE:
            return
        after = found[-1][1]


def _left_alone(store: Store, home: Path, place: Path) -> dict[str, Stamp]:
    """The files in a folder that say nothing of how they were made, as they were when that was found."""
    prefix = _prefix(home, place)
    with store.reading() as connection:
        found = connection.execute(
            "SELECT path, size, mtime_ns FROM strangers WHERE path > ? AND path < ?", (prefix, f"{prefix}\U0010ffff")
        ).fetchall()
    return {path.removeprefix(prefix): (size, mtime_ns) for path, size, mtime_ns in found}


def _prefix(home: Path, place: Path) -> str:
    """How the paths of a folder's files begin on record."""
    return "" if place == home else f"{database.string(rows.path_key(home, place))}/"


# --- files that are on record


def _compare(store: Store, known: Collection[_Known], files: Mapping[str, Stamp], report: Adopted) -> None:
    """Record which of these outputs are gone, back or changed, as the files of their folder tell."""
    updates = []
    for each in known:
        stamp = files.get(each.path.name) or rows.stamp_of(each.path)
        if not stamp:
            if not each.missing:
                report.gone += 1
                updates.append((*each.stamp, True, each.changed, each))
        elif stamp != each.stamp or each.missing:
            # A new time alone may be that of a copy that was put back.
            changed = each.changed if stamp == each.stamp else _other_bytes(each)
            report.back += each.missing
            report.changed += changed and not each.changed
            updates.append((*stamp, False, changed, each))
    if not updates:
        return
    with store.writing() as connection:
        for size, mtime_ns, missing, changed, each in updates:
            # Unless it was made anew meanwhile.
            now = connection.execute(
                "UPDATE details SET size = ?, mtime_ns = ? WHERE id = ? AND size = ? AND mtime_ns = ? RETURNING id",
                (size, mtime_ns, each.number, *each.stamp),
            ).fetchall()
            connection.executemany(f"UPDATE outputs SET missing = {missing:d}, changed = {changed:d} WHERE id = ?", now)


def _other_bytes(known: _Known) -> bool:
    try:
        return hash_file(known.path) != known.sha256
    except OSError:
        return known.changed  # gone or locked just now; the next look will tell


# --- files that are not


def _take_in(store: Store, home: Path, paths: list[Path], owner_of: Callable[[str], str], report: Adopted) -> None:
    """Record what these files say, or that they say nothing."""
    found: list[Output] = []
    silent: list[tuple[Path, Stamp]] = []
    for path in paths:
        stamp = rows.stamp_of(path)
        if not stamp:
            continue  # gone meanwhile
        try:
            output = read_output(path)
        except BottegaError:
            silent.append((path, stamp))
        else:
            found.append(replace(output, owner=owner_of(output.job)))
    with store.writing() as connection:
        for output in found:
            _record(connection, home, output, report)
        connection.executemany(
            "INSERT OR REPLACE INTO strangers VALUES (?, ?, ?)",
            [(rows.path_key(home, path), *stamp) for path, stamp in silent],
        )


def _record(connection: sqlite3.Connection, home: Path, output: Output, report: Adopted) -> None:
    path = rows.path_key(home, output.path)
    if connection.execute("SELECT 1 FROM details WHERE path = ?", (path,)).fetchone():
        return  # whoever made it was quicker
    connection.execute("DELETE FROM strangers WHERE path = ?", (path,))
    moved = connection.execute(
        "SELECT id FROM details JOIN outputs USING (id) WHERE sha256 = ? AND missing ORDER BY id", (output.sha256,)
    ).fetchone()
    if moved:
        report.moved += 1
        connection.execute(
            "UPDATE details SET path = ?, size = ?, mtime_ns = ? WHERE id = ?",
            (path, *(rows.stamp_of(output.path) or (0, 0)), *moved),
        )
        connection.execute("UPDATE outputs SET missing = 0, changed = 0 WHERE id = ?", moved)
        return
    if connection.execute("SELECT 1 FROM details WHERE name = ?", (output.id,)).fetchone():
        output = replace(output, id=f"{secrets.token_hex(16)}-0", job="", index=0)  # a copy under the same name
    report.new += 1
    rows.put(connection, home, output)
