"""Show what the choice of sampler does: one row for each sampler, one column for each number of steps.

python examples/grid.py "a red house by the sea at sunset, watercolor" --samplers "Euler a" "DPM++ 2M" --steps 5 10 20
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from bottega import Recipe, Workbench
from bottega.events import Made
from bottega.recipe import Sampling

LABEL = 16  # pixels above each picture


def picture(workbench: Workbench, draft: Recipe, folder: Path) -> Image.Image:
    """The one picture of a draft, written into the folder."""
    recipe = workbench.resolve(draft)
    [made] = (event for event in workbench.run(recipe, out=folder) if isinstance(event, Made))
    with Image.open(made.path) as file:
        return file.convert("RGB")


def grid(rows: list[list[tuple[str, Image.Image]]]) -> Image.Image:
    """Labelled pictures of equal size in rows."""
    width, height = rows[0][0][1].size
    sheet = Image.new("RGB", (width * len(rows[0]), (height + LABEL) * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, row in enumerate(rows):
        for x, (label, cell) in enumerate(row):
            left, top = x * width, y * (height + LABEL)
            draw.text((left + 4, top + 2), label, fill="black")
            sheet.paste(cell, (left, top + LABEL))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompt")
    parser.add_argument("--samplers", nargs="+", default=["Euler a", "DPM++ 2M", "DPM++ SDE", "UniPC"])
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 10, 20])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("grid.png"))
    args = parser.parse_args()

    workbench = Workbench()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for sampler in args.samplers:
            row = []
            for steps in args.steps:
                draft = Recipe(prompt=args.prompt, sampling=Sampling(sampler=sampler, steps=steps, seed=args.seed))
                row.append((f"{sampler}, {steps}", picture(workbench, draft, Path(folder))))
                print(row[-1][0])
            rows.append(row)
    grid(rows).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
