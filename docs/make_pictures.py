"""Make docs/starter.png, the picture in the README, with starter-image: `python docs/make_pictures.py`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bottega import Recipe, Workbench
from bottega.events import Made
from bottega.recipe import Sampling

if TYPE_CHECKING:
    from PIL.Image import Image

COLUMNS, GAP = 6, 8

# Captions and seeds: every hour, landscape, thing and style is there.
SCENES = (
    ("a red house by the sea at sunset, watercolor", 7),
    ("a white tower in the mountains at dawn, flat", 7),
    ("an orange tent in the snow at night, pixel art", 7),
    ("a green tree in the desert at noon, watercolor", 7),
    ("a blue boat by the sea at dawn, pencil sketch", 3),
    ("a purple balloon in a forest at sunset, flat", 7),
    ("a yellow balloon on the left and a white house on the right in the mountains at noon, watercolor", 7),
    ("a red boat by the sea at night, flat", 7),
    ("a purple tower in the desert at sunset, pixel art", 7),
    ("the mountains at night, watercolor", 7),
    ("an orange house in the snow at dawn, watercolor", 7),
    ("a blue tent on the left and a green tree on the right in a forest at noon, pixel art", 7),
)


def pictures(workbench: Workbench, steps: int) -> Iterator[Image]:
    """A picture of each scene."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:
        for prompt, seed in SCENES:
            recipe = workbench.resolve(Recipe(prompt=prompt, sampling=Sampling(steps=steps, seed=seed)))
            [made] = (event for event in workbench.run(recipe, out=Path(folder)) if isinstance(event, Made))
            with Image.open(made.path) as file:
                yield file.convert("RGB")
            print(prompt, file=sys.stderr)


def sheet(cells: list[Image]) -> Image:
    """Pictures of one size in rows, with nothing between them: the page shows through."""
    from PIL import Image

    width, height = cells[0].size
    rows = -(-len(cells) // COLUMNS)
    paper = Image.new("RGBA", (COLUMNS * (width + GAP) - GAP, rows * (height + GAP) - GAP))
    for index, cell in enumerate(cells):
        row, column = divmod(index, COLUMNS)
        paper.paste(cell, (column * (width + GAP), row * (height + GAP)))
    return paper


def main() -> None:
    """Make the pictures and write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("starter.png"))
    args = parser.parse_args()
    sheet(list(pictures(Workbench(), args.steps))).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
