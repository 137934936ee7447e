"""The catalog's tables, and how a file of an older version becomes one of this version: wholly, or not at all."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from bottega.library.entry import COLUMNS, INDEXED, SAID, entry_of, row_of

PATIENCE = 20  # seconds to wait for another process that writes

# From version n to n + 1; a catalog of any older version is brought up to date when it is opened. What is compared
# and filtered by comes before the long texts, which SQLite then need not read.
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
    ALTER TABLE models RENAME TO models_1;
    CREATE TABLE models (
        id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, shelf TEXT,
        size INTEGER, mtime_ns INTEGER, inode INTEGER, beside INTEGER DEFAULT 0, read_by TEXT, missing INTEGER,
        called TEXT DEFAULT '', folded TEXT DEFAULT '', kind TEXT, category TEXT, family TEXT, variant TEXT,
        recogniser TEXT DEFAULT '', runs INTEGER DEFAULT 0, verdict TEXT DEFAULT 'clean', guess INTEGER,
        format TEXT, dtype TEXT, parameters INTEGER, bytes INTEGER,
        sha256 TEXT, autov1 TEXT, autov3 TEXT, crc32 TEXT, blake3 TEXT, hashed_at REAL, error TEXT,
        because TEXT, requires TEXT DEFAULT '[]', names TEXT DEFAULT '[]', notes TEXT DEFAULT '[]',
        dimensions TEXT, parts TEXT, metadata TEXT, about TEXT
    );
    INSERT INTO models (
        path, shelf, size, mtime_ns, inode, kind, category, family, variant, format, dtype, parameters, bytes,
        dimensions, parts, because, metadata, guess, error, read_by, sha256, hashed_at, missing, verdict
    ) SELECT
        path, shelf, size, mtime_ns, inode, kind, category, family, variant, format, dtype, parameters, bytes,
        dimensions, parts, because, metadata, guess, error, read_by, sha256, hashed_at, missing,
        CASE WHEN error = '' THEN 'clean' ELSE 'refused' END
    FROM models_1;
    DROP TABLE models_1;
    CREATE INDEX models_by_name ON models (folded, id);
    CREATE INDEX models_by_stamp ON models (size, mtime_ns);
    CREATE INDEX models_missing ON models (path) WHERE missing;
    CREATE INDEX models_by_sha256 ON models (sha256) WHERE sha256 IS NOT NULL;
    CREATE INDEX models_by_autov1 ON models (autov1) WHERE autov1 IS NOT NULL;
    CREATE INDEX models_by_autov3 ON models (autov3) WHERE autov3 IS NOT NULL;
    CREATE INDEX models_by_crc32 ON models (crc32) WHERE crc32 IS NOT NULL;
    CREATE INDEX models_by_blake3 ON models (blake3) WHERE blake3 IS NOT NULL;
    CREATE TABLE said (
        path TEXT PRIMARY KEY, tags TEXT DEFAULT '[]', favourite INTEGER DEFAULT 0, note TEXT DEFAULT '',
        kind TEXT, category TEXT, family TEXT, variant TEXT, words TEXT DEFAULT ''
    ) WITHOUT ROWID;
    CREATE VIRTUAL TABLE search USING fts5 (name, words, text, said, tokenize = 'ascii', prefix = '1 2 3');
    """,
    """
    CREATE TABLE learnt (sha256 TEXT PRIMARY KEY, about TEXT, words TEXT, text TEXT) WITHOUT ROWID;
    """,
)

_INDEXED_SINCE = 2  # the version that brought the index of words

SELECTED = ", ".join(
    (
        *(f"models.{name}" for name in COLUMNS),
        *(f"said.{name.removeprefix('said_')}" for name in SAID),
        "learnt.about",
    )
)
JOINED = "models LEFT JOIN said ON said.path = models.path LEFT JOIN learnt ON learnt.sha256 = models.sha256"
INDEX = (
    f"INSERT OR REPLACE INTO search (rowid, {', '.join(INDEXED)}, said) "
    "SELECT id, ?, ? || coalesce(' ' || learnt.words, ''), ? || coalesce(' ' || learnt.text, ''), "
    f"coalesce(said.words, '') FROM {JOINED} WHERE models.path = ?"
)


class NewerCatalogError(Exception):
    """The file was made by a newer Bottega, which may keep what this one does not know of."""


class CopyError(Exception):
    """The file is of an older version, and no copy of it could be kept beside it."""


def connect(target: str, *, uri: bool = False) -> sqlite3.Connection:
    """A connection without implicit transactions: each change says where it begins and ends."""
    return sqlite3.connect(target, timeout=PATIENCE, isolation_level=None, uri=uri)


def prepare(connection: sqlite3.Connection) -> None:
    """Bring the tables up to date; raises NewerCatalogError for those of a newer version,
    CopyError where those of an older one could not be kept beside them."""
    version = _version(connection)
    if version > len(MIGRATIONS):
        raise NewerCatalogError
    if version == len(MIGRATIONS):
        return
    _use_wal(connection)
    with transaction(connection):
        # Another process may have done it while this one waited for its turn, so the version is read again.
        version = _version(connection)
        if 0 < version < len(MIGRATIONS):
            _keep_copy(connection, version)
        for script in MIGRATIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        if version < _INDEXED_SINCE:
            _index_all(connection)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is done within it, or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; the bits above say more than is needed here."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _index_all(connection: sqlite3.Connection) -> None:
    """Put every model that is on record into the index of words, which earlier versions did not have."""
    for row in connection.execute(f"SELECT {SELECTED} FROM {JOINED}").fetchall():
        values = row_of(entry_of(row))
        connection.execute("UPDATE models SET folded = ? WHERE path = ?", (values[COLUMNS.index("folded")], row[0]))
        connection.execute(INDEX, (*values[len(COLUMNS) :], row[0]))


def _keep_copy(connection: sqlite3.Connection, version: int) -> None:
    """Keep the file as it is beside itself, under the number of its version: an older Bottega can go on with it."""
    path = next(file for _, name, file in connection.execute("PRAGMA database_list") if name == "main")
    if not path:
        return  # it is in memory
    copy, part = f"{path}.v{version}", f"{path}.v{version}.part"
    with suppress(FileNotFoundError):
        os.unlink(part)  # of a copy that was broken off
    try:
        # Through a connection of its own: this one is about to write, and a copy would wait for it for ever.
        with closing(connect(path)) as source, closing(connect(part)) as target:
            source.backup(target)
        os.replace(part, copy)
    except (OSError, sqlite3.Error) as error:
        with suppress(OSError):
            os.unlink(part)
        raise CopyError(str(error)) from error


def _use_wal(connection: sqlite3.Connection) -> None:
    # The mode is kept in the file. Changing it does not wait for other processes as everything else does.
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if code_of(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)
