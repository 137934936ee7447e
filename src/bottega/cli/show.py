"""Tell what a file carries: the recipe that made it, or what another program wrote into it."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from bottega.cli.terminal import pairs, print_json
from bottega.errors import FileError
from bottega.formats import infotext, media
from bottega.settings import Settings


def configure(parser: argparse.ArgumentParser) -> None:
    """The arguments of `bottega show`."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a picture")
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print what the file carries; exit code 1 if it carries nothing."""
    carried = media.read(args.file)
    told = {
        "path": str(args.file.resolve()),
        "format": carried.format,
        "width": carried.width,
        "height": carried.height,
        "written": datetime.fromtimestamp(args.file.stat().st_mtime).isoformat(timespec="seconds"),
        **contents(args.file, carried),
    }
    if args.json:
        print_json(told)
    else:
        print(pairs(list(lines(told))))
    return 0


def contents(path: Path, carried: media.Carried) -> dict[str, Any]:
    """What is in the file, by the program that wrote it."""
    told: dict[str, Any] = {}
    if carried.recipe is not None:
        told["recipe"] = parsed(path, carried.recipe)
        told["digest"] = digest(told["recipe"])
    if carried.parameters is not None:
        text = infotext.parse(carried.parameters)
        told["a1111"] = {"prompt": text.prompt, "negative": text.negative, "fields": text.fields}
        told["parameters"] = carried.parameters
    return told


def parsed(path: Path, text: str) -> Any:
    """Our recipe as plain data."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FileError(path, "its recipe is no valid JSON", "it was damaged by another program") from None


def digest(recipe: Any) -> str:
    """The recipe's digest."""
    from bottega.recipe import read_recipe

    return read_recipe(json.dumps(recipe)).digest


def lines(told: dict[str, Any]) -> list[tuple[str, str]]:
    """What is told, as names and values that a person reads."""
    shown = [
        ("file", told["path"]),
        ("picture", f"{told['format']}, {told['width']}x{told['height']}"),
        ("written", told["written"]),
    ]
    if "recipe" in told:
        shown += [("digest", told["digest"]), *flat("", told["recipe"])]
    elif "a1111" in told:
        shown += [
            ("prompt", told["a1111"]["prompt"]),
            ("negative", told["a1111"]["negative"]),
            *told["a1111"]["fields"].items(),
        ]
    else:
        shown.append(("carries", "nothing that says how it was made"))
    return shown


def flat(prefix: str, value: Any) -> list[tuple[str, str]]:
    """Nested data as dotted names and texts."""
    if isinstance(value, dict):
        return [row for key, inner in value.items() for row in flat(f"{prefix}.{key}" if prefix else key, inner)]
    if isinstance(value, list):
        return [row for index, inner in enumerate(value) for row in flat(f"{prefix}.{index}", inner)]
    return [(prefix, str(value))]
