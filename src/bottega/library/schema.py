"""The catalog's tables, and how a file of an older version becomes one of this version: wholly, or not at all."""

from __future__ import annotations

import sqlite3

from bottega.errors import BottegaError
from bottega.formats.database import Schema
from bottega.library.entry import COLUMNS, INDEXED, SAID, entry_of, row_of

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
    """
    ALTER TABLE said ADD COLUMN fingerprint TEXT DEFAULT '';
    """,
    # The hash of nothing, which is that of no model.
    """
    UPDATE models SET autov1 = '' WHERE autov1 = 'e3b0c442';
    """,
    # All that most searches count by, so that they need not read the models themselves.
    """
    CREATE INDEX models_by_state ON models (missing, verdict, folded);
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
OF_THE_SAID = "said CROSS JOIN models ON models.path = said.path LEFT JOIN learnt ON learnt.sha256 = models.sha256"
INDEX = (
    f"INSERT OR REPLACE INTO search (rowid, {', '.join(INDEXED)}, said) "
    "SELECT id, ?, ? || coalesce(' ' || learnt.words, ''), ? || coalesce(' ' || learnt.text, ''), "
    f"coalesce(said.words, '') FROM {JOINED} WHERE models.path = ?"
)


class CatalogError(BottegaError):
    """The catalog can't be read or written."""


def _index_all(connection: sqlite3.Connection, version: int) -> None:
    """Put every model that is on record into the index of words, which earlier versions did not have."""
    if version >= _INDEXED_SINCE:
        return
    for row in connection.execute(f"SELECT {SELECTED} FROM {JOINED}").fetchall():
        values = row_of(entry_of(row))
        connection.execute("UPDATE models SET folded = ? WHERE path = ?", (values[COLUMNS.index("folded")], row[0]))
        connection.execute(INDEX, (*values[len(COLUMNS) :], row[0]))


SCHEMA = Schema(
    what="catalog",
    table="models",
    migrations=MIGRATIONS,
    error=CatalogError,
    newer="update Bottega, or move the file away and scan again",
    damaged="move it away and scan the shelves, which makes a new one",
    migrated=_index_all,
)
