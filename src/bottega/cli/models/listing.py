"""List the models that the last scan found: all, those of one sort, or those that some words find."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bottega.cli.models.shelves import family_text, plural
from bottega.cli.terminal import print_json, size_text, speaks, table
from bottega.library import Catalog, Entry
from bottega.library.corrections import CATEGORIES
from bottega.settings import STARTER_SHELF, Settings
from bottega.starters import know_starter

DESCRIPTION = (
    "List the models that the last scan found. --search finds the beginnings of words in names, trigger words, tags, "
    "notes and descriptions, and the best match comes first; every other option narrows the list further."
)

ORDERS: dict[str, Callable[[Entry], Any]] = {
    "kind": lambda entry: (entry.kind, entry.family),
    "name": lambda entry: (),
    "size": lambda entry: -entry.size,
    "date": lambda entry: -entry.stamp.mtime_ns,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models list`."""
    parser.add_argument("--search", metavar="TEXT", default="", help="only what has these words")
    parser.add_argument("--kind", metavar="K", help="only of this kind, such as checkpoint or lora")
    parser.add_argument("--family", metavar="F", help="only of this family, such as sd1")
    parser.add_argument("--category", choices=CATEGORIES, help="only of this category, such as base")
    parser.add_argument("--tag", metavar="T", help="only what you gave this tag")
    parser.add_argument("--favourite", action="store_true", help="only your favourites")
    parser.add_argument(
        "--verdict", choices=("clean", "unusual", "refused"), help="only what the safety check says this of"
    )
    parser.add_argument("--missing", action="store_true", help="what is on record, but gone from its shelf")
    parser.add_argument("--sort", choices=tuple(ORDERS), help="kind unless --search is given; size and date downwards")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N")


def positive(word: str) -> int:
    """A number of models, at least one."""
    if (number := int(word)) < 1:
        raise ValueError
    return number


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """List what is on record."""
    know_starter(catalog)
    order = args.sort or ("" if args.search else "kind")
    chosen = catalog.search(
        args.search,
        kind=args.kind,
        family=args.family,
        category=args.category,
        tag=args.tag,
        favourite=args.favourite,
        verdict=args.verdict,
        missing=args.missing,
        limit=None if order else args.limit,
    )
    if order:
        chosen.sort(key=lambda entry: (ORDERS[order](entry), entry.name.casefold(), entry.path))
    shown = chosen[: args.limit]
    if args.json:
        print_json([entry.to_json() for entry in shown])
        return 0
    if shown:
        print(refused_table(shown) if args.verdict == "refused" else models_table(shown))
    else:
        kinds = sorted({kind for _, kind, _, _ in catalog.sorts()})
        if args.kind and args.kind not in kinds:
            print(f"no model on record is of that kind; there are {', '.join(kinds) or 'none at all'}", file=sys.stderr)
        else:
            print("no model on record is like that; `bottega models list` lists them all", file=sys.stderr)
    if len(shown) < len(chosen):
        print(f"and {len(chosen) - len(shown)} more", file=sys.stderr)
    narrowed = any(
        (args.search, args.kind, args.family, args.category, args.tag, args.favourite, args.verdict, args.missing)
    )
    if not narrowed and (refused := len(catalog.of_verdict("refused"))):
        print(f"{plural(refused, 'file')} refused; `bottega models list --verdict refused` tells why", file=sys.stderr)
    return 0


def models_table(entries: Sequence[Entry]) -> str:
    """Models in columns; a favourite has a star before its name, and tags have a column where there are any."""
    star = "★" if speaks(sys.stdout, "★") else "*"
    tagged = any(entry.tags for entry in entries)
    rows = [
        (
            f"{star} {entry.name}" if entry.favourite else entry.name,
            entry.kind,
            family_text(entry),
            entry.dtype,
            size_text(entry.size),
            *((" ".join(entry.tags),) if tagged else ()),
            shelf_text(entry),
        )
        for entry in entries
    ]
    headers = ("name", "kind", "family", "dtype", "size", *(("tags",) if tagged else ()), "folder")
    spare = [headers.index(name) for name in ("dtype", "folder")]
    return table(headers, rows, sys.stdout, right=[4], spare=spare)


def refused_table(entries: Iterable[Entry]) -> str:
    """What was refused, and why."""
    rows = [(entry.path.name, entry.error, shelf_text(entry)) for entry in entries]
    return table(("file", "why", "folder"), rows, sys.stdout)


def shelf_text(entry: Entry) -> str:
    """Where a model lies, as short as it can be said."""
    if entry.shelf == STARTER_SHELF:
        return "starter"
    folder, home = os.path.dirname(entry.path), os.path.expanduser("~")
    return f"~{folder[len(home) :]}" if f"{folder}/".startswith(f"{home}/") else folder
