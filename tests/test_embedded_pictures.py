"""Pictures that come with a request: in every spelling that clients use, and refused before they cost anything."""

from __future__ import annotations

import base64
import io
import struct
import time
import zlib
from pathlib import Path

import pytest
from PIL import Image

from bottega.api.embedded import MOST_BYTES, picture_from, picture_of
from bottega.errors import InvalidRecipe
from bottega.settings import Settings

SETTINGS = Settings(Path("nowhere"))


def png(size: tuple[int, int] = (64, 32)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "PNG")
    return buffer.getvalue()


TEXT = base64.b64encode(png()).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        f"data:image/png;base64,{TEXT}",
        f"DATA:image/png;charset=utf-8;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        TEXT.rstrip("="),
        TEXT.replace("+", "-").replace("/", "_"),
        "\n".join(TEXT[begin : begin + 76] for begin in range(0, len(TEXT), 76)),
    ],
)
def test_base64_as_clients_write_it(text: str) -> None:
    picture = picture_from(text, "init_images", SETTINGS)
    assert (picture.content, picture.size) == (png(), (64, 32))


def test_a_photograph_is_taken_upright() -> None:
    buffer, told = io.BytesIO(), Image.Exif()
    told[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (64, 32)).save(buffer, "JPEG", exif=told)
    assert picture_of(buffer.getvalue(), "image").size == (32, 64)


def of_size(width: int, height: int) -> bytes:
    """A small file that says it is large."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a PNG"),
        (b"<svg/>", "not a PNG"),
        (png()[:40], "cut short"),
        (of_size(60_000, 60_000), "pixels"),
        (of_size(64, 64), "damaged"),
        (bytes(MOST_BYTES + 1), "MiB"),
    ],
)
def test_what_can_not_be_used_is_told_at_its_field(content: bytes, words: str) -> None:
    with pytest.raises(InvalidRecipe, match=words) as refused, picture_of(content, "init_images").opened():
        pass
    (problem,) = refused.value.problems
    assert problem.field == "init_images" and "/" not in problem.what


def test_an_address_is_not_fetched_unless_that_is_allowed() -> None:
    with pytest.raises(InvalidRecipe, match="fetch_pictures"):
        picture_from("http://127.0.0.1:1/a.png", "init_images", SETTINGS)


def test_long_texts_that_are_no_picture_take_no_long_time() -> None:
    began = time.process_time()
    for text in ("data:" + "a" * 2_000_000, "data:" + "a/" * 1_000_000, ";" * 2_000_000):
        with pytest.raises(InvalidRecipe):
            picture_from(text, "init_images", SETTINGS)
    assert time.process_time() - began < 5
