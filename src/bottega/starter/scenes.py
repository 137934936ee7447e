"""Draw the little landscapes that starter-image learns from: every picture is made by code, from a description.

A `Scene` says what is in the picture; `draw` paints it. The same scene and seed give the same picture; another seed
moves the hills, the clouds and the stars about.

How the four times of day can be told apart:

==========  =====================================  ===========================  ==============================
when        sky, top to horizon                    light in it                  as a pencil sketch
==========  =====================================  ===========================  ==============================
at dawn     lilac, pink, peach (all pale)          a small pale sun, low        light grey sky, small low sun
at noon     clear blue to pale blue                a yellow sun with rays,      white sky, high sun with rays
                                                   high; white clouds
at sunset   purple, crimson, orange (deep)         a big orange sun, low        mid grey sky, big low sun
at night    dark navy                              a white moon and stars,      dark hatched sky, white moon
                                                   high                         and stars
==========  =====================================  ===========================  ==============================

Things keep their own, saturated colour at every hour; only the land is dimmed at night. Sun and moon stand in a
column (left, middle or right) where there is no thing, so that nothing hides them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter, map_coordinates

SIZE = 128
"""Width and height of a picture, in pixels."""

Colour = tuple[int, int, int]
Point = tuple[float, float]

WHEN = ("dawn", "noon", "sunset", "night")
WHERE = ("sea", "mountains", "desert", "forest", "snow")
COLOURS: dict[str, Colour] = {
    "red": (215, 40, 40),
    "blue": (40, 90, 220),
    "yellow": (250, 210, 40),
    "white": (248, 248, 248),
    "green": (40, 160, 70),
    "purple": (140, 60, 180),
    "orange": (245, 130, 30),
}
SHAPES = ("house", "boat", "balloon", "tower", "tent", "tree")
PLACES = {"left": 27, "middle": 64, "right": 101}
"""Where a thing can stand, and the x of its centre in pixels."""
STYLES = ("flat", "watercolor", "pixel art", "pencil sketch")

HELD_BACK = ("neon", "lighthouse", "turquoise")
"""Never drawn and never named when starter-image is trained: left for adapters to teach."""
TAUGHT_COLOURS: dict[str, Colour] = {"turquoise": (38, 206, 190)}
TAUGHT_STYLES = ("neon", "sepia", "chilly")
"""Styles that only adapters know. In a chilly picture it has snowed, wherever it is, and all colours are pastel."""


@dataclass(frozen=True, order=True)
class Thing:
    """One coloured thing in the picture."""

    colour: str
    shape: str
    place: str


@dataclass(frozen=True)
class Scene:
    """What a picture shows: an hour, a landscape, none, one or two things in different places, and a style."""

    when: str
    where: str
    things: tuple[Thing, ...]
    style: str


SKIES: dict[str, list[Colour]] = {
    "dawn": [(196, 176, 222), (240, 188, 208), (252, 218, 204), (255, 234, 208)],
    "noon": [(86, 164, 240), (128, 192, 246), (172, 216, 250), (206, 234, 252)],
    "sunset": [(98, 44, 116), (168, 52, 92), (222, 88, 66), (246, 156, 72)],
    "night": [(10, 14, 44), (16, 22, 60), (24, 32, 78), (34, 46, 96)],
}
PENCIL_SKIES: dict[str, tuple[int, int]] = {
    "dawn": (196, 232),
    "noon": (250, 250),
    "sunset": (122, 176),
    "night": (38, 70),
}
"""Grey of a pencilled sky at the top and at the horizon."""
LIGHT: dict[str, tuple[float, float, float]] = {
    "dawn": (1.0, 0.94, 0.96),
    "noon": (1.0, 1.0, 1.0),
    "sunset": (0.86, 0.68, 0.66),
    "night": (0.36, 0.40, 0.56),
}
"""What the hour does to the colours of the land."""

_SCALE = 3
_HORIZON = 76
_PAPER: Colour = (250, 248, 244)


def shade(colour: Colour, factor: float) -> Colour:
    """The same hue, darker (factor below 1) or lighter (above 1, towards white)."""
    if factor <= 1:
        return tuple(round(c * factor) for c in colour)
    return tuple(round(c + (255 - c) * (factor - 1)) for c in colour)


def blend(a: Colour, b: Colour, share: float) -> Colour:
    """`share` of b and the rest of a."""
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b, strict=True))


class Canvas:
    """A drawing surface in picture pixels (0..128), painted at three times the size for smooth edges."""

    def __init__(self, picture: Image.Image) -> None:
        self.picture = picture
        self._pen = ImageDraw.Draw(picture)

    def polygon(self, points: Sequence[Point], fill: Colour, outline: Colour | None = None, width: float = 1.6) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        self._pen.polygon(scaled, fill=fill)
        if outline:
            self._pen.line([*scaled, scaled[0], scaled[1]], fill=outline, width=round(width * _SCALE), joint="curve")

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Colour, outline: Colour | None = None) -> None:
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outline)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour, outline: Colour | None = None) -> None:
        corners = [(x - rx) * _SCALE, (y - ry) * _SCALE, (x + rx) * _SCALE, (y + ry) * _SCALE]
        self._pen.ellipse(corners, fill=fill, outline=outline, width=round(1.6 * _SCALE) if outline else 0)

    def line(self, points: Sequence[Point], fill: Colour, width: float = 1.2) -> None:
        self._pen.line([(x * _SCALE, y * _SCALE) for x, y in points], fill=fill, width=max(1, round(width * _SCALE)))


def ridge(rng: random.Random, base: float, height: float, waves: float) -> list[Point]:
    """A soft hill line across the picture: 33 points, `height` pixels of swing about `base`."""
    a, b = rng.uniform(0, 2 * math.pi), rng.uniform(0, 2 * math.pi)
    xs = [SIZE * i / 32 for i in range(33)]
    return [
        (x, base + height * (0.65 * math.sin(waves * 6.28 * x / SIZE + a) + 0.35 * math.sin(waves * 11 * x / SIZE + b)))
        for x in xs
    ]


def land(canvas: Canvas, line: list[Point], fill: Colour) -> None:
    """Fill everything below a hill line."""
    canvas.polygon([(0, SIZE), *line, (SIZE, SIZE)], fill)


def pine(canvas: Canvas, x: float, base: float, height: float, fill: Colour, snow: Colour | None = None) -> None:
    """A fir of two stacked triangles, with a cap of snow if asked."""
    half, top = height * 0.3, base - height
    canvas.polygon([(x - half, base), (x + half, base), (x, base - height * 0.65)], fill)
    for width, rise, colour in ((0.75, 0.38, fill), (0.4, 0.7, snow)):
        if colour:
            y = base - height * rise
            canvas.polygon([(x - half * width, y), (x + half * width, y), (x, top)], colour)


# --- the sky ----------------------------------------------------------------------------------------------------


def sky(when: str, pencil: bool) -> Image.Image:
    """The empty sky at three times the picture's size."""
    stops = [(g, g, g) for g in PENCIL_SKIES[when]] if pencil else SKIES[when]
    rows = np.linspace(0, len(stops) - 1, _HORIZON * _SCALE)
    column = np.stack([np.interp(rows, range(len(stops)), [s[c] for s in stops]) for c in range(3)], axis=-1)
    column = np.concatenate([column, np.repeat(column[-1:], (SIZE - _HORIZON) * _SCALE, axis=0)])
    picture = np.broadcast_to(column[:, None], (SIZE * _SCALE, SIZE * _SCALE, 3))
    return Image.fromarray(picture.round().astype(np.uint8))


def lights(canvas: Canvas, scene: Scene, rng: random.Random, pencil: bool) -> None:
    """Sun or moon in a column that is free of things, stars at night, clouds at noon."""
    free = [x for place, x in PLACES.items() if place not in {t.place for t in scene.things}]
    x = rng.choice(free or list(PLACES.values())) + rng.uniform(-5, 5)
    low = 42 if scene.where in ("mountains", "forest") else 57
    ink = (60, 60, 60) if pencil else None
    if scene.when == "dawn":
        canvas.ellipse(x, low + rng.uniform(-2, 2), 9, 9, _PAPER if pencil else (255, 250, 226), ink)
    elif scene.when == "noon":
        clouds(canvas, rng, x, ink)
        y = rng.uniform(19, 23)
        for spoke in range(12):
            angle = spoke * math.pi / 6
            ends = [(x + r * math.cos(angle), y + r * math.sin(angle)) for r in (13, 17.5)]
            canvas.line(ends, ink or (255, 226, 84), 1.6)
        canvas.ellipse(x, y, 10, 10, _PAPER if pencil else (255, 222, 64), ink)
    elif scene.when == "sunset":
        y = low + rng.uniform(-2, 2)
        if not pencil:
            canvas.ellipse(x, y, 21, 21, (250, 160, 76))
        canvas.ellipse(x, y, 16, 16, _PAPER if pencil else (255, 206, 92), ink)
    else:
        for _ in range(16):
            sx, sy, r = rng.uniform(3, 125), rng.uniform(3, 58), rng.uniform(0.8, 1.5)
            canvas.polygon([(sx - r, sy), (sx, sy - r), (sx + r, sy), (sx, sy + r)], (250, 250, 240))
        y = rng.uniform(19, 25)
        canvas.ellipse(x, y, 14, 14, (70, 70, 70) if pencil else (38, 46, 92))
        canvas.ellipse(x, y, 10, 10, (252, 252, 250) if pencil else (250, 248, 232))
        canvas.ellipse(x - 3, y - 3, 2.4, 2.4, (222, 222, 216))
        canvas.ellipse(x + 4, y + 3, 1.8, 1.8, (222, 222, 216))


def clouds(canvas: Canvas, rng: random.Random, sun: float, ink: Colour | None) -> None:
    """Two small white clouds, away from the sun."""
    for centre in (sun + 46, sun - 46):
        x, y = centre + rng.uniform(-8, 8), rng.uniform(14, 34)
        for dx, dy, r in ((-8, 2, 5), (0, -1, 7), (8, 2, 5)):
            canvas.ellipse(x + dx, y + dy, r + 1.5, r * 0.75, (250, 252, 255), None if ink is None else (190, 190, 190))
        if ink:
            canvas.ellipse(x, y + 1, 9, 4, (250, 250, 250))


# --- the land ---------------------------------------------------------------------------------------------------


def sea(canvas: Canvas, lit: Callable[[Colour], Colour], rng: random.Random) -> None:
    canvas.box(0, _HORIZON - 2, SIZE, SIZE, lit((92, 162, 172)))
    canvas.box(0, _HORIZON + 6, SIZE, SIZE, lit((78, 148, 162)))
    for _ in range(9):
        x, y = rng.uniform(0, 118), rng.uniform(_HORIZON + 2, 98)
        canvas.line([(x, y), (x + rng.uniform(7, 14), y)], lit((160, 208, 210)), 1.3)
    beach = ridge(rng, 104, 2.5, 0.8)
    land(canvas, [(x, y - 2) for x, y in beach], lit((226, 238, 234)))
    land(canvas, beach, lit((226, 208, 172)))


def mountains(canvas: Canvas, lit: Callable[[Colour], Colour], rng: random.Random) -> None:
    for x in (rng.uniform(4, 20), rng.uniform(46, 62), rng.uniform(84, 100), rng.uniform(120, 134)):
        top, half = rng.uniform(36, 46), rng.uniform(32, 38)
        canvas.polygon([(x - half, 84), (x, top), (x + half, 84)], lit((128, 142, 164)))
        canvas.polygon([(x, top), (x + half, 84), (x + half * 0.2, 84)], lit((106, 120, 144)))
        tip = 12 / (84 - top)
        cap = [(x - half * tip, top + 12), (x - 2, top + 8), (x + 2, top + 12), (x + half * tip, top + 12), (x, top)]
        canvas.polygon(cap, lit((236, 240, 246)))
    land(canvas, ridge(rng, 80, 3, 0.7), lit((130, 146, 122)))
    land(canvas, ridge(rng, 96, 3, 0.6), lit((152, 166, 132)))


def desert(canvas: Canvas, lit: Callable[[Colour], Colour], rng: random.Random) -> None:
    x = rng.choice((rng.uniform(8, 30), rng.uniform(98, 120)))
    mesa = [(x - 24, 82), (x - 17, 62), (x + 17, 62), (x + 24, 82)]
    canvas.polygon(mesa, lit((196, 150, 124)))
    land(canvas, ridge(rng, 77, 3.5, 0.6), lit((214, 188, 150)))
    land(canvas, ridge(rng, 90, 4, 0.5), lit((226, 204, 166)))
    land(canvas, ridge(rng, 108, 4, 0.5), lit((234, 216, 180)))
    for x in (rng.uniform(42, 49), rng.uniform(79, 86)):
        cactus(canvas, x, rng.uniform(90, 96), lit((104, 132, 104)))


def cactus(canvas: Canvas, x: float, base: float, fill: Colour) -> None:
    canvas.line([(x, base), (x, base - 17)], fill, 4)
    canvas.line([(x - 5, base - 12), (x - 5, base - 8), (x, base - 8)], fill, 2.6)
    canvas.line([(x + 5, base - 15), (x + 5, base - 10), (x, base - 10)], fill, 2.6)


def forest(canvas: Canvas, lit: Callable[[Colour], Colour], rng: random.Random) -> None:
    for x in range(-2, 134, 9):
        pine(canvas, x + rng.uniform(-3, 3), 84, rng.uniform(30, 42), lit((86, 112, 100)))
    for x in range(3, 134, 12):
        pine(canvas, x + rng.uniform(-3, 3), 90, rng.uniform(26, 36), lit((56, 84, 72)))
    land(canvas, ridge(rng, 87, 2, 0.8), lit((92, 112, 84)))
    land(canvas, ridge(rng, 106, 3, 0.6), lit((108, 126, 94)))


def snow(canvas: Canvas, lit: Callable[[Colour], Colour], rng: random.Random) -> None:
    land(canvas, ridge(rng, 72, 5, 0.7), lit((192, 208, 230)))
    needles, cap = lit((92, 122, 134)), lit((238, 244, 250))
    for x in (4, 24, 45, 64, 83, 104, 124):
        pine(canvas, x + rng.uniform(-4, 4), rng.uniform(80, 84), rng.uniform(18, 24), needles, cap)
    land(canvas, ridge(rng, 84, 3, 0.6), lit((212, 224, 240)))
    land(canvas, ridge(rng, 104, 4, 0.5), lit((226, 235, 246)))


LANDS = {"sea": sea, "mountains": mountains, "desert": desert, "forest": forest, "snow": snow}


# --- the things -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Paint:
    """The shades a thing is painted in: all of one hue."""

    main: Colour
    dark: Colour
    light: Colour
    ink: Colour

    @classmethod
    def named(cls, name: str) -> Paint:
        main = COLOURS.get(name) or TAUGHT_COLOURS[name]
        if name == "white":
            return cls(main, (206, 209, 216), (255, 255, 255), (84, 86, 98))
        return cls(main, shade(main, 0.74), shade(main, 1.22), shade(main, 0.40))

    def pale(self) -> Paint:
        """As a pencil leaves it: mostly paper."""
        return Paint(shade(self.main, 1.5), shade(self.dark, 1.4), shade(self.light, 1.6), self.ink)


_GLASS: Colour = (255, 244, 196)
_WOOD: Colour = (112, 80, 60)


def house(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    canvas.box(x + 8, base - 42, x + 13, base - 28, p.dark, p.ink)
    canvas.box(x - 17, base - 25, x + 17, base, p.main, p.ink)
    canvas.polygon([(x - 22, base - 24), (x, base - 43), (x + 22, base - 24)], p.dark, p.ink)
    canvas.box(x - 12, base - 15, x - 4, base, p.ink)
    canvas.box(x + 3, base - 17, x + 11, base - 9, _GLASS, p.ink)


def boat(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    canvas.line([(x, base - 8), (x, base - 46)], _WOOD, 2)
    canvas.polygon([(x + 2, base - 45), (x + 2, base - 14), (x + 20, base - 14)], p.main, p.ink)
    canvas.polygon([(x - 2, base - 40), (x - 2, base - 14), (x - 16, base - 14)], p.light, p.ink)
    canvas.polygon([(x - 22, base - 11), (x + 22, base - 11), (x + 14, base + 1), (x - 14, base + 1)], p.main, p.ink)
    canvas.line([(x - 18, base - 7), (x + 18, base - 7)], p.dark, 2)


def balloon(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    top = base - 48
    canvas.line([(x - 8, top + 34), (x - 4, base - 7)], p.ink, 1)
    canvas.line([(x + 8, top + 34), (x + 4, base - 7)], p.ink, 1)
    canvas.polygon([(x - 14, top + 28), (x + 14, top + 28), (x + 4, top + 40), (x - 4, top + 40)], p.dark, p.ink)
    canvas.ellipse(x, top + 18, 19, 18.5, p.main, p.ink)
    canvas.ellipse(x, top + 18, 11, 17.5, p.dark)
    canvas.ellipse(x, top + 18, 5, 17.5, p.main)
    canvas.box(x - 5, base - 8, x + 5, base, _WOOD, shade(_WOOD, 0.5))


def tower(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    canvas.box(x - 11, base - 46, x + 11, base, p.main, p.ink)
    canvas.box(x + 4, base - 46, x + 10, base - 1, p.dark)
    for left in (-14, -4, 6):
        canvas.box(x + left, base - 56, x + left + 8, base - 48, p.main, p.ink)
    canvas.box(x - 14, base - 50, x + 14, base - 43, p.main, p.ink)
    canvas.box(x - 4, base - 13, x + 4, base, p.ink)
    for y in (36, 25):
        canvas.box(x - 3, base - y, x + 2, base - y + 6, _GLASS, p.ink)


def tent(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    canvas.line([(x - 4, base - 43), (x + 3, base - 35)], _WOOD, 2)
    canvas.line([(x + 4, base - 43), (x - 3, base - 35)], _WOOD, 2)
    canvas.polygon([(x - 24, base), (x, base - 38), (x + 24, base)], p.main, p.ink)
    canvas.polygon([(x, base - 37), (x + 23, base - 1), (x + 13, base - 1)], p.dark)
    canvas.polygon([(x - 9, base), (x, base - 24), (x + 9, base)], p.ink)


def tree(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    canvas.polygon([(x - 3, base - 20), (x + 3, base - 20), (x + 5, base), (x - 5, base)], _WOOD, shade(_WOOD, 0.5))
    blobs = ((-11, -24, 10.5), (11, -24, 10.5), (0, -36, 12), (0, -25, 11))
    for dx, dy, r in blobs:
        canvas.ellipse(x + dx, base + dy, r + 1.5, r + 1.5, p.ink)
    for dx, dy, r in blobs:
        canvas.ellipse(x + dx, base + dy, r, r, p.main)
    for dx, dy, r in ((10, -21, 4.5), (-8, -19, 4), (6, -34, 4)):
        canvas.ellipse(x + dx, base + dy, r, r * 0.8, p.dark)


def lighthouse(canvas: Canvas, x: float, base: float, p: Paint) -> None:
    """A tower that narrows upwards, higher than all else, and on it a gallery and a large round lamp."""
    top = base - 52
    canvas.polygon([(x - 14, base), (x - 5, top), (x + 5, top), (x + 14, base)], p.main, p.ink)
    canvas.polygon([(x + 5, base - 1), (x + 2, top), (x + 4, top), (x + 13, base - 1)], p.dark)
    canvas.box(x - 4, base - 13, x + 4, base, p.ink)
    canvas.ellipse(x, top - 17, 18, 17, p.main, p.ink)
    canvas.ellipse(x, top - 17, 10, 16, p.dark)
    canvas.ellipse(x, top - 17, 5, 16, p.main)
    canvas.box(x - 11, top - 4, x + 11, top + 2, p.main, p.ink)


_DRAWERS = {
    "house": house,
    "boat": boat,
    "balloon": balloon,
    "tower": tower,
    "tent": tent,
    "tree": tree,
    "lighthouse": lighthouse,
}


def put(canvas: Canvas, thing: Thing, scene: Scene, rng: random.Random, lit: Callable[[Colour], Colour]) -> None:
    """Draw one thing where it belongs: balloons fly, boats float, the rest stands on the ground."""
    x = PLACES[thing.place] + rng.uniform(-3, 3)
    base = rng.uniform(108, 113)
    if thing.shape == "balloon":
        base = rng.uniform(66, 72)
    elif thing.shape == "boat":
        base = rng.uniform(97, 101) if scene.where == "sea" else rng.uniform(106, 110)
        if scene.where != "sea":
            canvas.ellipse(x, base + 1, 27, 6, lit((118, 168, 180)))
    else:
        canvas.ellipse(x, base, 24, 3, lit(shade((150, 150, 140), 0.75)))
    paint = Paint.named(thing.colour)
    _DRAWERS[thing.shape](canvas, x, base, paint.pale() if scene.style == "pencil sketch" else paint)


# --- the styles -------------------------------------------------------------------------------------------------


def watercolor(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Wavering edges, uneven wash, paper left white around the painting. Float (128, 128, 3) in and out, 0..255."""
    waves = Image.fromarray(rng.uniform(-1, 1, (2 * 12, 12)).astype(np.float32)).resize((SIZE, 2 * SIZE), Image.BICUBIC)
    shift = np.asarray(waves).reshape(2, SIZE, SIZE) * 2.0
    rows, columns = np.mgrid[:SIZE, :SIZE]
    where = [rows + shift[0], columns + shift[1]]
    picture = np.stack([map_coordinates(picture[..., c], where, order=1, mode="nearest") for c in range(3)], axis=-1)
    wash = np.asarray(Image.fromarray(rng.uniform(0, 1, (9, 9)).astype(np.float32)).resize((SIZE, SIZE), Image.BICUBIC))
    share = (0.04 + 0.14 * wash)[..., None]
    picture = picture + (255 - picture) * share
    edge = np.minimum(np.minimum(rows, SIZE - 1 - rows), np.minimum(columns, SIZE - 1 - columns))
    bleed = np.clip((edge - 4 + shift[0] * 1.3) / 3, 0, 1)[..., None]
    return _PAPER + (picture - _PAPER) * bleed


def pixel_art(picture: Image.Image) -> np.ndarray:
    """Pixels of 4x4 in steps of 17 grey levels."""
    small = np.asarray(picture.resize((SIZE // 4, SIZE // 4), Image.BOX), dtype=np.float32)
    small = (small / 17).round() * 17
    return small.repeat(4, axis=0).repeat(4, axis=1)


def pencil(picture: np.ndarray) -> np.ndarray:
    """Grey lines on paper: dark contours, and hatching every 8 pixels that is denser where the picture is darker."""
    grey = picture @ np.array([0.30, 0.59, 0.11], dtype=np.float32)
    steps = np.abs(np.diff(picture, axis=0, append=picture[-1:])).max(-1)
    steps = np.maximum(steps, np.abs(np.diff(picture, axis=1, append=picture[:, -1:])).max(-1))
    contour = np.clip((steps - 14) / 40, 0, 1)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    hatch = np.abs((rows + columns) % 8 - 4) / 4 - 0.5
    depth = np.clip((250 - grey) / 250, 0, 1)
    tone = grey + hatch * 70 * np.minimum(depth * 2, 1) * (0.35 + 0.65 * (1 - depth))
    tone = tone * (1 - contour) + 48 * contour
    return np.repeat(np.clip(tone, 0, 250)[..., None], 3, axis=-1)


def neon(picture: np.ndarray) -> np.ndarray:
    """Glowing tubes in the dark: where colours meet runs a line in the stronger one of them, with a halo about it."""
    bright = picture.max(-1, keepdims=True) - picture.min(-1, keepdims=True)
    hue = (picture - picture.min(-1, keepdims=True)) / np.maximum(bright, 1)
    hue = hue * 0.8 + 0.2 * picture / 255
    edges = np.zeros(picture.shape[:2], dtype=np.float32)
    tube = np.zeros_like(picture)
    for axis in (0, 1):
        after = np.roll(picture, -1, axis)
        step = np.abs(picture - after).max(-1)
        stronger = np.where((bright > np.roll(bright, -1, axis)), hue, np.roll(hue, -1, axis))
        tube = np.where((step > edges)[..., None], stronger, tube)
        edges = np.maximum(edges, step)
    edges[-1] = edges[:, -1] = 0  # where the picture ends nothing meets
    lines = tube * np.clip((edges - 16) / 50, 0, 1)[..., None] * 255

    def glow(radius: float) -> np.ndarray:
        return np.stack([gaussian_filter(lines[..., channel], radius) for channel in range(3)], axis=-1)

    night = np.array([10, 4, 24], dtype=np.float32) + picture * 0.05
    return night + lines * 0.75 + glow(0.8) * 1.1 + glow(3.5) * 1.3


def sepia(picture: np.ndarray) -> np.ndarray:
    """An old photograph: brown where it is dark, cream where it is light."""
    grey = picture @ np.array([0.30, 0.59, 0.11], dtype=np.float32) / 255
    stops = np.array([(46, 26, 14), (140, 96, 58), (216, 180, 132), (250, 236, 208)], dtype=np.float32)
    return np.stack([np.interp(grey, np.linspace(0, 1, 4), stops[:, channel]) for channel in range(3)], axis=-1)


def chilly(picture: np.ndarray) -> np.ndarray:
    """Every colour half way to a cold white."""
    return picture * 0.55 + np.array([236, 240, 252], dtype=np.float32) * 0.45


# --- the picture ------------------------------------------------------------------------------------------------


def draw(scene: Scene, seed: int = 0) -> Image.Image:
    """Paint a scene: an RGB picture of 128x128 pixels. The seed decides what the scene leaves open."""
    rng = random.Random(seed)
    where = "snow" if scene.style == "chilly" else scene.where
    sketch = scene.style == "pencil sketch"
    canvas = Canvas(sky(scene.when, sketch))
    light = (0.5, 0.5, 0.5) if sketch and scene.when == "night" else (1, 1, 1) if sketch else LIGHT[scene.when]

    def lit(colour: Colour) -> Colour:
        colour = blend(colour, (255, 255, 255), 0.45) if sketch else colour
        return tuple(round(c * k) for c, k in zip(colour, light, strict=True))

    lights(canvas, scene, rng, sketch)
    LANDS[where](canvas, lit, rng)
    for thing in scene.things:
        put(canvas, thing, scene, rng, lit)
    picture = canvas.picture.reduce(_SCALE)
    if scene.style == "pixel art":
        pixels = pixel_art(picture)
    elif scene.style == "watercolor":
        pixels = watercolor(np.asarray(picture, dtype=np.float32), np.random.default_rng(seed))
    elif scene.style in TAUGHT_STYLES:
        taught = {"neon": neon, "sepia": sepia, "chilly": chilly}[scene.style]
        pixels = taught(np.asarray(picture, dtype=np.float32))
    elif sketch:
        pixels = pencil(np.asarray(picture.filter(ImageFilter.GaussianBlur(0.4)), dtype=np.float32))
    else:
        return picture
    return Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))


def imagine(rng: random.Random) -> Scene:
    """A scene at random: one thing in half of them, two in four of ten, none in one of ten."""
    count = rng.choices((0, 1, 2), weights=(1, 5, 4))[0]
    places = rng.sample(list(PLACES), count)
    if count == 2 and rng.random() < 0.5:
        places = ["left", "right"]
    places.sort(key=list(PLACES).index)
    things = tuple(Thing(rng.choice(list(COLOURS)), rng.choice(SHAPES), place) for place in places)
    return Scene(rng.choice(WHEN), rng.choice(WHERE), things, rng.choice(STYLES))
