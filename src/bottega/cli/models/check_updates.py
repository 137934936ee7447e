"""Ask Civitai and Hugging Face for newer versions of the models that are from there."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import all_shelves, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable, table
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.sources.online import Update

DESCRIPTION = (
    "Ask Civitai and Hugging Face for newer versions of models whose source is known: what `bottega models get` "
    "fetched, what `identify-online` found, and what other programs left a .civitai.info beside. Nothing is fetched."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models check-updates`."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="only these: names or paths; all if none is named")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Ask for each model that has a source; a commit or a version that is newest says nothing."""
    from bottega.library.find import find
    from bottega.library.sources.client import client_for
    from bottega.library.sources.errors import NetworkError
    from bottega.library.sources.online import Update, check_updates, source_of
    from bottega.recognisers import all_recognisers

    if args.models:
        shelves = all_shelves(settings, catalog)
        entries = [find(catalog, model, all_recognisers(), shelves) for model in args.models]
    else:
        entries = [entry for entry in catalog.entries() if not entry.error]
    sources = [(entry, source) for entry in entries if (source := source_of(entry, settings))]
    client = client_for(settings)
    updates: list[Update] = []
    code = 0
    with Progress(sys.stderr) as progress:
        for index, (entry, source) in enumerate(sources):
            progress.update("asking", index, len(sources))
            try:
                updates.append(check_updates(client, settings, entry, source))
            except NetworkError as error:  # keeps no other model away
                updates.append(Update(entry, source, problem=str(error)))
                code = 1
    if args.json:
        print_json([update_json(update) for update in updates])
        return code
    rows = [
        (update.entry.name, newer.name, newer.base_model, newer.published, newer.reference)
        for update in updates
        for newer in update.newer
    ]
    if rows:
        headers = ("model", "newer", "base model", "published", "get it with")
        print(table(headers, rows, sys.stdout, spare=(3, 2)))
    for update in updates:
        if update.problem:
            print(f"{printable(update.entry.name)}: {printable(update.problem)}", file=sys.stderr)
    current = sum(not update.newer and not update.problem for update in updates)
    unknown = len(entries) - len(sources)
    print(f"{plural(current, 'model')} up to date, {unknown} from no known source", file=sys.stderr)
    if unknown:
        print("`bottega models identify-online` looks those up at Civitai by their hash", file=sys.stderr)
    return code


def update_json(update: Update) -> dict[str, Any]:
    """What was found out about one model, for programs."""
    return {
        "name": update.entry.name,
        "path": str(update.entry.path),
        "site": update.source["site"],
        "newer": [
            {
                "name": newer.name,
                "reference": newer.reference,
                "page": newer.page,
                "base_model": newer.base_model,
                "published": newer.published,
            }
            for newer in update.newer
        ],
        "error": update.problem or None,
    }
