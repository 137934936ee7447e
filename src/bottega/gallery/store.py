"""The gallery's SQLite file for many threads: one writes, and any number reads beside it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bottega.formats.database import Schema, connect, explained, prepare, transaction

IDLE = 4  # reading connections that are kept for the next request; each holds some MB
CACHE = 4096  # KiB of pages that a connection keeps: what is filtered and counted by fits


class Store:
    """An open database. Safe to share between threads: readers never wait for who writes."""

    def __init__(self, path: Path, schema: Schema) -> None:
        self.path = path
        self.schema = schema
        self._lock = threading.RLock()
        self._pool = threading.Lock()
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._watching = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or str(error)
            remedy = "set BOTTEGA_HOME to a folder of yours"
            raise schema.error(f"{path.parent}: can't be made ({reason})", remedy) from None
        with explained(path, schema):
            self._writer = self._connect()
            try:
                prepare(self._writer, schema)
                # What the database says is there has to be there after a power cut: jobs count on it.
                self._writer.execute("PRAGMA synchronous = FULL")
                # Writes nothing, so that every change is one by another connection, which is what SQLite tells of.
                self._watcher = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def close(self) -> None:
        """Let go of the file; what still reads ends first."""
        with self._lock, self._watching, self._pool:
            self._closed = True
            idle, self._idle = self._idle, []
            for connection in (*idle, self._watcher, self._writer):
                connection.close()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that shows the file as it is now, for the whole block."""
        with explained(self.path, self.schema):
            connection = self._taken() or self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.close()
                raise
            self._give_back(connection)

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The connection that writes; all that is done in the block is kept, or nothing."""
        with self._lock, explained(self.path, self.schema), transaction(self._writer):
            yield self._writer

    def version(self) -> int:
        """Another number than before if anything was written since, by whomever; only good to be compared."""
        with self._watching, explained(self.path, self.schema):
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])

    def version_of(self, connection: sqlite3.Connection) -> int | None:
        """The version that a connection shows which has read nothing yet; None where something is just written."""
        before = self.version()
        connection.execute("SELECT 1 FROM sqlite_schema").fetchone()  # from here on it shows one state
        return before if self.version() == before else None

    def _taken(self) -> sqlite3.Connection | None:
        """A connection that nobody uses, if there is one."""
        with self._pool:
            return self._idle.pop() if self._idle else None

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._pool:
            if not self._closed and len(self._idle) < IDLE:
                self._idle.append(connection)
                return
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = connect(os.fspath(self.path), check_same_thread=False)
        connection.execute(f"PRAGMA cache_size = -{CACHE}")
        return connection
