"""What lies in the outputs folder, compared with what is on record: new, gone, back, moved, or changed by others."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator
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
# Python runs one thread at a time, and hands over late to those that wait: whoever is answered meanwhile goes first.
_BREATH = 0.02  # seconds
_BREATHE_EVERY = 500  # files whose stamps are compared
_BREATH_READING = 0.002  # after each file that is read, which takes longer by itself

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
    places: set[str] = set()
    present = 0
    for place, files in _places(folder):
        told(0, 0)
        prefix = _prefix(home, place)
        places.add(prefix)
        report.files += len(files)
        known = _stamps(store, _PRESENT, prefix)
        present += len(known)
        if files == known:
            continue
        odd = known.keys() - files.keys()
        odd |= {name for name, stamp in files.items() if known.get(name) != stamp}
        rest = odd - _compare(store, _known(store, home, [f"{prefix}{name}" for name in odd]), report)
        left_alone = _stamps(store, _LEFT_ALONE, prefix) if rest else {}
        strange += [
            place / name
            for name in sorted(rest & files.keys())
            if left_alone.get(name) != files[name] and Path(name).suffix.lower() in FORMATS
        ]
    present += report.back - report.gone
    for elsewhere in _outside(store, _prefix(home, folder), places, present):
        told(0, 0)
        _compare(store, _known(store, home, elsewhere), report)
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
                    name = entry.name
                    if name[0] == "." or not (name.isascii() or _is_unicode(name)):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(place / name)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        files[name] = status.st_size, status.st_mtime_ns
                        if len(files) % _BREATHE_EVERY == 0:
                            time.sleep(_BREATH)
        except OSError:
            continue  # gone meanwhile, or not ours to read: its outputs are looked for one by one
        yield place, files
        time.sleep(_BREATH)


def _is_unicode(name: str) -> bool:
    return isinstance(database.text(name), str)


# --- what is on record


_IN_PLACE = (
    "SELECT substr(path, ?), size, mtime_ns FROM {} WHERE path > ? AND path < ? AND instr(substr(path, ?), '/') = 0"
)
_PRESENT = f"{_IN_PLACE.format('details JOIN outputs USING (id)')} AND NOT missing"
_LEFT_ALONE = _IN_PLACE.format("strangers")
_LAST = "\U0010ffff"  # what is behind it is no text but bytes, which no folder is asked for


def _stamps(store: Store, query: str, prefix: str) -> dict[str, Stamp]:
    """The files that are known to lie in a folder itself, by name."""
    start = len(prefix) + 1
    with store.reading() as connection:
        found = connection.execute(query, (start, prefix, f"{prefix}{_LAST}", start))
        return {name: (size, mtime_ns) for name, size, mtime_ns in found}


def _known(store: Store, home: Path, paths: Collection[str]) -> list[_Known]:
    """The records of these paths, as far as there are any."""
    query = (
        "SELECT id, path, size, mtime_ns, sha256, missing, changed FROM details JOIN outputs USING (id) WHERE path = ?"
    )
    with store.reading() as connection:
        found = [row for path in paths for row in connection.execute(query, (path,))]
    return [
        _Known(number, home / path, (size, mtime_ns), sha256, bool(missing), bool(changed))
        for number, path, size, mtime_ns, sha256, missing, changed in found
    ]


def _outside(store: Store, under: str, places: Collection[str], present: int) -> Iterator[list[str]]:
    """The paths on record that begin so and lie in none of these folders, some at a time; `present` files were met."""
    paths = "FROM details JOIN outputs USING (id) WHERE path > ? AND path < ? AND {} missing"
    end = f"{under}{_LAST}"
    with store.reading() as connection:
        absent = connection.execute(f"SELECT path {paths.format('')}", (under, end)).fetchall()
        query = f"SELECT count(*) {paths.format('NOT')}" if under else "SELECT count(*) FROM outputs WHERE NOT missing"
        ((all_of_them,),) = connection.execute(query, (under, end) if under else ()).fetchall()
    yield [path for (path,) in absent if _place_of(path) not in places]
    after, query = under, f"SELECT path {paths.format('NOT')} ORDER BY path LIMIT ?"
    while all_of_them != present:
        with store.reading() as connection:
            found = [path for (path,) in connection.execute(query, (after, end, _ROWS_AT_ONCE))]
        yield [path for path in found if _place_of(path) not in places]
        if len(found) < _ROWS_AT_ONCE:
            return
        after = found[-1]
        time.sleep(_BREATH)


def _place_of(path: str) -> str:
    """How the path of a file's folder begins on record."""
    return path[: path.rfind("/") + 1]


def _prefix(home: Path, place: Path) -> str:
    """How the paths of a folder's files begin on record."""
    return "" if place == home else f"{database.string(rows.path_key(home, place))}/"


# --- files that are on record


def _compare(store: Store, known: Collection[_Known], report: Adopted) -> set[str]:
    """Record which of these outputs are gone, back or changed; the names of their files."""
    updates = []
    for each in known:
        stamp = rows.stamp_of(each.path)
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
    if updates:
        with store.writing() as connection:
            for size, mtime_ns, missing, changed, each in updates:
                # Unless it was made anew meanwhile.
                now = connection.execute(
                    "UPDATE details SET size = ?, mtime_ns = ? WHERE id = ? AND size = ? AND mtime_ns = ? RETURNING id",
                    (size, mtime_ns, each.number, *each.stamp),
                ).fetchall()
                connection.executemany(
                    f"UPDATE outputs SET missing = {missing:d}, changed = {changed:d} WHERE id = ?", now
                )
    return {each.path.name for each in known}


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
        time.sleep(_BREATH_READING)
    with store.writing() as connection:
        for output in found:
            _record(connection, home, output, report)
        rows.index_words(connection)
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
