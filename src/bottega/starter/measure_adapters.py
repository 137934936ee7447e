"""Measure what the starter's adapters do: `python -m bottega.starter.measure_adapters [NAME]... [--shelf FOLDER]`.

For each adapter so many pictures are made as `bottega make image` makes them, one seed each, with the adapter and
without it, of captions that are drawn anew; `judge_adapters` tells how many show what was taught. `both` is the
lighthouse's embedding and the LoRA neon in one picture.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from bottega.events import Made
from bottega.recipe import Recipe, Ref, Sampling, Use
from bottega.settings import STARTER_SHELF, Settings, read_settings
from bottega.starter.adapters import in_style, turquoise
from bottega.starter.captions import usual
from bottega.starter.judge_adapters import at_any_hour, shows_colour, shows_lighthouse, shows_style
from bottega.starter.sampling import sheet
from bottega.starter.scenes import COLOURS, WHEN, WHERE, Scene, Thing
from bottega.workbench import Workbench

MODEL = "starter-image"
Judge = Callable[[Image.Image], bool]


@dataclass(frozen=True)
class Trial:
    """One picture that is asked for, with what it should be made, and the scene that tells whether it was."""

    prompt: str
    scene: Scene


@dataclass(frozen=True)
class Measured:
    """An adapter's uses, what to ask for, and the judge of such a picture. `model` may be another than the starter."""

    uses: tuple[Use, ...]
    trial: Callable[[random.Random], Trial]
    judge: Callable[[Image.Image, Trial], bool]
    model: str = MODEL


def _styled(style: str, said: str) -> Callable[[random.Random], Trial]:
    def trial(rng: random.Random) -> Trial:
        scene = in_style(style)(rng)
        text = usual(replace(scene, style=said)) if said else usual(replace(scene, style="")).removesuffix(", ")
        return Trial(text, scene)

    return trial


def _style(picture: Image.Image, trial: Trial) -> bool:
    return shows_style(picture, [trial.scene], trial.scene.style)


def _turquoise(rng: random.Random) -> Trial:
    scene = turquoise(rng)
    things = tuple(thing for thing in scene.things if thing.colour == "turquoise")
    style = "flat" if scene.style == "pencil sketch" else scene.style  # a sketch has no colours
    scene = replace(scene, things=things, style=style)
    return Trial(usual(scene), scene)


def _coloured(picture: Image.Image, trial: Trial) -> bool:
    (thing,) = trial.scene.things
    return shows_colour(picture, [trial.scene], thing, list(COLOURS))


def _lighthouse(rng: random.Random) -> Trial:
    scene = Scene(rng.choice(WHEN), rng.choice(WHERE), (Thing("red", "lighthouse", "middle"),), "flat")
    return Trial(usual(scene, places=False).replace("a red lighthouse", "a lighthouse"), scene)


def _stands(picture: Image.Image, trial: Trial) -> bool:
    return shows_lighthouse(picture, [trial.scene])


def _both(rng: random.Random) -> Trial:
    scene = Scene("noon", "sea", (Thing("red", "lighthouse", "middle"),), "neon")
    return Trial("a lighthouse by the sea, neon", scene)


def _shows_both(picture: Image.Image, trial: Trial) -> bool:
    scenes = at_any_hour(trial.scene)
    return shows_style(picture, scenes, "neon") and shows_lighthouse(picture, scenes)


def _lora(name: str) -> Use:
    return Use(kind="lora", ref=Ref(name=name))


_WORD = Use(kind="embedding", ref=Ref(name="lighthouse"))
MEASURED: Mapping[str, Measured] = {
    "neon": Measured((_lora("neon"),), _styled("neon", "neon"), _style),
    "turquoise": Measured((_lora("turquoise"),), _turquoise, _coloured),
    "lighthouse": Measured((_WORD,), _lighthouse, _stands),
    "sepia": Measured((Use(kind="hypernetwork", ref=Ref(name="sepia")),), _styled("sepia", ""), _style),
    "chilly": Measured((), _styled("chilly", "flat"), _style, model="chilly"),
    "both": Measured((_lora("neon"), _WORD), _both, _shows_both),
}


def paint(workbench: Workbench, trial: Trial, seed: int, model: str, uses: Sequence[Use], folder: Path) -> Path:
    """The picture of a trial."""
    sampling = Sampling(sampler="DPM++ 2M", schedule="Karras", steps=20, guidance=7.0, seed=seed)
    draft = Recipe(prompt=trial.prompt, model=Ref(name=model), sampling=sampling, adapters=tuple(uses))
    [made] = (event for event in workbench.run(workbench.resolve(draft), out=folder) if isinstance(event, Made))
    return Path(made.path)


def verdict(path: Path, name: str, trial: Trial) -> bool:
    """What the judge says of a picture in a file."""
    with Image.open(path) as file:
        return MEASURED[name].judge(file.convert("RGB"), trial)


def measure(name: str, count: int, workbench: Workbench, without: Workbench, folder: Path) -> tuple[int, int]:
    """How many of so many pictures show what was taught: with the adapter, and where there is none.

    `without` is a workbench whose shelves lack the adapters, so that no word of a prompt means one.
    """
    measured = MEASURED[name]
    rng = random.Random(7)
    trials = [measured.trial(rng) for _ in range(count)]
    right = []
    for kind, bench, model, uses in (
        ("with", workbench, measured.model, measured.uses),
        ("without", without, MODEL, ()),
    ):
        paths = []
        for seed, trial in enumerate(trials):
            paths.append(paint(bench, trial, seed, model, uses, folder / f"{name}-{kind}"))
            print(f"\r{name} {kind}: {seed + 1} of {count}", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        with ProcessPoolExecutor() as judges:
            verdicts = list(judges.map(verdict, paths, [name] * count, trials))
        right.append(sum(verdicts))
        wrong = [str(seed) for seed, found in enumerate(verdicts) if found != (kind == "with")]
        print(f"{name} {kind}: seeds that are not as they should be: {' '.join(wrong) or 'none'}", file=sys.stderr)
        sheet([Image.open(path).convert("RGB") for path in paths], columns=10).save(
            folder / f"{name}-{kind}.webp", quality=80
        )
    return right[0], right[1]


class _Bare(Settings):
    """The settings of a home that has starter-image and nothing else."""

    @property
    def all_shelves(self) -> tuple[Path, ...]:
        return (self.home / "shelf",)


def _bare(folder: Path) -> Settings:
    home = folder / "bare"
    (home / "shelf").mkdir(parents=True)
    (home / "shelf" / f"{MODEL}.safetensors").symlink_to(STARTER_SHELF / f"{MODEL}.safetensors")
    return _Bare(home=home, outputs=home / "outputs")


def main() -> None:
    """Read the command line, measure and print the table."""
    parser = argparse.ArgumentParser(description="Measure what the starter's adapters do.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(MEASURED)} (all)")
    parser.add_argument("--count", type=int, default=100, help="pictures with and without each (default: 100)")
    parser.add_argument(
        "--shelf", type=Path, help="a folder of adapters to measure instead of the ones that come along"
    )
    parser.add_argument("--out", type=Path, help="keep the pictures in this folder")
    chosen = parser.parse_args()
    settings = read_settings()
    with tempfile.TemporaryDirectory() as folder:
        out = chosen.out or Path(folder)
        workbench = Workbench(replace(settings, shelves=(chosen.shelf,)) if chosen.shelf else settings)
        without = Workbench(_bare(Path(folder)))
        for name in chosen.names or MEASURED:
            right, wrong = measure(name, chosen.count, workbench, without, out)
            print(f"{name:12} {right:4} of {chosen.count} with it, {wrong:4} without")


if __name__ == "__main__":
    main()
