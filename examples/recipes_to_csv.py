"""List how the pictures of a folder were made, as CSV: `python examples/recipes_to_csv.py pictures > pictures.csv`.

It reads Bottega's recipes and the `parameters` of stable-diffusion-webui. It decodes no picture and needs no torch.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from bottega.errors import BottegaError
from bottega.formats import infotext, media
from bottega.recipe import read_recipe

COLUMNS = ("file", "width", "height", "model", "sampler", "steps", "seed", "prompt", "negative")


def row(path: Path) -> dict[str, object]:
    """What one picture tells; raises BottegaError for what is no picture or has a damaged recipe."""
    carried = media.read(path)
    told: dict[str, object] = {"file": path.name, "width": carried.width, "height": carried.height}
    if carried.recipe is not None:
        recipe = read_recipe(carried.recipe)
        sampling = recipe.sampling
        told |= {"prompt": recipe.prompt, "negative": recipe.negative, "model": recipe.model and recipe.model.name}
        told |= {"sampler": sampling.sampler, "steps": sampling.steps, "seed": sampling.seed}
    elif carried.parameters is not None:
        text = infotext.parse(carried.parameters)
        told |= {"prompt": text.prompt, "negative": text.negative}
        told |= {name.lower(): text.fields.get(name) for name in ("Model", "Sampler", "Steps", "Seed")}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()

    table = csv.DictWriter(sys.stdout, COLUMNS)
    table.writeheader()
    for path in sorted(args.folder.rglob("*")):
        if path.suffix.lower() in media.FORMATS:
            try:
                table.writerow(row(path))
            except BottegaError as error:
                print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
