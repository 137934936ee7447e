"""The gallery finds what was made, by its words, its recipe and what its owner says; and loses none of it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from gallery_outputs import NOON, added, recipe_of, write_output
from native import studio
from PIL import Image

from bottega.errors import FileError, FormatError, Interrupted
from bottega.formats.media import encode
from bottega.gallery import Adopted, BadCursor, Gallery, GalleryError, Output, UnknownOutput, Upkeep, Wishes, rows
from bottega.gallery.asked import Asked
from bottega.gallery.export import safe_name
from bottega.gallery.schema import MIGRATIONS
from bottega.gallery.thumbnails import Thumbnails
from bottega.recipe import Ref

OTHER = Ref(name="other", sha256="cd" * 32)


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
    assert added(gallery, told) == told
    assert gallery.output("j-3") == told
    assert gallery.outputs().items == [told]


def test_adding_again_changes_the_facts_and_nothing_that_was_said(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="j-0")
    gallery.add(told)
    gallery.mark("j-0", favourite=True, folder="houses")
    again = added(gallery, replace(told, seconds=2.5))
    assert again == replace(told, seconds=2.5, favourite=True, folder="houses")
    assert gallery.outputs().total == 1


def test_adding_again_with_another_recipe_forgets_the_old_one(gallery: Gallery, folder: Path) -> None:
    gallery.add(write_output(folder, recipe_of("a red boat", init="cd" * 32), id="j-0"))
    gallery.add(write_output(folder, recipe_of("a blue tower", init="ef" * 32, steps=9), id="j-0"))
    assert ids(gallery, text="boat") == ids(gallery, field={"inputs.init": "cd" * 32}) == []
    assert ids(gallery, text="tower", field={"inputs.init": "ef" * 32, "steps": "9"}) == ["j-0"]


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


def test_any_number_of_outputs_may_be_of_one_moment(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="j-0", at=5)
    with gallery._store.writing() as connection:
        looked = 0

        def count(statement: str) -> None:
            nonlocal looked
            looked += "FROM outputs WHERE id" in statement

        connection.set_trace_callback(count)
        for number in range(400):
            rows.put(connection, folder, replace(told, id=f"j-{number}", path=folder / f"{number}.png"))
        connection.set_trace_callback(None)
    assert looked < 400 * 40  # and not the square of it
    assert gallery.outputs().total == 400
    assert ids(gallery, limit=3) == ["j-399", "j-398", "j-397"]


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


def test_a_list_can_be_laid_out_whole_and_looked_at_anywhere(gallery: Gallery, folder: Path) -> None:
    for index in range(7):
        told = write_output(folder, id=f"j{index}-0", at=index)
        gallery.add(replace(told, width=300 if index % 2 else 100, height=200, favourite=index < 3))
    assert json.loads(gallery.ratios()) == [500, 1500, 500, 1500, 500, 1500, 500]
    assert json.loads(gallery.ratios(favourite=True)) == [500, 1500, 500]
    assert ids(gallery, offset=5, limit=10) == ["j1-0", "j0-0"]
    assert ids(gallery, offset=1, limit=1, favourite=True) == ["j1-0"]
    assert ids(gallery, offset=7) == []
    assert gallery.ratios(text="red", model="starter", task="text-to-image", owner="ann", folder="") == gallery.ratios()


def test_a_list_that_was_looked_at_elsewhere_is_what_it_was(
    gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting goes on from a place that was looked at before, in this list and from where it was begun."""
    monkeypatch.setattr("bottega.gallery.index.MOST_PLACES", 3)
    for index in range(9):
        gallery.add(replace(write_output(folder, id=f"j{index}-0", at=index), favourite=index % 2 == 0))
    wishes: tuple[Wishes, ...] = ({}, {"favourite": True}, {"text": "red"}, {"text": "nothing"})
    for wish in wishes:
        whole = ids(gallery, limit=20, **wish)
        after = gallery.outputs(limit=3, **wish).next
        for before, listed in ((None, whole), (after, whole[3:])):
            for offset in (5, 7, 2, 8, 6, 20, 0, 9, 1):
                page = gallery.outputs(limit=2, offset=offset, before=before, **wish)
                assert [output.id for output in page.items] == listed[offset:][:2]
                assert page.total == len(whole)


def test_what_was_counted_is_counted_anew_once_anybody_has_written(
    gallery: Gallery, folder: Path, tmp_path: Path
) -> None:
    def told() -> tuple[object, ...]:
        page = gallery.outputs(limit=1, offset=1, owner="ann")
        shown = [output.id for output in page.items]
        return page.total, shown, json.loads(gallery.ratios(owner="ann")), gallery.folders("ann"), gallery.size() > 0

    assert told() == (0, [], [], [], False)
    for index in range(3):
        gallery.add(write_output(folder, id=f"j{index}-0", at=index))
        assert told()[0] == index + 1
    assert told() == told() == (3, ["j1-0"], [1000, 1000, 1000], [], True)
    gallery.mark("j1-0", folder="kept")
    assert told()[3] == [("kept", 1)]
    gallery.delete(["j1-0"])
    assert told() == (2, ["j0-0"], [1000, 1000], [], True)
    with Gallery(tmp_path / "home" / "gallery.sqlite", folder) as other:
        other.restore(["j1-0"])
        other.delete(["j0-0", "j2-0"])
    assert told() == (1, [], [1000], [("kept", 1)], True)


def test_what_nobody_changed_is_counted_once(gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery.add(write_output(folder, id="a-0"))
    asked = []
    for name in ("count", "ratios"):
        ask = getattr(Asked, name)
        monkeypatch.setattr(Asked, name, lambda self, name=name, ask=ask: asked.append(name) or ask(self))
    for _ in range(2):
        gallery.outputs(limit=1)
        gallery.ratios()
    assert sorted(asked) == ["count", "ratios"]
    gallery.outputs(favourite=True)
    assert asked.count("count") == 2, "another question"


def test_what_is_written_while_somebody_looks_is_looked_at_again(
    gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add(write_output(folder, id="a-0"))
    version = gallery._store.version
    monkeypatch.setattr(gallery._store, "version", lambda: next(versions))
    now = version()
    versions = iter((now, now + 1))  # something was written between the two
    assert gallery.outputs().total == 1
    with gallery._store.writing() as connection:
        connection.execute("UPDATE outputs SET deleted = 1")
    versions = iter((now, now))  # which no list that was kept may answer
    assert gallery.outputs().total == 0


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1e9", "٣", str(2**63), "9" * 30])
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
        ("🎈", ["b-0"]),
        ("🎈🎈", []),
        ('prompt:red OR "x', []),
    ],
)
def test_words_are_found_while_typing(gallery: Gallery, folder: Path, text: str, found: list[str]) -> None:
    gallery.add(write_output(folder, recipe_of("a (red:1.2) house", negative="blurry"), id="a-0", at=1))
    gallery.add(write_output(folder, recipe_of("a blue house 🎈 by the sea"), id="b-0", at=2))
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


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"owner": "ann"}, ["c-0", "a-0"]),
        ({"owner": "nobody"}, []),
        ({"model": "STARTER"}, ["b-0", "a-0"]),
        ({"model": "star image"}, ["b-0", "a-0"]),
        ({"model": "cdcdcdcd"}, ["c-0"]),
        ({"model": "cdcdcd"}, []),
        ({"task": "inpaint"}, ["c-0"]),
        ({"task": "nothing"}, []),
        ({"since": NOON + 2}, ["c-0", "b-0"]),
        ({"until": NOON + 2}, ["a-0"]),
        ({"since": NOON + 2, "until": NOON + 3}, ["b-0"]),
        ({"since": 1e300}, []),
        ({"favourite": True}, ["b-0"]),
        ({"favourite": False}, ["c-0", "a-0"]),
        ({"folder": "houses"}, ["b-0"]),
        ({"folder": ""}, ["c-0", "a-0"]),
        ({"folder": "boats"}, []),
        ({"text": "red", "owner": "bob", "favourite": True, "field": {"steps": "20"}}, ["b-0"]),
        ({"text": "red", "owner": "bob", "favourite": False}, []),
    ],
)
def test_conditions_narrow(gallery: Gallery, folder: Path, asked: dict[str, object], found: list[str]) -> None:
    gallery.add(write_output(folder, id="a-0", at=1))
    gallery.add(write_output(folder, id="b-0", at=2, owner="bob"))
    gallery.add(write_output(folder, recipe_of(model=OTHER, task="inpaint"), id="c-0", at=3))
    gallery.mark("b-0", favourite=True, folder="  houses ")
    assert ids(gallery, **asked) == found
    assert gallery.outputs(**asked).total == len(found)  # type: ignore[arg-type]


def test_folders_are_counted_by_owner(gallery: Gallery, folder: Path) -> None:
    for number, (owner, place) in enumerate([("ann", "z"), ("ann", "a"), ("ann", "z"), ("bob", "z"), ("bob", "")]):
        gallery.add(write_output(folder, id=f"j{number}-0", owner=owner, folder=place))
    assert gallery.folders("ann") == [("a", 1), ("z", 2)]
    gallery.delete(["j1-0"])
    gallery.mark("j0-0", folder="")
    assert gallery.folders("ann") == [("z", 1)]


def test_what_was_made_before_is_found_by_its_recipe_and_by_its_bytes(gallery: Gallery, folder: Path) -> None:
    first = added(gallery, write_output(folder, id="a-0", at=1))
    gallery.add(write_output(folder, recipe_of(seed=8), id="b-0", at=2))
    gallery.add(write_output(folder, id="c-0", at=3, owner="bob"))
    again = added(gallery, write_output(folder, id="d-0", at=4))
    assert gallery.with_digest(first.digest, "ann") == [first, again]
    assert gallery.by_sha256(first.sha256) == [first]
    gallery.delete(["a-0"])
    assert gallery.with_digest(first.digest, "ann") == [again]
    assert gallery.with_digest("", "ann") == []


# --- the trash -------------------------------------------------------------------------------------------------------


def test_the_trash_gives_back_exactly_what_it_got(gallery: Gallery, folder: Path) -> None:
    gallery.add(write_output(folder, id="a-0", at=1))
    told = added(gallery, write_output(folder, id="b-0", at=2, favourite=True, folder="houses"))
    gallery.delete(["b-0"])
    assert ids(gallery) == ["a-0"] and ids(gallery, deleted=True) == ["b-0"]
    assert ids(gallery, text="red", deleted=True) == ["b-0"]
    since = gallery.output("b-0").deleted
    assert since is not None and told.path.exists()
    gallery.delete(["b-0"])
    assert gallery.output("b-0").deleted == since
    gallery.restore(["b-0", "b-0"])
    assert gallery.output("b-0") == told
    assert ids(gallery) == ["b-0", "a-0"]


def test_deleting_is_all_or_nothing(gallery: Gallery, folder: Path) -> None:
    gallery.add(write_output(folder, id="a-0"))
    with pytest.raises(UnknownOutput):
        gallery.delete(["a-0", "nobody"])
    assert ids(gallery) == ["a-0"]


def test_what_is_made_again_stays_in_the_trash(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="a-0")
    gallery.add(told)
    gallery.delete(["a-0"])
    assert added(gallery, told).deleted is not None


def test_the_room_that_all_of_them_take_is_known_whoever_writes(gallery: Gallery, folder: Path) -> None:
    assert gallery.size() == 0
    one = added(gallery, write_output(folder, id="a-0"))
    assert gallery.size() == one.path.stat().st_size
    with Gallery(folder.parent / "gallery.sqlite", folder) as another:
        two = added(another, write_output(folder, recipe_of("a longer prompt"), id="b-0"))
        assert gallery.size() == another.size() == one.path.stat().st_size + two.path.stat().st_size
        another.delete(["a-0"])
        assert gallery.size() == another.size(), "what lies in the trash is on the disk"
        another.empty_trash()
        assert gallery.size() == another.size() == two.path.stat().st_size


def test_emptying_removes_the_files_that_are_still_what_was_made(gallery: Gallery, folder: Path) -> None:
    kept, old, others, linked = (write_output(folder, id=f"{name}-0") for name in ("kept", "old", "others", "linked"))
    for output in (kept, old, others, linked):
        gallery.add(output)
    gallery.thumbnail("old-0", 128)
    gallery.delete(["old-0", "others-0", "linked-0"])
    others.path.write_bytes(b"somebody's work")
    elsewhere = linked.path.rename(folder.parent / "elsewhere.png")
    linked.path.symlink_to(elsewhere)
    assert gallery.empty_trash(older_than=60) == 0
    assert gallery.empty_trash(owner="bob") == 0
    assert gallery.empty_trash() == 3
    assert ids(gallery, deleted=True) == [] and ids(gallery) == ["kept-0"]
    assert kept.path.exists() and not old.path.exists()
    assert others.path.read_bytes() == b"somebody's work" and elsewhere.exists() and linked.path.is_symlink()
    assert not list(folder.parent.glob("thumbnails/*/*"))
    with pytest.raises(UnknownOutput):
        gallery.restore(["old-0"])


def test_emptying_that_is_killed_loses_nothing_else(gallery: Gallery, folder: Path) -> None:
    for number in range(6):
        gallery.add(write_output(folder, recipe_of(seed=number), id=f"j{number}-0", at=number))
    gallery.delete([f"j{number}-0" for number in range(4)])
    gallery.close()
    program = """
import os, signal, sys
from pathlib import Path
from bottega.gallery import Gallery, rows
removed = []
def remove(connection, number, plain=rows.remove):
    plain(connection, number)
    removed.append(number)
    if len(removed) == 3:
        os.kill(os.getpid(), signal.SIGKILL)  # its file is gone, and its record is not
rows.remove = remove
Gallery(Path(sys.argv[1], "gallery.sqlite"), Path(sys.argv[1], "outputs")).empty_trash()
"""
    killed = subprocess.run([sys.executable, "-c", program, str(folder.parent)])
    assert killed.returncode == -signal.SIGKILL
    with Gallery(folder.parent / "gallery.sqlite", folder) as opened:
        assert ids(opened, deleted=True) == ["j3-0", "j2-0"] and ids(opened) == ["j5-0", "j4-0"]
        assert sorted(path.name for path in folder.iterdir()) == ["j3-0.png", "j4-0.png", "j5-0.png"]
        opened.restore(["j3-0"])
        assert opened.empty_trash() == 1
        assert opened.adopt(folder) == Adopted(files=3)
        assert ids(opened) == ["j5-0", "j4-0", "j3-0"]


def test_a_restore_while_the_trash_is_emptied_wins(gallery: Gallery, folder: Path) -> None:
    for name in ("a", "b"):
        gallery.add(write_output(folder, id=f"{name}-0"))
    gallery.delete(["a-0", "b-0"])

    def restore(done: int, total: int) -> None:
        if done == 1:
            gallery.restore(["b-0"])

    assert gallery.empty_trash(told=restore) == 1
    assert ids(gallery) == ["b-0"] and gallery.output("b-0").path.exists()


def test_a_file_that_cannot_be_removed_stays_in_the_trash(
    gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add(write_output(folder, id="a-0"))
    gallery.delete(["a-0"])

    def refuse(path: Path, missing_ok: bool = False) -> NoReturn:
        raise PermissionError(f"{path} is not yours")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)  # a test that runs as root may remove anything
        assert gallery.empty_trash() == 0
    assert ids(gallery, deleted=True) == ["a-0"]
    assert gallery.empty_trash() == 1


# --- adopting --------------------------------------------------------------------------------------------------------


def test_files_that_nobody_told_of_are_taken_in(gallery: Gallery, folder: Path) -> None:
    day = folder / "2026-11-28"
    ours = write_output(day, recipe_of("a boat", seed=5), id="00007-5")
    job = write_output(day, recipe_of("a tower", seed=6), id=f"{'j' * 16}-3")
    (folder / "webui").mkdir()
    infotext = (
        "山水\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 5, Size: 8x8, Model: ink"
    )
    (folder / "webui" / "a.webp").write_bytes(encode(Image.new("RGB", (8, 8)), "webp", parameters=infotext))
    (folder / "bare.png").write_bytes(encode(Image.new("RGB", (8, 8)), "png"))
    (folder / "broken.png").write_bytes(ours.path.read_bytes()[:100])
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_bytes(ours.path.read_bytes())
    (folder / "link.png").symlink_to(ours.path)
    seen: list[tuple[int, int]] = []
    long = write_output(folder, recipe_of("a fox"), id=f"{'x' * 200}-0")
    report = gallery.adopt(folder, lambda *told: seen.append(told), lambda job: "bob" if job else "ann")
    assert report == Adopted(files=7, new=4)
    assert seen[-1] == (6, 6)
    assert all(len(id) <= 80 for id in ids(gallery))
    assert gallery.outputs(text="fox").items[0].path == long.path

    boat, tower, ink = (gallery.outputs(text=word).items[0] for word in ("boat", "tower", "ink"))
    assert boat == replace(ours, id=boat.id, job="", index=0, seconds=0, created=boat.created)
    assert tower == replace(job, owner="bob", seconds=0, created=tower.created)
    assert abs(boat.created - ours.path.stat().st_mtime) < 1
    assert (ink.prompt, ink.negative, ink.model, ink.seed, ink.digest) == ("山水", "blurry", "ink", 5, "")
    assert ids(gallery, field={"sampler": "Euler a"}, text="ink") == [ink.id]
    assert json.loads(ink.recipe)["sampling"]["steps"] == 20

    assert gallery.adopt(folder, lambda *told: seen.append(told)) == Adopted(files=7)
    assert seen[-1] == (0, 0)  # nothing had to be read


def test_a_picture_that_no_recipe_can_say_is_found_by_its_words(gallery: Gallery, folder: Path) -> None:
    folder.mkdir(parents=True)
    infotext = "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 99999999999999999999, Hires upscale: 2"
    (folder / "a.png").write_bytes(encode(Image.new("RGB", (8, 8)), "png", parameters=infotext))
    gallery.adopt(folder)
    (fox,) = gallery.outputs(text="fox").items
    assert (fox.recipe, fox.seed, fox.task) == ("", None, "")


def test_files_that_go_and_come_back_are_noticed(gallery: Gallery, folder: Path) -> None:
    for name in ("a", "b"):
        gallery.add(write_output(folder / "day", id=f"{name}-0"))
    outside = added(gallery, write_output(folder.parent / "elsewhere", id="c-0"))
    away = (folder / "day").rename(folder.parent / "away")
    outside.path.rename(away / "c.png")
    assert gallery.adopt(folder) == Adopted(gone=3)
    assert [output.missing for output in gallery.outputs().items] == [True] * 3
    assert gallery.with_digest(outside.digest, "ann") == []
    assert gallery.adopt(folder) == Adopted()
    away.rename(folder / "day")
    assert gallery.adopt(folder) == Adopted(files=3, back=2, moved=1)
    assert [output.missing for output in gallery.outputs().items] == [False] * 3
    assert gallery.output("c-0").path == folder / "day" / "c.png"


def test_looking_through_one_folder_tells_of_that_one(gallery: Gallery, folder: Path) -> None:
    one, other = (added(gallery, write_output(folder / name, id=f"{name}-0")) for name in ("one", "other"))
    deep = added(gallery, write_output(folder / "one" / "deep", id="deep-0"))
    for output in (one, other, deep):
        output.path.unlink()
    deep.path.parent.rmdir()
    assert gallery.adopt(folder / "one") == Adopted(gone=2)
    assert not gallery.output("other-0").missing
    assert gallery.adopt(folder) == Adopted(gone=1)


def test_a_file_that_others_changed_is_noticed(gallery: Gallery, folder: Path) -> None:
    told = added(gallery, write_output(folder, id="a-0"))
    thumbnail = gallery.thumbnail("a-0", 128)
    content = told.path.read_bytes()
    other = Image.new("RGB", (8, 8), "white")
    told.path.write_bytes(encode(other, "png"))
    assert gallery.adopt(folder) == Adopted(files=1, changed=1)
    assert gallery.output("a-0") == replace(told, changed=True)
    assert gallery.thumbnail("a-0", 128) != thumbnail
    assert gallery.adopt(folder) == Adopted(files=1)
    gallery.delete(["a-0"])
    assert gallery.empty_trash() == 1 and told.path.exists()

    gallery.add(told)
    told.path.write_bytes(content)
    os.utime(told.path, (1, 1))
    assert gallery.adopt(folder) == Adopted(files=1)
    assert not gallery.output("a-0").changed


def test_adopting_can_be_stopped_and_goes_on(gallery: Gallery, folder: Path) -> None:
    for number in range(45):
        write_output(folder, recipe_of(seed=number), id=f"{number:05}-0")

    def stop(done: int, total: int) -> None:
        if done:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        gallery.adopt(folder, stop)
    first = gallery.outputs().total
    assert 0 < first < 45
    assert gallery.adopt(folder) == Adopted(files=45, new=45 - first)


def test_whoever_made_it_tells_of_what_was_adopted_before(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="job-0", at=1)
    gallery.adopt(folder, owner_of=lambda job: "nobody")
    (adopted,) = gallery.outputs().items
    assert adopted.id != "job-0"
    gallery.mark(adopted.id, favourite=True)
    recorded = added(gallery, told)
    assert recorded == replace(told, favourite=True, created=recorded.created)
    assert ids(gallery) == ["job-0"]


def test_what_is_told_while_it_is_adopted_counts(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id=f"{'j' * 16}-0", at=1)
    gallery.adopt(folder, lambda done, total: total and not done and added(gallery, told))
    assert gallery.outputs().items == [told]


def test_a_name_that_is_taken_is_not_taken_again(gallery: Gallery, folder: Path) -> None:
    told = added(gallery, write_output(folder, id=f"{'j' * 16}-0", at=1))
    (folder / "copies").mkdir()
    shutil.copy(told.path, folder / "copies")
    gallery.adopt(folder)
    copy, original = gallery.outputs().items
    assert original == told
    assert (copy.path, copy.job) == (folder / "copies" / told.path.name, "")


def test_another_file_in_its_place_is_another_output(gallery: Gallery, folder: Path) -> None:
    gallery.add(write_output(folder, id="a-0", at=1))
    gallery.delete(["a-0"])
    second = write_output(folder, recipe_of("a blue boat", seed=9), id="a-0", at=2)
    gallery.add(replace(second, id="b-0"))
    assert ids(gallery) == ["b-0"] and ids(gallery, deleted=True) == []


def test_a_server_keeps_its_gallery_up_while_it_answers(gallery: Gallery, folder: Path) -> None:
    old = added(gallery, write_output(folder, id="old-0"))
    gallery.delete(["old-0"])
    write_output(folder, recipe_of(seed=2), id="00000-2")
    upkeep = Upkeep(gallery, trash_seconds=0, owner_of=lambda job: "ann", delay=0)
    upkeep.start()
    upkeep.join()
    upkeep.stop()
    assert not old.path.exists() and gallery.outputs(owner="ann").total == 1
    Upkeep(gallery, trash_seconds=0, owner_of=lambda job: "ann").stop()  # never began
    early = Upkeep(gallery, trash_seconds=0, owner_of=lambda job: "ann", delay=600)
    early.start()
    early.stop()


@pytest.mark.slow
def test_a_server_takes_in_what_was_made_without_it(home: Path) -> None:
    made = write_output(home / "outputs" / "day", id="00007-5")
    deleted = write_output(home / "outputs", recipe_of(seed=9), id="old-0")
    with Gallery(home / "gallery.sqlite", home / "outputs") as gallery:
        gallery.add(deleted)
        gallery.delete(["old-0"])
    with closing(sqlite3.connect(home / "gallery.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE details SET deleted_at = deleted_at - 31 * 86400")
    with studio(home, working=True) as api:
        deadline = time.monotonic() + 60
        while not (page := api.get("/outputs"))["total"] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [item["prompt"] for item in page["items"]] == ["a red house"]
        assert page["items"][0]["owner"] == "owner"
        assert made.path.exists() and not deleted.path.exists()


# --- thumbnails ------------------------------------------------------------------------------------------------------


def as_it_is(output: Output) -> Output:
    """An output that was made with the bytes that its file has now."""
    return replace(output, sha256=hashlib.sha256(output.path.read_bytes()).hexdigest())


@pytest.mark.parametrize(("size", "side"), [(1, 128), (128, 128), (129, 256), (300, 384), (512, 512), (9999, 512)])
def test_a_thumbnail_has_one_of_a_few_sizes(gallery: Gallery, folder: Path, size: int, side: int) -> None:
    told = write_output(folder, id="a-0")
    Image.new("RGB", (1000, 500), "red").save(told.path)
    gallery.add(as_it_is(told))
    with Image.open(io.BytesIO(gallery.thumbnail("a-0", size))) as small:
        assert (small.format, small.size) == ("WEBP", (side, side // 2))


def test_a_thumbnail_is_made_once(gallery: Gallery, folder: Path) -> None:
    told = added(gallery, write_output(folder, id="a-0"))
    first = gallery.thumbnail("a-0", 256)
    told.path.unlink()
    assert gallery.thumbnail("a-0", 256) == first
    with pytest.raises(FileError):
        gallery.thumbnail("a-0", 512)
    with pytest.raises(UnknownOutput):
        gallery.thumbnail("nobody", 512)


def test_thumbnails_take_no_more_than_they_may(tmp_path: Path) -> None:
    pictures = []
    for number in range(12):
        pictures.append(tmp_path / f"{number}.png")
        Image.effect_noise((128, 128), 90).convert("RGB").save(pictures[-1])
    thumbnails = Thumbnails(tmp_path / "small", most_bytes=40_000)
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "theirs.webp").write_bytes(bytes(50_000))
    thumbnails.tidy()
    for number, picture in enumerate(pictures):
        thumbnails.of(picture, f"{number:064x}", 128)
        for path in tmp_path.glob("small/??/*"):
            os.utime(path, (int(path.stem.partition("-")[0], 16),) * 2)
        assert sum(path.stat().st_size for path in tmp_path.glob("small/??/*")) <= 40_000
    kept = sorted(int(path.stem.partition("-")[0], 16) for path in tmp_path.glob("small/??/*"))
    assert kept and kept[-1] == 11 and kept == list(range(kept[0], 12))
    assert (tmp_path / "small" / "theirs.webp").exists()


def test_a_thumbnail_of_a_bomb_is_refused(gallery: Gallery, folder: Path) -> None:
    told = write_output(folder, id="a-0")
    content = bytearray(told.path.read_bytes())
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    told.path.write_bytes(content)
    gallery.add(as_it_is(told))
    with pytest.raises(FormatError, match="pixels"):
        gallery.thumbnail("a-0", 128)


@pytest.mark.parametrize("changed", [False, True])
def test_a_picture_that_was_not_made_is_not_shown(
    gallery: Gallery, folder: Path, tmp_path: Path, changed: bool
) -> None:
    told = write_output(folder, id="a-0")
    private = tmp_path / "private.png"
    Image.new("RGB", (64, 64), "red").save(private)
    gallery.add(replace(told, path=private, changed=changed))
    with pytest.raises(FileError, match="changed"):
        gallery.thumbnail("a-0", 128)


def test_a_link_in_its_place_is_not_shown(gallery: Gallery, folder: Path, tmp_path: Path) -> None:
    told = added(gallery, write_output(folder, id="a-0"))
    told.path.rename(tmp_path / "elsewhere.png")
    told.path.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(FileError, match="is a link"):
        gallery.thumbnail("a-0", 128)
    with zipfile.ZipFile(io.BytesIO(b"".join(gallery.export(["a-0"])))) as archive:
        assert archive.namelist() == ["left-out.txt"]


# --- export ----------------------------------------------------------------------------------------------------------


def test_an_export_holds_the_files_as_they_are(gallery: Gallery, folder: Path) -> None:
    told = [write_output(folder / name, recipe_of(seed=number), id="00000-1", at=number, sha256=f"{number:064x}")
            for number, name in enumerate(("x", "y", "z"))]  # fmt: skip
    for number, output in enumerate(told):
        gallery.add(replace(output, id=f"j{number}-0"))
    odd = folder / "CON.png"
    told[2].path.rename(odd)
    gallery.add(replace(told[2], id="j3-0", path=odd))
    shutil.rmtree(folder / "z")
    pieces = gallery.export(["j0-0", "j1-0", "j0-0", "j2-0", "j3-0"])
    day = time.strftime("%Y-%m-%d", time.localtime(NOON))
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            f"{day}/00000-1.png", f"{day}/00000-1-2.png", f"{day}/_CON.png", "left-out.txt",
        ]  # fmt: skip
        assert archive.read(f"{day}/00000-1-2.png") == told[1].path.read_bytes()
        assert b"00000-1-3.png: No such file" in archive.read("left-out.txt")
    with pytest.raises(UnknownOutput):
        gallery.export(["j0-0", "nobody"])


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b.png", "a b.png"),
        ("..", "j-0"),
        ("a\\..\\b:c*.png", "a_.._b_c_.png"),
        ("nul", "_nul"),
        ("COM1.tar.gz", "_COM1.tar.gz"),
        ("x" * 300 + ".png", "x" * 116 + ".png"),
        ("line\nend\x7f.png", "line_end_.png"),
        ("trailing. ", "trailing"),
    ],
)
def test_names_in_an_export_are_safe_everywhere(tmp_path: Path, name: str, safe: str) -> None:
    output = replace(write_output(tmp_path, id="j-0"), path=Path("/x", name))
    assert safe_name(output).partition("/")[2] == safe


# --- the file --------------------------------------------------------------------------------------------------------


def test_many_threads_read_while_one_writes(gallery: Gallery, folder: Path) -> None:
    told = [write_output(folder, recipe_of(seed=number), id=f"j{number:03}-0") for number in range(60)]
    done = threading.Event()
    wrong: list[object] = []

    def look() -> None:
        while not done.is_set():
            try:
                page = gallery.outputs(text="red", limit=200)
                if len(page.items) != page.total:
                    wrong.append(page.total)
            except Exception as error:
                wrong.append(error)
                return

    readers = [threading.Thread(target=look) for _ in range(6)]
    writers = [threading.Thread(target=lambda part=part: [*map(gallery.add, told[part::3])]) for part in range(3)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert gallery.outputs().total == 60


def test_a_reader_does_not_wait_for_a_writer(gallery: Gallery, folder: Path) -> None:
    gallery.add(write_output(folder, id="a-0"))
    with closing(sqlite3.connect(folder.parent / "gallery.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE outputs SET favourite = 1")
        assert not gallery.output("a-0").favourite
        other.execute("ROLLBACK")


def test_words_are_indexed_many_at_once(gallery: Gallery, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.gallery.index.INDEX_EVERY", 3)
    indexed = []
    for number in range(7):
        gallery.add(write_output(folder, recipe_of(f"a red house {number}"), id=f"j{number}-0", at=number))
        with gallery._store.reading() as connection:
            indexed.append(connection.execute("SELECT count(*) FROM search").fetchone()[0])
    assert indexed == [0, 0, 3, 3, 3, 6, 6]
    assert len(ids(gallery, text="red")) == len(json.loads(gallery.ratios(text="house"))) == 7


def test_what_is_indexed_is_found_where_nothing_can_be_written(gallery: Gallery, folder: Path) -> None:
    gallery.add(write_output(folder, recipe_of("a red boat"), id="old-0"))
    assert ids(gallery, text="red") == ["old-0"]
    words = " ".join(f"tower{number}" for number in range(2000))
    gallery.add(write_output(folder, recipe_of(f"a red {words}"), id="new-0"))
    writer = gallery._store._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")  # a disk without room
    assert ids(gallery, text="red") == ["old-0"]
    writer.execute("PRAGMA max_page_count = 1000000")
    assert sorted(ids(gallery, text="red")) == ["new-0", "old-0"]


def test_a_gallery_of_an_older_version_learns_who_sends_pictures(tmp_path: Path) -> None:
    path = tmp_path / "gallery.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
    with Gallery(path, tmp_path) as gallery:
        gallery.add_upload("0" * 64, "ann")
        gallery.add_upload("0" * 64, "ann")
        assert gallery.has_picture("0" * 64, "ann") and gallery.owns("ann")
        assert not gallery.has_picture("0" * 64, "bob") and not gallery.owns("bob")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"not a database, but a text that somebody wrote", "not a database"),
        ("CREATE TABLE songs (title)", "another program's database"),
        ("CREATE TABLE songs (title); PRAGMA user_version = 1", "another program's database"),
        ("CREATE TABLE details (x); PRAGMA user_version = 99", "newer Bottega"),
    ],
)
def test_a_file_that_is_no_gallery_is_said_and_left_alone(tmp_path: Path, content: str | bytes, what: str) -> None:
    path = tmp_path / "gallery.sqlite"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(content)
    before = path.read_bytes()
    with pytest.raises(GalleryError, match=what):
        Gallery(path, tmp_path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_said(gallery: Gallery, folder: Path) -> None:
    for number in range(40):
        gallery.add(write_output(folder, recipe_of(seed=number), id=f"j{number}-0"))
    gallery.close()
    path = folder.parent / "gallery.sqlite"
    content = bytearray(path.read_bytes())
    content[8192:] = bytes(len(content) - 8192)
    path.write_bytes(content)
    with pytest.raises(GalleryError, match=r"gallery\.sqlite: .*; move it away"), Gallery(path, folder) as opened:
        opened.outputs()


def test_a_lost_file_is_filled_again_from_the_outputs(gallery: Gallery, folder: Path) -> None:
    told = added(gallery, write_output(folder, id=f"{'j' * 16}-1"))
    gallery.close()
    for path in folder.parent.glob("gallery.sqlite*"):
        path.unlink()
    with Gallery(folder.parent / "gallery.sqlite", folder) as opened:
        opened.adopt(folder, owner_of=lambda job: "ann")
        (again,) = opened.outputs().items
    assert again == replace(told, created=again.created, seconds=0)


def test_outputs_may_move_with_their_home(gallery: Gallery, folder: Path, tmp_path: Path) -> None:
    told = added(gallery, write_output(folder / "day", id="a-0"))
    gallery.close()
    moved = folder.parent.rename(tmp_path / "moved")
    with Gallery(moved / "gallery.sqlite", moved / "outputs") as opened:
        assert opened.output("a-0").path == moved / "outputs" / "day" / told.path.name
        assert opened.output("a-0").path.exists()
