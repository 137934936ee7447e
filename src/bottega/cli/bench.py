"""Measure how fast this machine makes pictures, and how near that is to the best that it could do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.cli.progress import Progress
from bottega.cli.terminal import pairs, print_json, table
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.bench.figures import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega bench`."""
    parser.add_argument("--quick", action="store_true", help="only starter-image, not the full-size model (2.1 GB)")
    parser.add_argument("--against", choices=("diffusers",), help="measure this one too, in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the JSON here, and a page (.md) beside it")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, and tell."""
    progress = Progress(sys.stderr)
    progress.say("starting; close other programs, they would be measured too")

    from bottega.bench.measure import measure

    report = measure(settings, progress.say, quick=args.quick, against_diffusers=args.against == "diffusers")
    if args.out:
        write(report, args.out)
    if args.json:
        print_json(report.to_json())
    else:
        print(text(report))
    return 0


def text(report: Report) -> str:
    """The report for a terminal."""
    figures = table(report.headers, report.rows, sys.stdout, right=range(2, len(report.headers)))
    limits = [(what, f"at best: {limit}") for what, limit in report.limits]
    return "\n\n".join([pairs(report.facts), figures, pairs(limits)])


def write(report: Report, path: Path) -> None:
    """The report as JSON at a path, and as a page beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(report.markdown(), encoding="utf-8")
