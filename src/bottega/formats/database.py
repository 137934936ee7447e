"""The home's SQLite files: opened, brought up to date wholly or not at all, and their errors said in one clear line."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bottega.errors import BottegaError

PATIENCE = 20  # seconds to wait for another process that writes


@dataclass(frozen=True)
class Schema:
    """What a file of one sort holds, and how older files of that sort become one of this version.

    `what` names the sort in errors. `migrations` lead from version n to n + 1, each SQL with a semicolon behind every
    statement; `migrated(connection, version)` does, within the same transaction, what SQL alone can't for a file that
    was of that version. `table` is one that every file of this sort has. `error` is raised for what is wrong with the
    file, `newer` and `damaged` say what to do where a newer Bottega made it, or where it is broken or another
    program's.
    """

    what: str
    table: str
    migrations: tuple[str, ...]
    error: type[BottegaError]
    newer: str
    damaged: str
    migrated: Callable[[sqlite3.Connection, int], None] = field(default=lambda connection, version: None)


class NewerFileError(Exception):
    """The file was made by a newer Bottega, which may keep what this one does not know of."""


class ForeignFileError(Exception):
    """The file is a database of another sort."""


class CopyError(Exception):
    """The file is of an older version, and no copy of it could be kept beside it."""


def connect(target: str, *, uri: bool = False, check_same_thread: bool = True) -> sqlite3.Connection:
    """A connection without implicit transactions: each change says where it begins and ends."""
    return sqlite3.connect(target, timeout=PATIENCE, isolation_level=None, uri=uri, check_same_thread=check_same_thread)


def prepare(connection: sqlite3.Connection, schema: Schema) -> None:
    """Bring the tables up to date. A file of an older version is kept beside itself first, under that version's number.

    Raises NewerFileError, ForeignFileError, CopyError where an older file could not be kept, and what SQLite raises.
    """
    latest = len(schema.migrations)
    version = _version(connection, schema)
    if version > latest:
        raise NewerFileError
    if version == latest:
        return
    _use_wal(connection)
    with transaction(connection):
        # Another process may have done it while this one waited for its turn, so the version is read again.
        version = _version(connection, schema)
        if 0 < version < latest:
            _keep_copy(connection, version)
        for script in schema.migrations[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        schema.migrated(connection, version)
        connection.execute(f"PRAGMA user_version = {latest}")


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


@contextmanager
def explained(path: Path, schema: Schema) -> Iterator[None]:
    """Turn what goes wrong with a file into the schema's error: one clear line about this file."""
    try:
        yield
    except NewerFileError:
        raise schema.error(f"{path} was made by a newer Bottega", schema.newer) from None
    except ForeignFileError:
        raise schema.error(f"{path} is another program's database, and no {schema.what}", schema.damaged) from None
    except CopyError as error:
        raise schema.error(
            f"{path} is of an older version, and no copy of it could be kept: {error}", "free some space there"
        ) from error
    except sqlite3.DatabaseError as error:
        remedy = _REMEDIES.get(code_of(error), "check the disk that it is on") or schema.damaged
        raise schema.error(f"{path}: {error}", remedy) from error


# Those without a remedy have the schema's, for damage.
_REMEDIES: Mapping[int, str] = {
    sqlite3.SQLITE_BUSY: "another Bottega is writing it; try again when that is done",
    sqlite3.SQLITE_FULL: "free some space",
    sqlite3.SQLITE_NOTADB: "",
    sqlite3.SQLITE_CORRUPT: "",
}


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file itself is broken, and not that it can't be had just now."""
    return _REMEDIES.get(code_of(error)) == ""


def is_busy(error: BottegaError) -> bool:
    """Whether an error from `explained` says only that somebody else is writing the file, which passes."""
    return isinstance(error.__cause__, sqlite3.Error) and code_of(error.__cause__) == sqlite3.SQLITE_BUSY


def is_full(error: BottegaError) -> bool:
    """Whether an error from `explained` says that there is no room left on the disk."""
    return isinstance(error.__cause__, sqlite3.Error) and code_of(error.__cause__) == sqlite3.SQLITE_FULL


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; the bits above say more than is needed here."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def text(value: str) -> str | bytes:
    """The text as SQLite can hold it: a name that is no valid Unicode goes in as the bytes that it is on disk."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode(errors="surrogateescape")
    return value


def string(value: str | bytes) -> str:
    """The name that `text` gave to SQLite."""
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")


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


def _version(connection: sqlite3.Connection, schema: Schema) -> int:
    """The version of the file, 0 for one that is new; ForeignFileError if it holds tables, and not ours."""
    # In one statement, which sees one state: between two another process may bring the tables up to date.
    query = (
        "SELECT user_version, (SELECT json_group_array(name) FROM sqlite_master WHERE type = 'table') "
        "FROM pragma_user_version"
    )
    version, names = connection.execute(query).fetchone()
    tables = json.loads(names)
    if schema.table not in tables if version else tables:
        raise ForeignFileError
    return int(version)
