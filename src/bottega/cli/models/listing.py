"""List the models that the last scan found."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable

from bottega.cli.models.shelves import family_text, know_starter, plural
from bottega.cli.terminal import print_json, size_text, table
from bottega.library import Catalog, Entry
from bottega.settings import STARTER_SHELF, Settings

DESCRIPTION = "List the models that the last scan found."


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models list`."""
    parser.add_argument("--kind", metavar="K", help="only of this kind, such as checkpoint")
    parser.add_argument("--family", metavar="F", help="only of this family, such as sd1")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """List what is on record."""
    know_starter(catalog)
    known = catalog.entries()
    chosen = [
        entry
        for entry in known
        if not entry.error and wanted(args.kind, entry.kind) and wanted(args.family, entry.family)
    ]
    chosen.sort(key=lambda entry: (entry.kind, entry.family, entry.name.casefold(), entry.path))
    if args.json:
        print_json([entry.to_json() for entry in chosen])
        return 0
    if chosen:
        print(models_table(chosen))
    else:
        print("no model of that kind or family is known; `bottega models list` lists them all", file=sys.stderr)
    if refused := sum(bool(entry.error) for entry in known):
        print(f"{plural(refused, 'file')} refused; `bottega models scan` tells why", file=sys.stderr)
    return 0


def wanted(told: str | None, real: str) -> bool:
    """Whether a filter, if there is one, lets this through; case does not matter."""
    return told is None or told.casefold() == real.casefold()


def models_table(entries: Iterable[Entry]) -> str:
    """Models in columns."""
    rows = [
        (entry.name, entry.kind, family_text(entry), entry.dtype, size_text(entry.size), shelf_text(entry))
        for entry in entries
    ]
    return table(("name", "kind", "family", "dtype", "size", "folder"), rows, sys.stdout, right=[4])


def shelf_text(entry: Entry) -> str:
    """Where a model lies, as short as it can be said."""
    if entry.shelf == STARTER_SHELF:
        return "starter"
    folder, home = os.path.dirname(entry.path), os.path.expanduser("~")
    return f"~{folder[len(home) :]}" if f"{folder}/".startswith(f"{home}/") else folder
