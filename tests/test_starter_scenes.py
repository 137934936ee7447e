"""starter-image's data: captions say what scenes show, nothing held back slips in, and the judge can tell."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bottega.starter.captions import caption, held_out, imagine_for, named, usual
from bottega.starter.judge import judge, with_thing
from bottega.starter.scenes import COLOURS, HELD_BACK, SHAPES, SIZE, STYLES, WHEN, WHERE, Scene, Thing, draw, imagine

HOUSE = Scene("noon", "sea", (Thing("red", "house", "left"),), "flat")
PAIR = Scene("night", "snow", (Thing("white", "tower", "left"), Thing("blue", "boat", "right")), "watercolor")


def test_the_same_seed_draws_the_same_picture() -> None:
    first, again, other = draw(PAIR, 3), draw(PAIR, 3), draw(PAIR, 4)
    assert first.size == (SIZE, SIZE) and first.mode == "RGB"
    assert first.tobytes() == again.tobytes() != other.tobytes()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("where", WHERE)
def test_every_thing_can_stand_everywhere(where: str, style: str) -> None:
    bare = draw(Scene("dawn", where, (), style), 1)
    for shape in SHAPES:
        picture = draw(Scene("dawn", where, (Thing("blue", shape, "middle"),), style), 1)
        assert np.abs(np.asarray(picture, dtype=int) - np.asarray(bare, dtype=int))[:, 43:86].mean() > 5


def test_pencil_sketches_are_grey_and_pixels_are_square() -> None:
    sketch = np.asarray(draw(Scene("sunset", "desert", HOUSE.things, "pencil sketch")), dtype=int)
    assert np.ptp(sketch, axis=-1).max() == 0
    pixels = np.asarray(draw(Scene("sunset", "desert", HOUSE.things, "pixel art")))
    assert (pixels == pixels[::4, ::4].repeat(4, axis=0).repeat(4, axis=1)).all()


def test_usual_captions() -> None:
    assert usual(HOUSE) == "a red house on the left by the sea at noon, flat"
    assert usual(HOUSE, places=False) == "a red house by the sea at noon, flat"
    assert usual(PAIR) == "a white tower on the left and a blue boat on the right in the snow at night, watercolor"
    assert usual(Scene("dawn", "desert", (), "pixel art")) == "the desert at dawn, pixel art"
    assert named(Thing("orange", "tent", "left")) == "an orange tent"


def test_captions_say_what_the_scene_shows_and_nothing_else() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        scene = imagine(rng)
        words = caption(scene, rng).replace(",", " ").replace(".", " ").split()
        assert [w for w in words if w in SHAPES or w in COLOURS or w in WHEN] or not scene.things
        assert sorted(w for w in words if w in SHAPES) == sorted(t.shape for t in scene.things)
        assert sorted(w for w in words if w in COLOURS) == sorted(t.colour for t in scene.things)
        assert {w for w in words if w in WHEN} <= {scene.when}
        assert not {"flat", "watercolor"} & set(words) - {scene.style}


def test_places_are_left_out_only_where_they_go_without_saying() -> None:
    rng = random.Random(4)
    said = {"left", "middle", "right", "center", "centre"}
    unsaid = 0
    for _ in range(3000):
        scene = imagine(rng)
        if scene.things and not said & set(caption(scene, rng).replace(",", " ").replace(".", " ").split()):
            assert tuple(thing.place for thing in scene.things) in (("middle",), ("left", "right"))
            unsaid += 1
    assert unsaid > 300


def test_what_is_held_back_never_appears() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        assert not any(word in caption(imagine(rng), rng) for word in HELD_BACK)
    assert not set(HELD_BACK) & {*STYLES, *SHAPES, *COLOURS}


def test_training_and_judging_share_no_combination() -> None:
    rng = random.Random(2)
    training = {imagine_for(rng, training=True) for _ in range(1500)}
    judging = {imagine_for(rng, training=False) for _ in range(500)}
    assert not training & judging
    assert 0.05 < np.mean([held_out(imagine(rng)) for _ in range(2000)]) < 0.15


@pytest.mark.slow
def test_the_judge_passes_what_was_drawn_as_said() -> None:
    for scene in (HOUSE, PAIR):
        assert all(judge(draw(scene, 7), scene).values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        (Scene("dawn", "sea", HOUSE.things, "flat"), "time"),
        (Scene("noon", "desert", HOUSE.things, "flat"), "where"),
        (Scene("noon", "sea", HOUSE.things, "watercolor"), "style"),
        (with_thing(HOUSE, 0, colour="green"), "colour"),
        (with_thing(HOUSE, 0, shape="tent"), "shape"),
        (with_thing(HOUSE, 0, place="right"), "place"),
    ],
)
def test_the_judge_fails_what_was_drawn_otherwise(said: Scene, wrong: str) -> None:
    assert not judge(draw(HOUSE, 7), said)[wrong]
