"""The catalog: an SQLite file that remembers what every model is, so that no header is read twice."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from bottega.errors import BottegaError
from bottega.library.disk import Stamp, model_name, stamp_of
from bottega.library.identify import reader

if TYPE_CHECKING:
    from bottega.library.hashes import Hashes

PATIENCE = 20  # seconds to wait for another process that writes

# From version n to n + 1; a catalog of any older version is brought up to date when it is opened.
MIGRATIONS = (
    """
    CREATE TABLE models (
        path TEXT PRIMARY KEY, shelf TEXT, size INTEGER, mtime_ns INTEGER, inode INTEGER,
        kind TEXT, category TEXT, family TEXT, variant TEXT, format TEXT, dtype TEXT,
        parameters INTEGER, bytes INTEGER, dimensions TEXT, parts TEXT, because TEXT, metadata TEXT, guess INTEGER,
        error TEXT, read_by TEXT, sha256 TEXT, hashed_at REAL, missing INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE shelves (path TEXT PRIMARY KEY, added_at REAL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE models ADD COLUMN autov1 TEXT;
    ALTER TABLE models ADD COLUMN autov3 TEXT;
    ALTER TABLE models ADD COLUMN crc32 TEXT;
    ALTER TABLE models ADD COLUMN blake3 TEXT
    """,
)

COLUMNS = (
    "path", "shelf", "size", "mtime_ns", "inode", "kind", "category", "family", "variant", "format", "dtype",
    "parameters", "bytes", "dimensions", "parts", "because", "metadata", "guess", "error", "read_by", "sha256",
    "hashed_at", "missing", "autov1", "autov3", "crc32", "blake3",
)  # fmt: skip
HASHES = ("sha256", "hashed_at", "autov1", "autov3", "crc32", "blake3")

# A hash stays true as long as the stamp does, whoever of several processes computed it.
_KEPT = "coalesce(excluded.{0}, CASE WHEN size = excluded.size AND mtime_ns = excluded.mtime_ns " \
        "AND inode = excluded.inode THEN {0} END)"  # fmt: skip
_CHANGES = ", ".join(f"{name} = {_KEPT.format(name) if name in HASHES else f'excluded.{name}'}" for name in COLUMNS[1:])
_PUT = (
    f"INSERT INTO models ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    f"ON CONFLICT (path) DO UPDATE SET {_CHANGES}"
)


class CatalogError(BottegaError):
    """The catalog can't be read or written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalog knows of one model.

    `error` says why its header was refused; everything from `kind` on is empty then. `read_by` names the code and the
    families that read the header: others may see more in it. `missing` models were here and may come back.
    """

    path: Path
    shelf: Path | None
    stamp: Stamp
    kind: str = "unknown"
    category: str = "unknown"
    family: str = ""
    variant: str = ""
    format: str = ""
    dtype: str = ""
    parameters: int = 0
    bytes: int = 0
    dimensions: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    because: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    guess: bool = False
    error: str = ""
    read_by: str = ""
    sha256: str | None = None
    hashed_at: float | None = None
    autov1: str | None = None
    autov3: str | None = None
    crc32: str | None = None
    blake3: str | None = None
    missing: bool = False

    @property
    def name(self) -> str:
        """What people call it."""
        return model_name(self.path)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.stamp.size

    def is_current(self) -> bool:
        """Whether the file is still the one whose header was read, and this code the one that read it."""
        try:
            return self.stamp == stamp_of(self.path) and self.read_by.partition(" ")[0] == reader()
        except OSError:
            return False

    @property
    def autov2(self) -> str | None:
        """The short hash by which A1111 and Civitai know the file."""
        return self.sha256[:10] if self.sha256 else None

    def to_json(self) -> dict[str, Any]:
        """The entry as plain data."""
        return {
            "name": self.name,
            "path": str(self.path),
            "shelf": str(self.shelf) if self.shelf else None,
            "kind": self.kind,
            "category": self.category,
            "family": self.family,
            "variant": self.variant,
            "format": self.format,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "size": self.size,
            "tensor_bytes": self.bytes,
            "dimensions": dict(self.dimensions),
            "parts": dict(self.parts),
            "because": list(self.because),
            "guess": self.guess,
            "metadata": dict(self.metadata),
            "sha256": self.sha256,
            "autov2": self.autov2,
            "error": self.error or None,
        }


class Catalog:
    """An open catalog; belongs to the thread that opened it.

    `note` says why it is only kept in memory, where the home can't be written.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, note: str = "") -> None:
        self.path = path
        self.note = note
        self._connection = connection

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def entries(self, shelf: Path | None = None, *, missing: bool = False) -> list[Entry]:
        """Every model, or every one of a shelf, by path; those that are gone only if asked for."""
        rows = self._rows(
            f"SELECT {_SELECTED} FROM models WHERE (? OR NOT missing) AND (? IS NULL OR shelf = ?) ORDER BY path",
            missing,
            *[_text(str(shelf)) if shelf else None] * 2,
        )
        return [_entry(row) for row in rows]

    def entry(self, path: Path) -> Entry | None:
        """The model at exactly this path."""
        rows = self._rows(f"SELECT {_SELECTED} FROM models WHERE path = ?", _text(str(path)))
        return _entry(rows[0]) if rows else None

    def with_sha256(self, prefix: str) -> list[Entry]:
        """The models whose hash is known and begins so (hexadecimal digits)."""
        return [
            _entry(row)
            for row in self._rows(
                f"SELECT {_SELECTED} FROM models WHERE substr(sha256, 1, ?) = ? AND NOT missing ORDER BY path",
                len(prefix),
                prefix.lower(),
            )
        ]

    def put(self, entries: Iterable[Entry]) -> None:
        """Record the entries, all of them or none; a hash that is known and still true is kept."""
        rows = [_row(entry) for entry in entries]
        with self._transaction() as connection:
            connection.executemany(_PUT, rows)

    def keep_hash(self, entry: Entry, sha256: str) -> Entry:
        """Record the hash of an entry's bytes, unless they are others by now."""
        hashed = replace(entry, sha256=sha256, hashed_at=time.time())
        with self._transaction() as connection:
            connection.execute(
                "UPDATE models SET sha256 = ?, hashed_at = ? "
                "WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
                (sha256, hashed.hashed_at, _text(str(entry.path)), *entry.stamp),
            )
        return hashed

    def keep_hashes(self, entry: Entry, hashes: Hashes) -> Entry:
        """Record all hashes of an entry's bytes, unless they are others by now."""
        told = {"hashed_at": time.time(), **asdict(hashes)}
        with self._transaction() as connection:
            connection.execute(
                f"UPDATE models SET {', '.join(f'{name} = ?' for name in told)} "
                "WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
                (*told.values(), _text(str(entry.path)), *entry.stamp),
            )
        return replace(entry, **told)

    def mark_missing(self, paths: Iterable[Path]) -> None:
        """Record that these are gone for now."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE models SET missing = 1 WHERE path = ?", [(_text(str(path)),) for path in paths]
            )

    def forget(self, paths: Iterable[Path]) -> None:
        """Drop these for good."""
        with self._transaction() as connection:
            connection.executemany("DELETE FROM models WHERE path = ?", [(_text(str(path)),) for path in paths])

    def shelves(self) -> tuple[Path, ...]:
        """The folders that the user named, in that order."""
        return tuple(Path(_string(row[0])) for row in self._rows("SELECT path FROM shelves ORDER BY added_at, path"))

    def add_shelf(self, shelf: Path) -> None:
        """Remember a folder as a shelf."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO shelves VALUES (?, ?)", (_text(str(shelf)), time.time()))

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with _explained(self.path):
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _explained(self.path), _transaction(self._connection):
            yield self._connection


_SELECTED = ", ".join(COLUMNS)


def open_catalog(path: Path) -> Catalog:
    """Open the catalog, make it if there is none, bring it up to date.

    Where it can't be written it is read into memory instead, so that a home on a read-only disk is still of use.
    Raises CatalogError for a file that is no catalog, or one that a newer Bottega made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _in_memory(path, error.strerror or str(error))
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            return _in_memory(path, f"{place} is read-only")
    with _explained(path):
        connection = _connect(str(path))
        try:
            _prepare(connection, path)
        except sqlite3.OperationalError as error:
            connection.close()
            if _code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL):
                raise
            return _in_memory(path, str(error))
    return Catalog(connection, path)


def _connect(target: str, *, uri: bool = False) -> sqlite3.Connection:
    # No implicit transactions: each change says where it begins and ends.
    return sqlite3.connect(target, timeout=PATIENCE, isolation_level=None, uri=uri)


def _in_memory(path: Path, why: str) -> Catalog:
    """What is on record at `path`, if that can be read, in a catalog that ends with the process."""
    connection = _connect(":memory:")
    with _explained(path):
        if os.access(path, os.R_OK):
            _copy(path, connection)
        _prepare(connection, path)
    return Catalog(connection, path, note=f"the catalog is not kept: {why}")


def _copy(path: Path, connection: sqlite3.Connection) -> None:
    try:
        with closing(_connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source:
            source.backup(connection)
    except sqlite3.OperationalError:
        # WAL wants to write a file beside the database even to read it; "immutable" promises that nobody writes.
        with closing(_connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as source:
            source.backup(connection)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise CatalogError(
            f"{path} was made by a newer Bottega", "update Bottega, or move the file away and scan again"
        )
    if version == len(MIGRATIONS):
        return
    _use_wal(connection)
    with _transaction(connection):
        # Another process may have done it while this one waited for its turn, so the version is read again.
        for script in MIGRATIONS[_version(connection) :]:
            for statement in script.split(";"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def _use_wal(connection: sqlite3.Connection) -> None:
    # The mode is kept in the file. Changing it does not wait for other processes as everything else does.
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one clear line about this file."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise CatalogError(f"{path}: {error}", _REMEDIES.get(_code(error), "check the disk that it is on")) from error


_REMEDIES = {
    sqlite3.SQLITE_BUSY: "another Bottega is writing it; try again when that is done",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_NOTADB: "move it away and run `bottega models scan`, which makes a new one",
    sqlite3.SQLITE_CORRUPT: "move it away and run `bottega models scan`, which makes a new one",
}


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; the bits above say more than is needed here."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _row(entry: Entry) -> tuple[object, ...]:
    return (
        _text(str(entry.path)),
        _text(str(entry.shelf)) if entry.shelf else None,
        *entry.stamp,
        entry.kind,
        entry.category,
        entry.family,
        entry.variant,
        entry.format,
        entry.dtype,
        entry.parameters,
        entry.bytes,
        json.dumps(dict(entry.dimensions)),
        json.dumps(dict(entry.parts)),
        json.dumps(entry.because),
        json.dumps(dict(entry.metadata)),
        entry.guess,
        entry.error,
        entry.read_by,
        entry.sha256,
        entry.hashed_at,
        entry.missing,
        entry.autov1,
        entry.autov3,
        entry.crc32,
        entry.blake3,
    )


def _entry(row: tuple[Any, ...]) -> Entry:
    told = dict(zip(COLUMNS, row, strict=True))
    return Entry(
        path=Path(_string(told["path"])),
        shelf=Path(_string(told["shelf"])) if told["shelf"] else None,
        stamp=Stamp(told["size"], told["mtime_ns"], told["inode"]),
        dimensions=json.loads(told["dimensions"]),
        parts=json.loads(told["parts"]),
        because=tuple(json.loads(told["because"])),
        metadata=json.loads(told["metadata"]),
        guess=bool(told["guess"]),
        missing=bool(told["missing"]),
        **{name: told[name] for name in _AS_THEY_ARE},
    )


_AS_THEY_ARE = (
    "kind", "category", "family", "variant", "format", "dtype", "parameters", "bytes", "error", "read_by", "sha256",
    "hashed_at", "autov1", "autov3", "crc32", "blake3",
)  # fmt: skip


def _text(text: str) -> str | bytes:
    """The text as SQLite can hold it: a name that is no valid Unicode goes in as the bytes that it is on disk."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogateescape")
    return text


def _string(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")
