"""Make this home what it was when an archive of it was written."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime
from functools import partial
from pathlib import Path

from bottega.cli.progress import Progress
from bottega.cli.terminal import files_text, print_json, printable, size_text
from bottega.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega restore`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="an archive that `bottega backup` wrote")
    parser.add_argument(
        "--force",
        action="store_true",
        help="also into a home that is in use: what is there is moved into a folder of it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Restore the home, and tell what is in it now."""
    from bottega.backup import restore

    with Progress(sys.stderr) as progress:
        restored = restore(settings, args.file, partial(progress.update, unit="bytes"), force=args.force)
    if args.json:
        print_json(
            {
                "home": str(restored.home),
                "files": restored.files,
                "bytes": restored.bytes,
                "created": restored.created,
                "aside": str(restored.aside) if restored.aside else None,
                "notes": list(restored.notes),
            }
        )
        return 0
    when = datetime.fromtimestamp(restored.created).isoformat(" ", "minutes")
    print(f"{printable(str(restored.home))}: {size_text(restored.bytes)} in {files_text(restored.files)}, as of {when}")
    if restored.aside:
        print(f"what was there is in {printable(str(restored.aside))}")
    for note in restored.notes:
        print(printable(note))
    return 0
