"""Say what a model really is, where its header can't tell or tells it wrongly."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from bottega.cli import UsageError
from bottega.cli.models.saying import meant, tell
from bottega.library import Catalog
from bottega.library.corrections import CATEGORIES, KINDS, advice, correctable
from bottega.settings import Settings

DESCRIPTION = (
    "Say what a model is where its header can't tell, or tells it wrongly. What you say wins, stays with the file when "
    "it is moved or renamed, and is kept beside what the header says."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models correct`."""
    parser.add_argument("model", metavar="MODEL", help="a name, a path, or a hash")
    parser.add_argument("--kind", metavar="K", help=f"what it is: {', '.join(KINDS[:5])} ...")
    parser.add_argument("--family", metavar="F", help="the family that it is of, or fits, such as sd1")
    parser.add_argument("--variant", metavar="V", help="the variant of the family, such as v-prediction")
    parser.add_argument("--category", choices=CATEGORIES, help="what it can be used for by itself")
    parser.add_argument("--clear", action="store_true", help="take back what was said before")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Record the corrections, and tell all that is recorded of the model."""
    from bottega.recognisers import all_recognisers

    known = correctable(catalog, all_recognisers())
    told = {
        "kind": checked("kind", args.kind, known["kind"]),
        "category": args.category,
        "family": checked("family", args.family, known["family"]),
        "variant": args.variant,
    }
    said = {name: value for name, value in told.items() if value is not None}
    entry = meant(args.model, settings, catalog)
    if said or args.clear:
        entry = catalog.say(entry, corrected={**({} if args.clear else entry.corrected), **said})
    tell(entry, as_json=args.json)
    return 0


def checked(what: str, word: str | None, known: Collection[str]) -> str | None:
    """A word as it is written in the catalog; raises UsageError for one that nothing there is called."""
    if word is None or (folded := word.casefold()) in known:
        return word and folded
    raise UsageError(f"{word!r} is no {what} that is known here", advice(word, known))
