"""Write down something about a model."""

from __future__ import annotations

import argparse

from bottega.cli.models.saying import meant, tell
from bottega.cli.terminal import printable
from bottega.library import Catalog
from bottega.settings import Settings

DESCRIPTION = (
    "Write a note about a model, or print the one that it has. It stays with the file when it is moved or renamed, and "
    "`bottega models list --search` finds the model by its words."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models note`."""
    parser.add_argument("model", metavar="MODEL", help="a name, a path, or a hash")
    parser.add_argument("text", nargs="?", metavar="TEXT", help="what to write in place of what is there; '' for none")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Print the note, or write it."""
    entry = meant(args.model, settings, catalog)
    if args.text is not None:
        tell(catalog.say(entry, note=args.text), as_json=args.json)
    elif args.json:
        tell(entry, as_json=True)
    elif entry.note:
        print("\n".join(map(printable, entry.note.splitlines())))
    return 0
