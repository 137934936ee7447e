"""The gallery's tables: a narrow one to filter, count and lay out by, a wide one to show, and an index of words."""

from __future__ import annotations

from bottega.formats.database import Schema
from bottega.gallery.output import GalleryError

# An output's number is the microsecond in which it was made, or the next free one: everything is in the order of time
# by its key, in the index of words too. Names that many outputs share are kept once, and so are the settings: a recipe
# without what differs from picture to picture. `fields` says which settings have which value, folded, in which field.
MIGRATIONS = (
    """
    CREATE TABLE outputs (
        id INTEGER PRIMARY KEY, owner INTEGER NOT NULL, model INTEGER NOT NULL, task INTEGER NOT NULL,
        settings INTEGER NOT NULL, folder INTEGER NOT NULL, favourite INTEGER NOT NULL, deleted INTEGER NOT NULL,
        missing INTEGER NOT NULL, changed INTEGER NOT NULL, seed INTEGER, width INTEGER NOT NULL,
        height INTEGER NOT NULL
    );
    CREATE TABLE details (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, job TEXT NOT NULL, number INTEGER NOT NULL,
        path TEXT NOT NULL UNIQUE, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL, medium TEXT NOT NULL,
        format TEXT NOT NULL, bytes INTEGER NOT NULL,
        sha256 TEXT NOT NULL, digest TEXT NOT NULL, kin INTEGER NOT NULL, deleted_at REAL, seconds REAL NOT NULL,
        prompt TEXT NOT NULL, negative TEXT NOT NULL, recipe TEXT NOT NULL
    );
    CREATE INDEX details_by_job ON details (job, number) WHERE job != '';
    CREATE INDEX details_by_sha256 ON details (sha256);
    CREATE INDEX details_by_digest ON details (digest) WHERE digest != '';
    CREATE INDEX details_by_kin ON details (kin) WHERE kin != 0;
    CREATE INDEX outputs_deleted ON outputs (id) WHERE deleted;
    CREATE INDEX outputs_missing ON outputs (id) WHERE missing;
    CREATE TABLE owners (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE tasks (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE folders (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE models (id INTEGER PRIMARY KEY, name TEXT NOT NULL, sha256 TEXT NOT NULL, folded TEXT NOT NULL,
        UNIQUE (name, sha256));
    CREATE TABLE settings (id INTEGER PRIMARY KEY, told TEXT NOT NULL UNIQUE);
    CREATE TABLE fields (name TEXT NOT NULL, value TEXT NOT NULL, settings INTEGER NOT NULL,
        PRIMARY KEY (name, value, settings)) WITHOUT ROWID;
    CREATE TABLE inputs (sha256 TEXT NOT NULL, output INTEGER NOT NULL, role TEXT NOT NULL,
        PRIMARY KEY (sha256, output, role)) WITHOUT ROWID;
    CREATE INDEX inputs_by_output ON inputs (output);
    CREATE TABLE strangers (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL) WITHOUT ROWID;
    CREATE VIRTUAL TABLE search USING fts5 (prompt, negative, model, tokenize = 'ascii', prefix = '1 2 3');
    """,
    # Who sent which picture to start from; those of an older home are known by what was made from them.
    """
    CREATE TABLE uploads (owner INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (owner, sha256)) WITHOUT ROWID
    """,
    # Outputs whose words are yet to be put into the index: many at once cost hardly more than one.
    """
    CREATE TABLE unindexed (id INTEGER PRIMARY KEY)
    """,
)

SCHEMA = Schema(
    what="gallery",
    table="details",
    migrations=MIGRATIONS,
    error=GalleryError,
    newer="update Bottega, or move the file away: a new one is filled from what the outputs carry",
    damaged="move it away: a new one is filled from what the outputs carry, or from a backup",
)
