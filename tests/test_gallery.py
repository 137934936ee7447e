"""The gallery finds what was made, by its words, its recipe and what its owner says; and loses none of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gallery_outputs import NOON, recipe_of, write_output

from bottega.gallery import BadCursor, Gallery, UnknownOutput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "outputs"


@pytest.fixture
def gallery(tmp_path: Path, folder: Path) -> Iterator[Gallery]:
    with Gallery(tmp_path / "home" / "gallery.sqlite", folder) as opened:
        yield opened


def ids(gallery: Gallery, **asked: object) -> list[str]:
    return [output.id for output in gallery.outputs(**asked).items]  # type: ignore[arg-type]


# --- what is on record -----------------------------------------------------------------------------------------------


def test_an_output_is_as_it_was_told(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="j-3")
    assert gallery.add(told) == told
    assert gallery.output("j-3") == told
    assert gallery.outputs().items == [told]


def test_adding_again_changes_the_facts_and_nothing_that_was_said(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="j-0")
    gallery.add(told)
    gallery.mark("j-0", favourite=True, folder="houses")
    again = gallery.add(replace(told, seconds=2.5))
    assert again == replace(told, seconds=2.5, favourite=True, folder="houses")
    assert gallery.outputs().total == 1


def test_unknown_ids_are_said(gallery: Gallery) -> None:
    for ask in (gallery.output, gallery.mark, lambda id: gallery.delete([id]), lambda id: gallery.restore([id])):
        with pytest.raises(UnknownOutput, match="no output has the id 'nobody'"):
            ask("nobody")


def test_what_is_made_in_one_moment_has_an_order(gallery: Gallery, folder: Path) -> None:
    for index in range(3):
        gallery.add(write_output(folder, id=f"j-{index}", at=5))
    assert ids(gallery) == ["j-2", "j-1", "j-0"]
    assert [output.id for output in gallery.of_job("j")] == ["j-0", "j-1", "j-2"]
    assert gallery.output("j-0").created == NOON + 5


# --- pages -----------------------------------------------------------------------------------------------------------


def test_pages_show_everything_once_while_more_is_made(gallery: Gallery, folder: Path) -> None:
    for index in range(7):
        gallery.add(write_output(folder, id=f"j{index}-0", at=index))
    first = gallery.outputs(limit=3)
    assert ([output.id for output in first.items], first.total) == (["j6-0", "j5-0", "j4-0"], 7)
    gallery.add(write_output(folder, id="new-0", at=100))
    second = gallery.outputs(limit=3, before=first.next)
    third = gallery.outputs(limit=3, before=second.next)
    assert [output.id for output in (*second.items, *third.items)] == ["j3-0", "j2-0", "j1-0", "j0-0"]
    assert (third.next, third.total) == (None, 8)


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1e9", "٣", "9" * 30])
def test_a_cursor_that_is_none_is_refused(gallery: Gallery, cursor: str) -> None:
    with pytest.raises(BadCursor):
        gallery.outputs(before=cursor)


# --- search ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ho", ["b-0", "a-0"]),
        ("red hous", ["a-0"]),
        ("HOUSE blue", ["b-0"]),
        ("blurry", ["a-0"]),
        ("starter", ["c-0", "b-0", "a-0"]),
        ("水", ["c-0"]),
        ("山水", ["c-0"]),
        ("水山", []),
        ("red boat", []),
        ("(((", ["c-0", "b-0", "a-0"]),
        ('prompt:red OR "x', []),
    ],
)
def test_words_are_found_while_typing(gallery: Gallery, folder: Path, text: str, found: list[str]) -> None:
    gallery.add(write_output(folder, recipe_of("a (red:1.2) house", negative="blurry"), id="a-0", at=1))
    gallery.add(write_output(folder, recipe_of("a blue house by the sea"), id="b-0", at=2))
    gallery.add(write_output(folder, recipe_of("山水画"), id="c-0", at=3))
    assert ids(gallery, text=text) == found
    assert gallery.outputs(text=text).total == len(found)


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ({"sampling.sampler": "euler A"}, ["b-0", "a-0"]),
        ({"sampler": "DPM++ 2M"}, ["c-0"]),
        ({"sampling.guidance": "7"}, ["c-0", "a-0"]),
        ({"guidance": "7.0", "sampler": "Euler a"}, ["a-0"]),
        ({"guidance": "7.5"}, ["b-0"]),
        ({"seed": "8"}, ["b-0"]),
        ({"clip_skip": "2"}, ["c-0"]),
        ({"knobs.variation_seed": "5"}, ["c-0"]),
        ({"inputs.init": "cd" * 32}, ["b-0"]),
        ({"output.format": "png"}, ["c-0", "b-0", "a-0"]),
        ({"nothing": "1"}, []),
    ],
)
def test_fields_of_recipes_are_found(gallery: Gallery, folder: Path, field: dict[str, str], found: list[str]) -> None:
    gallery.add(write_output(folder, recipe_of(), id="a-0", at=1))
    gallery.add(write_output(folder, recipe_of(seed=8, guidance=7.5, init="cd" * 32), id="b-0", at=2))
    other = recipe_of(sampler="DPM++ 2M", knobs={"clip_skip": 2, "variation_seed": 5, "variation_strength": 0.1})
    gallery.add(write_output(folder, other, id="c-0", at=3))
    assert ids(gallery, field=field) == found
