"""Make a LoRA of what sets a checkpoint apart from the one that it was trained from."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.models.shelves import all_shelves
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable, size_text
from bottega.errors import BottegaError
from bottega.library import Catalog
from bottega.settings import Settings
from bottega.shelfwork import hashed, parents_of

if TYPE_CHECKING:
    from bottega.library.extract import Extracted

DESCRIPTION = (
    "Make a LoRA of what sets a checkpoint apart from the one that it was trained from, as near as a rank allows, in "
    "float16 and with the names of kohya's trainer."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models extract`."""
    parser.add_argument("tuned", metavar="TUNED", help="the changed model: a name, a path, or a SHA-256's beginning")
    parser.add_argument("base", metavar="BASE", help="the one that it was made from")
    parser.add_argument("--out", type=Path, required=True, metavar="DST", help="the .safetensors to write")
    parser.add_argument("--rank", type=int, default=32, metavar="N", help="of linear layers and 1x1 convolutions (32)")
    parser.add_argument("--conv-rank", type=int, default=0, metavar="N", help="of 3x3 convolutions (0: leave them out)")
    parser.add_argument("--force", action="store_true", help="replace what is at DST")


class WrongRank(BottegaError):
    """A rank that no LoRA can have."""

    exit_code = 2


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Extract one LoRA."""
    from bottega.library.extract import extract

    if args.rank < 1 or args.conv_rank < 0:
        raise WrongRank(f"a rank of {min(args.rank, args.conv_rank)} is none", "use 4 to 128")
    parents = parents_of([args.tuned, args.base], all_shelves(settings, catalog), catalog, kind="checkpoint")
    with hashed(parents[1:], catalog) as bases, Progress(sys.stderr) as progress:
        extracted = extract(
            parents[0].parent,
            bases[0],
            args.out.expanduser(),
            args.rank,
            conv_rank=args.conv_rank,
            force=args.force,
            told=partial(progress.update, unit="bytes"),
        )
    if args.json:
        print_json(extracted_json(extracted))
    else:
        print(extracted_text(extracted))
    return 0


def extracted_text(extracted: Extracted) -> str:
    """What was written, for people."""
    size = size_text(extracted.bytes)
    lines = [f"{extracted.path}: {extracted.weights} weights, {size}; holds {extracted.share:.1%} of their difference"]
    if extracted.skipped:
        lines.append(
            f"{len(extracted.skipped)} more tensors differ, which this LoRA can't hold ({extracted.skipped[0]})"
        )
    return "\n".join(map(printable, lines))


def extracted_json(extracted: Extracted) -> dict[str, Any]:
    """What was written, for programs."""
    return {**asdict(extracted), "path": str(extracted.path)}
