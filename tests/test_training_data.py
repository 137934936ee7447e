"""Pictures and captions are read as other trainers lay them out; what is wrong with them is told before the start."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from bottega.errors import FileError
from bottega.families import family
from bottega.training.batches import Batches, balanced, held_out, spoken
from bottega.training.buckets import bucket_of, buckets, fitted
from bottega.training.data import check, digest_of, read_folder, with_word

SD1 = family("sd1").train
assert SD1 is not None
TOKENS = SD1.tokens


def put(path: Path, size: tuple[int, int] = (96, 64), colour: str = "red", caption: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def test_captions_come_from_texts_lists_and_kohyas_folders(tmp_path: Path) -> None:
    put(tmp_path / "1.png", caption="  a red\nhouse ")
    put(tmp_path / "2.png").with_suffix(".caption").write_text("a boat")
    put(tmp_path / "3.jpg", colour="blue")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "3.jpg", "text": "a blue door"}) + "\n")
    put(tmp_path / "10_red fox" / "4.webp")
    found = {each.path.name: (each.caption, each.repeats) for each in read_folder(tmp_path)}
    assert found == {
        "1.png": ("a red house", 1),
        "2.png": ("a boat", 1),
        "3.jpg": ("a blue door", 1),
        "4.webp": ("red fox", 10),
    }


def test_a_mask_belongs_to_its_picture_and_is_none_itself(tmp_path: Path) -> None:
    put(tmp_path / "1.png")
    put(tmp_path / "1-masklabel.png")
    (only,) = read_folder(tmp_path)
    assert only.mask == tmp_path / "1-masklabel.png"


def test_a_picture_with_a_long_text_is_learned_from(tmp_path: Path) -> None:
    told = PngInfo()
    told.add_text("parameters", "x" * (3 << 20), zip=True)
    Image.new("RGB", (256, 256), "red").save(tmp_path / "1.png", pnginfo=told)
    (only,) = read_folder(tmp_path)
    assert only.size == (256, 256)


def _cut(path: Path) -> None:
    content = put(path, (256, 256)).read_bytes()
    path.write_bytes(content[: len(content) // 2])


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda folder: None, "holds no pictures"),
    "a caption that is no text": (
        lambda at: put(at / "1.png").with_suffix(".txt").write_bytes(b"\xff\xfe\x00a"),
        "UTF-8",
    ),
    "a caption of zeros": (lambda at: put(at / "1.png").with_suffix(".txt").write_bytes(bytes(9)), "no caption"),
    "one pixel": (lambda at: put(at / "1.png", (1, 1)), "1x1 pixels"),
    "half a picture": (lambda at: _cut(at / "1.png"), "no picture that can be read"),
    "a list that is none": (lambda at: (put(at / "1.png"), (at / "metadata.jsonl").write_text("[1]")), "line 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_told_in_one_line_with_its_file(tmp_path: Path, name: str) -> None:
    spoil, words = WRONG[name]
    spoil(tmp_path)
    with pytest.raises(FileError, match=words) as caught:
        read_folder(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value) and caught.value.remedy


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="not there"):
        read_folder(tmp_path / "no")


def test_the_check_tells_twins_bare_pictures_and_what_the_word_becomes(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        put(tmp_path / name, (128, 128))
    put(tmp_path / "3.png", (640, 320), "blue", "a neonfox")
    checked = check(read_folder(tmp_path), 128, False, "neonfox", TOKENS)
    told = " | ".join(checked.notes)
    assert "1 pictures are there more than once: 1.png and 2.png" in told
    assert "2 pictures have no caption" in told
    assert "'neonfox' is 2 tokens: neon fox" in told
    assert checked.buckets[128, 128] == 2 and len(checked.buckets) == 2


def test_the_word_is_put_before_captions_that_lack_it(tmp_path: Path) -> None:
    for name, caption in (("1", "a house, neon"), ("2", "a neonate"), ("3", "")):
        put(tmp_path / f"{name}.png", caption=caption)
    assert [each.caption for each in with_word(read_folder(tmp_path), "neon")] == [
        "a house, neon",
        "neon, a neonate",
        "neon",
    ]


def test_the_digest_is_of_what_is_taught_and_not_of_names(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png", caption="x")
    put(tmp_path / "b" / "other.png", caption="x")
    put(tmp_path / "c" / "1.png", caption="y")
    one, same, other = (digest_of(read_folder(tmp_path / name)) for name in "abc")
    assert one == same != other


@pytest.mark.parametrize("resolution", (64, 128, 512, 1024))
def test_buckets_have_about_one_area_and_every_picture_fits_one(resolution: int) -> None:
    for width, height in buckets(resolution):
        assert width % 8 == height % 8 == 0
        assert 0.6 * resolution**2 < width * height <= resolution**2
    for size in ((300, 300), (900, 300), (100, 800), (641, 480)):
        bucket = bucket_of(size, resolution)
        made, crop = fitted(Image.new("RGB", size), bucket)
        assert made.size == bucket and min(crop) == 0
        assert bucket[0] < bucket[1] if size[0] < size[1] else bucket[0] >= bucket[1]


def test_an_epoch_shows_every_picture_as_often_as_it_repeats(tmp_path: Path) -> None:
    for number in range(5):
        put(tmp_path / "2_a" / f"{number}.png", (128, 64 if number < 2 else 128), f"#{number:06}")
    batches = Batches(tuple(read_folder(tmp_path)), 3, 7, 64, square=False)
    epoch = [batches.at(number) for number in range(batches.epoch_length)]
    assert sorted(at for batch in epoch for at in batch) == sorted(list(range(5)) * 2)
    for batch in epoch:
        assert len({batches.bucket(batches.pictures[at]) for at in batch}) == 1
    again = Batches(batches.pictures, 3, 7, 64, square=False)
    assert [again.at(number) for number in range(40, 50)] == [batches.at(number) for number in range(40, 50)]


def test_as_many_regular_pictures_are_shown_as_others(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / "1" / f"{number}.png", colour=f"#{number:06}")
        put(tmp_path / "2" / f"{number}.png", colour=f"#1{number:05}")
    ours, regular = read_folder(tmp_path / "1"), read_folder(tmp_path / "2", regular=True)[:2]
    counted = balanced(ours, regular)
    assert sum(each.repeats for each in counted if each.regular) == 3
    learned, judged = held_out(counted, 0.4, 1)
    assert len(judged) == 1 and not any(each.regular for each in judged)
    assert {each.path for each in judged}.isdisjoint(each.path for each in learned)


def test_captions_are_shuffled_behind_the_parts_that_stay() -> None:
    import random

    seen = {spoken("a, b, c, d", random.Random(n), dropout=0, shuffle=True, keep=1) for n in range(50)}
    assert len(seen) > 3 and all(text.startswith("a, ") and sorted(text.split(", ")) == list("abcd") for text in seen)
    left_out = [spoken("a, b", random.Random(n), dropout=0.3, shuffle=False, keep=0) for n in range(400)]
    assert 80 < left_out.count("") < 160 and set(left_out) == {"", "a, b"}
