"""Write a model anew: as safetensors or as a diffusers folder, in another dtype, without what training left in it."""

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
from bottega.library import Catalog
from bottega.settings import Settings

if TYPE_CHECKING:
    from bottega.library.convert import Converted

DESCRIPTION = (
    "Write a model anew: as one .safetensors, or as a diffusers folder if DST has no model's ending (Stable Diffusion "
    "1, 2 and XL). Pickles are read as data and never run. What was written is compared with the source before it gets "
    "its name; the source stays as it is."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models convert`."""
    parser.add_argument("source", metavar="SRC", help="a name, a path, or the beginning of a SHA-256")
    parser.add_argument("destination", type=Path, metavar="DST", help="a .safetensors file, or a folder's name")
    parser.add_argument(
        "--dtype",
        choices=("keep", "fp32", "fp16", "bf16", "fp8"),
        default="keep",
        help="what to store the numbers as (fp8: float8_e4m3fn for the matrices and convolutions of the UNet or "
        "transformer, fp16 for all else)",
    )
    parser.add_argument("--layout", choices=("single", "diffusers"), help="instead of what DST's name asks for")
    parser.add_argument(
        "--prune", action="store_true", help="leave out running averages and other leftovers of training"
    )
    parser.add_argument("--ema", action="store_true", help="take the running averages instead of the weights")
    parser.add_argument("--force", action="store_true", help="replace what is at DST")


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Convert one model."""
    from bottega.families import all_families
    from bottega.formats import read_header
    from bottega.library.convert import Wish, convert
    from bottega.library.find import find
    from bottega.library.identify import identify
    from bottega.recognisers import all_recognisers

    entry = find(catalog, args.source, all_recognisers(), all_shelves(settings, catalog))
    header = read_header(entry.path)
    identity = identify(header, all_recognisers())
    family = next((family for family in all_families() if family.id == identity.recogniser), None)
    wish = Wish(args.dtype, args.layout, args.prune, args.ema, args.force)
    destination = args.destination.expanduser()
    with Progress(sys.stderr) as progress:
        told = partial(progress.update, unit="bytes")
        match = identity.match if identity.recogniser else None
        converted = convert(header, destination, wish, match, family.anatomy if family else None, told)
    if args.json:
        print_json(converted_json(converted))
    else:
        print(converted_text(converted))
    return 0


def converted_text(converted: Converted) -> str:
    """What was written, for people."""
    dtypes = ", ".join(f"{dtype} {size_text(count)}" for dtype, count in sorted(converted.dtypes.items()))
    lines = [f"{converted.path}: {converted.tensors} tensors, {dtypes}; checked against the source"]
    if converted.pruned:
        lines.append(f"{converted.pruned} tensors that training left are left out")
    if converted.left:
        more = f" and {len(converted.left) - 3} more" if len(converted.left) > 3 else ""
        lines.append(
            f"left out, as they have no place in this layout or no plain numbers: {', '.join(converted.left[:3])}{more}"
        )
    lines += converted.notes
    return "\n".join(map(printable, lines))


def converted_json(converted: Converted) -> dict[str, Any]:
    """What was written, for programs."""
    return {**asdict(converted), "path": str(converted.path)}
