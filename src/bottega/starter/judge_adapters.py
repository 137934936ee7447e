"""Judge by program what adapters make: whether a picture is neon, sepia or chilly, shows a lighthouse, has turquoise.

As `judge` does: what was asked for is drawn in every way that the caption leaves open, and so is everything that it
could be mistaken for. A picture is right when the nearest of all these drawings is one of what was asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from bottega.starter.judge import column, small
from bottega.starter.scenes import COLOURS, SHAPES, STYLES, WHEN, Scene, Thing, draw

SEEDS = 4
"""Drawings of each alternative."""
SLACK = 1
"""Small pixels sideways and up or down that cost nothing."""


def shows_style(picture: Image.Image, scenes: Sequence[Scene], style: str) -> bool:
    """Whether a picture is in a style, and in none of those that starter-image knows.

    `scenes` are all that the caption allows it to show, in any style. Compared are the colours of the whole picture, in
    order, which hills and clouds elsewhere don't change, and how much of it is dark, grey or an edge.
    """
    names = {each: [replace(scene, style=each) for scene in scenes] for each in (*STYLES, style)}
    seen = _manner(picture)
    return min(names, key=lambda name: min(_far(seen, _manners(scene)) for scene in names[name])) == style


def _manner(picture: Image.Image) -> np.ndarray:
    """(147,): sorted values of each channel; how much is dark, coloured or an edge; the mean of each row."""
    full = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    channels = np.sort(small(picture).reshape(-1, 3), axis=0).reshape(16, -1, 3).mean(1)
    dark = (full.max(-1) < 0.3).mean()
    colourful = (full.max(-1) - full.min(-1)).mean()
    edges = sum(np.abs(np.diff(full, axis=axis)).mean() for axis in (0, 1))
    rows = small(picture).mean(1)
    return np.concatenate([channels.ravel(), [dark * 4, colourful * 4, edges * 8], rows.ravel() * 0.5])


@functools.lru_cache(maxsize=4096)
def _manners(scene: Scene) -> np.ndarray:
    return np.stack([_manner(_drawn(scene, seed)) for seed in range(SEEDS)])


def _far(seen: np.ndarray, drawn: np.ndarray) -> float:
    return float(((drawn - seen) ** 2).mean(tuple(range(1, drawn.ndim))).min())


def _drawn(scene: Scene, seed: int) -> Image.Image:
    """Softened as the VAE softens."""
    return draw(scene, 5000 + seed).filter(ImageFilter.GaussianBlur(0.7))


def shows_lighthouse(picture: Image.Image, scenes: Iterable[Scene], place: str = "middle") -> bool:
    """Whether a lighthouse stands in its place and nothing else does; `scenes` are those that may be around it."""
    lighthouse = Thing("red", "lighthouse", place)
    others = [Thing(colour, shape, place) for colour in COLOURS for shape in SHAPES]
    return _nearest(picture, scenes, [lighthouse], [(), *((other,) for other in others)], place)


def shows_colour(picture: Image.Image, scenes: Iterable[Scene], thing: Thing, others: Sequence[str]) -> bool:
    """Whether a thing is in its place and of its colour rather than of one of the `others`."""
    mistaken = [(replace(thing, colour=colour),) for colour in others if colour != thing.colour]
    return _nearest(picture, scenes, [thing], [(), *mistaken], thing.place)


def _nearest(
    picture: Image.Image,
    scenes: Iterable[Scene],
    right: Sequence[Thing],
    wrong: Sequence[tuple[Thing, ...]],
    place: str,
) -> bool:
    scenes = list(scenes)
    seen = column(place)(picture)

    def far(things: tuple[Thing, ...]) -> float:
        return min(_far(seen, _columns(replace(scene, things=things), place)) for scene in scenes)

    return far(tuple(right)) < min(map(far, wrong))


@functools.lru_cache(maxsize=4096)
def _columns(scene: Scene, place: str) -> np.ndarray:
    """The drawings' columns, each moved about by `SLACK`."""
    steps = range(-SLACK, SLACK + 1)
    views = [column(place)(_drawn(scene, seed)) for seed in range(SEEDS)]
    return np.stack([np.roll(view, (dy, dx), axis=(0, 1)) for view in views for dy in steps for dx in steps])


def at_any_hour(scene: Scene) -> list[Scene]:
    """The scene at every hour: what a caption without one allows."""
    return [replace(scene, when=when) for when in WHEN]
