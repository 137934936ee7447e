"""Fetch models from Civitai, Hugging Face or any address, check them, and put them on the shelf of the home."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import family_text, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import pairs, print_json, printable, size_text
from bottega.errors import BottegaError, Interrupted
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.sources.install import Installed

DESCRIPTION = (
    "Fetch models from Civitai, Hugging Face or any https address. What is broken off goes on where it was, every byte "
    "is checked, nothing that could run code gets a name, and each model is put in the folder for its kind, with what "
    "its site says of it beside it. REF is civitai:MODEL[@VERSION], civitai:HASH, hf:ORG/NAME[@REVISION][/FILE], or "
    "the address of a page or of a file."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models get`."""
    parser.add_argument("references", nargs="+", metavar="REF", help="civitai:123, hf:org/name, https://...")
    parser.add_argument("--sha256", default="", metavar="H", help="refuse any other bytes than those with this SHA-256")
    parser.add_argument("--file", default="", metavar="NAME", help="which file of the version or the repository")
    parser.add_argument("--variant", default="", metavar="V", help="the precision to prefer, such as fp16 or Q4_K_M")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="put it into this folder instead of the home's")
    parser.add_argument("--name", default="", metavar="NAME", help="what to call it, without its ending")
    parser.add_argument(
        "--allow-unusual", action="store_true", help="also a pickle that mentions unusual names; they are never run"
    )


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Fetch what the references mean; one that fails keeps no other away."""
    from bottega.library.sources.client import client_for
    from bottega.library.sources.errors import BadReference
    from bottega.library.sources.fetch import Stop, get
    from bottega.library.sources.install import Shelf, Target
    from bottega.library.sources.offers import Choice
    from bottega.library.sources.references import look_up, shown_reference
    from bottega.recognisers import all_recognisers

    if len(args.references) > 1 and (args.sha256 or args.name):
        raise BadReference("--sha256 and --name are for one model", "get the models one by one")
    stop = Stop()
    client = client_for(settings, stop.pause)
    choice = Choice(args.file, args.variant, args.sha256.strip().lower())
    target = Target(args.to.expanduser().absolute() if args.to else None, args.name, args.allow_unusual)
    shelf = Shelf(settings.models.absolute(), catalog, all_recognisers())
    outcomes: dict[str, Installed | BottegaError] = {}
    with Progress(sys.stderr) as progress:
        offers = {}
        for reference in dict.fromkeys(args.references):
            progress.wait(f"looking for {shown_reference(reference)}")
            try:
                offers[reference] = look_up(client, settings, reference, choice)
            except Interrupted:
                raise
            except BottegaError as error:
                outcomes[reference] = error
        told = get(
            client,
            stop,
            settings,
            shelf,
            list(offers.values()),
            target,
            lambda what, done, total: progress.update(what, done, total, "bytes") if total else None,
        )
    outcomes |= dict(zip(offers, told, strict=True))
    if len(outcomes) == 1:
        (outcome,) = outcomes.values()
        if isinstance(outcome, BottegaError):
            raise outcome
    return tell(outcomes, as_json=args.json)


def tell(outcomes: dict[str, Installed | BottegaError], *, as_json: bool) -> int:
    """Say what became of each reference; the exit code of the worst."""
    from bottega.library.sources.references import shown_reference

    code = 0
    documents: list[dict[str, Any]] = []
    for reference, outcome in outcomes.items():
        shown = shown_reference(reference)
        if isinstance(outcome, BottegaError):
            code = max(code, outcome.exit_code)
            documents.append({"reference": shown, "status": "failed", "error": str(outcome)})
            print(f"bottega: {printable(shown)}: {printable(str(outcome))}", file=sys.stderr)
        else:
            documents.append(outcome.to_json())
            if not as_json:
                print(installed_text(outcome))
    if as_json:
        print_json(documents)
    elif failed := sum(isinstance(outcome, BottegaError) for outcome in outcomes.values()):
        print(f"{plural(failed, 'model')} of {len(outcomes)} could not be had", file=sys.stderr)
    return code


def installed_text(outcome: Installed) -> str:
    """One model that is here now, for people."""
    entry = outcome.entry
    what = " ".join(filter(None, (family_text(entry), entry.kind)))
    facts = [
        ("installed" if outcome.fetched else "already here", entry.name),
        ("what", f"{what}, {size_text(entry.size)}"),
        ("path", str(entry.path)),
        ("sha256", entry.sha256 or ""),
        ("page", outcome.offer.page),
        ("licence", licence_text(outcome.offer.licence)),
        *(("note", note) for note in outcome.notes),
    ]
    return pairs([(name, value) for name, value in facts if value])


def licence_text(licence: Any) -> str:
    """A licence on one line, as its site gives it."""
    if isinstance(licence, dict):
        values = {
            key: ", ".join(map(str, value)) if isinstance(value, list) else value for key, value in licence.items()
        }
        return values["license"] if set(values) == {"license"} else "; ".join(f"{k}: {v}" for k, v in values.items())
    return str(licence or "")
