"""Safetensors: what is valid is read, what is broken or means two things is refused with its reason."""

from __future__ import annotations

import errno
import io
import itertools
import json
import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import safetensors as reference
import safetensors.numpy as safetensors_numpy
from conftest import growth

from bottega.errors import FormatError, SaveError
from bottega.formats import header as headers
from bottega.formats import read_header, safetensors
from bottega.formats.atomic import atomic
from bottega.formats.layout import Layout, once_a_layout
from bottega.formats.polyglot import other_kind


def container(header: bytes | dict, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def tensor(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4), **more: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def deep(levels: int) -> bytes:
    inner = b"[" * levels + b"]" * levels
    return b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":' + inner + b"}}"


FOUR = b"\0" * 4
ONE = json.dumps({"a": tensor()}).encode()

# Refused by the reference library too (security.md 3.1).
BROKEN = {
    "header length over every limit": (container(ONE, FOUR, 1 << 63), "claims"),
    "header length of all ones": (container(ONE, FOUR, (1 << 64) - 1), "claims"),
    "header length over 100 MB": (container(ONE, FOUR, 100_000_001), "claims"),
    "header longer than the file": (container(ONE, b"", len(ONE) + 100), "cut short"),
    "seven bytes": (b"\x10\0\0\0\0\0\0", "damaged"),
    "empty file": (b"", "empty"),
    "no header": (container(b""), "nothing but zeros"),
    "header of NULs": (container(b"\0" * 16), "damaged"),
    "NUL padding": (container(ONE + b"\0\0\0\0", FOUR), "header is broken"),
    "bad UTF-8": (container(b'{"\xff":{}}'), "header is broken"),
    "bad JSON": (container(b'{"a":}'), "header is broken"),
    "cut JSON": (container(b'{"a":'), "header is broken"),
    "an array": (container(b"[]"), "damaged"),
    "a number": (container(b"17"), "damaged"),
    "an array inside": (container({"a": [1, 2]}), "no JSON object"),
    "130 levels": (container(deep(130), FOUR), "deep"),
    "a million levels": (container(deep(1_000_000), FOUR), "that tensors can need"),
    "overlap": (container({"a": tensor(), "b": tensor()}, FOUR), "shares bytes"),
    "partial overlap": (container({"a": tensor(), "b": tensor(offsets=(2, 6))}, b"\0" * 6), "shares bytes"),
    "hole": (container({"a": tensor(), "b": tensor(offsets=(8, 12))}, b"\0" * 12), "gap"),
    "hole at the start": (container({"a": tensor(offsets=(4, 8))}, b"\0" * 8), "gap"),
    "trailing bytes": (container(ONE, b"\0" * 5), "1 bytes at its end"),
    "truncated data": (container(ONE, b"\0\0\0"), "1 are missing"),
    "no data": (container(ONE), "4 are missing"),
    "unknown dtype": (container({"a": tensor("F33")}, FOUR), "dtype"),
    "lower-case dtype": (container({"a": tensor("f32")}, FOUR), "dtype"),
    "number as dtype": (container({"a": tensor(32)}, FOUR), "dtype"),
    "list as dtype": (container({"a": tensor(["F32"])}, FOUR), "dtype"),
    "shape too large": (container({"a": tensor(shape=(2,))}, FOUR), "takes 8 bytes"),
    "shape too small": (container({"a": tensor(shape=(1,), offsets=(0, 8))}, b"\0" * 8), "takes 4 bytes"),
    "shape overflows": (container({"a": tensor(shape=(1 << 32, 1 << 32), offsets=(0, 0))}), "takes"),
    "shape overflows before a zero": (
        container({"a": tensor(shape=(1 << 39,) * 3 + (0,), offsets=(0, 0))}),
        "too large",
    ),
    "shape is text": (container({"a": tensor(shape="1")}, FOUR), "shape"),
    "shape is null": (container({"a": tensor(shape=None)}, FOUR), "shape"),
    "negative size": (container({"a": tensor(shape=(-1,))}, FOUR), "shape"),
    "negative sizes": (container({"a": tensor(shape=(-1, -1))}, FOUR), "shape"),
    "float size": (container({"a": tensor(shape=(1.0,))}, FOUR), "shape"),
    "true as size": (container({"a": tensor(shape=(True,))}, FOUR), "shape"),
    "bignum size": (container({"a": tensor(shape=(1 << 70,))}, FOUR), "shape"),
    "5,000 digits": (
        container(ONE.replace(b"[1]", b"[" + b"9" * 5000 + b"]"), FOUR),
        "number in it has too many digits;",
    ),
    "no UTF-8": (container(ONE.replace(b'"a"', b'"\xff"'), FOUR), r"it is no UTF-8 text \(byte 2\);"),
    "another object behind it": (container(ONE + b"{}", FOUR), r"something follows its end \(line 1, column \d+\);"),
    "NaN": (container(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', FOUR), "NaN"),
    "no dtype": (container({"a": {"shape": [1], "data_offsets": [0, 4]}}, FOUR), "'dtype' is not said"),
    "no shape": (container({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, FOUR), "'shape' is not said"),
    "no offsets": (container({"a": {"dtype": "F32", "shape": [1]}}, FOUR), "'data_offsets' is not said"),
    "one offset": (container({"a": tensor(offsets=(0,))}, FOUR), "two numbers"),
    "three offsets": (container({"a": tensor(offsets=(0, 4, 8))}, FOUR), "two numbers"),
    "reversed offsets": (container({"a": tensor(offsets=(4, 0))}, FOUR), "smaller first"),
    "negative offset": (container({"a": tensor(offsets=(-4, 0))}, FOUR), "smaller first"),
    "float offset": (container({"a": tensor(offsets=(0, 4.0))}, FOUR), "whole numbers"),
    "lone surrogate": (container(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', FOUR), "surrogate"),
    "metadata is a number": (container({"__metadata__": {"a": 1}, **json.loads(ONE)}, FOUR), "only hold text"),
    "metadata is nested": (container({"__metadata__": {"a": {"b": "c"}}, **json.loads(ONE)}, FOUR), "only hold text"),
    "metadata is a list": (container({"__metadata__": ["a"], **json.loads(ONE)}, FOUR), "only hold text"),
    "metadata twice": (container(b'{"__metadata__":{},"__metadata__":{},' + ONE[1:], FOUR), "twice"),
    "half a byte": (container({"a": tensor("F4", (1,), (0, 1))}, b"\0"), "takes 0.5 bytes"),
}

# Accepted by the reference library, refused by us: they mean two things, or nothing sensible.
STRICTER = {
    "a tensor twice": (container(ONE[:-1] + b"," + ONE[1:], FOUR), "twice"),
    "a tensor twice, as another dtype": (container(ONE[:-1] + b"," + ONE[1:].replace(b"F32", b"I32"), FOUR), "twice"),
    "a field twice": (container(ONE.replace(b'"dtype"', b'"x":1,"x":2,"dtype"'), FOUR), "twice"),
    "65 axes": (container({"a": tensor(shape=(1,) * 65)}, FOUR), "at most 64"),
    "10,000 axes": (container({"a": tensor(shape=(1,) * 10_000)}, FOUR), "at most 64"),
    "a size of 2^62 beside a zero": (container({"a": tensor(shape=(0, 1 << 62), offsets=(0, 0))}), "shape"),
    "a shape that overflows behind a zero": (
        container({"a": tensor(shape=(0, 1 << 39, 1 << 39), offsets=(0, 0))}),
        "too large",
    ),
    "33 levels in a field we ignore": (container(deep(33), FOUR), "deep"),
}

# Odd, and read by both.
ODD = {
    "leading white space": container(b" \n\t" + ONE, FOUR),
    "trailing white space": container(ONE + b"  \n", FOUR),
    "unknown field": container({"a": tensor(x={"y": [1]})}, FOUR),
    "no tensors": container({}),
    "a scalar": container({"a": tensor(shape=())}, FOUR),
    "64 axes": container({"a": tensor(shape=(1,) * 64)}, FOUR),
    "empty name": container({"": tensor()}, FOUR),
    "path as name": container({"../../x": tensor()}, FOUR),
    "HTML as name": container({"<img onerror=alert(1)>": tensor()}, FOUR),
    "control characters in a name": container({"\x1b[31m\0": tensor()}, FOUR),
    "a name outside the basic plane": container(json.dumps({"\U0001f98a": tensor()}).encode(), FOUR),
    "empty tensors in one place": container(
        {"e": tensor(shape=(0,), offsets=(0, 0)), "a": tensor(), "f": tensor(shape=(0, 7), offsets=(0, 0))}, FOUR
    ),
    "not in the order of bytes": container({"b": tensor(offsets=(4, 8)), "a": tensor()}, b"\0" * 8),
    "two half bytes": container({"a": tensor("F4", (2,), (0, 1))}, b"\0"),
}


def reference_accepts(raw: bytes) -> bool:
    try:
        reference.deserialize(raw)
    except reference.SafetensorError:
        return False
    return True


def write(folder: Path, raw: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_as_by_the_reference_library(tmp_path: Path, case: str) -> None:
    raw, word = BROKEN[case]
    assert not reference_accepts(raw)
    with pytest.raises(FormatError, match=word) as caught:
        read_header(write(tmp_path, raw))
    assert caught.value.remedy and caught.value.path == tmp_path / "model.safetensors"
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


@pytest.mark.parametrize("case", STRICTER)
def test_files_with_two_meanings_or_none_are_refused_though_the_reference_library_reads_them(
    tmp_path: Path, case: str
) -> None:
    raw, word = STRICTER[case]
    assert reference_accepts(raw)
    with pytest.raises(FormatError, match=word):
        read_header(write(tmp_path, raw))


@pytest.mark.parametrize("case", ODD)
def test_odd_files_are_read(tmp_path: Path, case: str) -> None:
    assert reference_accepts(ODD[case])
    header = read_header(write(tmp_path, ODD[case]))
    assert sorted(header.tensors) == sorted(name for name, _ in reference.deserialize(ODD[case]))
    assert bool(header.notes) == (case in ("leading white space", "no tensors"))


def test_dtypes_are_those_of_the_reference_library() -> None:
    for dtype, size in headers.BYTES_OF_DTYPE.items():
        width = int(size * 8)
        assert reference_accepts(container({"a": tensor(dtype, (8,), (0, width))}, b"\0" * width)), dtype


def test_every_truncation_of_a_file_says_that_it_is_cut_or_what_is_left(tmp_path: Path) -> None:
    raw = container({"a": tensor(), "b": tensor("F16", (4,), (4, 12))}, bytes(range(12)))
    for length in range(len(raw)):
        with pytest.raises(FormatError) as caught:
            read_header(write(tmp_path, raw[:length]))
        if length > 9:
            assert "cut short" in str(caught.value)


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    chance = random.Random(1)
    raw = container({"__metadata__": {"a": "b"}, "a": tensor(), "b": tensor("F16", (4,), (4, 12))}, bytes(range(12)))
    for _ in range(600):
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            read_header(write(tmp_path, bytes(damaged)))
        except FormatError:
            continue
        assert reference_accepts(bytes(damaged))


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(20), "JPEG picture"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP picture"),
        (b"GIF89a" + bytes(20), "GIF picture"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html><html>", "web page"),
        (b"  <html><body>Sign in", "web page"),
        (b'{"error":"Unauthorized"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"PK\x03\x04" + bytes(26) + b"holiday.txt", "archive"),
        (b"GGUF\x03\0\0\0", "GGUF"),
        (b"", "empty file"),
        (b"\x01what is this", "damaged"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, head: bytes, name: str) -> None:
    for reader in (read_header, safetensors.read_header):
        with pytest.raises(FormatError, match=name) as caught:
            reader(write(tmp_path, head))
        assert caught.value.remedy


def both_ways(raw: bytes) -> tuple[object, object]:
    """What the quick way makes of a header (None: it leaves it to the other one), and what the other one does."""
    return read_by(safetensors._parse_usual, raw), read_by(safetensors._parse_any, raw)


def read_by(parse: Callable[[bytes], tuple[dict[str, str], Layout] | None], raw: bytes) -> object:
    try:
        told = parse(raw)
    except ValueError:
        return None
    return told and (told[0], list(told[1].rows.items()))


USUAL = (
    b'{"__metadata__":{"format":"pt","tags":"{\\"a\\": 1, \\"\\u00e9:\\": [2]}"},'
    b'"a.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"b":{"dtype":"F32","shape":[],"data_offsets":[12,16]},'
    b'"c.weight":{"dtype":"F16","shape":[2,3],"data_offsets":[16,28]}}    '
)


def test_headers_as_everybody_writes_them_are_read_the_quick_way(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for metadata in (None, {"format": "pt", "ss_tags": '{"a: b": {"c": 1}}', "雪": "\U0001f98a"}):
        arrays = {f"blk.{index}.weight": numpy.zeros((index, 2), "float16") for index in range(50)}
        safetensors_numpy.save_file(arrays, path, metadata)
        raw = path.read_bytes()
        header = raw[8 : 8 + int.from_bytes(raw[:8], "little")]
        quick, careful = both_ways(header)
        assert quick == careful and quick is not None
    quick, careful = both_ways(USUAL)
    assert quick == careful and quick is not None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"b":', b'"a.weight":'),  # a name twice
        (b'"b":', b'"__metadata__":'),
        (b'"b":', b'"b\\u0061":'),
        (b'"b":', b'"b\n":'),
        (b'"b":', b'"b\x7f":'),
        (b'"b":', b'"b:]},[":'),
        (b'"b":', b'"\xff":'),
        (b":[0,12]", b"[0,12]"),
        (b"[16,28]}}", b"[16,28],}"),
        (b"[0,12]", b"[0,12,12]"),
        (b"[12,16]", b"[16]"),
        (b"[0,12]},", b"[0],12},"),
        (b"[0,12]", b"[[0,12]]"),
        (b"[0,12]", b"[0,12.0]"),
        (b"[0,12]", b"[false,12]"),
        (b"[0,12]", b"[-12,0]"),
        (b"[0,12]", b"[12,0]"),
        (b"[0,12]", b"[00,12]"),
        (b"[0,12]", b"[ 0, 12 ]"),
        (b"[0,12]", b"[0,12]]"),
        (b"[0,12]", b"[0,1e1]"),
        (b"[0,12]", b"[0," + b"9" * 5000 + b"]"),
        (b"[2,3]", b"[2,true]"),
        (b"[2,3]", b"[6]"),
        (b"[2,3]", b"[2,3.0]"),
        (b"[2,3]", b"[-2,-3]"),
        (b"[2,3]", b"[2,3"),
        (b"[2,3]", b"2,3"),
        (b"[2,3]", b"[[2,3]]"),
        (b"[2,3]", b"[" + b"1," * 64 + b"6]"),
        (b'"F16"', b'"F4"'),
        (b'"F16"', b'"f16"'),
        (b'"F16"', b"1"),
        (b'"dtype":"F16","shape"', b'"dtype":"F16","dtype":"F16","shape"'),
        (b'"F32","shape":[]', b'"F32","shape":[],"x":[]'),
        (b'"dtype":"F32","shape":[]', b'"shape":[],"dtype":"F32"'),
        (b"]},", b"]}"),
        (b"]},", b"]}, "),
        (b"]},", b"]},,"),
        (b"]}}", b"]}"),
        (b"]}}", b"]}}}"),
        (b"]}}", b"]},}"),
        (b"}}    ", b"}}\0"),
        (b'"pt"', b'"pt","format":"pt"'),
        (b'"pt"', b"1"),
        (b'"pt"', b'{"a":"b"}'),
        (b'"pt"', b'"\\ud800"'),
        (b'{"__metadata__"', b' {"__metadata__"'),
        (b'{"__metadata__"', b'{"x"'),
        (b'"__metadata__":{"format"', b'"__metadata__":[],"y":{"format"'),
    ],
)  # fmt: skip
def test_both_ways_of_reading_a_header_agree(old: bytes, new: bytes) -> None:
    assert old in USUAL
    quick, careful = both_ways(USUAL.replace(old, new))
    assert quick is None or quick == careful


def test_both_ways_of_reading_a_header_agree_after_random_damage() -> None:
    chance = random.Random(3)
    pieces = [
        b",",
        b":",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b"0",
        b"12",
        b"-",
        b" ",
        b'":{"',
        b'"},"',
        b"]}",
        b"\x01",
    ]
    read = 0
    for _ in range(20_000):
        raw = USUAL
        for _ in range(chance.randint(1, 3)):
            begin = chance.randrange(len(raw))
            raw = raw[:begin] + chance.choice(pieces) + raw[begin + chance.choice((0, 1, 1, 2, 5)) :]
        quick, careful = both_ways(raw)
        assert quick is None or quick == careful, raw
        read += quick is not None
    assert read > 100


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no such file"):
        read_header(tmp_path / "missing.safetensors")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="no regular file"):
        read_header(tmp_path / "pipe")
    with pytest.raises(FormatError, match="no path"):
        read_header("a\0b")
    with pytest.raises(FormatError, match="a folder"):
        safetensors.read_header(tmp_path)


def rows(count: int, chance: random.Random) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    made = []
    for index in range(count):
        dtype = chance.choice([name for name, size in headers.BYTES_OF_DTYPE.items() if size >= 1])
        shape = tuple(chance.randint(0, 4) for _ in range(chance.randint(0, 4)))
        size = int(headers.BYTES_OF_DTYPE[dtype])
        for axis in shape:
            size *= axis
        made.append((f"{chance.choice(['a', 'é', 'x.y', '雪'])}{index}", dtype, shape, chance.randbytes(size)))
    return made


def test_what_is_written_is_read_by_us_and_by_the_reference_library(tmp_path: Path) -> None:
    chance = random.Random(2)
    path = tmp_path / "model.safetensors"
    for count in (0, 1, 2, 7, 50):
        tensors = rows(count, chance)
        safetensors.write(path, tensors, {"format": "pt", "note": 'tab\t"quoted" 雪'})
        header = read_header(path)
        theirs = dict(reference.deserialize(path.read_bytes()))
        assert header.metadata == {"format": "pt", "note": 'tab\t"quoted" 雪'}
        assert set(header.tensors) == set(theirs) == {name for name, *_ in tensors}
        for name, dtype, shape, raw in tensors:
            info = header.tensors[name]
            assert (info.dtype, info.shape) == (dtype, shape) == (theirs[name]["dtype"], tuple(theirs[name]["shape"]))
            assert safetensors.read_tensor(header, name) == raw == bytes(theirs[name]["data"])
            assert info.start % max(1, headers.BYTES_OF_DTYPE[dtype]) == 0
        starts = [info.start for info in header.tensors.values()]
        assert starts == sorted(starts)


def test_written_bytes_are_those_of_the_reference_library(tmp_path: Path) -> None:
    names = {"F32": "float32", "I64": "int64", "U8": "uint8", "F16": "float16"}
    tensors = [row for row in rows(60, random.Random(3)) if row[1] in names]
    path = tmp_path / "model.safetensors"
    safetensors.write(path, tensors, {"format": "pt"})
    arrays = {name: numpy.frombuffer(raw, names[dtype]).reshape(shape) for name, dtype, shape, raw in tensors}
    assert path.read_bytes() == safetensors_numpy.save(arrays, {"format": "pt"})


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    good = [("a", "F32", (1,), FOUR)]
    safetensors.write(path, good)
    before = path.read_bytes()
    for bad in (
        [("a", "F32", (2,), FOUR)],
        [("a", "F33", (1,), FOUR)],
        [*good, *good],
        [("__metadata__", "F32", (1,), FOUR)],
    ):
        with pytest.raises(FormatError):
            safetensors.write(path, bad)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveError, match=r"No space left.*free some space"):
        safetensors.write(path, [("b", "F32", (1,), FOUR)])
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic(tmp_path / "x") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    with pytest.raises(SaveError, match="make its folder first"), atomic(tmp_path / "no" / "x"):
        pass


def test_a_tensor_that_is_not_there_or_not_any_more_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, container(ONE, FOUR))
    header = read_header(path)
    with pytest.raises(FormatError, match=r"no tensor 'b\\x1b'"):
        safetensors.read_tensor(header, "b\x1b")
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="shorter"):
        safetensors.read_tensor(header, "a")


def test_limits_on_numbers_of_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = container({"__metadata__": {"k": "v" * 100}, "a": tensor(), "b": tensor(offsets=(4, 8))}, b"\0" * 8)
    path = write(tmp_path, raw)
    for limit, word in (("MAX_HEADER", "claims"), ("MAX_METADATA", "larger than"), ("MAX_TENSORS", "2 tensors")):
        with monkeypatch.context() as patch, pytest.raises(FormatError, match=word):
            patch.setattr(safetensors, limit, 1)
            read_header(path)


@pytest.mark.parametrize(
    "field",
    [
        b'"x":[%b0]' % (b"[[]]," * 300_000),
        b'"x":[%b0]' % (b'{"a":0},' * 300_000),
        b'"x":[%b0]' % (b"1000," * 300_000),
        b'"x":{%b}' % b",".join(b'"%x":0' % index for index in range(300_000)),
        b'"x":["%b",%b0]' % (b'\\"[],:{' * 9, b'"\\\\",[],' * 300_000),  # texts with marks and escapes in them
    ],
    ids=["lists", "objects", "numbers", "keys", "texts"],
)
def test_nothing_is_made_of_what_no_tensor_needs(tmp_path: Path, field: bytes) -> None:
    entry = b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]'
    for header in (b'{"a":%b,%b}}' % (entry, field), b'{"__metadata__":{%b},"a":%b}}' % (field, entry)):
        raw = container(header, FOUR)
        tracemalloc.start()
        with pytest.raises(FormatError, match="that tensors can need"):
            read_header(write(tmp_path, raw))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4 * len(raw)


def test_metadata_may_be_long_json(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    metadata = {"ss_tag_frequency": json.dumps({f"a \\ [{index}]": {"{": [index]} for index in range(120_000)})}
    safetensors.write(path, [("a", "U8", (4,), FOUR)], metadata)
    assert read_header(path).metadata == metadata


@pytest.mark.slow
def test_a_header_of_many_tensors_is_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"

    def read(names: str) -> None:
        safetensors.write(
            path, ((f"model.blocks.{index}.weight", "F16", (2, 2), bytes(8)) for index in range(len(names)))
        )
        read_header(path)

    assert growth(read, "x" * 40_000) < 100


def test_a_header_counts_its_blocks_in_one_pass(tmp_path: Path) -> None:
    names = [f"m.layers.{index}.w" for index in (*range(12), 13)] + ["m.layers.01.w", "m.layers." + "9" * 5000 + ".w"]
    path = tmp_path / "model.safetensors"
    starts = itertools.count()
    safetensors.write(path, [(name, "U8", (1,), bytes([next(starts) % 256])) for name in names])
    view = read_header(path).under("m.")
    assert view.count("layers.{}.") == 12 and view.count("blocks.{}.") == 0
    assert view.size("layers.0.w", 0) == 1 and view.size("layers.0.w", 1) is None and view.shape("x") is None


# --- layouts that are kept --------------------------------------------------------------------------------------------


def laid_out(names: str, metadata: dict[str, str] | None = None) -> bytes:
    """A file as the reference library writes it, with a tensor of four bytes for each letter."""
    entries: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    entries |= {name: tensor("F16", [2], [4 * index, 4 * index + 4]) for index, name in enumerate(names)}
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return container(raw, bytes(range(4 * len(names))))


def read_afresh(path: Path) -> headers.Header:
    safetensors._kept.cache_clear()
    return read_header(path)


def test_two_files_of_one_layout_share_it_and_nothing_else(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    first.write_bytes(laid_out("ab", {"title": "one"}))
    second.write_bytes(laid_out("ab", {"title": "the other, told at length"}))
    safetensors._kept.cache_clear()
    one, other = read_header(first), read_header(second)
    assert one.layout is other.layout and safetensors._kept.cache_info().hits == 1
    assert (one.metadata["title"], other.metadata["title"]) == ("one", "the other, told at length")
    for header, path in ((one, first), (other, second)):
        assert {info.file for info in header.tensors.values()} == {path}
        assert header.tensors["b"].end == path.stat().st_size
        assert safetensors.read_tensor(header, "b") == bytes((4, 5, 6, 7))


def test_a_header_whose_layout_was_kept_equals_one_that_was_read_afresh(tmp_path: Path) -> None:
    path = write(tmp_path, laid_out("cab", {"format": "pt"}))
    afresh = read_afresh(path)
    kept = read_header(path)
    assert safetensors._kept.cache_info().hits == 1
    assert kept == afresh and list(kept.tensors.items()) == list(afresh.tensors.items())
    plain = headers.Header(path, "safetensors", dict(afresh.tensors), kept.metadata)
    assert kept == plain and list(kept.tensors) == list(plain.tensors)
    for told in ("roots", "endings", "dtypes", "parameters", "bytes"):
        assert getattr(kept, told) == getattr(plain, told), told


def test_what_a_header_shares_cannot_be_changed(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, laid_out("ab")))
    with pytest.raises(TypeError):
        header.tensors["x"] = header.tensors["a"]  # type: ignore[index]
    header.dtypes.clear()
    assert header.dtypes == {"F16": 8}


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (laid_out("ab")[:-1], "cut short"),
        (laid_out("ab")[:60], "cut short"),
        (laid_out("ab") + b"\0", "belong to no tensor"),
        (laid_out("ab", {"a": "b"}).replace(b'"b"}', b"[1]}"), "hold text"),
        (laid_out("ab").replace(b"}}", b"}\0", 1), "broken"),
    ],
)
def test_a_broken_file_is_refused_though_its_layout_is_known(tmp_path: Path, broken: bytes, word: str) -> None:
    read_header(write(tmp_path, laid_out("ab", {"a": "b"})))
    sound = read_header(write(tmp_path, laid_out("ab")))
    for _ in range(2):
        with pytest.raises(FormatError, match=word):
            read_header(write(tmp_path, broken))
    assert read_header(write(tmp_path, laid_out("ab"))).layout is sound.layout


def test_few_layouts_are_kept_and_none_that_is_broken_or_huge(tmp_path: Path) -> None:
    safetensors._kept.cache_clear()
    names = [chr(0x4E00 + index) for index in range(safetensors.KEPT_LAYOUTS + 20)]
    for name in names:
        read_header(write(tmp_path, laid_out(name)))
    assert safetensors._kept.cache_info().currsize == safetensors.KEPT_LAYOUTS
    safetensors._kept.cache_clear()
    gap = container({"a": tensor(offsets=[4, 8])}, bytes(8))
    huge = {f"{index:0100}": tensor("U8", [0], [0, 0]) for index in range(safetensors.KEPT_LENGTH // 100)}
    with pytest.raises(FormatError, match="gap"):
        read_header(write(tmp_path, gap))
    assert len(read_header(write(tmp_path, container(json.dumps(huge, separators=(",", ":")).encode()))).tensors) > 5000
    assert safetensors._kept.cache_info().currsize == 0


def test_what_is_found_in_a_layout_is_looked_for_once(tmp_path: Path) -> None:
    asked = []

    @once_a_layout
    def longest(layout: Layout, prefix: str, *, more: int = 0) -> int:
        asked.append(prefix)
        return max(map(len, layout.rows)) + more

    path = write(tmp_path, laid_out("ab", {"a": "b"}))
    one, other = read_afresh(path), read_header(path)
    assert [longest(header.layout, "x") for header in (one, other)] == [1, 1] and asked == ["x"]
    assert longest(other.layout, "y", more=1) == 2 and asked == ["x", "y"]
    assert longest(read_afresh(path).layout, "x") == 1 and asked == ["x", "y", "x"]


def test_an_honest_header_of_any_length_is_no_other_format() -> None:
    names = (f"model.layers.{index}.self_attn.c_proj.weight" for index in itertools.count())
    entries = {name: tensor(offsets=(4 * index, 4 * index + 4)) for index, name in zip(range(800), names, strict=False)}
    header = json.dumps(entries).encode().ljust(100_000)
    data = random.Random(7).randbytes(1 << 16)
    for length in range(2, len(header)):
        raw = length.to_bytes(8, "little") + header[:length] + data[length % 50_000 :][:4_096]
        assert not other_kind(io.BytesIO(raw), len(raw)), length


def test_a_sparse_file_whose_length_begins_a_line_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    size = 1 << 40  # reading it would take an hour
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode().ljust(0x56)
    path.write_bytes(struct.pack("<Q", 0x56) + header)  # V: a text up to the end of its line
    os.truncate(path, 8 + 0x56 + size)
    assert read_header(path).parameters == size
