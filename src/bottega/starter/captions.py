"""Say in words what a scene shows: in the usual form most of the time, in many other forms for the rest.

The usual forms are `a red house by the sea at sunset, watercolor`, `a red house on the left by the sea at sunset,
watercolor`, `a red house on the left and a blue boat on the right by the sea at sunset, watercolor`, and `the sea at
sunset, watercolor` for a picture with nothing in it. Where things stand is left out only when it goes without saying:
one in the middle, two on the left and on the right, named in that order. Left open it would be three wishes at once,
and guidance would grant several of them. A picture whose style is not said is flat most of the time.
"""

from __future__ import annotations

import hashlib
import random

from bottega.starter.scenes import Scene, Thing, imagine

EMPTY_SHARE = 0.10
"""How often the caption is left out whole: what classifier-free guidance needs."""
HELD_OUT = 10
"""One combination in so many is never trained on, and judged on instead."""

WHERE_WORDS = {
    "sea": "by the sea",
    "mountains": "in the mountains",
    "desert": "in the desert",
    "forest": "in a forest",
    "snow": "in the snow",
}
WHERE_ALONE = {
    "sea": ("the sea", "by the sea"),
    "mountains": ("the mountains", "mountains", "in the mountains"),
    "desert": ("the desert", "a desert", "in the desert"),
    "forest": ("a forest", "the forest", "in a forest"),
    "snow": ("the snow", "snow", "in the snow"),
}
WHERE_OTHERWISE = {
    "sea": ("near the sea", "at the sea"),
    "mountains": ("in mountains", "among the mountains"),
    "desert": ("in a desert",),
    "forest": ("in the forest", "in the woods"),
    "snow": ("in snow", "on the snow"),
}
PLACE_WORDS = {"left": "on the left", "middle": "in the middle", "right": "on the right"}
PLACE_OTHERWISE = {
    "left": ("at the left", "on the left side", "to the left"),
    "middle": ("in the center", "in the centre", "at the middle"),
    "right": ("at the right", "on the right side", "to the right"),
}
UNSAID = {0: (), 1: ("middle",), 2: ("left", "right")}
"""Where so many things stand if nothing is said."""
STYLE_FIRST = {
    "flat": ("a flat picture of", "a flat illustration of", "flat drawing of", "flat,"),
    "watercolor": ("a watercolor of", "watercolor of", "a watercolor painting of", "watercolor,"),
    "pixel art": ("pixel art of", "a pixel art picture of", "pixel art,"),
    "pencil sketch": ("a pencil sketch of", "pencil sketch of", "pencil sketch,"),
}
OPENINGS = ("a picture of", "a small picture of", "an image of", "there is", "a scene with", "a landscape with")
ENDINGS = ("beautiful", "pretty", "lovely colors", "nice", "detailed", "best quality")


def named(thing: Thing) -> str:
    """`a red house`, `an orange tent`."""
    return f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {thing.colour} {thing.shape}"


def goes_without_saying(scene: Scene) -> bool:
    """Whether the things stand where a caption without places puts them."""
    return tuple(thing.place for thing in scene.things) == UNSAID[len(scene.things)]


def usual(scene: Scene, places: bool = True) -> str:
    """The caption in the usual form. With `places`, it says where the things stand."""
    things = [f"{named(t)} {PLACE_WORDS[t.place]}" if places else named(t) for t in scene.things]
    subject = " and ".join(things)
    where = f"{subject} {WHERE_WORDS[scene.where]}" if things else WHERE_ALONE[scene.where][0]
    return f"{where} at {scene.when}, {scene.style}"


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption for training: usual in 65 of 100, otherwise reordered, reworded, shortened or padded."""
    if rng.random() < 0.65:
        return usual(scene, places=rng.random() < 0.6 or not goes_without_saying(scene))
    return varied(scene, rng)


def varied(scene: Scene, rng: random.Random) -> str:
    """A caption in some other order, with parts left out and harmless words added."""
    where = "" if rng.random() < 0.08 else _where(scene, rng)
    when = "" if rng.random() < 0.10 else f"at {scene.when}"
    style = "" if rng.random() < (0.55 if scene.style == "flat" else 0.04) else scene.style
    place_last = len(scene.things) == 1 and rng.random() < 0.25
    subject = named(scene.things[0]) if place_last else _subject(scene, rng)
    if not subject and not where:
        where = _where(scene, rng)
    setting = [part for part in (where, when) if part]
    if rng.random() < 0.35:
        setting.reverse()
    comma = ", " if rng.random() < 0.2 else " "
    if subject and rng.random() < 0.2:
        text = f"{' '.join(setting)}, {subject}" if setting else subject
    else:
        text = comma.join([part for part in (subject, *setting) if part])
    if place_last:
        text = f"{text} {_place(scene.things[0], rng)}"
    if style and rng.random() < 0.4:
        text = f"{rng.choice(STYLE_FIRST[style])} {text}"
    else:
        if rng.random() < 0.25:
            text = f"{rng.choice(OPENINGS)} {text}"
        if style:
            text = f"{text}, {style}"
    if rng.random() < 0.12:
        text = f"{text}, {rng.choice(ENDINGS)}"
    return text + ("." if rng.random() < 0.1 else "")


def _where(scene: Scene, rng: random.Random) -> str:
    if not scene.things:
        return rng.choice(WHERE_ALONE[scene.where])
    return rng.choice(WHERE_OTHERWISE[scene.where]) if rng.random() < 0.25 else WHERE_WORDS[scene.where]


def _place(thing: Thing, rng: random.Random) -> str:
    return rng.choice(PLACE_OTHERWISE[thing.place]) if rng.random() < 0.3 else PLACE_WORDS[thing.place]


def _subject(scene: Scene, rng: random.Random) -> str:
    """The things, with or without their places; only with them in another order than from left to right."""
    things = list(scene.things)
    if rng.random() < 0.6 and goes_without_saying(scene):
        return (" and " if rng.random() < 0.8 else ", ").join(named(t) for t in things)
    if rng.random() < 0.4:
        rng.shuffle(things)
    if rng.random() < 0.2:
        return " and ".join(f"{_place(t, rng)} {named(t)}" for t in things)
    return (" and " if rng.random() < 0.8 else ", ").join(f"{named(t)} {_place(t, rng)}" for t in things)


def held_out(scene: Scene) -> bool:
    """Whether this combination (hour, landscape, things, style) is kept from training; decided by its hash."""
    things = ";".join(f"{t.colour} {t.shape} {t.place}" for t in scene.things)
    key = f"{scene.when}|{scene.where}|{things}|{scene.style}"
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT == 0


def imagine_for(rng: random.Random, training: bool) -> Scene:
    """A random scene from the training combinations, or from those that are held out."""
    while True:
        scene = imagine(rng)
        if held_out(scene) != training:
            return scene
