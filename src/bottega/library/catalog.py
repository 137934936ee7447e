"""The catalog: an SQLite file that remembers what every model is, so that no header is read twice."""

from __future__ import annotations

import json
import os
import sqlite3
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from bottega.errors import Outdated
from bottega.formats.answers import Answers
from bottega.formats.atomic import private_folder
from bottega.formats.database import code_of, connect, explained, prepare, string, text, transaction
from bottega.library import search
from bottega.library.disk import Stamp, fingerprint_of, model_name
from bottega.library.entry import (
    COLUMNS,
    CORRECTABLE,
    HASHES,
    REFUSED,
    Entry,
    Row,
    about_of,
    entry_of,
    row_of,
    words_of,
)
from bottega.library.schema import INDEX, JOINED, SCHEMA, SELECTED, CatalogError

if TYPE_CHECKING:
    from bottega.library.about import About
    from bottega.library.hashes import Hashes

__all__ = ["Catalog", "CatalogError", "Entry", "Known", "Move", "open_catalog"]

# A hash stays true as long as the stamp does, whoever of several processes computed it.
_KEPT = "coalesce(excluded.{0}, CASE WHEN size = excluded.size AND mtime_ns = excluded.mtime_ns " \
        "AND inode = excluded.inode THEN {0} END)"  # fmt: skip
_CHANGES = ", ".join(
    f"{name} = {_KEPT.format(name) if name in (*HASHES, 'hashed_at') else f'excluded.{name}'}" for name in COLUMNS[1:]
)
_PUT = (
    f"INSERT INTO models ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))}) "
    f"ON CONFLICT (path) DO UPDATE SET {_CHANGES}"
)
_MAY_BE_BYTES = tuple(COLUMNS.index(name) for name in ("path", "shelf", "called"))
_HANDED = ", ".join((*HASHES, "hashed_at"))
_HAND_HASHES = (
    f"UPDATE models SET ({_HANDED}) = (SELECT {_HANDED} FROM models WHERE path = ?) WHERE path = ? AND sha256 IS NULL"
)
_HAND_WORDS = (
    "INSERT OR IGNORE INTO said SELECT ?, tags, favourite, note, kind, category, family, variant, words, fingerprint "
    "FROM said WHERE path = ?"
)
_INDEX_WORDS = (
    "UPDATE search SET said = coalesce((SELECT words FROM said WHERE path = ?), '') "
    "WHERE rowid = (SELECT id FROM models WHERE path = ?)"
)
# All that a record tells of a path, and not of the bytes, has to be found out at the new one.
_FOLLOW = (
    "UPDATE models SET path = ?, size = ?, mtime_ns = ?, inode = ?, shelf = NULL, called = '', beside = 0, "
    "read_by = '', missing = 0 WHERE path = ?"
)
# What is gone, or was on a shelf that is away, and what is here of the same size and time, or with the same bytes; the
# surest come first.
_MEETING = """
    SELECT old.path, new.path, old.shelf, old.size = new.size AND old.mtime_ns = new.mtime_ns AND old.inode = new.inode
        AND old.inode != 0 AS same_file, old.sha256 = new.sha256 AS same_bytes,
        old.path IN (SELECT path FROM said), new.path IN (SELECT path FROM said)
    FROM models AS old JOIN models AS new ON {} WHERE {} AND NOT new.missing
"""
_AWAY = "old.shelf IN ({0}) AND coalesce(new.shelf NOT IN ({0}), 1)"


def _meetings(away: int) -> str:
    """The query for them, whose values are the paths of so many shelves that are away, four times."""
    holders = ", ".join("?" * away)
    same = ("old.size = new.size AND old.mtime_ns = new.mtime_ns", "old.sha256 = new.sha256")
    lost = ("old.missing", f"NOT old.missing AND {_AWAY.format(holders)}") if away else ("old.missing",)
    queries = [_MEETING.format(alike, which) for which in lost for alike in same]
    return f"{' UNION '.join(queries)} ORDER BY same_file DESC, same_bytes DESC, 1, 2"


# Of bytes of which a site told, by their path.
_LEARNT = f"SELECT {SELECTED} FROM {JOINED} WHERE models.path = ? AND learnt.sha256 IS NOT NULL"
_UNSAID = "tags = '[]' AND NOT favourite AND note = '' AND coalesce(kind, category, family, variant) IS NULL"
_WEIGHTS = "10.0, 4.0, 1.0, 8.0"  # of the columns of the index: name, words, text, and what the user said
_JOINED_WORDS = "replace(replace(replace(folded, ' ', ''), '_', ''), '-', '')"  # of a name, in SQL
# KiB of the file that each connection keeps. SQLite's default, 2 MiB, is too little for more than a few thousand
# models: every query then reads the file again.
_CACHED = 16 << 10
MOST_ANSWERS = 64  # that are kept
WEIGHED = 2000  # models that a query may find to have each weighed: some 10 ms
HASHED_BY = {"sha256": (8, 64), "autov1": (8, 8), "autov3": (12, 64), "crc32": (8, 8), "blake3": (64, 64)}


class Known(NamedTuple):
    """The little of a record that tells whether the model has to be read again."""

    stamp: Stamp
    beside: int
    read_by: str
    shelf: str | None
    called: str
    missing: bool


class Move(NamedTuple):
    """A record whose bytes lie at another path now, the stamp that is `recorded` of them, and the one they have."""

    before: str
    now: str
    recorded: Stamp
    stamp: Stamp


class Catalog:
    """An open catalog; belongs to the thread that opened it.

    `note` says why it is only kept in memory, where the home can't be written.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, note: str = "") -> None:
        self.path = path
        self.note = note
        self._connection = connection
        connection.execute(f"PRAGMA cache_size = -{_CACHED}")
        self._answers = Answers(MOST_ANSWERS)

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def version(self) -> tuple[int, int]:
        """Another one than before if anything was written since: by others, and by this connection."""
        ((others,),) = self.rows("PRAGMA data_version")
        return others, self.own_changes

    @property
    def own_changes(self) -> int:
        """How many rows this connection has written; it costs nothing to ask."""
        return self._connection.total_changes

    # --- what is on record

    def entries(self, shelf: Path | None = None, *, missing: bool = False) -> list[Entry]:
        """Every model, or every one of a shelf, by path; those that are gone only if asked for."""
        return self._entries(
            "(? OR NOT missing) AND (? IS NULL OR shelf = ?) ORDER BY models.path",
            missing,
            *[text(str(shelf)) if shelf else None] * 2,
        )

    def holds_more_than(self, shelf: Path) -> bool:
        """Whether anything was ever recorded that is not on this shelf."""
        return bool(self.rows("SELECT 1 FROM models WHERE shelf IS NOT ? LIMIT 1", text(str(shelf))))

    def entry(self, path: Path) -> Entry | None:
        """The model at exactly this path."""
        return next(iter(self._entries("models.path = ?", text(str(path)))), None)

    def known(self, stamp: Stamp | None = None) -> dict[str, Known]:
        """The little that a scan compares, of every model by its path, or of those with a stamp; also of those that are
        gone."""
        where = " WHERE size = ? AND mtime_ns = ? AND inode = ?" if stamp else ""
        query = f"SELECT path, shelf, called, beside, read_by, missing, size, mtime_ns, inode FROM models{where}"
        rows = self.rows(query, *stamp or ())
        return {
            string(path): Known(
                Stamp(*stamp), beside, read_by, string(shelf) if shelf else None, string(called), bool(missing)
            )
            for path, shelf, called, beside, read_by, missing, *stamp in rows
        }

    def named(self, names: Iterable[str]) -> list[Entry]:
        """The models that one of these names may mean, more rather than less: case and accents are not compared, and
        what has a name of its program's own is among them in any case."""
        wanted = [search.folded(name) for name in names]
        holders = ", ".join("?" * len(wanted))
        return self._entries(f"NOT missing AND (folded IN ({holders}) OR called != '') ORDER BY models.path", *wanted)

    def paths(self) -> list[Path]:
        """Where every model on record is, or was."""
        return [Path(string(path)) for (path,) in self.rows("SELECT path FROM models")]

    def there(self) -> frozenset[str]:
        """Where every model on record is, as text, which takes a tenth of the time; not of those that are gone."""
        return frozenset(string(path) for (path,) in self.rows("SELECT path FROM models WHERE NOT missing"))

    def bytes_below(self, folder: Path) -> int:
        """How many bytes the models in a folder, and in those within it, take on disk."""
        below = text(f"{folder}{os.sep}"), text(f"{folder}{chr(ord(os.sep) + 1)}")
        query = "SELECT coalesce(sum(size), 0) FROM models WHERE path > ? AND path < ? AND NOT missing"
        return int(self.known_rows(query, *below)[0][0])

    def names(self) -> list[tuple[str, str, str]]:
        """Name, file name and kind of every model that can be read."""
        query = f"SELECT called, models.path, {effective('kind')} FROM {JOINED} WHERE NOT missing AND error = ''"
        rows = self.rows(query)
        paths = [(string(called), Path(string(path)), kind) for called, path, kind in rows]
        return [(called or model_name(path), path.name, kind) for called, path, kind in paths]

    def with_alias(self, alias: str) -> list[Entry]:
        """The LoRAs that their trainers gave this name, whatever their files are called, by path."""
        return self._entries(f"{_ALIAS} = ? AND {_IS_LORA} ORDER BY models.path", text(alias))

    def aliases(self) -> list[str]:
        """The names that the trainers of LoRAs gave them, each as often as it was given."""
        return [alias for (alias,) in self.rows(f"SELECT {_ALIAS} FROM {JOINED} WHERE {_ALIAS} != '' AND {_IS_LORA}")]

    def with_sha256(self, prefix: str) -> list[Entry]:
        """The models whose hash is known and begins so (hexadecimal digits)."""
        return self._with_digits("sha256", prefix)

    def with_hash(self, digits: str) -> list[Entry]:
        """The models one of whose known hashes is this, or begins so where that is how it is written: SHA-256 (and its
        beginning, AutoV2), AutoV1, AutoV3, CRC32, BLAKE3."""
        found = [
            self._with_digits(name, digits) for name, (least, most) in HASHED_BY.items() if least <= len(digits) <= most
        ]
        return list({entry.path: entry for entries in found for entry in entries}.values())

    def _with_digits(self, name: str, prefix: str) -> list[Entry]:
        low = prefix.upper() if name == "crc32" else prefix.lower()
        after = f"{low}g"  # than which every further digit is less
        return self._entries(
            f"models.{name} >= ? AND models.{name} < ? AND NOT missing ORDER BY models.path", low, after
        )

    def with_told_hash(self, digits: str) -> list[Entry]:
        """The LoRAs whose trainers wrote into them that the hash of their tensors is this, or begins so, by path.

        Prompts of A1111's tell that hash without a look at the tensors, which may have been changed since.
        """
        low = digits.lower()
        where = f"{_TOLD_HASH} >= ? AND {_TOLD_HASH} < ? AND {_IS_LORA} ORDER BY models.path"
        return self._entries(where, low, f"{low}g")

    def hashed(self) -> dict[str, tuple[int, str, str]]:
        """Size, AutoV1 and SHA-256 of every model of which both hashes are known, by its path; also of those that are
        gone."""
        rows = self.rows(
            "SELECT path, size, autov1, sha256 FROM models WHERE sha256 IS NOT NULL AND autov1 IS NOT NULL"
        )
        return {string(path): (size, autov1, sha256) for path, size, autov1, sha256 in rows}

    def without_hash(self, name: str, kind: str | None = None) -> list[Entry]:
        """The models that can be read and whose hash of this name is not known, the smallest first."""
        assert name in HASHES
        return self._entries(
            f"models.{name} IS NULL AND NOT missing AND error = '' AND (? IS NULL OR {effective('kind')} = ?) "
            "ORDER BY size, models.path",
            kind,
            kind,
        )

    def of_size(self, size: int) -> list[Entry]:
        """The models that take so many bytes on disk, by path."""
        return self._entries("size = ? AND NOT missing ORDER BY models.path", size)

    def of_verdict(self, verdict: str) -> list[Entry]:
        """The models of this verdict (clean, unusual, refused), by path."""
        return self._entries("verdict = ? AND NOT missing ORDER BY models.path", verdict)

    def sorts(self) -> list[tuple[Path, str, str, str]]:
        """Path, kind, family and variant of every model that can be read."""
        kind, family, variant = (effective(name) for name in ("kind", "family", "variant"))
        query = f"SELECT models.path, {kind}, {family}, {variant} FROM {JOINED} WHERE NOT missing AND error = ''"
        return [(Path(string(path)), *sort) for path, *sort in self.rows(query)]

    def of_kind(self, kind: str) -> list[tuple[str, Path, str]]:
        """Name, path and variant of every model of a kind that can be read, by path."""
        query = (
            f"SELECT called, models.path, {effective('variant')} FROM {JOINED} "
            f"WHERE {effective('kind')} = ? AND NOT missing AND error = '' ORDER BY models.path"
        )
        rows = [(string(called), Path(string(path)), variant) for called, path, variant in self.rows(query, kind)]
        return [(called or model_name(path), path, variant) for called, path, variant in rows]

    def of_family(self, family: str) -> list[tuple[str, str, int | None]]:
        """Name, kind and width of the text that is heard (None where the header does not show it) of every model of a
        family that can be read."""
        query = (
            f"SELECT called, models.path, {effective('kind')}, {HEARD} FROM {JOINED} "
            f"WHERE {effective('family')} = ? AND NOT missing AND error = ''"
        )
        return [
            (string(called) or model_name(Path(string(path))), kind, width if isinstance(width, int) else None)
            for called, path, kind, width in self.rows(query, family)
        ]

    def search(
        self,
        text: str = "",
        *,
        kind: str | None = None,
        family: str | None = None,
        category: str | None = None,
        tag: str | None = None,
        favourite: bool = False,
        verdict: str | None = None,
        missing: bool = False,
        limit: int | None = 50,
        offset: int = 0,
    ) -> list[Entry]:
        """The models that have all words of the text, the best match first; without a text all, by name.

        Each word is taken for the beginning of one (this is for typing), in names, places on the shelf, trigger words,
        tags, notes, descriptions, kinds and families; after those come the models whose name contains the text's parts
        anywhere. What is refused is only found by the verdict "refused"; `missing` finds what is gone, and else what
        is there.
        """
        filters = {"kind": kind, "family": family, "category": category}
        conditions: list[str] = ["missing = ?"]
        values: list[object] = [missing]
        for name, value in filters.items():
            if value is not None:
                conditions.append(f"{effective(name)} = ? COLLATE NOCASE")
                values.append(value)
        if tag is not None:
            conditions.append("EXISTS (SELECT 1 FROM json_each(said.tags) WHERE value = ?)")
            values.append(tag_of(tag))
        if favourite:
            conditions.append("favourite")
        conditions.append("verdict = ?" if verdict else "verdict != ?")
        values.append((verdict or REFUSED).lower())
        ids = self.found(text, " AND ".join(conditions), values, -1 if limit is None else offset + limit)[offset:]
        if not ids:
            return []
        # The ids are SQLite's own numbers.
        rows = self.rows(f"SELECT models.id, {SELECTED} FROM {JOINED} WHERE models.id IN ({', '.join(map(str, ids))})")
        by_id = {id: row for id, *row in rows}
        return [entry_of(by_id[id]) for id in ids if id in by_id]

    def found(self, typed: str, where: str, values: Sequence[object], most: int) -> list[int]:
        """SQLite's own ids of at most so many models (-1: all) that a text finds and an SQL condition lets through, the
        best first; those that an empty text finds are all, by name."""
        if not (parts := search.pieces(typed)):
            query = f"SELECT models.id FROM {JOINED} WHERE {where} ORDER BY folded, models.id LIMIT ?"
            return self._ids(query, *values, most)
        asked = search.query(typed)
        ids = self._matching(asked, search.folded(typed).strip(), where, values, most) if asked else []
        if most < 0 or len(ids) < most:
            contained = " AND ".join(["instr(folded, ?)"] * len(parts))
            query = f"SELECT models.id FROM {JOINED} WHERE {contained} AND {where} ORDER BY folded, models.id LIMIT ?"
            ids += self._ids(query, *parts, *values, most)
        return list(dict.fromkeys(ids))[: most if most >= 0 else None]

    def _matching(self, asked: str, typed: str, where: str, values: Sequence[object], most: int) -> list[int]:
        """The ids of the models that the index of words finds: first that of the very name, then those whose names
        begin so, and those whose do but for what joins their words (`neon castle`: `neonCastle_v2`); of all the others
        the best first, or where there are too many to weigh them all (the first letter of a word finds most models)
        those first whose names match, by name."""
        named = "CASE WHEN folded = ? THEN 0 WHEN instr(folded, ?) = 1 THEN 1 ELSE 2 END"
        few = self.rows("SELECT count(*) FROM (SELECT 1 FROM search WHERE search MATCH ? LIMIT ?)", asked, WEIGHED + 1)
        if few[0][0] <= WEIGHED:
            query = (
                f"SELECT models.id FROM search CROSS JOIN {JOINED} WHERE search MATCH ? AND models.id = search.rowid "
                f"AND {where} ORDER BY {named}, instr({_JOINED_WORDS}, ?) != 1, "
                f"bm25(search, {_WEIGHTS}), folded, models.id LIMIT ?"
            )
            return self._ids(query, asked, *values, typed, typed, typed.replace(" ", ""), most)
        query = (
            f"SELECT models.id FROM {JOINED} WHERE models.id IN (SELECT rowid FROM search WHERE search MATCH ?) "
            f"AND {where} ORDER BY {named}, folded, models.id LIMIT ?"
        )
        ids = self._ids(query, f"name : ({asked})", *values, typed, typed, most)
        return ids if 0 <= most <= len(ids) else ids + self._ids(query, asked, *values, typed, typed, most)

    def _ids(self, query: str, *values: object) -> list[int]:
        return [id for (id,) in self.rows(query, *values)]

    # --- what a scan finds

    def put(self, entries: Iterable[Entry]) -> None:
        """Record the entries, all of them or none; a hash that is known and still true is kept, and so is all that
        the user said."""
        self.put_rows([row_of(entry) for entry in entries])

    def put_rows(self, rows: Sequence[Row]) -> None:
        """Record entries that are rows already, as `row_of` makes them."""
        if not rows:
            return
        stored = [_storable(row) for row in rows]
        with self._transaction() as connection:
            connection.executemany(_PUT, [row[: len(COLUMNS)] for row in stored])
            connection.executemany(INDEX, [(*row[len(COLUMNS) :], row[0]) for row in stored])

    def place(self, shelves: Mapping[str, Path]) -> None:
        """Record that the models at these paths are there, and on which shelf."""
        self._change(
            "UPDATE models SET missing = 0, shelf = ? WHERE path = ?",
            [(text(str(shelf)), text(path)) for path, shelf in shelves.items()],
        )

    def mark_missing(self, paths: Iterable[Path]) -> None:
        """Record that these are gone for now."""
        self._change("UPDATE models SET missing = 1 WHERE path = ?", [(text(str(path)),) for path in paths])

    def forget(self, paths: Iterable[Path]) -> None:
        """Drop these for good, with what the user said of them."""
        with self._transaction() as connection:
            self._forget(connection, paths)

    def _forget(self, connection: sqlite3.Connection, paths: Iterable[Path]) -> None:
        keys = [(text(str(path)),) for path in paths]
        connection.executemany("DELETE FROM search WHERE rowid = (SELECT id FROM models WHERE path = ?)", keys)
        connection.executemany("DELETE FROM models WHERE path = ?", keys)
        connection.executemany("DELETE FROM said WHERE path = ?", keys)

    # --- hashes

    def keep_hashes(self, entry: Entry, hashes: Hashes) -> Entry:
        """Record all hashes of an entry's bytes, unless they are others by now."""
        return self.keep(entry, {name: getattr(hashes, name) for name in HASHES})

    def keep(self, entry: Entry, hashes: Mapping[str, str | None]) -> Entry:
        """Record some hashes of an entry's bytes, by the names of HASHES, unless the bytes are others by now."""
        changes: dict[str, Any] = {**hashes, "hashed_at": time.time()}
        hashed = replace(entry, **changes)
        with self._transaction() as connection:
            connection.execute(
                f"UPDATE models SET {', '.join(f'{name} = ?' for name in changes)} "
                "WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?",
                (*changes.values(), text(str(entry.path)), *entry.stamp),
            )
            self._index_learnt(connection, [str(entry.path)])
        for (learnt,) in self.rows("SELECT about FROM learnt WHERE sha256 = ?", hashed.sha256):
            hashed = replace(hashed, about=hashed.about.over(about_of(learnt)))
        return hashed

    # --- what sites say

    def learn(self, sha256: str, about: About) -> None:
        """Record what a site says of a file with this SHA-256: it completes what is said beside every such file and in
        it, now and whenever it is read again."""
        words, texts = map(search.indexed, words_of(about))
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO learnt VALUES (?, ?, ?, ?)", (sha256, json.dumps(about.to_json()), words, texts)
            )
            paths = connection.execute("SELECT path FROM models WHERE sha256 = ?", (sha256,)).fetchall()
            self._index_learnt(connection, [string(path) for (path,) in paths])

    def _index_learnt(self, connection: sqlite3.Connection, paths: Iterable[str]) -> None:
        """Let the index know what sites say of the models at these paths, whose hash may just have become known."""
        for path in paths:
            for row in connection.execute(_LEARNT, (text(path),)).fetchall():
                values = row_of(entry_of(row))
                connection.execute(INDEX, (*values[len(COLUMNS) :], text(path)))

    # --- what the user says

    def say(
        self,
        entry: Entry,
        *,
        tags: Iterable[str] | None = None,
        favourite: bool | None = None,
        note: str | None = None,
        corrected: Mapping[str, str] | None = None,
        was: Mapping[str, object] | None = None,
    ) -> Entry:
        """Record what the user says of a model, which is kept until the user says otherwise; None leaves as it is.

        `corrected` are all corrections, by the names of CORRECTABLE: those that are not in it are taken back. `was` is
        what was said so far, by the fields of an entry, where that matters: raises Outdated where it is so no longer.
        """
        try:
            fingerprint = fingerprint_of(entry.path)
        except OSError:  # it is gone for now
            fingerprint = None
        with self._transaction() as connection:
            now = self.entry(entry.path) or entry
            if others := [name for name, value in (was or {}).items() if getattr(now, name) != value]:
                what = f"somebody else has changed what is said of {now.name!r}: {', '.join(others)}"
                raise Outdated(what, "look at it again, and say it again if it is still right")
            told = {name: now.told.get(name, getattr(now, name)) for name in CORRECTABLE}
            wanted = now.corrected if corrected is None else corrected
            # Who says what the header only guesses has decided it.
            right = {name: value for name, value in wanted.items() if value != told[name] or name == now.guessed}
            said = replace(
                now,
                **{**told, **right},
                corrected=right,
                told={name: told[name] for name in right},
                tags=now.tags if tags is None else tuple(sorted({tag for tag in map(tag_of, tags) if tag})),
                favourite=now.favourite if favourite is None else favourite,
                note=now.note if note is None else note.strip(),
            )
            self._write_said(connection, said, fingerprint)
        return said

    def _write_said(self, connection: sqlite3.Connection, entry: Entry, fingerprint: str | None) -> None:
        key = text(str(entry.path))
        words = search.indexed([*entry.tags, entry.note, *entry.corrected.values()])
        connection.execute(
            "INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, "
            "coalesce(?, (SELECT fingerprint FROM said WHERE path = ?), ''))",
            (
                key,
                json.dumps(entry.tags),
                entry.favourite,
                text(entry.note),
                *(entry.corrected.get(name) for name in CORRECTABLE),
                words,
                fingerprint,
                key,
            ),
        )
        connection.execute(f"DELETE FROM said WHERE path = ? AND {_UNSAID}", (key,))
        connection.execute(
            "UPDATE search SET said = ? WHERE rowid = (SELECT id FROM models WHERE path = ?)", (words, key)
        )

    def tags(self) -> dict[str, int]:
        """The user's tags, with how many models have each."""
        rows = self.rows(
            "SELECT value, count(*) FROM said, json_each(said.tags) "
            "WHERE said.path IN (SELECT models.path FROM models WHERE NOT missing) GROUP BY value ORDER BY value"
        )
        return {str(tag): count for tag, count in rows}

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of every model of which the user said something, by its path, also of those that are gone;
        empty where the SHA-256 is known, which tells more."""
        rows = self.rows(
            "SELECT path, CASE WHEN sha256 IS NULL THEN fingerprint ELSE '' END FROM said JOIN models USING (path)"
        )
        return {string(path): fingerprint for path, fingerprint in rows}

    def gone(self) -> list[Entry]:
        """The models that are missing, by path."""
        return self._entries("missing ORDER BY models.path")

    def follow(self, moves: Sequence[Move]) -> dict[str, str]:
        """Let records go to where their bytes are now, with the hashes and with all that the user said; all of them or
        none, so that names can be swapped and handed on.

        A record that a path had before, and that goes nowhere itself, makes room: if the user said something of it, it
        is kept as missing under a path of its own, by which it is returned. Nothing is done where another process has
        changed one of the records since.
        """
        if not moves:
            return {}
        recorded = "SELECT 1 FROM models WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?"
        with self._transaction() as connection:
            if not all(connection.execute(recorded, (text(move.before), *move.recorded)).fetchone() for move in moves):
                return {}
            aside = self._set_aside(connection, {move.now for move in moves}.difference(move.before for move in moves))
            # No path has a zero byte: under such a one nothing is in the way while names are swapped.
            away = [(text(f"\0{move.before}"), text(move.before)) for move in moves]
            back = [(text(move.now), *move.stamp, text(f"\0{move.before}")) for move in moves]
            connection.executemany("UPDATE models SET path = ? WHERE path = ?", away)
            connection.executemany("UPDATE said SET path = ? WHERE path = ?", away)
            connection.executemany(_FOLLOW, back)
            connection.executemany("UPDATE said SET path = ? WHERE path = ?", [(row[0], row[-1]) for row in back])
        return aside

    def _set_aside(self, connection: sqlite3.Connection, taken: Iterable[str]) -> dict[str, str]:
        """Make room at these paths; where those are that are kept because the user said something of them."""
        aside: dict[str, str] = {}
        for path in sorted(taken):
            if not connection.execute("SELECT 1 FROM said WHERE path = ?", (text(path),)).fetchone():
                self._forget(connection, [Path(path)])
                continue
            aside[path] = kept = next(
                str(each)
                for each in _replaced(Path(path))
                if not connection.execute("SELECT 1 FROM models WHERE path = ?", (text(str(each)),)).fetchone()
            )
            connection.execute("UPDATE models SET path = ?, missing = 1 WHERE path = ?", (text(kept), text(path)))
            connection.execute("UPDATE said SET path = ? WHERE path = ?", (text(kept), text(path)))
        return aside

    def reunite(self, new: Collection[Path]) -> list[tuple[Path, Path]]:
        """Find what is gone under another path, and hand it what is known and what the user said: (before, now).

        It is the same file if its stamp is the same, and the same bytes if the SHA-256 is; a file of the same name,
        size and time, to the nanosecond, is taken for one that was moved to another disk. Only paths that are `new`
        count, and those of which the user said nothing, where something that was said would else be lost to sight. The
        old record goes, unless its whole shelf is away: that may come back, or be forgotten.
        """
        away = self.away()
        if not (meetings := self.rows(_meetings(len(away)), *map(text, map(str, away * 4)))):
            return []
        met: dict[Path, Path] = {}
        taken: set[Path] = set()
        with self._transaction() as connection:
            for before, now, shelf, same_file, same_bytes, said_before, said_now in meetings:
                old, here = Path(string(before)), Path(string(now))
                is_it = same_bytes or (same_bytes is None and (same_file or old.name == here.name))
                if old in met or here in taken or not is_it:
                    continue
                if (said_before and said_now) or not (here in new or said_before):
                    continue
                is_away = shelf is not None and Path(string(shelf)) in away
                if is_away and os.path.lexists(old):  # settings of a program led to it, out of its shelf
                    continue
                if same_file or same_bytes:
                    connection.execute(_HAND_HASHES, (before, now))
                    self._index_learnt(connection, [str(here)])
                self._lend(connection, before, now)
                if not is_away:
                    self._forget(connection, [old])
                met[old] = here
                taken.add(here)
        return list(met.items())

    def lend(self, moves: Iterable[Move]) -> None:
        """Hand what the user said of models whose shelf is away to where the same bytes are now, unless the user said
        something of those; the records stay, as missing."""
        with self._transaction() as connection:
            for move in moves:
                self._lend(connection, text(move.before), text(move.now))

    def renew(self, pairs: Iterable[tuple[Path, Path]]) -> None:
        """Let the records of others take the place of these, with what the user said of them and not with the hashes:
        (before, now)."""
        with self._transaction() as connection:
            for before, now in pairs:
                self._lend(connection, text(str(before)), text(str(now)))
                self._forget(connection, [before])

    def _lend(self, connection: sqlite3.Connection, before: str | bytes, now: str | bytes) -> None:
        connection.execute(_HAND_WORDS, (now, before))
        connection.execute(_INDEX_WORDS, (now, now))
        connection.execute("UPDATE models SET missing = 1 WHERE path = ?", (before,))

    # --- shelves

    def shelves(self) -> tuple[Path, ...]:
        """The folders that the user named, in that order."""
        return tuple(Path(string(row[0])) for row in self.rows("SELECT path FROM shelves ORDER BY added_at, path"))

    def away(self) -> list[Path]:
        """The shelves of what is on record that are not there: they may be on a disk that comes back."""
        rows = self.rows("SELECT DISTINCT shelf FROM models WHERE shelf IS NOT NULL")
        return [shelf for shelf in (Path(string(told)) for (told,) in rows) if not shelf.is_dir()]

    def add_shelf(self, shelf: Path) -> None:
        """Remember a folder as a shelf."""
        with self._transaction() as connection:
            connection.execute("INSERT OR IGNORE INTO shelves VALUES (?, ?)", (text(str(shelf)), time.time()))

    def forget_shelf(self, shelf: Path) -> None:
        """Let go of a folder as a shelf; what is on record of it is another matter."""
        self._change("DELETE FROM shelves WHERE path = ?", [(text(str(shelf)),)])

    def _change(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        """One statement for many rows, all or none; where there are none nobody else has to wait."""
        if rows:
            with self._transaction() as connection:
                connection.executemany(statement, rows)

    def _entries(self, where: str, *values: object) -> list[Entry]:
        return [remembered(row) for row in self.rows(f"SELECT {SELECTED} FROM {JOINED} WHERE {where}", *values)]

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What SQLite answers to a question about the tables of `schema`."""
        with explained(self.path, SCHEMA):
            return self._connection.execute(query, values).fetchall()

    def known_rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """The same, without looking again as long as nothing is written: for what takes every model to answer."""
        # What is being written may be taken back, which no version tells.
        version = None if self._connection.in_transaction else self.version()
        return self._answers.of(version, (query, *values), lambda: self.rows(query, *values))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path, SCHEMA), transaction(self._connection):
            yield self._connection


@lru_cache(256)
def remembered(row: tuple[Any, ...]) -> Entry:
    """The entry of a row: a few are asked for again and again."""
    return entry_of(row)


def _replaced(path: Path) -> Iterator[Path]:
    """Paths under which a model whose own path went to another one may be kept, where nothing lies."""
    name = model_name(path)
    ending = path.name.removeprefix(name)
    for number in count(1):
        kept = path.with_name(f"{name} (replaced{f' {number}' if number > 1 else ''}){ending}")
        if not os.path.lexists(kept):
            yield kept


def tag_of(text: str) -> str:
    """A tag as it is kept: without case and surplus spaces, so that one is not written in two ways."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def open_catalog(path: Path) -> Catalog:
    """Open the catalog, make it if there is none, bring it up to date.

    Where it can't be written it is read into memory instead, so that a home on a read-only disk is still of use.
    Raises CatalogError for a file that is no catalog, or one that a newer Bottega made.
    """
    try:
        private_folder(path.parent)
    except OSError as error:
        return _in_memory(path, error.strerror or str(error))
    for place in (path.parent, path):
        if place.exists() and not os.access(place, os.W_OK):
            return _in_memory(path, f"{place} is read-only")
    with explained(path, SCHEMA):
        connection = connect(str(path))
        try:
            prepare(connection, SCHEMA)
        except sqlite3.OperationalError as error:
            connection.close()
            if code_of(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL):
                raise
            return _in_memory(path, str(error))
        except BaseException:
            connection.close()
            raise
    return Catalog(connection, path)


def _in_memory(path: Path, why: str) -> Catalog:
    """What is on record at `path`, if that can be read, in a catalog that ends with the process."""
    connection = connect(":memory:")
    with explained(path, SCHEMA):
        if os.access(path, os.R_OK):
            _copy(path, connection)
        prepare(connection, SCHEMA)
    return Catalog(connection, path, note=f"the catalog is not kept: {why}")


def _copy(path: Path, connection: sqlite3.Connection) -> None:
    try:
        with closing(connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source:
            source.backup(connection)
    except sqlite3.OperationalError:
        # WAL wants to write a file beside the database even to read it; "immutable" promises that nobody writes.
        with closing(connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as source:
            source.backup(connection)


def effective(name: str) -> str:
    """A column of `schema` in SQL: what the user says it is, else what the header says."""
    return f"coalesce(said.{name}, models.{name})"


# The width of the text that a model hears, in SQL.
HEARD = (
    "coalesce(json_extract(dimensions, '$.unet.context'), json_extract(dimensions, '$.context'), "
    f"CASE {effective('kind')} WHEN 'embedding' THEN json_extract(dimensions, '$.width') END)"
)

_ALIAS = "json_extract(models.metadata, '$.alias')"
_TOLD_HASH = "lower(json_extract(models.about, '$.extra.\"tensor hash\"'))"
_IS_LORA = f"{effective('kind')} = 'lora' AND NOT missing AND error = ''"


def _storable(row: Row) -> list[Any]:
    values = list(row)
    for index in _MAY_BE_BYTES:
        if values[index] is not None:
            values[index] = text(values[index])
    return values
