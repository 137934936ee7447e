"""Recipes in and out of pictures: PNG, JPEG and WebP, of which no pixel is decoded to read what they carry.

| file | our recipe (JSON)                                | A1111's `parameters` text                       |
|------|--------------------------------------------------|-------------------------------------------------|
| PNG  | text chunk `bottega`                             | text chunk `parameters`                         |
| JPEG | XMP, with the standard's extension beyond 64 KiB | EXIF UserComment; beyond 64 KiB in the XMP      |
| WebP | XMP                                              | EXIF UserComment                                |

XMP because both containers define it, `exiftool` lists it, editors keep it, and A1111 doesn't look into it.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bottega.errors import FileError, FormatError, SaveError
from bottega.formats import exif, fooocus, infotext, strictjson, swarmui, xmp
from bottega.formats.header import shown
from bottega.formats.room import Room
from bottega.formats.sniff import KINDS, sniff, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS: Mapping[str, str] = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
MAX_PIXELS = 64 << 20  # 8192 x 8192
MAX_TEXT = 1 << 20  # bytes; of a longer one nothing is kept, and the picture is as good as without it
MAX_TEXTS = 64
ROOM = Room(256 << 20)  # bytes that all decoded pictures of a server may take: as many as one of MAX_PIXELS

_MAX_BLOCK = 8 << 20  # an EXIF or XMP block, which may hold several texts
_MAX_CHUNKS = 200_000  # a PNG of 64 Mpx in chunks of 8 KiB has a tenth of them
_MAX_SIDE = {"png": (1 << 31) - 1, "jpeg": 65_535, "webp": 16_383}
_TILE = 1024  # pixels a side of what is made smaller at once of a large picture
# What EXIF's orientations ask for: CIPA DC-008, 4.6.4.
_TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE",
    8: "ROTATE_90",
}  # fmt: skip
_WEBP_FRAMES = 4  # whole pictures that its decoder holds beside the one that comes of it
_COEFFICIENT = 2  # bytes a pixel and colour of a JPEG in several scans, which is decoded when all of it was read
_COMPRESSION = 4  # of PNG: twice as fast as 6 for 1 % more bytes

# What Pillow raises for broken pictures, by reading its plug-ins and by trying what random bytes make of them.
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, struct.error, zlib.error,
)  # fmt: skip

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_PNG_KEYWORD = 80  # with the zero byte that ends it
_APP1, _COMMENT, _SCAN = 0xE1, 0xFE, 0xDA
_SEGMENT = 65_533  # what a JPEG segment can hold
_EXIF_HEAD = b"Exif\0\0"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_MORE_XMP_HEAD = b"http://ns.adobe.com/xmp/extension/\0"

_CUT = "the download or the copy stopped halfway: get it again"
_DAMAGED = "get it again from where it came from"


@dataclass(frozen=True)
class Carried:
    """What a picture's file says besides its pixels. Its width and height are those of the upright picture.

    `recipe` is ours, `parameters` A1111's text (rebuilt from NovelAI's fields where those are given), the next are the
    JSON texts of ComfyUI, InvokeAI, NovelAI, Fooocus and SwarmUI, of which the last two are kept where A1111's text is;
    `texts` is everything else, by its name in the file. `too_long` are the
    names of texts of more than MAX_TEXT bytes, of which nothing is read.
    """

    format: str
    width: int
    height: int
    recipe: str | None = None
    parameters: str | None = None
    comfy_prompt: str | None = None
    comfy_workflow: str | None = None
    invokeai: str | None = None
    novelai: str | None = None
    fooocus: str | None = None
    swarmui: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    too_long: tuple[str, ...] = ()

    @property
    def foreign(self) -> dict[str, str]:
        """The JSON texts of other programs, by their names in a PNG, or by the programs' where A1111's text is."""
        told = {
            "prompt": self.comfy_prompt,
            "workflow": self.comfy_workflow,
            "invokeai_metadata": self.invokeai,
            "Comment": self.novelai,
            "fooocus": self.fooocus,
            "swarmui": self.swarmui,
        }
        return {name: text for name, text in told.items() if text is not None}

    def without_recipe(self, path: Path, remedy: str) -> FileError:
        """The error for a picture that does not say how it was made: perhaps it does in a text that is too long."""
        if not self.too_long:
            return FileError(path, "carries no recipe", remedy)
        what = f"its text {shown(self.too_long[0])} is longer than the {MAX_TEXT:,} bytes that are read"
        return FileError(path, what, "its pixels are whole: use it as a picture to start from")


def read(path: str | Path) -> Carried:
    """What a PNG, JPEG or WebP file carries. Decodes no pixels; a damaged or cut file is a FormatError."""
    path = Path(path)
    found = _examine(path)
    texts = dict(found.texts)
    parameters = _parameters_of(texts, f"{found.width}x{found.height}")
    told = strictjson.object_or_none(parameters) if parameters and parameters.startswith("{") else None
    is_fooocus = told is not None and fooocus.is_metadata(told)
    is_swarmui = told is not None and swarmui.is_metadata(told)
    if is_fooocus:
        texts.pop("fooocus_scheme", None)
    novelai = texts.pop("Comment", None) if texts.get("Software") == "NovelAI" else None
    for name in ("Make", "Model", "ImageDescription"):  # where ComfyUI's WebP nodes put `prompt:{...}`
        key, colon, text = texts.get(name, "").partition(":")
        if colon and key.lower() in ("prompt", "workflow"):
            texts.setdefault(key.lower(), text)
            del texts[name]
    invokeai = [texts.pop(name, None) for name in ("invokeai_metadata", "sd-metadata")]
    return Carried(
        found.format,
        found.width,
        found.height,
        recipe=texts.pop("bottega", None),
        parameters=None if is_fooocus or is_swarmui else parameters,
        comfy_prompt=texts.pop("prompt", None),
        comfy_workflow=texts.pop("workflow", None),
        invokeai=next((text for text in invokeai if text is not None), None),
        novelai=novelai,
        fooocus=parameters if is_fooocus else None,
        swarmui=parameters if is_swarmui else None,
        texts=texts,
        too_long=found.too_long,
    )


def open_picture(path: str | Path) -> Image:
    """A picture to work from, upright, as RGB or RGBA. Sizes are checked before a pixel is decoded."""
    from PIL import ImageOps

    with _begun(Path(path)) as picture:
        with _refused(Path(path)):
            picture.load()
            ImageOps.exif_transpose(picture, in_place=True)
        coloured = _coloured(picture)
        return coloured.copy() if picture.format == "WEBP" else coloured  # its decoder lives as long as it does


@contextmanager
def opened(path: str | Path) -> Iterator[Image]:
    """A picture as `open_picture` gives it, which takes its turn for the memory of all and is closed in the end.

    There is room for one more picture of its size. A thread that has one open must not open another.
    """
    pixels, decoding = _needed(Path(path))
    with ROOM.taken(decoding + 2 * 4 * pixels):
        picture = open_picture(path)
        try:
            yield picture
        finally:
            picture.close()


def check_picture(path: str | Path) -> None:
    """Decode a picture to its end, with its turn for the memory of all; FormatError for what `open_picture` refuses."""
    _, decoding = _needed(Path(path))
    with ROOM.taken(decoding):
        _decode(Path(path))


def thumbnail(path: str | Path, side: int) -> Image:
    """A picture of at most this many pixels a side, upright, as RGB or RGBA; FormatError as `open_picture`.

    It takes its turn for the memory of all, and hardly more of it than decoding takes.
    """
    _, decoding = _needed(Path(path))
    with ROOM.taken(decoding + 3 * 4 * _TILE**2):
        return _small(Path(path), side)


def encode(
    image: Image,
    format: str,
    *,
    recipe: str | None = None,
    parameters: str | None = None,
    quality: int = 92,
    lossless: bool = False,
) -> bytes:
    """A picture's file with its recipe inside; equal input gives equal bytes. JPEG drops transparency.

    `quality` (1 to 100) is that of JPEG and WebP, `lossless` makes an exact WebP.
    """
    if max(image.size) > _MAX_SIDE[format]:
        side = _MAX_SIDE[format]
        raise SaveError(f"a {format} can be {side:,} pixels wide or high, not {max(image.size):,}", "save it as png")
    texts = {name: text for name, text in (("bottega", recipe), ("parameters", parameters)) if text}
    for name, text in texts.items():
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise SaveError(f"the {name} text holds half of a character", "type the prompt again") from None
        if size > MAX_TEXT:
            raise SaveError(f"the {name} text takes {size:,} bytes, of {MAX_TEXT:,} allowed", "shorten the prompt")
    bare = image.convert("RGB") if format == "jpeg" else image.copy()
    bare.info = {}  # profiles and comments of an input picture are none of the output's business
    return _ENCODERS[format](bare, texts, quality, lossless)


# --- Reading -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """A picture's size as its pixels lie, its texts by name, and the names of those that are too long to be read."""

    format: str
    width: int
    height: int
    texts: Mapping[str, str]
    too_long: tuple[str, ...] = ()
    on_its_side: bool = False


def _examine(path: Path) -> _Found:
    """Walk through the container of a picture from its first byte to its last; the size found is the upright one."""
    kind = sniff(path)
    if kind not in _READERS:
        remedy = "choose a PNG, JPEG or WebP file"
        raise FormatError(path, f"this is {KINDS[kind][0]}, not a PNG, JPEG or WebP", remedy)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            found = _READERS[kind](_Source(path, file, size))
    except OSError as error:
        raise unreadable(path, error) from error
    if found.width < 1 or found.height < 1:
        raise FormatError(path, "this picture says it has no pixels", _DAMAGED)
    too_long = [name for name, text in found.texts.items() if len(text) > MAX_TEXT]
    texts = {name: text for name, text in found.texts.items() if name not in too_long}
    width, height = (found.height, found.width) if found.on_its_side else (found.width, found.height)
    return replace(found, width=width, height=height, texts=texts, too_long=(*found.too_long, *too_long))


@dataclass(frozen=True)
class _Source:
    """An open file whose end comes as a clear error."""

    path: Path
    file: BinaryIO
    size: int

    def take(self, count: int) -> bytes:
        raw = self.file.read(count)
        if len(raw) < count:
            raise self.cut()
        return raw

    def skip(self, count: int) -> None:
        if self.file.seek(count, os.SEEK_CUR) > self.size:
            raise self.cut()

    def block(self, count: int, limit: int) -> bytes:
        """A block of metadata, refused before it is read when it is too large."""
        if count > limit:
            raise self.broken(f"a block of {count:,} bytes of metadata, of {limit:,} allowed")
        return self.take(count)

    def cut(self) -> FormatError:
        return FormatError(self.path, f"this picture is cut short, at {self.size:,} bytes", _CUT)

    def broken(self, what: str) -> FormatError:
        return FormatError(self.path, f"this picture is damaged: {what}", _DAMAGED)


def _read_png(source: _Source) -> _Found:
    """PNG, third edition: chunks of length, type, data and checksum from IHDR to IEND."""
    source.skip(len(_PNG))
    width = height = chunks = 0
    on_its_side = False
    texts: dict[str, str] = {}
    too_long: list[str] = []
    count = 0
    while True:
        length, kind = struct.unpack(">I4s", source.take(8))
        chunks += 1
        if (kind == b"IHDR") != (chunks == 1) or length >= 1 << 31 or chunks > _MAX_CHUNKS:
            raise source.broken(f"chunk {chunks} ({ascii(kind)[1:]}) is out of order")
        if kind not in (b"IHDR", b"IEND", *_PNG_TEXTS, b"eXIf"):
            source.skip(length + 4)
            continue
        if kind in _PNG_TEXTS:
            count += 1
            if count > MAX_TEXTS:
                raise source.broken(f"more than {MAX_TEXTS} text chunks")
            if length > MAX_TEXT + 1024:
                too_long.append(_png_keyword(source.take(_PNG_KEYWORD)))
                source.skip(length - _PNG_KEYWORD + 4)
                continue
        data = source.block(length, _MAX_BLOCK if kind == b"eXIf" else MAX_TEXT + 1024)
        if source.take(4) != zlib.crc32(kind + data).to_bytes(4, "big"):
            raise source.broken(f"the checksum of its {kind.decode()} chunk is wrong")
        if kind == b"IEND":
            return _Found("png", width, height, texts, tuple(too_long), on_its_side)
        if kind == b"IHDR":
            if length != 13:
                raise source.broken("its first chunk is not 13 bytes long")
            width, height = struct.unpack_from(">II", data)
        elif kind == b"eXIf":
            texts |= exif.read(data)
            on_its_side = exif.lies_on_its_side(data)
        else:
            try:
                name, text = _png_keyword(data), _png_text(kind, data)
            except zlib.error as error:
                raise source.broken(f"its {kind.decode()} chunk: {error}") from None
            if text is None:
                too_long.append(name)
            else:
                texts[name] = text


def _png_keyword(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("latin-1")


def _png_text(kind: bytes, data: bytes) -> str | None:
    """The text of a tEXt, zTXt or iTXt chunk; None for one of more than MAX_TEXT bytes."""
    _, _, rest = data.partition(b"\0")
    if kind == b"iTXt":
        compressed, rest = rest[:1] == b"\1", rest[2:]
        _, _, rest = rest.partition(b"\0")  # the language
        _, _, rest = rest.partition(b"\0")  # the translated keyword
    else:
        compressed, rest = kind == b"zTXt", rest[1:] if kind == b"zTXt" else rest
    if compressed:
        rest = zlib.decompressobj().decompress(rest, MAX_TEXT + 1)
    if len(rest) > MAX_TEXT:
        return None
    return _utf8(rest) if kind == b"iTXt" else _latin1(rest)


def for_pillow(path: Path) -> Path | io.BytesIO:
    """What Pillow is to open for the picture in a file: of a PNG all but its texts, for which it would refuse it."""
    if sniff(path) != "png":
        return path
    bare = io.BytesIO()
    with path.open("rb") as file:
        bare.write(file.read(len(_PNG)))
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind in _PNG_TEXTS:
                file.seek(length + 4, os.SEEK_CUR)
            else:
                bare.write(head + file.read(length + 4))
    bare.seek(0)
    return bare


def _utf8(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _latin1(raw: bytes) -> str:
    """tEXt is Latin-1, but programs put UTF-8 there; what is valid UTF-8 is hardly ever meant to be Latin-1."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _read_jpeg(source: _Source) -> _Found:
    """JPEG (ITU-T T.81, annex B): marker segments up to the first scan, then anything up to the end marker."""
    source.skip(2)
    width = height = extended = 0
    on_its_side = False
    texts: dict[str, str] = {}
    packet = b""
    extension: dict[bytes, dict[int, bytes]] = {}
    for _ in range(_MAX_CHUNKS):
        marker = _next_marker(source)
        if marker == _SCAN:
            break
        if marker == 0xD9:
            raise source.broken("it ends before its pixels begin")
        data = source.take(max(0, int.from_bytes(source.take(2), "big") - 2))
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(data) >= 5:
            height, width = struct.unpack_from(">HH", data, 1)
        elif marker == _COMMENT:
            texts["comment"] = _latin1(data).rstrip("\0")
        elif marker == _APP1 and data.startswith(_EXIF_HEAD):
            texts |= exif.read(data)
            on_its_side = exif.lies_on_its_side(data)
        elif marker == _APP1 and data.startswith(_XMP_HEAD):
            packet = data.removeprefix(_XMP_HEAD)
        elif marker == _APP1 and data.startswith(_MORE_XMP_HEAD):
            start = len(_MORE_XMP_HEAD)
            guid, offset = data[start : start + 32], int.from_bytes(data[start + 36 : start + 40], "big")
            extension.setdefault(guid, {})[offset] = data[start + 40 :]
            extended += len(data)
            if extended > _MAX_BLOCK:
                raise source.broken(f"more than {_MAX_BLOCK:,} bytes of metadata")
    else:
        raise source.broken("its pixels never begin")
    if not _has_end_marker(source.file):
        raise source.cut()
    if guid_of := xmp.extension_of(packet):
        packet += b"".join(part for _, part in sorted(extension.get(guid_of.encode(), {}).items()))
    return _Found("jpeg", width, height, texts | _from_xmp(packet), on_its_side=on_its_side)


def _next_marker(source: _Source) -> int:
    """The next marker that has a segment; any number of fill bytes may precede it."""
    if source.take(1) != b"\xff":
        raise source.broken("a segment does not begin with a marker")
    while True:
        marker = source.take(1)[0]
        if marker != 0xFF:
            return marker


def _has_end_marker(file: BinaryIO) -> bool:
    """Whether the end marker comes anywhere; inside of pixel data its two bytes can't occur."""
    last = b""
    while block := file.read(1 << 20):
        if b"\xff\xd9" in last + block:
            return True
        last = block[-1:]
    return False


def _read_webp(source: _Source) -> _Found:
    """WebP (RFC 9649): a RIFF of chunks; the size is said by VP8X, or else by the picture's own first bytes."""
    end = int.from_bytes(source.take(8)[4:], "little") + 8
    if end > source.size:
        raise source.cut()
    source.skip(4)
    size: tuple[int, int] | None = None
    on_its_side = False
    texts: dict[str, str] = {}
    position, chunks = 12, 0
    while position + 8 <= end:
        kind, length = struct.unpack("<4sI", source.take(8))
        position += 8 + length
        chunks += 1
        if position > end or chunks > _MAX_CHUNKS:
            raise source.broken(f"chunk {chunks} ({ascii(kind)[1:]}) is longer than the file")
        if kind in (b"EXIF", b"XMP "):
            data = source.block(length, _MAX_BLOCK)
            texts |= exif.read(data) if kind == b"EXIF" else _from_xmp(data)
            on_its_side |= kind == b"EXIF" and exif.lies_on_its_side(data)
        elif kind in (b"VP8X", b"VP8 ", b"VP8L") and size is None:
            size = _webp_size(kind, source.take(min(length, 10)).ljust(10, b"\0"))
        position += length % 2  # chunks begin at even places
        source.file.seek(position)
    return _Found("webp", *(size or (0, 0)), texts, on_its_side=on_its_side)


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    if kind == b"VP8X":  # both sides less one, three bytes each
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":  # after a signature, both sides less one, 14 bits each
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", head, 6)  # the upper two bits of each are a scale
    return width & 0x3FFF, height & 0x3FFF


def _from_xmp(packet: bytes) -> dict[str, str]:
    texts = xmp.read(packet)
    return {{"recipe": "bottega"}.get(name, name): text for name, text in texts.items()}


_READERS: Mapping[str, Callable[[_Source], _Found]] = {"png": _read_png, "jpeg": _read_jpeg, "webp": _read_webp}


# NovelAI's samplers under A1111's names; A1111 takes `Euler a` for what it doesn't know.
_NOVELAI_SAMPLERS = {
    "k_euler": "Euler",
    "k_euler_ancestral": "Euler a",
    "k_lms": "LMS",
    "k_heun": "Heun",
    "k_dpm_2": "DPM2",
    "k_dpm_2_ancestral": "DPM2 a",
    "k_dpm_fast": "DPM fast",
    "k_dpm_adaptive": "DPM adaptive",
    "k_dpmpp_2s_ancestral": "DPM++ 2S a",
    "k_dpmpp_2m": "DPM++ 2M",
    "k_dpmpp_2m_sde": "DPM++ 2M SDE",
    "k_dpmpp_sde": "DPM++ SDE",
    "ddim": "DDIM",
    "plms": "PLMS",
}


def _parameters_of(texts: dict[str, str], size: str) -> str | None:
    """A1111's text, taken out of the `texts` of a picture of this size in A1111's order: a UserComment wins over the
    chunk `parameters`; a JPEG's comment stands in for both; NovelAI's fields win over all."""
    parameters = texts.pop("parameters", None)
    parameters = texts.pop("UserComment", None) or parameters
    if parameters is None and "Steps: " in texts.get("comment", ""):
        parameters = texts.pop("comment")
    if texts.get("Software") == "NovelAI" and "Comment" in texts:
        return _from_novelai(texts, size) or parameters
    return parameters


def _from_novelai(texts: Mapping[str, str], size: str) -> str | None:
    try:
        told = json.loads(texts["Comment"])
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    fields = {
        "Steps": told.get("steps"),
        "Sampler": _NOVELAI_SAMPLERS.get(str(told.get("sampler")), "Euler a"),
        "CFG scale": told.get("scale"),
        "Seed": told.get("seed"),
        "Size": f"{told['width']}x{told['height']}" if "width" in told and "height" in told else size,
        "Clip skip": 2,
        "ENSD": 31337,
    }
    return infotext.format(texts.get("Description", ""), str(told.get("uc") or ""), fields)


@contextmanager
def _begun(path: Path) -> Iterator[ImageFile]:
    """The picture in a file, with no pixel decoded yet."""
    from PIL import Image

    found = _examine(path)
    _check_pixels(path, found.width, found.height)
    with _refused(path):
        picture = Image.open(for_pillow(path), formats=[found.format.upper()])
    with picture:
        _check_pixels(path, *picture.size)  # Pillow may see another size than we do
        yield picture


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Makes a FormatError of whatever Pillow says of a broken picture."""
    from PIL import Image

    try:
        # Pillow warns of broken EXIF, which matters to nobody here.
        with warnings.catch_warnings(action="ignore"):
            yield
    except (*PILLOW_ERRORS, Image.DecompressionBombError) as error:
        raise FormatError(path, f"this picture is damaged ({error})", _DAMAGED) from None


def _decode(path: Path) -> None:
    with _begun(path) as picture, _refused(path):
        picture.load()
        picture.getexif()  # which says how it lies, and may be what is damaged


def _small(path: Path, side: int) -> Image:
    from PIL import Image

    with _begun(path) as picture, _refused(path):
        scale = max(1.0, max(picture.size) / side)
        target = [max(1, round(length / scale)) for length in picture.size]
        picture.draft(picture.mode, (2 * side, 2 * side))  # a JPEG can be decoded to a part of its size
        picture.load()
        width, height = picture.size
        factor = max(1, int(max(picture.size) / side / 2))
        reduced = Image.new(_colours(picture), (-(-width // factor), -(-height // factor)))
        tile = max(1, _TILE // factor) * factor
        for top in range(0, height, tile):  # of the whole Pillow would make two copies
            for left in range(0, width, tile):
                part = picture.crop((left, top, min(left + tile, width), min(top + tile, height)))
                reduced.paste(_coloured(part).reduce(factor), (left // factor, top // factor))
        box = (0, 0, width / factor, height / factor)
        small = reduced.resize(target, Image.Resampling.LANCZOS, box=box)
        small.info = {name: told for name, told in picture.info.items() if name == "icc_profile"}
        turn = _TURNS.get(picture.getexif().get(0x0112) or 1)
        return small.transpose(Image.Transpose[turn]) if turn else small


def _coloured(picture: Image) -> Image:
    """The picture as RGB or RGBA; itself if it is that."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which convert() would clip
        picture = picture.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    mode = _colours(picture)
    return picture if picture.mode == mode else picture.convert(mode)


def _colours(picture: Image) -> str:
    return "RGBA" if picture.has_transparency_data else "RGB"


def _needed(path: Path) -> tuple[int, int]:
    """How many pixels a picture has, and the bytes that decoding it takes, with those of its decoder."""
    with _begun(path) as picture:
        pixels = math.prod(picture.size)
        held = 1 if picture.mode in ("1", "L", "P") else 4
        beside = {"WEBP": _WEBP_FRAMES * 4, "JPEG": _COEFFICIENT * len(picture.getbands())}
        return pixels, pixels * (held + beside.get(picture.format or "", 0))


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        what = f"this picture is {width:,} x {height:,} pixels, of {MAX_PIXELS:,} allowed"
        raise FormatError(path, what, "make it smaller first")


# --- Writing -----------------------------------------------------------------------------------------------------


def _encode_png(image: Image, texts: Mapping[str, str], quality: int, lossless: bool) -> bytes:
    plain = _saved(image, "PNG", compress_level=_COMPRESSION)
    after_header = len(_PNG) + 8 + 13 + 4
    chunks = b"".join(_png_chunk(name, text.replace("\0", "")) for name, text in texts.items())
    return plain[:after_header] + chunks + plain[after_header:]


def _png_chunk(name: str, text: str) -> bytes:
    """A tEXt chunk for ASCII, which the oldest readers know, else iTXt: Latin-1 is too often taken for UTF-8."""
    if text.isascii():
        kind, data = b"tEXt", f"{name}\0{text}".encode("ascii")
    else:
        kind, data = b"iTXt", f"{name}\0\0\0\0\0{text}".encode()
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _encode_jpeg(image: Image, texts: Mapping[str, str], quality: int, lossless: bool) -> bytes:
    plain = _saved(image, "JPEG", quality=quality)
    # Pillow begins with SOI and JFIF's APP0, which readers expect to be the first segment.
    after_jfif = 4 + int.from_bytes(plain[4:6], "big")
    in_xmp = _xmp_texts(texts)
    segments = []
    if "parameters" in texts:
        block = _EXIF_HEAD + exif.write(texts["parameters"])
        if len(block) <= _SEGMENT:
            segments.append(block)
        else:
            in_xmp["parameters"] = texts["parameters"]
    segments += _xmp_segments(in_xmp)
    return plain[:after_jfif] + b"".join(map(_jpeg_segment, segments)) + plain[after_jfif:]


def _xmp_segments(texts: Mapping[str, str]) -> Iterator[bytes]:
    """One segment, or as XMP part 3, 1.1.3.1 says: a short packet that names its extension, and that in portions."""
    if not texts:
        return
    packet = xmp.write(texts)
    if len(packet) + len(_XMP_HEAD) <= _SEGMENT:
        yield _XMP_HEAD + packet
        return
    guid = hashlib.md5(packet, usedforsecurity=False).hexdigest().upper()
    yield _XMP_HEAD + xmp.write({}, extension=guid)
    portion = _SEGMENT - len(_MORE_XMP_HEAD) - 40
    for offset in range(0, len(packet), portion):
        place = struct.pack(">II", len(packet), offset)
        yield _MORE_XMP_HEAD + guid.encode() + place + packet[offset : offset + portion]


def _jpeg_segment(data: bytes) -> bytes:
    return bytes((0xFF, _APP1)) + (len(data) + 2).to_bytes(2, "big") + data


def _encode_webp(image: Image, texts: Mapping[str, str], quality: int, lossless: bool) -> bytes:
    comment = exif.write(texts["parameters"]) if "parameters" in texts else b""
    in_xmp = _xmp_texts(texts)
    packet = xmp.write(in_xmp) if in_xmp else b""
    return _saved(image, "WEBP", quality=quality, lossless=lossless, exact=lossless, method=4, exif=comment, xmp=packet)


def _xmp_texts(texts: Mapping[str, str]) -> dict[str, str]:
    return {"recipe": texts["bottega"]} if "bottega" in texts else {}


def _saved(image: Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


_ENCODERS: Mapping[str, Callable[[Image, Mapping[str, str], int, bool], bytes]] = {
    "png": _encode_png,
    "jpeg": _encode_jpeg,
    "webp": _encode_webp,
}
