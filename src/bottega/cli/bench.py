"""Measure what Bottega does: how fast it makes pictures, reads pickles, or stands up to broken files."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from bottega.cli.progress import Progress
from bottega.cli.terminal import pairs, print_json, table
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.bench.figures import Report


# What can be measured, with what `--help` says of it. All but the first are in the module of `bottega.bench` that has
# their name: `run(args, settings) -> int` measures, tells, and gives the exit code.
PICTURES = "pictures"
BENCHES = {
    PICTURES: "how fast this machine makes pictures, and how near that is to the best that it could do",
    "pickles": "how long a 2 GB checkpoint pickle takes to become usable tensors, against torch.load",
    "fuzz": "whether mutated files (--mutations) crash anything",
    "shelves": "how long so many model files (--models) take to scan, again, and to search",
    "faults": "whether kills of server and worker (--kills) lose anything of many clients' (--clients) jobs (--jobs)",
    "serve": "what serving costs: rate beside the engine's own, processor time, latency, memory (--jobs, --clients)",
    "adapters": "how long a LoRA takes to be attached to a full-size model, and taken away to the bit",
    "convert": "how long converting and merging a 2 GB checkpoint takes beside copying it, and in how much memory",
    "training": "one training step of a LoRA on a full-size model, beside diffusers and peft: time and memory",
    "gallery": "how long so many outputs (--outputs) take to open, to page through and to search",
    "requests": "whether so many requests (--count) make a server fail, or touch anything outside its home",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega bench`."""
    what = "; ".join(f"{name}: {summary}" for name, summary in BENCHES.items())
    parser.add_argument("what", nargs="?", choices=BENCHES, default=PICTURES, metavar="WHAT", help=what)
    parser.add_argument("--quick", action="store_true", help="only starter-image, not the full-size model (2.1 GB)")
    parser.add_argument("--against", choices=("diffusers",), help="measure this one too, in turns")
    parser.add_argument("--mutations", type=int, default=20_000, metavar="N", help="how many files fuzz reads (20000)")
    parser.add_argument("--models", type=int, default=10_000, metavar="N", help="how many files shelves has (10000)")
    parser.add_argument("--outputs", type=int, default=100_000, metavar="N", help="how many gallery has (100000)")
    parser.add_argument("--jobs", type=int, default=1000, metavar="N", help="how many jobs faults and serve do (1000)")
    parser.add_argument("--clients", type=int, default=50, metavar="N", help="how many ask for them at once (50)")
    parser.add_argument(
        "--kills", type=int, default=200, metavar="N", help="how often faults kills the server, and the worker (200)"
    )
    parser.add_argument("--count", type=int, default=10_000, metavar="N", help="how many requests are sent (10000)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="of pictures: also write the JSON here, and a page (.md) beside it"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure, and tell."""
    if args.what == PICTURES:
        return run_pictures(args, settings)
    if args.out:
        what = f"is written for {PICTURES} only"
        raise InvalidRecipe([FieldProblem("--out", what, "use --json, and send that to a file")])
    code = import_module(f"bottega.bench.{args.what}").run(args, settings)
    assert isinstance(code, int)
    return code


def run_pictures(args: argparse.Namespace, settings: Settings) -> int:
    """Measure how fast pictures are made, and tell."""
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
