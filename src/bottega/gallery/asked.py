"""Which outputs somebody wishes for, as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping
from typing import Any, TypedDict

from bottega.gallery import fields, rows
from bottega.library import search

SHORTEST_HASH = 8  # digits by which a model is looked for


class Wishes(TypedDict, total=False):
    """Which outputs are wanted; what is left out, None or empty asks for nothing, and without `owner` those of all.

    Every word of `text` must begin a word of the prompt, the negative prompt or the model's name (it is for typing).
    `model` is a part of its name, or at least 8 digits of its SHA-256. `field` asks for values of recipe fields, by
    their place (`sampling.sampler`, `knobs.clip_skip`) or name (`sampler`), without case. `since` and `until` (not
    itself) are unix seconds; `folder` "" means those in none; `deleted` asks for the trash instead.
    """

    owner: str | None
    text: str
    model: str
    task: str
    field: Mapping[str, str] | None
    since: float | None
    until: float | None
    favourite: bool | None
    folder: str | None
    deleted: bool


def asked_for(connection: sqlite3.Connection, wishes: Wishes) -> Asked:
    """What somebody wishes for, to be looked up through a connection."""
    text = wishes.get("text", "").strip()
    asked = Asked(connection, words := search.query(text))
    asked.add("deleted = ?", wishes.get("deleted", False))
    # Signs such as an emoji are in no index; those of ASCII are the grammar of prompts, and what words begin with.
    if not words and not text.isascii():
        asked.add("outputs.id IN (SELECT id FROM details WHERE instr(prompt, ?) OR instr(negative, ?))", text, text)
    if (owner := wishes.get("owner")) is not None:
        asked.among("owner", asked.called("owners", owner))
    if task := wishes.get("task"):
        asked.among("task", asked.called("tasks", task))
    if (folder := wishes.get("folder")) is not None:
        asked.among("folder", asked.called("folders", folder) if folder else [0])
    if model := wishes.get("model"):
        asked.among("model", asked.models(model))
    if (favourite := wishes.get("favourite")) is not None:
        asked.add("favourite = ?", favourite)
    if (since := wishes.get("since")) is not None:
        asked.add("outputs.id >= ?", rows.time_number(since))
    if (until := wishes.get("until")) is not None:
        asked.add("outputs.id < ?", rows.time_number(until))
    for name, value in (wishes.get("field") or {}).items():
        asked.field(name, value)
    return asked


class Asked:
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
        # The index of words has columns of the same names.
        self.add(f"outputs.{column} IN ({', '.join(map(str, ids))})")

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

    def ids(self, before: int, most: int, offset: int = 0) -> list[int]:
        """The numbers of those that meet them, below `before`, the highest first."""
        query = (
            f"SELECT outputs.id FROM {self._source} WHERE {self._where} AND {self._key} < ? "
            f"ORDER BY {self._key} DESC LIMIT ? OFFSET ?"
        )
        return self._numbers(query, *self._values, before, most, offset)

    def ratios(self) -> str:
        """The proportions of those that meet them, in thousandths.

        A list in JSON: SQLite writes it in less than half of the time in which it hands over rows.
        """
        ratio = "CASE WHEN height > 0 THEN 1000 * width / height ELSE 1000 END"
        rows = f"SELECT {ratio} AS ratio FROM {self._source} WHERE {self._where} ORDER BY {self._key} DESC"
        (told,) = self._connection.execute(f"SELECT json_group_array(ratio) FROM ({rows})", self._values).fetchone()
        return str(told)

    @property
    def question(self) -> tuple[Any, ...]:
        """What tells these wishes from all others."""
        return self._source, self._where, *self._values

    @property
    def _where(self) -> str:
        return " AND ".join(self._conditions)

    def _numbers(self, query: str, *values: object) -> list[int]:
        return [number for (number,) in self._connection.execute(query, values)]
