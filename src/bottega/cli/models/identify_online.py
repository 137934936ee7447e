"""Look models up at Civitai by the hash of their bytes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from bottega.cli.models.shelves import all_shelves, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, table
from bottega.errors import FileError
from bottega.library import Catalog, Entry
from bottega.settings import STARTER_SHELF, Settings

DESCRIPTION = (
    "Look models up at Civitai by the hash of their bytes, whatever they are called. Only the hash is sent. What "
    "Civitai knows is kept as .civitai.info beside models of the home; for models on other programs' shelves it is "
    "kept in the home, unless --write is given."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models identify-online`."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="these; all of unknown source if none is named")
    parser.add_argument("--write", action="store_true", help="write .civitai.info beside the file wherever it lies")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Hash what was not hashed before, ask for each, keep and tell what comes back."""
    from bottega.library.hashes import sha256_of
    from bottega.library.sources.civitai import one_line, page_of
    from bottega.library.sources.client import client_for
    from bottega.library.sources.online import identify_online, keep_card
    from bottega.library.sources.tokens import site

    entries = chosen(args, settings, catalog)
    client, there = client_for(settings), site("civitai", settings)
    found: list[dict[str, Any]] = []
    with Progress(sys.stderr) as progress:
        for entry in entries:
            hashed = sha256_of(catalog, entry, lambda done, total: progress.update("hash", done, total, "bytes"))
            assert hashed.sha256
            progress.wait(f"asking for {hashed.name}")
            card = identify_online(client, settings, hashed.sha256)
            told: dict[str, Any] = {"name": hashed.name, "path": str(hashed.path), "sha256": hashed.sha256}
            if card is not None:
                model = card["model"]
                told |= {
                    "model": one_line(str(model.get("name") or "")),
                    "version": one_line(str(card.get("name") or "")),
                    "base_model": one_line(str(card.get("baseModel") or "")),
                    "page": page_of(there, card),
                    "card": str(keep_card(hashed, card, settings, write_beside=args.write)),
                }
            found.append({**told, "known": card is not None})
    if args.json:
        print_json(found)
        return 0
    columns = ("name", "model", "version", "base_model", "page")
    if rows := [tuple(told[column] for column in columns) for told in found if told["known"]]:
        print(table(("file", "model", "version", "base model", "page"), rows, sys.stdout))
    unknown = sum(not told["known"] for told in found)
    print(f"Civitai knows {plural(len(found) - unknown, 'model')} of {len(found)}", file=sys.stderr)
    return 0


def chosen(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> list[Entry]:
    """The models to look up: the named ones, or all files whose source nothing tells."""
    from bottega.library.find import find
    from bottega.library.sources.online import source_of
    from bottega.recognisers import all_recognisers

    if not args.models:
        return [
            entry
            for entry in catalog.entries()
            if not (entry.error or entry.shelf == STARTER_SHELF or entry.path.is_dir() or source_of(entry, settings))
        ]
    shelves = all_shelves(settings, catalog)
    entries = [find(catalog, model, all_recognisers(), shelves) for model in args.models]
    for entry in entries:
        if entry.path.is_dir():
            raise FileError(entry.path, "Civitai knows files, not folders", "name a file")
    return entries
