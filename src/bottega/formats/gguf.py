"""GGUF, llama.cpp's format: metadata (the tokenizer too), a table of tensors, then their bytes.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The C and C++ programs that read such files have been broken
by their counts and offsets again and again, so that here every number is checked before anybody else sees the file.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bottega.errors import FormatError
from bottega.formats.header import Header, TensorInfo, shown
from bottega.formats.links import check_place, places_of
from bottega.formats.polyglot import other_kind
from bottega.formats.sniff import refusal, sniff, unreadable

MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_KEY = 64 << 10
MAX_TEXT = 16 << 20
MAX_ITEMS = 8_000_000  # of one list; and texts in all lists together, which have to be walked over
MAX_LISTS = 65_536  # lists in lists, all together
MAX_METADATA = 256 << 20
MAX_KEPT = 16 << 20  # of the metadata in memory
MAX_NAME = 127  # llama.cpp allows 63, stable-diffusion.cpp 127
MAX_DIMENSION = 1 << 40
MAX_ELEMENTS = 1 << 48
MAX_ALIGNMENT = 1 << 20
MAX_BLOCKS = 1024
MAX_TEMPLATE = 256 << 10
MAX_PARTS = 1024

KEPT_TEXT = MAX_TEMPLATE  # of a text that is longer only its length is kept
KEPT_ITEMS = 64  # and so of longer lists
MOST_ITEMS = 20_000  # of short lists that are kept, all together

# ggml's types of numbers: how many of them make a block, and the bytes of one. GGML_QUANT_SIZES in gguf-py, but Q8_1,
# which is said to take 40 bytes there and takes 36 in ggml-common.h.
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17), 40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
QUANTISED = frozenset(name for name, block, _ in TYPES.values() if block > 1)
_WITHDRAWN = {
    4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}  # fmt: skip

_NUMBERS = {
    kind: struct.Struct(f"<{code}")
    for kind, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "B",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
_UINT32, _FLOAT32, _BOOL, _TEXT, _ARRAY = 4, 6, 7, 8, 9
_INTEGERS = frozenset((0, 1, 2, 3, 4, 5, 10, 11))
_U32, _U64 = _NUMBERS[4], _NUMBERS[10]

_ALIGNMENT = 32  # where general.alignment does not say another
_ORIGINAL_SHAPE = "comfy.gguf.orig_shape."  # ComfyUI-GGUF: of a tensor that is quantised in rows of another length
_PART = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")

_WINDOW = 256 << 10
_DAMAGED = "the file is damaged or was written by a broken tool: download it again"
_MISLEADING = "it was made to mislead: delete it, and get this model from its author"
_CUT = "the download probably stopped halfway: download it again"


def read_header(path: str | Path) -> Header:
    """The header of a GGUF file; of a split model's first part, that of all its parts, which must lie beside it.

    Every other kind of file is refused by its name; what is unusual but harmless is kept in the header's notes.
    """
    path = Path(path)
    kind = sniff(path)
    if kind != "gguf":
        raise refusal(path, kind)
    first = _read(path)
    parts = (first, *_other_parts(first))
    tensors: dict[str, TensorInfo] = {}
    for part in parts:
        if twice := next((name for name in part.tensors if name in tensors), None):
            raise FormatError(part.path, f"the tensor {shown(twice)} is in another part too", _DAMAGED)
        tensors |= part.tensors
    promised = first.integer("split.tensors.count")
    if len(parts) > 1 and promised not in (None, len(tensors)):
        raise FormatError(path, f"its parts hold {len(tensors):,} tensors, {promised:,} are promised", _DAMAGED)
    notes = [note for part in parts for note in part.notes]
    if not tensors:
        notes.append("no tensors")
    return Header(path, "gguf", tensors, first.metadata, notes=tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class _Value:
    """One value of the metadata: its type in the file, and what it is (of what is long, how long it is)."""

    kind: int
    content: object

    @property
    def text(self) -> str:
        plain = _plain(self.content)
        return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)


@dataclass(frozen=True)
class _Summary:
    """What stands for a value that is too long to keep."""

    words: str


@dataclass(frozen=True)
class _File:
    """What one file says, be it a model or a part of one."""

    path: Path
    values: Mapping[str, _Value]
    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorInfo]
    notes: tuple[str, ...]

    def integer(self, key: str) -> int | None:
        """A whole number of the metadata, or None where there is none under this key."""
        value = self.values.get(key)
        return value.content if value and value.kind in _INTEGERS and isinstance(value.content, int) else None


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if other := other_kind(file, size):
                what = f"it is also {other}, in which other programs may find something else"
                raise FormatError(path, what, _MISLEADING)
            file.seek(0)
            source = _Source(path, file, size)
            counts = _read_counts(source)
            try:
                return _read_file(source, *counts)
            except ValueError as error:
                raise FormatError(path, f"its header is broken: {error}", _DAMAGED) from None
    except OSError as error:
        raise unreadable(path, error) from error


def _read_counts(source: _Source) -> tuple[int, int]:
    """How many tensors and keys follow, where the file is of a version that we read."""
    source.skip(4)
    raw = source.bytes(4)
    version = int.from_bytes(raw, "little")
    if version > 0xFFFF and int.from_bytes(raw, "big") <= 0xFFFF:
        what = "this is a big-endian GGUF model, made for computers of another kind than almost all"
        raise FormatError(source.path, what, "get the little-endian (usual) version of this model")
    if version == 1:
        what = "this is GGUF version 1, which was in use for a few weeks of 2023"
        raise FormatError(source.path, what, "get a newer version of this model")
    if version not in (2, 3):
        what = f"this is GGUF version {version}, and Bottega reads versions 2 and 3"
        raise FormatError(source.path, what, "see whether there is a newer Bottega; if not, the file is damaged")
    return source.number(_U64), source.number(_U64)


def _read_file(source: _Source, tensors: int, keys: int) -> _File:
    if tensors > MAX_TENSORS:
        raise ValueError(f"it claims {tensors:,} tensors, of {MAX_TENSORS:,} allowed")
    if keys > MAX_KEYS:
        raise ValueError(f"it claims {keys:,} keys, of {MAX_KEYS:,} allowed")
    values = _read_metadata(source, keys)
    _check_metadata(values)
    metadata = {key: value.text for key, value in values.items()}
    if sum(len(key) + len(text) for key, text in metadata.items()) > MAX_KEPT:
        raise ValueError(f"its metadata is larger than {MAX_KEPT:,} characters")
    alignment = _alignment(values)
    rows = [_read_tensor(source, alignment) for _ in range(tensors)]
    start = -(-source.position // alignment) * alignment
    infos, notes = _place(source, rows, start, alignment, values)
    return _File(source.path, values, metadata, infos, tuple(notes))


# --- the metadata -----------------------------------------------------------------------------------------------------


def _read_metadata(source: _Source, count: int) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for _ in range(count):
        key = _decode(source.text(MAX_KEY, "a key"), "a key")
        if key in values:
            raise ValueError(f"the key {shown(key)} appears twice")
        kind = source.number(_U32)
        try:
            values[key] = _Value(kind, _read_value(source, kind))
        except ValueError as error:
            raise ValueError(f"{shown(key)}: {error}") from None
        if source.position > MAX_METADATA:
            raise ValueError(f"its metadata is larger than {MAX_METADATA:,} bytes")
    return values


def _read_value(source: _Source, kind: int) -> object:
    if kind == _TEXT:
        return _read_text(source)
    if kind == _ARRAY:
        return _read_array(source)
    form = _NUMBERS.get(kind)
    if form is None:
        raise ValueError(f"values of type {kind} are unknown")
    number = source.number(form)
    if kind == _BOOL:
        if number > 1:
            raise ValueError("it is neither true nor false")
        return bool(number)
    return _single(number) if kind == _FLOAT32 else number


def _read_text(source: _Source) -> object:
    length = source.length(MAX_TEXT, "a text")
    if length > KEPT_TEXT:
        source.skip(length)
        return _Summary(f"[{length:,} bytes of text]")
    return source.bytes(length).decode("utf-8", "replace")  # llama.cpp does not mind either


def _read_array(source: _Source) -> object:
    """A short list as it is, a long one as a summary: it is walked over and none of its items is looked at."""
    kind, count = source.number(_U32), source.number(_U64)
    if count > MAX_ITEMS:
        raise ValueError(f"a list claims {count:,} items, of {MAX_ITEMS:,} allowed")
    if kind == _ARRAY:
        source.count_lists(count)
        for _ in range(count):
            _skip_array(source)
        return _Summary(f"[{count} lists]")
    if kind != _TEXT and kind not in _NUMBERS:
        raise ValueError(f"lists of type {kind} are unknown")
    if count <= KEPT_ITEMS and source.may_keep(count):
        items = [_read_value(source, kind) for _ in range(count)]
        if sum(len(item) for item in items if isinstance(item, str)) <= KEPT_TEXT:
            return items
    else:
        source.skip_texts(count) if kind == _TEXT else source.skip(count * _NUMBERS[kind].size)
    what = "texts" if kind == _TEXT else "truth values" if kind == _BOOL else "numbers"
    return _Summary(f"[{count} {what}]")


def _skip_array(source: _Source) -> None:
    kind, count = source.number(_U32), source.number(_U64)
    if kind == _ARRAY:
        raise ValueError("lists are nested in lists of lists")
    if count > MAX_ITEMS:
        raise ValueError(f"a list claims {count:,} items, of {MAX_ITEMS:,} allowed")
    if kind == _TEXT:
        source.skip_texts(count)
    elif kind in _NUMBERS:
        source.skip(count * _NUMBERS[kind].size)
    else:
        raise ValueError(f"lists of type {kind} are unknown")
    if source.position > MAX_METADATA:
        raise ValueError(f"its metadata is larger than {MAX_METADATA:,} bytes")


def _check_metadata(values: Mapping[str, _Value]) -> None:
    """What has broken programs that read it: layers without end, and templates that are no templates."""
    for key, value in values.items():
        if key.endswith(".block_count") and not (
            value.kind in _INTEGERS and isinstance(value.content, int) and 0 <= value.content <= MAX_BLOCKS
        ):
            raise ValueError(f"{shown(key)} must be a whole number of at most {MAX_BLOCKS:,}")
        if key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template."):
            if value.kind != _TEXT:
                raise ValueError(f"{shown(key)} must be a text")
            if isinstance(value.content, _Summary):  # too long to be kept, and so for a template
                raise ValueError(f"{shown(key)} is longer than {MAX_TEMPLATE:,} bytes")
        if key == "general.architecture" and not isinstance(value.content, str):
            raise ValueError(f"{key} must be a text")


def _alignment(values: Mapping[str, _Value]) -> int:
    value = values.get("general.alignment")
    if value is None:
        return _ALIGNMENT
    alignment = value.content
    if value.kind != _UINT32 or not isinstance(alignment, int):
        raise ValueError("general.alignment must be a whole number of 32 bits")
    if not 8 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment:,}, and must be a power of two from 8 to {MAX_ALIGNMENT:,}")
    return alignment


# --- the tensors ------------------------------------------------------------------------------------------------------

# Of convolutions over time too, which ComfyUI-GGUF's fix_5d_tensors.py puts into the files of video models.
_AXES_OF_COMFYUI = 5

_Row = tuple[int, int, str, str, tuple[int, ...]]  # start and end among the tensors' bytes, name, type, shape


def _read_tensor(source: _Source, alignment: int) -> _Row:
    name = _decode(source.text(MAX_NAME, "a tensor's name"), "a tensor's name")
    axes = source.number(_U32)
    try:
        if not 1 <= axes <= _AXES_OF_COMFYUI:
            raise ValueError(f"it has {axes:,} axes, of 1 to 4 allowed")
        sizes = tuple(source.number(_U64) for _ in range(axes))
        kind, start = source.number(_U32), source.number(_U64)
        if min(sizes) < 1 or max(sizes) > MAX_DIMENSION:
            raise ValueError(f"a size in its shape is no number from 1 to {MAX_DIMENSION:,}")
        elements = math.prod(sizes)
        if elements > MAX_ELEMENTS:
            raise ValueError(f"it claims {elements:,} numbers, of {MAX_ELEMENTS:,} allowed")
        if kind in _WITHDRAWN:
            raise ValueError(f"it is quantised as {_WITHDRAWN[kind]}, which ggml has withdrawn")
        if kind not in TYPES:
            raise ValueError(f"numbers of type {kind} are unknown")
        word, block, size = TYPES[kind]
        if sizes[0] % block:
            raise ValueError(f"its rows of {sizes[0]:,} are not made of whole blocks of {block} ({word})")
        if start % alignment:
            raise ValueError(f"it begins at byte {start:,}, which is no multiple of {alignment:,}")
    except ValueError as error:
        raise ValueError(f"tensor {shown(name)}: {error}") from None
    if axes == _AXES_OF_COMFYUI:
        what = f"its tensor {shown(name)} has 5 axes, and no ggml reads more than 4: it was made for ComfyUI-GGUF alone"
        raise FormatError(source.path, what, "that is no damage; use it there, or get this model as safetensors")
    return start, start + elements // block * size, name, word, sizes[::-1]


def _place(
    source: _Source, rows: list[_Row], data: int, alignment: int, values: Mapping[str, _Value]
) -> tuple[dict[str, TensorInfo], list[str]]:
    """The tensors in the order of their bytes, none of which belongs to two or is not there; and notes."""
    infos: dict[str, TensorInfo] = {}
    position = unused = 0
    for start, end, name, word, shape in sorted(rows):
        if name in infos:
            raise ValueError(f"two tensors are called {shown(name)}")
        if start < position:
            raise ValueError(f"tensor {shown(name)} shares bytes with another one")
        unused = max(unused, start - position)
        infos[name] = TensorInfo(word, _original_shape(values, name, shape), source.path, data + start, data + end)
        position = end
    if infos and data + position > source.size:
        there = f"{source.size:,} of {data + position:,} bytes are there"
        raise FormatError(source.path, f"cut short: {there}, {data + position - source.size:,} are missing", _CUT)
    unused = max(unused, source.size - data - position)
    notes = [f"{unused:,} bytes in a row belong to no tensor"] if unused >= alignment else []
    if longest := max((name for name in infos if len(name.encode()) > 63), key=len, default=""):
        notes.append(f"names that are too long for llama.cpp, such as {shown(longest)}")
    return infos, notes


def _original_shape(values: Mapping[str, _Value], name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the tensor had before ComfyUI-GGUF cut it into rows that can be quantised."""
    value = values.get(_ORIGINAL_SHAPE + name)
    if value is None:
        return shape
    sizes = value.content
    if not isinstance(sizes, list) or not all(type(size) is int and 1 <= size <= MAX_DIMENSION for size in sizes):
        raise ValueError(f"{_ORIGINAL_SHAPE}{shown(name)} is no list of sizes")
    if math.prod(sizes) != math.prod(shape):
        raise ValueError(f"{_ORIGINAL_SHAPE}{shown(name)} does not hold as many numbers as the tensor")
    return tuple(sizes)


# --- split models -----------------------------------------------------------------------------------------------------


def later_part_of(name: str) -> str | None:
    """The name of a split model's first part, where `name` is that of another one."""
    match = _PART.fullmatch(name)
    if match is None or int(match["number"]) < 2:
        return None
    return f"{match['stem']}-00001-of-{match['count']}.gguf"


def _other_parts(first: _File) -> Iterator[_File]:
    """The other parts of a split model, from the same folder; none for a whole one."""
    number, count = first.integer("split.no") or 0, first.integer("split.count") or 0
    if number == 0 and count <= 1:
        return
    path = first.path
    if not 0 <= number < count <= MAX_PARTS:
        raise FormatError(path, f"it says that it is part {number + 1:,} of {count:,}", _DAMAGED)
    match = _PART.fullmatch(path.name)
    named = match is not None and (int(match["number"]), int(match["count"])) == (number + 1, count)
    if number:
        known = later_part_of(path.name) if named else None
        remedy = f"choose its first part, {shown(known)}" if known else "choose its first part"
        raise FormatError(path, f"this is part {number + 1} of {count} of a model that was split", remedy)
    if match is None or not named:
        name = f"NAME-00001-of-{count:05}.gguf"
        what = f"this is the first of {count} parts of a model, and is not called {name}, so the others can't be found"
        raise FormatError(path, what, "give all parts the names back under which they were published")
    others = [path.with_name(f"{match['stem']}-{each:05}-of-{match['count']}.gguf") for each in range(2, count + 1)]
    if missing := [other.name for other in others if not other.is_file()]:
        what = f"{len(missing)} of its {count} parts are missing: {', '.join(map(shown, missing[:3]))}"
        raise FormatError(path, what + (" ..." if missing[3:] else ""), "download them into the same folder")
    places = places_of(path.parent)
    for index, other in enumerate(others, 1):
        check_place(other, places)
        if (kind := sniff(other)) != "gguf":
            raise refusal(other, kind)
        part = _read(other)
        if (part.integer("split.no"), part.integer("split.count")) != (index, count):
            raise FormatError(other, f"by its metadata it is not part {index + 1} of {count}", _DAMAGED)
        yield part


# --- bytes ------------------------------------------------------------------------------------------------------------


class _Source:
    """Reads a file from its beginning through a window that moves, so that a header of any size takes little memory."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path = path
        self.size = size
        self._file = file
        self._window = b""
        self._begin = 0  # where in the file the window begins
        self._at = 0  # where in the window we are
        self._texts = self._lists = 0  # how many were walked over
        self._items = MOST_ITEMS

    @property
    def position(self) -> int:
        """Where in the file we are."""
        return self._begin + self._at

    def number(self, form: struct.Struct) -> int:
        """The next number (a float where the form is one of a float)."""
        at = self._take(form.size)
        return form.unpack_from(self._window, at)[0]  # type: ignore[no-any-return]

    def length(self, limit: int, what: str) -> int:
        """The length of the text that follows, in bytes."""
        length = self.number(_U64)
        if length > limit:
            raise ValueError(f"{what} claims {length:,} bytes, of {limit:,} allowed")
        return length

    def text(self, limit: int, what: str) -> bytes:
        """The next text."""
        return self.bytes(self.length(limit, what))

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        at = self._take(count)
        return self._window[at : at + count]

    def may_keep(self, count: int) -> bool:
        """Whether there is room for so many more items of lists; those of one file are not many."""
        self._items -= count
        return self._items >= 0

    def count_lists(self, count: int) -> None:
        """Allow for so many lists in a list: an empty one takes twelve bytes, and as long to read as any."""
        self._lists += count
        if self._lists > MAX_LISTS:
            raise ValueError(f"its lists claim {self._lists:,} lists, of {MAX_LISTS:,} allowed")

    def skip(self, count: int) -> None:
        """Go on behind the next `count` bytes, which must be there."""
        if count > self.size - self.position:
            raise self._cut()
        self._at += count

    def skip_texts(self, count: int) -> None:
        """Go on behind the next `count` texts, whose lengths alone are read: a tokenizer has hundreds of thousands."""
        if count * _U64.size > self.size - self.position:
            raise self._cut()
        self._texts += count
        if self._texts > MAX_ITEMS:
            raise ValueError(f"its lists claim {self._texts:,} texts, of {MAX_ITEMS:,} allowed")
        length_at = _U64.unpack_from
        while count:
            self._fill(_U64.size)
            window, at, walked, length = self._window, self._at, 0, 0
            try:
                for walked in range(count):  # noqa: B007
                    length = length_at(window, at)[0]
                    at += 8 + length
                walked = count
            except (struct.error, OverflowError, IndexError):
                pass  # the next length is behind the window
            if length > MAX_TEXT:  # all texts before this one are as short as the window
                raise ValueError(f"a text claims {length:,} bytes, of {MAX_TEXT:,} allowed")
            self.skip(at - self._at)
            if self.position > MAX_METADATA:
                raise ValueError(f"its metadata is larger than {MAX_METADATA:,} bytes")
            count -= walked

    def _take(self, count: int) -> int:
        """Where in the window the next `count` bytes are; then goes on behind them."""
        self._fill(count)
        at = self._at
        self._at += count
        return at

    def _fill(self, count: int) -> None:
        """Move the window so that it holds the next `count` bytes."""
        if self._at + count <= len(self._window):
            return
        self._begin += self._at
        self._at = 0
        self._file.seek(self._begin)
        self._window = self._file.read(max(count, _WINDOW))
        if len(self._window) < count:
            raise self._cut()

    def _cut(self) -> FormatError:
        return FormatError(self.path, f"cut short: a GGUF header that goes on behind its {self.size:,} bytes", _CUT)


# --- values as text ---------------------------------------------------------------------------------------------------


def _decode(raw: bytes, what: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"{what} is no text") from None


def _single(number: float) -> float:
    """A number of 32 bits with as few digits as tell it from its neighbours: 1e-05, not 9.999999747378752e-06."""
    if not math.isfinite(number):
        return number
    pack: Callable[[float], bytes] = _NUMBERS[_FLOAT32].pack
    for digits in range(6, 9):
        short = float(f"{number:.{digits}g}")
        if abs(short) < 3.4e38 and pack(short) == pack(number):
            return short
    return number


def _plain(content: object) -> object:
    """The content as JSON can hold it."""
    if isinstance(content, list):
        return [_plain(item) for item in content]
    if isinstance(content, _Summary):
        return content.words
    if isinstance(content, float) and not math.isfinite(content):
        return str(content)
    return content
