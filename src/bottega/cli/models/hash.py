"""Tell the hashes by which sites and other programs know a model, from one reading of its file."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from bottega.cli import UsageError
from bottega.cli.models.shelves import all_shelves, plural
from bottega.cli.progress import Progress
from bottega.cli.terminal import pairs, print_json, printable
from bottega.errors import FileError
from bottega.library import Catalog, Entry
from bottega.settings import Settings
from bottega.starters import know_starter

DESCRIPTION = (
    "Tell the hashes by which sites and other programs know a model: SHA-256 (AutoV2), AutoV1, AutoV3, CRC32 and "
    "BLAKE3. They are computed once, from one reading of the file, and remembered until it changes."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models hash`."""
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a name, a path, or the beginning of a hash")
    parser.add_argument("--all", action="store_true", help="every model on the shelves whose hashes are not known yet")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Hash the models that are named, or all; a file that can't be read keeps none of the others from it."""
    from bottega.library.find import find
    from bottega.recognisers import all_recognisers

    if bool(args.models) == args.all:
        raise UsageError("name one or more models, or say --all", "see `bottega models hash --help`")
    if args.all:
        know_starter(catalog)
        entries = [entry for entry in catalog.entries() if not entry.error]
    else:
        shelves = all_shelves(settings, catalog)
        entries = [find(catalog, model, all_recognisers(), shelves) for model in args.models]
    hashed, failed = hash_all(catalog, entries)
    if args.json:
        print_json([hashes_json(entry) for entry in hashed])
    elif args.all:
        print(f"The hashes of {plural(len(hashed), 'model')} are known.")
    else:
        print("\n\n".join(hashes_text(entry) for entry in hashed))
    return 1 if failed else 0


def hash_all(catalog: Catalog, entries: list[Entry]) -> tuple[list[Entry], int]:
    """The entries with all hashes, and how many files could not be read, which are named on standard error."""
    from bottega.library.hashes import hashes_of

    total = sum(entry.size for entry in entries)
    hashed: list[Entry] = []
    before = 0
    with Progress(sys.stderr) as progress:
        for entry in entries:
            try:
                hashed.append(hashes_of(catalog, entry, partial(_tell, progress, before, total)))
            except (FileError, OSError) as error:
                progress.say(str(error))
            before += entry.size
    return hashed, len(entries) - len(hashed)


def _tell(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    progress.update("hash", before + done, total, "bytes")


def hashes_json(entry: Entry) -> dict[str, Any]:
    """The hashes of one model, for programs."""
    return {
        "name": entry.name,
        "path": str(entry.path),
        "size": entry.size,
        "sha256": entry.sha256,
        "autov1": entry.autov1 or None,
        "autov2": entry.autov2,
        "autov3": entry.autov3,
        "crc32": entry.crc32 or None,
        "blake3": entry.blake3 or None,
    }


def hashes_text(entry: Entry) -> str:
    """The hashes of one model, for people."""
    short = f" (of a LoRA A1111 shows {entry.autov3[:12]})" if entry.autov3 else ""
    rows = [
        ("SHA-256", entry.sha256),
        ("AutoV1", entry.autov1),
        ("AutoV2", entry.autov2),
        ("AutoV3", entry.autov3 and entry.autov3 + short),
        ("CRC32", entry.crc32),
        ("BLAKE3", entry.blake3),
    ]
    known = [(f"  {name}", value) for name, value in rows if value]
    return f"{printable(str(entry.path))}\n{pairs(known, sys.stdout)}"
