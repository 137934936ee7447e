"""Make an output again from the recipe that it carries; with --check, tell whether it came out the same."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bottega.cli.make import follow, report
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json
from bottega.errors import Different
from bottega.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega replay`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a picture that carries its recipe")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the result differs")
    parser.add_argument("--out", metavar="FILE_OR_FOLDER", help="where to write the new one")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make it again, and compare if asked."""
    with Progress(sys.stderr) as progress:
        progress.wait("starting")

        from bottega.workbench import Workbench

        workbench = Workbench(settings, progress.hashing())
        source = workbench.replayed(args.file, out=args.out)
        for note in source.notes:
            progress.say(note)
        if not args.check:
            made = follow(workbench.run(source.recipe, out=args.out), progress)
            report(made, source.recipe.model_dump(mode="json", exclude_none=True), as_json=args.json)
            return 0

        from bottega.engine.replay import compare

        with tempfile.TemporaryDirectory(prefix="bottega-") as folder:
            made = follow(workbench.run(source.recipe, out=Path(folder)), progress)
            comparison = compare(args.file, Path(made[0].path))
    if args.json:
        print_json(
            {
                "same": comparison.same_pixels,
                "same_bytes": comparison.same_bytes,
                "psnr": None if comparison.same_pixels else round(comparison.psnr, 2),
                "digest": made[0].digest,
            }
        )
    if comparison.same_pixels:
        if not args.json:
            print(f"{comparison.verdict}")
        return 0
    raise Different(f"{args.file}: its replay is {comparison.verdict}")
