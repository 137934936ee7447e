"""Measure how well starter-image paints what captions say: `python -m bottega.starter.measure`.

The captions are of combinations that training never saw, each with its own seed; the pictures are made as
`bottega make image` makes them, with 20 steps of DPM++ 2M Karras, and judged by `judge`. They say where things stand;
with `--unsaid` they are of things that stand where one expects them, and don't.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from PIL import Image

from bottega.events import Made
from bottega.recipe import Recipe, Ref, Sampling
from bottega.starter.captions import UNSAID, usual
from bottega.starter.judge import PROPERTIES, held_out_scenes, judge
from bottega.starter.scenes import Scene
from bottega.workbench import Workbench

STARTER = "starter-image"


def paint(workbench: Workbench, prompt: str, seed: int, model: str, folder: Path) -> Path:
    """The picture of one caption."""
    sampling = Sampling(sampler="DPM++ 2M", schedule="Karras", steps=20, guidance=7.0, seed=seed)
    recipe = workbench.resolve(Recipe(prompt=prompt, model=Ref(name=model), sampling=sampling))
    [made] = (event for event in workbench.run(recipe, out=folder) if isinstance(event, Made))
    return Path(made.path)


def verdict(path: Path, scene: Scene) -> dict[str, bool]:
    """What the judge says of a picture in a file."""
    with Image.open(path) as file:
        return judge(file.convert("RGB"), scene)


def as_expected(scene: Scene) -> Scene:
    """The scene with its things where a caption that says nothing puts them."""
    places = UNSAID[len(scene.things)]
    things = (replace(thing, place=place) for thing, place in zip(scene.things, places, strict=True))
    return replace(scene, things=tuple(things))


def measure(captions: Sequence[tuple[str, Scene]], model: str, folder: Path) -> dict[str, float]:
    """The shares of pictures that are right in each property and in all; what is wrong goes to standard error."""
    workbench = Workbench()
    told: list[Future[dict[str, bool]]] = []
    with ProcessPoolExecutor() as judges:
        for seed, (prompt, scene) in enumerate(captions):
            told.append(judges.submit(verdict, paint(workbench, prompt, seed, model, folder), scene))
            print(f"\r{seed + 1} of {len(captions)}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        verdicts = [future.result() for future in told]
    for seed, ((prompt, _), right) in enumerate(zip(captions, verdicts, strict=True)):
        if wrong := [name for name in PROPERTIES if not right[name]]:
            print(f"seed {seed}: {prompt}: {', '.join(wrong)}", file=sys.stderr)
    figures = {name: sum(right[name] for right in verdicts) / len(captions) for name in PROPERTIES}
    return {**figures, "everything": sum(all(right.values()) for right in verdicts) / len(captions)}


def main() -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description="Measure how well starter-image paints what captions say.")
    parser.add_argument("--count", type=int, default=200, help="captions (default: 200)")
    parser.add_argument("--model", default=STARTER, help="another model that learned the same scenes")
    parser.add_argument("--out", type=Path, help="keep the pictures in this folder")
    parser.add_argument("--unsaid", action="store_true", help="captions that don't say where things stand")
    chosen = parser.parse_args()
    scenes = held_out_scenes(chosen.count)
    if chosen.unsaid:
        scenes = [as_expected(scene) for scene in scenes]
    captions = [(usual(scene, places=not chosen.unsaid), scene) for scene in scenes]
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(captions, chosen.model, chosen.out or Path(folder))
    for name, share in figures.items():
        print(f"{name:12} {share:6.1%}")


if __name__ == "__main__":
    main()
