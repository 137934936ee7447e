"""Judge whether a picture shows what its caption says, by drawing what it should and what it should not look like.

For each property of a scene (hour, landscape, style, and every thing's colour, shape and place) the scene is drawn
several times as said, and several times with that one property replaced by every other value. The property is right
when the nearest of all these drawings is one of those that were drawn as said. Nearness is the mean squared distance
of the pictures at a quarter of their size, over the part of the picture that shows the property:

* hour: the sky, above the highest hills (rows 8 to 36);
* landscape: everything from row 32 down, outside the columns where things stand;
* style: the picture in full size, together with the steps between neighbouring pixels, which tell pixels from washes;
* colour, shape, place: the column of 44 pixels about the thing's place, from row 12 down. A thing is in its place when
  its column is nearer to drawings with the thing than to drawings without, and empty columns the other way round.

A pencil sketch is black and white, so that colours are not asked of it.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from bottega.starter.captions import imagine_for, usual
from bottega.starter.scenes import COLOURS, PLACES, SHAPES, STYLES, WHEN, WHERE, Scene, Thing, draw

PROPERTIES = ("time", "where", "style", "place", "colour", "shape")
SEEDS = 5
"""Drawings of each alternative."""

View = Callable[[Image.Image], np.ndarray]


def small(picture: Image.Image) -> np.ndarray:
    """(32, 32, 3) in 0..1."""
    return np.asarray(picture.convert("RGB").resize((32, 32), Image.BOX), dtype=np.float32) / 255


def free_columns(scene: Scene) -> list[int]:
    """The small columns in which none of the scene's things stands."""
    return [x for x in range(2, 30) if all(abs(4 * x + 2 - PLACES[t.place]) > 24 for t in scene.things)]


def sky(scene: Scene) -> View:
    """The colour of each row of the sky that most of its free columns have."""
    columns = free_columns(scene)
    return lambda picture: np.median(small(picture)[2:9, columns], axis=1)


def land(scene: Scene) -> View:
    """Rows from 32 down, without the columns of the scene's things."""
    columns = free_columns(scene)
    return lambda picture: small(picture)[8:31, columns]


def texture(picture: Image.Image) -> np.ndarray:
    """What tells styles apart: colourfulness, the paper's margin, and steps at and between the 4-pixel grid lines."""
    full = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    colourful = (full.max(-1) - full.min(-1)).mean()
    edge = np.concatenate([full[:3].reshape(-1, 3), full[-3:].reshape(-1, 3), full[:, :3].reshape(-1, 3)]).min(-1)
    on_grid = off_grid = 1e-4
    for axis in (0, 1):
        steps = np.abs(np.diff(full, axis=axis)).mean((1 - axis, 2))
        on_grid += steps[3::4].mean()
        off_grid += np.delete(steps, np.s_[3::4]).mean()
    return np.array([min(colourful * 6, 1), (edge > 0.85).mean(), min(on_grid / off_grid / 5, 1)])


def column(place: str) -> View:
    """The part of the picture where a thing in that place stands."""
    middle = PLACES[place] // 4
    return lambda picture: small(picture)[3:29, max(0, middle - 6) : middle + 6]


@functools.lru_cache(maxsize=1024)
def drawings(scene: Scene, count: int) -> list[Image.Image]:
    """The scene drawn several times, softened as the VAE softens."""
    return [draw(scene, 1000 + seed).filter(ImageFilter.GaussianBlur(0.7)) for seed in range(count)]


def distance(picture: Image.Image, scenes: Iterable[Scene], view: View, slack: int = 0, count: int = SEEDS) -> float:
    """To the nearest drawing of any of the scenes; `slack` small pixels sideways and up or down cost nothing."""
    seen = view(picture)
    nearest = np.inf
    for scene in scenes:
        for drawn in map(view, drawings(scene, count)):
            for dy in range(-slack, slack + 1):
                for dx in range(-slack, slack + 1):
                    moved = np.roll(drawn, (dy, dx), axis=(0, 1)) if slack else drawn
                    nearest = min(nearest, float(((seen - moved) ** 2).mean()))
    return nearest


def with_thing(scene: Scene, index: int, **changes: str) -> Scene:
    """The scene with one thing changed."""
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def judge(picture: Image.Image, scene: Scene) -> dict[str, bool]:
    """For every property of the scene, whether the picture shows it."""
    column_views = [column(t.place) for t in scene.things]
    sketch = scene.style == "pencil sketch"
    bare = replace(scene, things=())

    def best(options: dict[str, Scene], view: View, slack: int = 0) -> str:
        return min(options, key=lambda name: distance(picture, [options[name]], view, slack))

    verdict = {
        "time": best({when: replace(bare, when=when) for when in WHEN}, sky(scene)) == scene.when,
        "where": best({where: replace(scene, where=where) for where in WHERE}, land(scene)) == scene.where,
        "style": best({style: replace(scene, style=style) for style in STYLES}, texture) == scene.style,
        "place": True,
        "colour": True,
        "shape": True,
    }
    for i, (thing, view) in enumerate(zip(scene.things, column_views, strict=True)):
        shapes = {shape: with_thing(scene, i, shape=shape) for shape in SHAPES}
        verdict["shape"] &= best(shapes, view, slack=1) == thing.shape
        if not sketch:
            colours = {colour: with_thing(scene, i, colour=colour) for colour in COLOURS}
            verdict["colour"] &= best(colours, view, slack=1) == thing.colour
        without = replace(scene, things=tuple(t for t in scene.things if t != thing))
        verdict["place"] &= distance(picture, [scene], view, slack=1) < distance(picture, [without], view, slack=1)
    for place in set(PLACES) - {t.place for t in scene.things}:
        verdict["place"] &= not _intruder(picture, scene, place)
    return verdict


def _intruder(picture: Image.Image, scene: Scene, place: str) -> bool:
    """Whether something stands in a column that should be empty: judged on the ground, where no sun disturbs."""
    view = column(place)

    def ground(image: Image.Image) -> np.ndarray:
        return view(image)[17:, 3:9]

    strangers = [
        replace(scene, things=(*scene.things, Thing(colour, shape, place)))
        for shape in ("house", "tent", "tree")
        for colour in ("red", "blue", "yellow", "white", "green", "purple")
    ]
    return distance(picture, strangers, ground, count=1) < 0.5 * distance(picture, [scene], ground)


def tally(pairs: Iterable[tuple[Image.Image, Scene]]) -> dict[str, float]:
    """The share of pictures that are right in each property, and in everything at once."""
    verdicts = [judge(picture, scene) for picture, scene in pairs]
    figures = {name: float(np.mean([v[name] for v in verdicts])) for name in PROPERTIES}
    figures["everything"] = float(np.mean([all(v.values()) for v in verdicts]))
    return figures


def held_out_scenes(count: int, seed: int = 0) -> list[Scene]:
    """Scenes of combinations that training never saw."""
    rng = random.Random(seed)
    return [imagine_for(rng, training=False) for _ in range(count)]


def captions_for(scenes: Sequence[Scene]) -> list[str]:
    """Captions in the usual form, with places."""
    return [usual(scene) for scene in scenes]
