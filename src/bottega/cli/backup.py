"""Write this home into one archive: settings, jobs, what is known of models and outputs, inputs and outputs."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from bottega.cli.progress import Progress
from bottega.cli.terminal import files_text, print_json, printable, size_text
from bottega.settings import Settings

DESCRIPTION = (
    "Write this home into one archive: settings, jobs, what is known of models and outputs, inputs and outputs. Models "
    "are not in it, and no keys. A server may run meanwhile."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega backup`."""
    parser.description = DESCRIPTION
    parser.add_argument("file", type=Path, metavar="FILE", help="the archive: NAME.tar, or NAME.tar.gz to compress it")
    parser.add_argument("--without-outputs", action="store_true", help="leave out the files that were made")
    parser.add_argument(
        "--with-keys", action="store_true", help="put in tokens.toml and the users of the server too: keep it safe"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Write the archive, and tell what is in it."""
    from bottega.backup import backup

    with Progress(sys.stderr) as progress:
        told = partial(progress.update, unit="bytes")
        saved = backup(settings, args.file, told, outputs=not args.without_outputs, keys=args.with_keys)
    if args.json:
        print_json(
            {
                "path": str(saved.path.resolve()),
                "files": saved.files,
                "bytes": saved.bytes,
                "left_out": list(saved.left_out),
            }
        )
        return 0
    print(f"{printable(str(saved.path))}: {size_text(saved.bytes)} in {files_text(saved.files)}; models are not in it")
    for line in saved.left_out:
        print(f"left out {printable(line)}")
    return 0
