"""Make one picture and tell how far it is: `python examples/make_a_picture.py "a red house by the sea, watercolor"`."""

from __future__ import annotations

import argparse
from pathlib import Path

from bottega import Recipe, Workbench
from bottega.events import Made, Note, Step
from bottega.recipe import Sampling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prompt")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, help="a file (.png, .jpg, .webp) or a folder")
    args = parser.parse_args()

    workbench = Workbench()
    draft = Recipe(prompt=args.prompt, sampling=Sampling(steps=args.steps))
    recipe = workbench.resolve(draft, out=args.out)

    for event in workbench.run(recipe, out=args.out):
        if isinstance(event, Step):
            print(f"\r{event.phase} {event.done}/{event.total}  ", end="", flush=True)
        elif isinstance(event, Note):
            print(f"\n{event.text}")
        elif isinstance(event, Made):
            print(f"\n{event.path}, seed {event.seed}")


if __name__ == "__main__":
    main()
