"""Look models up at Civitai by the hash of their bytes."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import all_shelves, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable, table
from bottega.errors import FileError, SaveError
from bottega.library import Catalog, Entry
from bottega.settings import STARTER_SHELF, Settings

if TYPE_CHECKING:
    from bottega.library.sources.client import Client

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
    from bottega.library.sources.client import client_for
    from bottega.library.sources.errors import NetworkError

    entries = chosen(args, settings, catalog)
    client = client_for(settings)
    found: list[dict[str, Any]] = []
    with Progress(sys.stderr) as progress:
        for entry in entries:
            told: dict[str, Any] = {"name": entry.name, "path": str(entry.path), "sha256": entry.sha256}
            told |= {"known": False, "error": None}
            try:
                told |= looked_up(client, settings, catalog, entry, progress, write_beside=args.write)
            except (NetworkError, FileError, SaveError, OSError) as error:  # keeps no other model away
                told["error"] = str(error)
            found.append(told)
    failed = [told for told in found if told["error"]]
    if args.json:
        print_json(found)
        return 1 if failed else 0
    columns = ("name", "model", "version", "base_model", "page")
    if rows := [tuple(told[column] for column in columns) for told in found if told["known"]]:
        print(table(("file", "model", "version", "base model", "page"), rows, sys.stdout, spare=(3, 2)))
    for told in failed:
        print(f"{printable(told['name'])}: {printable(told['error'])}", file=sys.stderr)
    print(f"Civitai knows {plural(len(rows), 'model')} of {len(found)}", file=sys.stderr)
    return 1 if failed else 0


def looked_up(
    client: Client, settings: Settings, catalog: Catalog, entry: Entry, progress: Progress, *, write_beside: bool
) -> dict[str, Any]:
    """What Civitai knows of one model, which is kept; and its hash, which is computed where it is not known."""
    from bottega.library.about.cards import from_civitai_version
    from bottega.library.hashes import sha256_of
    from bottega.library.sources.civitai import one_line, page_of
    from bottega.library.sources.online import identify_online, keep_card
    from bottega.library.sources.tokens import site

    hashed = sha256_of(catalog, entry, lambda done, total: progress.update("hash", done, total, "bytes"))
    assert hashed.sha256
    progress.wait(f"asking for {hashed.name}")
    card = identify_online(client, settings, hashed.sha256)
    if card is None:
        return {"sha256": hashed.sha256}
    catalog.learn(hashed.sha256, from_civitai_version(card))
    return {
        "sha256": hashed.sha256,
        "known": True,
        "model": one_line(str(card["model"].get("name") or "")),
        "version": one_line(str(card.get("name") or "")),
        "base_model": one_line(str(card.get("baseModel") or "")),
        "page": page_of(site("civitai", settings), card),
        "card": str(keep_card(hashed, card, settings, write_beside=write_beside)),
    }


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
