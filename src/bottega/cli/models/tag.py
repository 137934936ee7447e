"""Tag a model, or make it a favourite: to find it by that."""

from __future__ import annotations

import argparse
import re

from bottega.cli import UsageError
from bottega.cli.models.saying import meant, tell
from bottega.library import Catalog
from bottega.settings import Settings

DESCRIPTION = (
    "Give a model tags and take them away; without any, tell those that it has. They stay with the file when it is "
    "moved or renamed, and `bottega models list --tag` and --search find it by them."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models tag`."""
    # To argparse, a word with a dash is an option unless it looks like a negative number: here each of one dash does.
    parser._negative_number_matcher = re.compile("-[^-]")
    parser.add_argument("model", metavar="MODEL", help="a name, a path, or a hash")
    parser.add_argument("changes", nargs="*", metavar="+TAG|-TAG", help="a tag to give, or with a dash to take away")
    parser.add_argument("--favourite", action=argparse.BooleanOptionalAction, help="make it a favourite, or no longer")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Change the tags, and tell them."""
    from bottega.library.catalog import tag_of

    entry = meant(args.model, settings, catalog)
    tags = set(entry.tags)
    for change in args.changes:
        tag = tag_of(change.removeprefix("+").removeprefix("-"))
        if not tag:
            raise UsageError(f"{change!r} names no tag", "write +TAG to give one, -TAG to take one away")
        if change.startswith("-"):
            tags.discard(tag)
        else:
            tags.add(tag)
    if args.changes or args.favourite is not None:
        entry = catalog.say(entry, tags=tags, favourite=args.favourite)
    tell(entry, as_json=args.json)
    return 0
