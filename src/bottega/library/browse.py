"""Browsing thousands of models: a page at a time in any order, and how many there are of each sort."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bottega.library import search
from bottega.library.catalog import Catalog, effective, remembered, tag_of
from bottega.library.entry import REFUSED, Entry
from bottega.library.fits import Mates
from bottega.library.schema import JOINED, OF_THE_SAID, SELECTED

# What a page is ordered by, ascending; the last of each is SQLite's own id, so that no two are alike.
ORDERS: Mapping[str, tuple[str, ...]] = {
    "name": ("folded", "models.id"),
    "kind": (effective("kind"), effective("family"), "folded", "models.id"),
    "size": ("-size", "folded", "models.id"),
    "date": ("-mtime_ns", "folded", "models.id"),
}
BEST = "best"  # the order of a search: what matches best comes first


@dataclass(frozen=True)
class Wish:
    """Which models are wanted; what is None or empty asks for nothing.

    `text` is searched for as `Catalog.search` says. `families` lets through those of any of them, `mates` those that go
    together with a model. What is refused is only wanted with the verdict "refused", and what is gone from the shelves
    only, and then alone, with `missing`.
    """

    text: str = ""
    kind: str | None = None
    family: str | None = None
    families: Collection[str] | None = None
    verdict: str | None = None
    tag: str | None = None
    runs: bool | None = None
    favourite: bool | None = None
    mates: Mates | None = None
    missing: bool = False


class Page(NamedTuple):
    """Some models in their order, where the next page begins (None after the last one), and how many there are."""

    entries: list[Entry]
    after: tuple[Any, ...] | None
    total: int


class Sort(NamedTuple):
    """What models are counted by."""

    kind: str
    family: str
    verdict: str


def browse(
    catalog: Catalog, wish: Wish, order: str, limit: int, after: Sequence[Any] | None = None, offset: int = 0
) -> Page:
    """The models that are wished for, in one of ORDERS or BEST, from the place `after` that another page told, and as
    many further on as `offset` says: a list that is scrolled can be looked at anywhere.

    Between two pages models may come and go: in ORDERS none is then shown twice or left out.
    """
    where, values = _where(wish)
    condition, told = _with_text(wish, where, values)

    def count() -> int:
        # The limit, which is none, has SQLite leave out the tables that nothing is asked of.
        found = f"SELECT 1 FROM {JOINED} WHERE {condition} LIMIT -1"
        return int(catalog.known_rows(f"SELECT count(*) FROM ({found})", *told)[0][0])

    following: tuple[Any, ...] | None
    if order == BEST:
        begin = (int(after[0]) if after else 0) + offset
        end = begin + limit
        ids = catalog.found(wish.text, where, values, end)
        total = len(ids) if len(ids) < end else count()
        ids = ids[begin:end]
        following = (end,) if end < total else None
    else:
        total = count()
        keys = ", ".join(ORDERS[order])
        if after is not None:
            condition += f" AND ({keys}) > ({', '.join('?' * len(ORDERS[order]))})"
            told = [*told, *after]
        query = f"SELECT {keys} FROM {JOINED} WHERE {condition} ORDER BY {keys} LIMIT ? OFFSET ?"
        found = catalog.known_rows(query, *told, limit + 1, offset)
        ids = [row[-1] for row in found[:limit]]
        following = found[limit - 1] if len(found) > limit else None
    # The long texts are read of these alone, and not of everything that had to be put in order.
    rows = catalog.rows(f"SELECT models.id, {SELECTED} FROM {JOINED} WHERE models.id IN ({_listed(ids)})")
    by_id = {row[0]: remembered(row[1:]) for row in rows}
    return Page([by_id[id] for id in ids if id in by_id], following, total)


def counts(catalog: Catalog, wish: Wish) -> Counter[Sort]:
    """How many models there are of each sort, of those that are wished for, whatever sort is wished for."""
    where, values = _with_text(wish, *_conditions(wish))
    sort = ", ".join((effective("kind"), effective("family"), "verdict"))
    rows = catalog.known_rows(f"SELECT {sort}, count(*) FROM {JOINED} WHERE {where} GROUP BY 1, 2, 3", *values)
    return Counter({Sort(*row[:3]): row[3] for row in rows})


def tag_counts(catalog: Catalog, wish: Wish) -> Counter[tuple[Sort, str]]:
    """How many models of each sort have each of the user's tags, of those that are wished for."""
    where, values = _with_text(wish, *_conditions(wish))
    sort = ", ".join((effective("kind"), effective("family"), "verdict"))
    query = f"SELECT {sort}, value, count(*) FROM {OF_THE_SAID}, json_each(said.tags) WHERE {where} GROUP BY 1, 2, 3, 4"
    return Counter({(Sort(*row[:3]), row[3]): row[4] for row in catalog.known_rows(query, *values)})


def _with_text(wish: Wish, where: str, values: list[object]) -> tuple[str, list[object]]:
    """A condition for the same models as `Catalog.found` finds, which needs no order among them."""
    if not (parts := search.pieces(wish.text)):
        return where, values
    found, told = " AND ".join(["instr(folded, ?)"] * len(parts)), list[object](parts)
    if asked := search.query(wish.text):
        # Of what a letter finds, looking at every model takes less than finding each by its number.
        found = f"({found} OR models.id IN (SELECT rowid FROM search WHERE search MATCH ?))"
        told.append(asked)
    return f"{found} AND {where}", [*told, *values]


def _where(wish: Wish) -> tuple[str, list[object]]:
    where, values = _conditions(wish)
    for name, value in (("kind", wish.kind), ("family", wish.family)):
        if value is not None:
            where += f" AND {effective(name)} = ? COLLATE NOCASE"
            values.append(value)
    if wish.families is not None:
        where += f" AND {effective('family')} IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(list(wish.families)))
    where += " AND verdict = ?" if wish.verdict else " AND verdict != ?"
    values.append((wish.verdict or REFUSED).lower())
    return where, values


def _conditions(wish: Wish) -> tuple[str, list[object]]:
    """The condition, in SQL, of all that is wished for except its sort and its text."""
    where, values = "missing = ?", list[object]([wish.missing])
    if wish.tag is not None:
        where += " AND EXISTS (SELECT 1 FROM json_each(said.tags) WHERE value = ?)"
        values.append(tag_of(wish.tag))
    if wish.runs is not None:
        where += " AND runs = ?"
        values.append(wish.runs)
    if wish.favourite is not None:
        where += " AND coalesce(favourite, 0) = ?"
        values.append(wish.favourite)
    if wish.mates is not None:
        condition, told = wish.mates.condition()
        where, values = f"{where} AND {condition}", [*values, *told]
    return where, values


def _listed(ids: Sequence[int]) -> str:
    """SQLite's own numbers as SQL."""
    return ", ".join(map(str, ids))
