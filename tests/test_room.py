"""However many pictures come at once, what they are decoded to takes only so much memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from PIL import Image

from bottega.api.embedded import Picture
from bottega.api.native.pictures import drawn
from bottega.engine.inputs import keep_input
from bottega.errors import FormatError
from bottega.formats import media
from bottega.formats.room import Room

WITHIN = 60.0
AT_ONCE = """
import re, sys, threading
from pathlib import Path
from bottega.api.native.pictures import drawn
from bottega.engine.inputs import keep_input

def resident(which):
    return int(re.search(which + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) >> 10

work = {"keep": lambda path: keep_input(path, "init", path.parent / "kept"), "draw": lambda path: drawn(path, 256)}
work = work[sys.argv[1]]
work(Path(sys.argv[2]))  # what Pillow itself takes is not counted
before = resident("VmRSS")
threads = [threading.Thread(target=work, args=(Path(sys.argv[3]),)) for _ in range(3)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(resident("VmHWM") - before, resident("VmRSS") - before)
"""


def large(path: Path) -> Path:
    """A PNG of 64 megapixels with transparency, in some hundred kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(1)
    rows = b"".join(packer.compress(b"\0" + b"\7" * 32_000) for _ in range(8000)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8000, 8000, 8, 6, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="other systems don't tell the most that a process ever had")
@pytest.mark.parametrize("work", ["keep", "draw"])
def test_several_of_the_largest_pictures_take_the_memory_of_one_and_give_it_back(tmp_path: Path, work: str) -> None:
    Image.new("RGBA", (64, 64)).save(tmp_path / "small.png")
    command = [sys.executable, "-c", AT_ONCE, work, str(tmp_path / "small.png"), str(large(tmp_path / "large.png"))]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    peak, after = map(int, told.split())
    assert peak < 290 and after < 32, f"{peak} MiB at most, {after} MiB in the end"


@contextmanager
def one(room: Room, count: int, order: list[int]) -> Iterator[threading.Thread]:
    """A thread that stands in line for so many bytes and writes down when it had them."""
    stands = threading.Event()

    class Line(type(room._line)):  # type: ignore[misc]
        def append(self, place: object) -> None:
            super().append(place)
            stands.set()

    def take() -> None:
        with room.taken(count):
            order.append(count)

    room._line = Line(room._line)
    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    assert stands.wait(WITHIN)
    yield thread
    thread.join(WITHIN)
    assert not thread.is_alive()


def test_who_came_first_is_served_first_and_more_than_all_is_served_alone() -> None:
    room = Room(100)
    order: list[int] = []
    with ExitStack() as others:
        with room.taken(50), room.taken(50):
            others.enter_context(one(room, 300, order))
        with room.taken(50):
            others.enter_context(one(room, 300, order))
            others.enter_context(one(room, 10, order))
            assert order.count(300) < 2 and 10 not in order
    assert order == [300, 300, 10]


def test_what_failed_leaves_its_room_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(media, "ROOM", room := Room(1))
    Image.effect_noise((64, 64), 40).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content.replace(content[200:1000], bytes(800)))
    for work in (
        media.check_picture,
        lambda path: media.thumbnail(path, 64),
        lambda path: media.opened(path).__enter__(),
    ):
        with pytest.raises(FormatError):
            work(tmp_path / "cut.png")
        with room.taken(1):
            pass


class Counted(Room):
    """Room that knows how much was ever taken of it."""

    def __init__(self) -> None:
        super().__init__(1 << 30)
        self.ever: list[int] = []

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        self.ever.append(count)
        with super().taken(count):
            yield


def looked_at(path: Path) -> None:
    with Picture(path.read_bytes(), "image").opened() as picture:
        picture.getpixel((0, 0))


@pytest.mark.parametrize(
    ("work", "pixel"),
    [(lambda path: keep_input(path, "init", path.parent), 4), (looked_at, 12), (lambda path: drawn(path, 99), 4)],
)
@pytest.mark.parametrize(("format", "more"), [("png", 0), ("jpeg", 6), ("webp", 16)])
def test_pixels_are_counted_as_they_are_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[Path], object], pixel: int, format: str, more: int
) -> None:
    monkeypatch.setattr(media, "ROOM", room := Counted())
    path = tmp_path / "picture"
    Image.new("RGB", (300, 200)).save(path, format)
    work(path)
    [count] = room.ever
    assert count % (12 << 20) == 300 * 200 * (pixel + more)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"])
@pytest.mark.parametrize("size", [(3000, 2000), (2000, 3001), (5000, 3), (40, 30)])
def test_a_thumbnail_made_in_pieces_shows_what_one_made_at_once_does(
    tmp_path: Path, mode: str, size: tuple[int, int]
) -> None:
    from PIL import ImageChops

    gradient = Image.linear_gradient("L").resize(size)
    if mode == "RGBA":
        whole = Image.merge("RGBA", [gradient, gradient, gradient, gradient.transpose(Image.Transpose.ROTATE_180)])
    else:
        whole = (
            gradient.convert("I").point(lambda value: value * 257).convert(mode)
            if mode == "I;16"
            else gradient.convert(mode)
        )
    whole.save(tmp_path / "picture.png")
    small = media.thumbnail(tmp_path / "picture.png", 256)
    expected = media.open_picture(tmp_path / "picture.png")
    expected.thumbnail((256, 256), Image.Resampling.LANCZOS, reducing_gap=None)
    assert small.mode == expected.mode and small.size == expected.size
    worst = max(most for _, most in ImageChops.difference(small, expected).getextrema())
    assert worst <= (16 if mode == "1" else 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_a_thumbnail_is_upright(tmp_path: Path, format: str, orientation: int) -> None:
    turned = Image.Exif()
    turned[0x0112] = orientation
    picture = Image.linear_gradient("L").resize((1200, 900)).convert("RGB")
    picture.save(tmp_path / "picture", format, exif=turned)
    whole = media.open_picture(tmp_path / "picture")
    small = media.thumbnail(tmp_path / "picture", 120)
    assert small.size == tuple(length // 10 for length in whole.size)
    for corner in ((0, 0), (1, 0), (0, 1)):
        place = [min(length - 1, at * length) for at, length in zip(corner, small.size, strict=True)]
        there = [min(length - 1, at * length) for at, length in zip(corner, whole.size, strict=True)]
        assert abs(small.getpixel(place)[0] - whole.getpixel(there)[0]) < 12


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_broken_exif_is_judged_alike_wherever_a_picture_is_read(tmp_path: Path, format: str) -> None:
    path = tmp_path / "picture"
    Image.linear_gradient("L").convert("RGB").save(path, format, exif=b"Exif\0\0garbage")
    outcomes = []
    for read in (media.open_picture, media.check_picture, lambda path: media.thumbnail(path, 64)):
        try:
            read(path)
            outcomes.append(True)
        except FormatError:
            outcomes.append(False)
    assert outcomes in ([True] * 3, [False] * 3)
