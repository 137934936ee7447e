"""The gallery: an index of everything that was made, with what its owners say of it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bottega.formats import database
from bottega.gallery import fields
from bottega.gallery.output import BadCursor, Folder, Output, Page, UnknownOutput
from bottega.gallery.schema import SCHEMA
from bottega.gallery.store import Store
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

SHORTEST_HASH = 8  # digits by which a model is looked for
LAST = 9e12  # seconds: what is later than any output, and as microseconds still one of SQLite's numbers


class Gallery:
    """The open index of what was made; safe to share between threads, and readers never wait for who writes.

    `path` is its SQLite file, `outputs_folder` where outputs lie whose paths it keeps relative to it: they may move
    together. Raises GalleryError for a file that is none of this gallery's, or can't be written.
    """

    def __init__(self, path: Path, outputs_folder: Path) -> None:
        self.folder = Path(os.path.abspath(outputs_folder))
        self._store = Store(path, SCHEMA)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    # --- what is on record

    def add(self, output: Output) -> Output:
        """Record an output whose file is on disk, and answer with what is on record now.

        An output that is there already gets the new facts of its file and keeps what its owner said of it; so does one
        that was found at this path before anybody told of it.
        """
        with self._store.writing() as connection:
            self._put(connection, output)
            (recorded,) = self._read(connection, "details.name = ?", output.id)
        return recorded

    def output(self, id: str) -> Output:
        """The output of this id, in the trash too; UnknownOutput if there is none."""
        with self._store.reading() as connection:
            for output in self._read(connection, "details.name = ?", id):
                return output
        raise UnknownOutput(id)

    def outputs(
        self,
        *,
        owner: str | None = None,
        text: str = "",
        model: str = "",
        task: str = "",
        field: Mapping[str, str] | None = None,
        since: float | None = None,
        until: float | None = None,
        favourite: bool | None = None,
        folder: str | None = None,
        deleted: bool = False,
        limit: int = 100,
        before: str | None = None,
    ) -> Page:
        """Outputs that meet all conditions, newest first; those of all owners without `owner`.

        Every word of `text` must begin a word of the prompt, the negative prompt or the model's name (it is for
        typing). `model` is a part of its name, or at least 8 digits of its SHA-256. `field` asks for values of recipe
        fields, by their place (`sampling.sampler`, `knobs.clip_skip`) or name (`sampler`), without case. `since` and
        `until` (not itself) are unix seconds; `folder` "" means those in none; `deleted` shows the trash instead.
        `before` is a page's `next`; BadCursor for anything else.
        """
        with self._store.reading() as connection:
            asked = _Asked(connection, search.query(text))
            asked.add("deleted = ?", deleted)
            if owner is not None:
                asked.among("owner", asked.called("owners", owner))
            if task:
                asked.among("task", asked.called("tasks", task))
            if folder is not None:
                asked.among("folder", asked.called("folders", folder) if folder else [0])
            if model:
                asked.among("model", asked.models(model))
            if favourite is not None:
                asked.add("favourite = ?", favourite)
            if since is not None:
                asked.add("id >= ?", _number(since))
            if until is not None:
                asked.add("id < ?", _number(until))
            for name, value in (field or {}).items():
                asked.field(name, value)
            total = asked.count()
            ids = asked.ids(_place(before), limit + 1)
            shown = ", ".join(map(str, ids[:limit]))
            items = self._read(connection, f"outputs.id IN ({shown}) ORDER BY outputs.id DESC")
        return Page(items, str(ids[limit - 1]) if len(ids) > limit else None, total)

    def of_job(self, job: str) -> list[Output]:
        """The outputs of a job, in its order."""
        with self._store.reading() as connection:
            return self._read(connection, "job = ? AND job != '' ORDER BY number", job)

    def with_digest(self, digest: str, owner: str) -> list[Output]:
        """An owner's outputs of the recipe with this digest whose file is as it was made, the oldest first."""
        return self._sound("digest = ? AND digest != '' AND owners.name = ?", digest, owner)

    def by_sha256(self, sha256: str, owner: str | None = None) -> list[Output]:
        """The outputs, of an owner or of all, whose file has these bytes, the oldest first."""
        return self._sound("details.sha256 = ? AND (? IS NULL OR owners.name = ?)", sha256, owner, owner)

    def folders(self, owner: str) -> list[Folder]:
        """The folders in which outputs of this owner lie, by name."""
        query = (
            "SELECT folders.name, count(*) FROM outputs JOIN folders ON folders.id = folder "
            "WHERE owner = (SELECT id FROM owners WHERE name = ?) AND NOT deleted GROUP BY folders.name ORDER BY 1"
        )
        with self._store.reading() as connection:
            return [Folder(*row) for row in connection.execute(query, (owner,))]

    # --- what the owner says

    def mark(self, id: str, *, favourite: bool | None = None, folder: str | None = None) -> Output:
        """Make an output a favourite, or none, or put it into a folder ("" takes it out); None leaves as it is."""
        with self._store.writing() as connection:
            number = self._number(connection, id)
            if favourite is not None:
                connection.execute("UPDATE outputs SET favourite = ? WHERE id = ?", (favourite, number))
            if folder is not None:
                name = " ".join(folder.split())
                place = _kept(connection, "folders", name) if name else 0
                connection.execute("UPDATE outputs SET folder = ? WHERE id = ?", (place, number))
            (marked,) = self._read(connection, "outputs.id = ?", number)
        return marked

    def delete(self, ids: Iterable[str]) -> None:
        """Put outputs into the trash: they are hidden, their files stay where they are. UnknownOutput before any."""
        self._trash(ids, time.time())

    def restore(self, ids: Iterable[str]) -> None:
        """Take outputs out of the trash, as they were."""
        self._trash(ids, None)

    def _trash(self, ids: Iterable[str], at: float | None) -> None:
        with self._store.writing() as connection:
            numbers = [(self._number(connection, id),) for id in ids]
            connection.executemany(f"UPDATE outputs SET deleted = {int(at is not None)} WHERE id = ?", numbers)
            connection.executemany(
                "UPDATE details SET deleted_at = CASE WHEN ? IS NULL THEN NULL ELSE coalesce(deleted_at, ?) END "
                "WHERE id = ?",
                [(at, at, number) for (number,) in numbers],
            )

    # --- rows

    def _put(self, connection: sqlite3.Connection, output: Output) -> None:
        parts = fields.parts_of(output.recipe)
        path = self._kept_path(output.path)
        known = connection.execute(
            "SELECT id FROM details WHERE name = ? OR path = ? ORDER BY name = ? DESC", (output.id, path, output.id)
        ).fetchall()
        for (other,) in known[1:]:
            remove(connection, other)
        number = known[0][0] if known else _free(connection, _number(output.created))
        marks = {
            "owner": _kept(connection, "owners", output.owner),
            "model": _kept_model(connection, output.model, output.model_sha256),
            "task": _kept(connection, "tasks", output.task),
            "settings": _kept_settings(connection, parts),
            "missing": output.missing,
            "changed": output.changed,
            "seed": output.seed,
        }
        said = {
            "folder": _kept(connection, "folders", output.folder) if output.folder else 0,
            "favourite": output.favourite,
            "deleted": output.deleted is not None,
        }
        size, mtime_ns = _stamp(output.path)
        details = {
            "name": output.id,
            "job": output.job,
            "number": output.index,
            "path": path,
            "size": size,
            "mtime_ns": mtime_ns,
            **{name: getattr(output, name) for name in ("medium", "format", "width", "height", "bytes", "sha256")},
            **{name: getattr(output, name) for name in ("digest", "seconds", "prompt", "negative", "recipe")},
            "kin": parts.kin,
        }
        _upsert(connection, "outputs", {"id": number, **marks}, said)
        _upsert(connection, "details", {"id": number, **details}, {"deleted_at": output.deleted})
        connection.execute("DELETE FROM inputs WHERE output = ?", (number,))
        connection.executemany(
            "INSERT OR IGNORE INTO inputs VALUES (?, ?, ?)", [(sha256, number, role) for role, sha256 in parts.inputs]
        )
        connection.execute(
            "INSERT OR REPLACE INTO search (rowid, prompt, negative, model) VALUES (?, ?, ?, ?)",
            (number, *(search.indexed([words]) for words in (output.prompt, output.negative, output.model))),
        )

    def _read(self, connection: sqlite3.Connection, where: str, *values: object) -> list[Output]:
        rows = connection.execute(f"SELECT {_SHOWN} FROM {_JOINED} WHERE {where}", values).fetchall()
        return [self._output(row) for row in rows]

    def _output(self, row: Sequence[Any]) -> Output:
        values = list(row)
        values[_PATH] = self.folder / database.string(values[_PATH])
        for place in _YES_OR_NO:
            values[place] = bool(values[place])
        return Output(*values)

    def _sound(self, where: str, *values: object) -> list[Output]:
        sound = "NOT deleted AND NOT missing AND NOT changed ORDER BY outputs.id"
        with self._store.reading() as connection:
            return self._read(connection, f"{where} AND {sound}", *values)

    def _number(self, connection: sqlite3.Connection, id: str) -> int:
        for (number,) in connection.execute("SELECT id FROM details WHERE name = ?", (id,)):
            return int(number)
        raise UnknownOutput(id)

    def _kept_path(self, path: Path) -> str | bytes:
        """The path from the outputs folder on, with slashes on every system; whole, if it lies elsewhere."""
        whole = Path(os.path.abspath(path))
        within = whole.relative_to(self.folder) if whole.is_relative_to(self.folder) else whole
        return database.text(within.as_posix())


class _Asked:
    """The conditions that outputs are to meet, as SQL."""

    def __init__(self, connection: sqlite3.Connection, words: str) -> None:
        self._connection = connection
        # The index of words knows the numbers too: it is walked in their order, and the marks are looked up.
        self._source, self._key = "outputs", "outputs.id"
        self._conditions: list[str] = []
        self._values: list[Any] = []
        if words:
            self._source, self._key = "search CROSS JOIN outputs ON outputs.id = search.rowid", "search.rowid"
            self.add("search MATCH ?", words)

    def add(self, condition: str, *values: object) -> None:
        self._conditions.append(condition)
        self._values += values

    def among(self, column: str, ids: Collection[int]) -> None:
        """The column's value must be one of these, which are numbers of SQLite's own."""
        self.add(f"{column} IN ({', '.join(map(str, ids))})")

    def called(self, table: str, name: str) -> list[int]:
        """The numbers under which the table keeps this name: one or none."""
        return self._numbers(f"SELECT id FROM {table} WHERE name = ?", name)

    def models(self, wanted: str) -> list[int]:
        """The models in whose names all parts of this text are, or whose SHA-256 begins so."""
        parts = search.pieces(wanted)
        contained = " AND ".join(["instr(folded, ?)"] * len(parts)) or "1"
        digits = wanted.strip().lower()
        ids = self._numbers(f"SELECT id FROM models WHERE {contained}", *parts)
        if len(digits) >= SHORTEST_HASH:
            ids += self._numbers("SELECT id FROM models WHERE substr(sha256, 1, ?) = ?", len(digits), digits)
        return ids

    def field(self, name: str, value: str) -> None:
        """The recipe's field of this place or name must have this value."""
        wanted = fields.asked_text(value)
        places = [name, *(f"{place}{name}" for place in fields.PLACES if "." not in name)]
        if name in ("seed", "sampling.seed"):
            self.add("CAST(seed AS TEXT) = ?", wanted)
        elif name in ("knobs.variation_seed", "variation_seed"):
            told = "SELECT json_extract(recipe, '$.knobs.variation_seed') FROM details WHERE details.id = outputs.id"
            self.add(f"CAST(({told}) AS TEXT) = ?", wanted)
        elif name.startswith("inputs."):
            self.add(
                "outputs.id IN (SELECT output FROM inputs WHERE role = ? AND sha256 = ?)",
                name.removeprefix("inputs."),
                wanted,
            )
        else:
            holders = ", ".join("?" * len(places))
            query = f"SELECT DISTINCT settings FROM fields WHERE name IN ({holders}) AND value = ?"
            self.among("settings", self._numbers(query, *places, wanted))

    def count(self) -> int:
        """How many outputs meet all conditions."""
        (total,) = self._connection.execute(
            f"SELECT count(*) FROM {self._source} WHERE {self._where}", self._values
        ).fetchone()
        return int(total)

    def ids(self, before: int, most: int) -> list[int]:
        """The numbers of those that meet them, below `before`, the highest first."""
        query = (
            f"SELECT outputs.id FROM {self._source} WHERE {self._where} AND {self._key} < ? "
            f"ORDER BY {self._key} DESC LIMIT ?"
        )
        return self._numbers(query, *self._values, before, most)

    @property
    def _where(self) -> str:
        return " AND ".join(self._conditions)

    def _numbers(self, query: str, *values: object) -> list[int]:
        return [number for (number,) in self._connection.execute(query, values)]


def _number(seconds: float) -> int:
    """The number of an output that was made then."""
    return int(min(max(seconds, 0.0), LAST) * 1e6)


def _place(cursor: str | None) -> int:
    """Below which number a page begins."""
    if cursor is None:
        return _number(LAST)
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 20):
        raise BadCursor(cursor)
    return int(cursor)


def _free(connection: sqlite3.Connection, number: int) -> int:
    """The first number from this one on that nothing has."""
    while connection.execute("SELECT 1 FROM outputs WHERE id = ?", (number,)).fetchone():
        number += 1
    return number


def _kept(connection: sqlite3.Connection, table: str, name: str) -> int:
    """The number under which a table keeps this name."""
    connection.execute(f"INSERT OR IGNORE INTO {table} (name) VALUES (?)", (name,))
    return _found(connection, f"SELECT id FROM {table} WHERE name = ?", name)


def _kept_model(connection: sqlite3.Connection, name: str, sha256: str) -> int:
    connection.execute(
        "INSERT OR IGNORE INTO models (name, sha256, folded) VALUES (?, ?, ?)", (name, sha256, search.folded(name))
    )
    return _found(connection, "SELECT id FROM models WHERE name = ? AND sha256 = ?", name, sha256)


def _kept_settings(connection: sqlite3.Connection, parts: fields.Parts) -> int:
    known = connection.execute("SELECT id FROM settings WHERE told = ?", (parts.settings,)).fetchone()
    if known:
        return int(known[0])
    number = connection.execute("INSERT INTO settings (told) VALUES (?)", (parts.settings,)).lastrowid
    assert number is not None
    connection.executemany(
        "INSERT INTO fields VALUES (?, ?, ?)", [(name, value, number) for name, value in parts.fields.items()]
    )
    return number


def _found(connection: sqlite3.Connection, query: str, *values: object) -> int:
    (number,) = connection.execute(query, values).fetchone()
    return int(number)


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
    for table, key in (("outputs", "id"), ("details", "id"), ("inputs", "output"), ("search", "rowid")):
        connection.execute(f"DELETE FROM {table} WHERE {key} = ?", (number,))


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; zeros for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
