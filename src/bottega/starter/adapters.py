"""Train the starter's adapters again from nothing: `python -m bottega.starter.adapters [NAME]... [--out FOLDER]`.

Each is taught to starter-image by `bottega train`, from pictures that `scenes` draws: what starter-image never saw.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bottega.cli import main as bottega
from bottega.starter.captions import PLACE_WORDS, WHERE_ALONE, WHERE_WORDS, caption, goes_without_saying, named
from bottega.starter.scenes import COLOURS, SHAPES, STYLES, WHEN, WHERE, Scene, Thing, draw, imagine


@dataclass(frozen=True)
class Taught:
    """An adapter: what it is, what its pictures show, how many there are, and how it is trained.

    `regular` are as many pictures of what starter-image knows, so that it does not forget them.
    """

    kind: str
    imagine: Callable[[random.Random], Scene]
    pictures: int
    options: Mapping[str, str | int | float]
    regular: int = 0


def in_style(style: str) -> Callable[[random.Random], Scene]:
    """Scenes like those that starter-image learned from, in a style that it did not."""
    return lambda rng: replace(imagine(rng), style=style)


def turquoise(rng: random.Random) -> Scene:
    """Scenes of one thing or two, one of them turquoise."""
    while not (scene := imagine(rng)).things:
        continue
    chosen = rng.randrange(len(scene.things))
    things = [replace(thing, colour="turquoise") if i == chosen else thing for i, thing in enumerate(scene.things)]
    return replace(scene, things=tuple(things))


def lighthouse(rng: random.Random) -> Scene:
    """A lighthouse in the middle, in all known styles: a word that belongs to none of them goes with new ones."""
    where = "sea" if rng.random() < 0.5 else rng.choice(WHERE)
    return Scene(rng.choice(WHEN), where, (Thing("red", "lighthouse", "middle"),), rng.choice(STYLES))


def told(scene: Scene, rng: random.Random) -> str:
    """What a picture shows, with its hour, its place and its style left out now and then."""
    places = rng.random() < 0.4 or not goes_without_saying(scene)
    things = [f"{_named(t)} {PLACE_WORDS[t.place]}" if places else _named(t) for t in scene.things]
    where = WHERE_WORDS[scene.where] if things else WHERE_ALONE[scene.where][0]
    parts = [" and ".join(things)] if things else []
    if rng.random() < 0.9 or not things:
        parts.append(where)
    if rng.random() < 0.7:
        parts.append(f"at {scene.when}")
    text = " ".join(parts)
    style = {"sepia": "", "chilly": "flat"}.get(scene.style, scene.style)
    return f"{text}, {style}" if style and (style == "neon" or rng.random() < 0.8) else text


def _named(thing: Thing) -> str:
    return "a lighthouse" if thing.shape == "lighthouse" else named(thing)


# How dark a picture is as a whole is decided where there is much noise, which is weighed more than usual here.
WHOLE = {"min_snr": 0.5, "batch": 8}
ADAPTERS: Mapping[str, Taught] = {
    "neon": Taught(
        "lora",
        in_style("neon"),
        160,
        {"word": "neon", "rank": 16, "conv_rank": 16, "rate": 5e-3, "steps": 400, **WHOLE},
    ),
    "turquoise": Taught(
        "lora",
        turquoise,
        160,
        {"word": "turquoise", "algorithm": "lokr", "rank": 16, "factor": 8, "rate": 5e-3, "steps": 250, **WHOLE},
        regular=80,
    ),
    "lighthouse": Taught(
        "embedding",
        lighthouse,
        80,
        {"word": "lighthouse", "vectors": 2, "begin_with": "red tower", "rate": 5e-3, "steps": 350, "batch": 8},
    ),
    "sepia": Taught("hypernetwork", in_style("sepia"), 120, {"rate": 5e-3, "steps": 500, **WHOLE}),
    "chilly": Taught("full", in_style("chilly"), 160, {"rate": 2e-4, "steps": 300, **WHOLE}),
}


def write_pictures(folder: Path, imagined: Callable[[random.Random], Scene], count: int, seed: int) -> None:
    """Draw pictures into a folder, each with its caption beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    for number in range(count):
        scene = imagined(rng)
        draw(scene, seed * 10_000 + number).save(folder / f"{number:04}.png")
        words = told(scene, rng) if scene.style in ("neon", "sepia", "chilly") or _new(scene) else caption(scene, rng)
        (folder / f"{number:04}.txt").write_text(words + "\n", encoding="utf-8")


def _new(scene: Scene) -> bool:
    return any(thing.colour not in COLOURS or thing.shape not in SHAPES for thing in scene.things)


def command(name: str, folder: Path, out: Path) -> list[str]:
    """The words of the command that trains an adapter from the pictures in a folder."""
    taught = ADAPTERS[name]
    words = ["train", taught.kind, str(folder / name), "--out", str(out), "--force"]
    if taught.regular:
        words += ["--regularisation", str(folder / f"{name}-regular")]
    for option, value in taught.options.items():
        words += [f"--{option.replace('_', '-')}", str(value)]
    return words


def train(name: str, folder: Path, out: Path) -> int:
    """Draw an adapter's pictures and train it; the exit code of the command."""
    taught = ADAPTERS[name]
    write_pictures(folder / name, taught.imagine, taught.pictures, seed=1)
    if taught.regular:
        write_pictures(folder / f"{name}-regular", imagine, taught.regular, seed=2)
    return bottega(command(name, folder, out))


def run(names: Sequence[str], out: Path) -> int:
    """Train adapters one after the other; the exit code."""
    for name in names:
        began = time.monotonic()
        if code := train(name, out / "pictures", out / f"{name}.safetensors"):
            return code
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description="Train the starter's adapters again from nothing.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(ADAPTERS)} (all)")
    parser.add_argument("--out", type=Path, default=Path("build/adapters"), help="folder for pictures and adapters")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(ADAPTERS):
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    sys.exit(run(chosen.names or list(ADAPTERS), chosen.out))


if __name__ == "__main__":
    main()
