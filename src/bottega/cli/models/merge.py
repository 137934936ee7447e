"""Make one model of two or three, of a model and LoRA, or with another VAE."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.cli.models.parents import numbers, weighted
from bottega.cli.models.shelves import all_shelves
from bottega.cli.progress import Progress
from bottega.cli.terminal import print_json, printable, size_text
from bottega.errors import BottegaError
from bottega.library import Catalog
from bottega.library.merge_recipe import HEAVIEST, METHODS, method_of
from bottega.settings import Settings
from bottega.shelfwork import hashed, parents_of, soonest_hash

if TYPE_CHECKING:
    from bottega.library.merge import Merged

DESCRIPTION = (
    "Make one model of two or three, of a model and LoRA, or with another VAE. Everything is computed in float32. "
    "weighted: A (1 - W) + B W. add-difference: A + (B - C) W. slerp: from A to B on an arc. ties, dare: A and B by "
    "their differences from C, or of two models A + (B - A) W, of which only the largest numbers (ties), or a random "
    "share of them (dare), are kept. The recipe is written into the file."
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega models merge`."""
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="A, B and C: names, paths, or beginnings of a SHA-256"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DST", help="the .safetensors to write")
    parser.add_argument("--method", choices=METHODS, help="how (weighted; add-difference for three models)")
    parser.add_argument(
        "--weight",
        type=float,
        metavar="W",
        help="B's share (0.5; in ties and dare of three models too), or how much of a difference is added (1: "
        "add-difference, and ties and dare of two)",
    )
    parser.add_argument(
        "--weights",
        metavar="W,W,...",
        help="a weight for each block: IN00 to IN11, M00, OUT00 to OUT11 for Stable Diffusion 1 and 2 (25), IN00 to "
        "IN08, M00, OUT00 to OUT08 for XL (19); one more before them is for all that is not in the UNet (BASE), which "
        "else has --weight",
    )
    parser.add_argument(
        "--density", type=float, default=0.5, metavar="D", help="the share that ties and dare keep (0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="what decides which numbers dare keeps (0)")
    parser.add_argument("--vae", metavar="MODEL", help="take the VAE from this file")
    parser.add_argument(
        "--lora", action="append", default=[], metavar="NAME[:WEIGHT]", help="add a LoRA; may be repeated"
    )
    parser.add_argument(
        "--dtype", choices=("keep", "fp32", "fp16", "bf16", "fp8"), default="keep", help="as for `models convert`"
    )
    parser.add_argument("--force", action="store_true", help="replace what is at DST")


class WrongNumber(BottegaError):
    """An option of a merge that is out of its range."""

    exit_code = 2


def run(args: argparse.Namespace, settings: Settings, catalog: Catalog) -> int:
    """Merge models."""
    from bottega.library.merge import check_fit, merge
    from bottega.library.merge_recipe import Wish

    if len(args.models) > 3:
        raise WrongNumber(f"{len(args.models)} models are named, of 3 that a merge takes", "merge the result once more")
    if not 0 < args.density <= 1:
        raise WrongNumber(f"--density {args.density:g} is not between 0 and 1", "0.5 keeps half of a difference")
    method = method_of(args.method, len(args.models))
    weights = numbers(args.weights) if args.weights else ()
    wish = Wish(method, args.weight, weights, args.density, args.seed, args.dtype, args.force)
    names = [weighted(words) for words in args.lora]
    for told in (*weights, *(weight for _, weight in names), args.weight or 0.0):
        if not abs(told) <= HEAVIEST:  # nor NaN
            raise WrongNumber(f"{told:g} is no weight", f"write a number from -{HEAVIEST} to {HEAVIEST}, such as 0.5")
    if len(args.models) == 1 and not (args.vae or args.lora):
        raise WrongNumber("one model alone is nothing to merge", "name another one, --lora or --vae")
    shelves = all_shelves(settings, catalog)
    models = parents_of(args.models, shelves, catalog, kind="checkpoint")
    vaes = parents_of([args.vae] if args.vae else [], shelves, catalog, kind="vae")
    loras = parents_of([name for name, _ in names], shelves, catalog, kind="lora")
    check_fit([model.parent for model in models], wish)
    strengths = [weight for _, weight in names]
    with hashed([*models, *vaes, *loras], catalog, soonest_hash) as parents, Progress(sys.stderr) as progress:
        merged = merge(
            parents[: len(models)],
            args.out.expanduser(),
            wish,
            vae=parents[len(models)] if vaes else None,
            loras=list(zip(parents[len(parents) - len(loras) :], strengths, strict=True)),
            told=partial(progress.update, unit="bytes"),
        )
    if args.json:
        print_json(merged_json(merged))
    else:
        print(merged_text(merged))
    return 0


def merged_text(merged: Merged) -> str:
    """What was written, for people."""
    dtypes = ", ".join(f"{dtype} {size_text(count)}" for dtype, count in sorted(merged.dtypes.items()))
    lines = [f"{merged.path}: {merged.tensors} tensors, {dtypes}; checked after writing"]
    for name, count in merged.patched.items():
        lines.append(f"{name}: {count} weights changed" + _listed(", no place for ", merged.left[name]))
    if merged.missing:
        lines.append(_listed("not in every model, so taken as they are: ", merged.missing))
    return "\n".join(map(printable, [*lines, *merged.notes]))


def _listed(before: str, names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{before}{', '.join(names[:3])}{more}" if names else ""


def merged_json(merged: Merged) -> dict[str, Any]:
    """What was written, for programs."""
    return {**asdict(merged), "path": str(merged.path)}
