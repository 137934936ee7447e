"""Outputs as rows: how one is written, read and dropped."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bottega.formats import database
from bottega.gallery import fields
from bottega.gallery.output import Output, UnknownOutput
from bottega.library import search

_JOINED = (
    "outputs JOIN details USING (id) JOIN owners ON owners.id = outputs.owner JOIN tasks ON tasks.id = outputs.task "
    "JOIN models ON models.id = outputs.model LEFT JOIN folders ON folders.id = outputs.folder"
)
# In the order of an Output's fields.
_SHOWN = (
    "details.name, job, number, owners.name, path, medium, format, width, height, bytes, details.sha256, seed, digest, "
    "tasks.name, prompt, negative, models.name, models.sha256, outputs.id / 1e6, recipe, favourite, "
    "coalesce(folders.name, ''), deleted_at, missing, changed, seconds"
)
_PATH = 4  # its place among them
_YES_OR_NO = (20, 23, 24)
# Every table that an output has rows in, and by which column.
_TABLES = (("outputs", "id"), ("details", "id"), ("inputs", "output"), ("search", "rowid"), ("unindexed", "id"))

Stamp = tuple[int, int]

_NEAR = 32
_SECOND = 1_000_000
LAST = 9e12  # seconds: what is later than any output, and as microseconds still one of SQLite's numbers


def put(connection: sqlite3.Connection, folder: Path, output: Output) -> None:
    """Write an output: a new row, or the facts of the one that it has; what its owner said of that one stays.

    Its words are found after `index_words`.
    """
    parts = fields.parts_of(output.recipe)
    path = path_key(folder, output.path)
    known = _place_of(connection, output, path)
    number = _free(connection, time_number(output.created)) if known is None else known
    marks = {
        "owner": kept(connection, "owners", output.owner),
        "model": _kept_model(connection, output.model, output.model_sha256),
        "task": kept(connection, "tasks", output.task),
        "settings": _kept_settings(connection, parts),
        "missing": output.missing,
        "changed": output.changed,
        "seed": output.seed,
        "width": output.width,
        "height": output.height,
    }
    said = {
        "folder": kept(connection, "folders", output.folder) if output.folder else 0,
        "favourite": output.favourite,
        "deleted": output.deleted is not None,
    }
    size, mtime_ns = stamp_of(output.path) or (0, 0)
    details = {
        "name": output.id,
        "job": output.job,
        "number": output.index,
        "path": path,
        "size": size,
        "mtime_ns": mtime_ns,
        **{name: getattr(output, name) for name in ("medium", "format", "bytes", "sha256")},
        **{name: getattr(output, name) for name in ("digest", "seconds", "prompt", "negative", "recipe")},
        "kin": parts.kin,
    }
    _upsert(connection, "outputs", {"id": number, **marks}, said)
    _upsert(connection, "details", {"id": number, **details}, {"deleted_at": output.deleted})
    if known is not None:
        connection.execute("DELETE FROM inputs WHERE output = ?", (number,))
    connection.executemany(
        "INSERT OR IGNORE INTO inputs VALUES (?, ?, ?)", [(sha256, number, role) for role, sha256 in parts.inputs]
    )
    connection.execute("INSERT OR IGNORE INTO unindexed VALUES (?)", (number,))


def index_words(connection: sqlite3.Connection) -> None:
    """Have the words found of all outputs that were written."""
    query = (
        "SELECT unindexed.id, prompt, negative, models.name FROM unindexed JOIN details USING (id) "
        "JOIN outputs USING (id) JOIN models ON models.id = outputs.model"
    )
    told = connection.execute(query).fetchall()
    connection.executemany(
        "INSERT OR REPLACE INTO search (rowid, prompt, negative, model) VALUES (?, ?, ?, ?)",
        ((number, *(search.indexed([words]) for words in texts)) for number, *texts in told),
    )
    connection.execute("DELETE FROM unindexed")


def _place_of(connection: sqlite3.Connection, output: Output, path: str | bytes) -> int | None:
    """The number of the row that an output has; None if it has none.

    A row with this path and other bytes is of a file that is no more; one with the same bytes is this output's, found
    before anybody told of it.
    """
    query = "SELECT id, name, sha256 FROM details WHERE name = ? OR path = ? ORDER BY name = ? DESC"
    number = None
    for other, name, sha256 in connection.execute(query, (output.id, path, output.id)).fetchall():
        if number is None and (name == output.id or sha256 == output.sha256):
            number = int(other)
        else:
            remove(connection, other)
    return number


def read(connection: sqlite3.Connection, folder: Path, where: str, *values: object) -> list[Output]:
    """The outputs that a condition holds for, in SQL; its names are those of `_JOINED`."""
    rows = connection.execute(f"SELECT {_SHOWN} FROM {_JOINED} WHERE {where}", values).fetchall()
    return [_output(folder, row) for row in rows]


def _output(folder: Path, row: Sequence[Any]) -> Output:
    values = list(row)
    values[_PATH] = folder / database.string(values[_PATH])
    for place in _YES_OR_NO:
        values[place] = bool(values[place])
    return Output(*values)


def number_of(connection: sqlite3.Connection, id: str) -> int:
    """The number of an output's row; UnknownOutput if there is none."""
    for (number,) in connection.execute("SELECT id FROM details WHERE name = ?", (id,)):
        return int(number)
    raise UnknownOutput(id)


def path_key(folder: Path, path: Path) -> str | bytes:
    """The path from the outputs folder on, with slashes on every system; whole, if it lies elsewhere."""
    whole, start = os.path.abspath(path), os.path.join(folder, "")
    return database.text(whole.removeprefix(start).replace(os.sep, "/"))


def is_elsewhere(folder: Path, path: Path) -> bool:
    """Whether a file lies outside of the outputs folder, whatever its path begins with."""
    return not Path(os.path.abspath(path)).is_relative_to(folder)


def time_number(seconds: float) -> int:
    """The number of an output that was made then."""
    return round(min(max(seconds, 0.0), LAST) * 1e6)


def _free(connection: sqlite3.Connection, number: int) -> int:
    """A number that nothing has: this one, or one of the next.

    Files that came out of an archive may all be of one moment; they are not to be counted through again for each.
    """
    for near in range(number, number + _NEAR):
        if not connection.execute("SELECT 1 FROM outputs WHERE id = ?", (near,)).fetchone():
            return near
    query = "SELECT max(id) FROM outputs WHERE id >= ? AND id < ?"
    ((last,),) = connection.execute(query, (number, number + _SECOND)).fetchall()
    return _free(connection, int(last) + 1)


def kept(connection: sqlite3.Connection, table: str, name: str) -> int:
    """The number under which a table keeps this name."""
    query = f"SELECT id FROM {table} WHERE name = ?"
    known = connection.execute(query, (name,)).fetchone()
    if known:
        return int(known[0])
    return _new(connection, f"INSERT INTO {table} (name) VALUES (?)", name)


def _kept_model(connection: sqlite3.Connection, name: str, sha256: str) -> int:
    known = connection.execute("SELECT id FROM models WHERE name = ? AND sha256 = ?", (name, sha256)).fetchone()
    if known:
        return int(known[0])
    statement = "INSERT INTO models (name, sha256, folded) VALUES (?, ?, ?)"
    return _new(connection, statement, name, sha256, search.folded(name))


def _kept_settings(connection: sqlite3.Connection, parts: fields.Parts) -> int:
    known = connection.execute("SELECT id FROM settings WHERE told = ?", (parts.settings,)).fetchone()
    if known:
        return int(known[0])
    number = _new(connection, "INSERT INTO settings (told) VALUES (?)", parts.settings)
    connection.executemany(
        "INSERT INTO fields VALUES (?, ?, ?)", [(name, value, number) for name, value in parts.fields.items()]
    )
    return number


def _new(connection: sqlite3.Connection, statement: str, *values: object) -> int:
    """The number of the row that a statement inserts."""
    number = connection.execute(statement, values).lastrowid
    assert number is not None
    return number


def _upsert(
    connection: sqlite3.Connection, table: str, facts: Mapping[str, object], said: Mapping[str, object]
) -> None:
    """Insert a row, or give the one that has its id the new facts; what was said of that one stays."""
    row = {**facts, **said}
    changes = ", ".join(f"{name} = excluded.{name}" for name in facts if name != "id")
    connection.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))}) "
        f"ON CONFLICT (id) DO UPDATE SET {changes}",
        tuple(row.values()),
    )


def remove(connection: sqlite3.Connection, number: int) -> None:
    """Drop an output from the record; its file is not touched."""
    for table, key in _TABLES:
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (number,))


def stamp_of(path: Path) -> Stamp | None:
    """Size and time (ns) of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
