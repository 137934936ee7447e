"""GGUF: every published type is read, and every number that lies is refused with its reason, at once and cheaply."""

from __future__ import annotations

import json
import math
import random
import struct
import tracemalloc
from pathlib import Path

import gguf_files as files
import pytest
from gguf_files import BOOL, F32, F64, I32, LIST, TEXT, U8, U16, U32, U64, items, key, model, tensor, text

from bottega.errors import FormatError
from bottega.formats import gguf, read_header

SMALL = [("token_embd.weight", "F16", (4, 8)), ("blk.0.attn_q.weight", "Q8_0", (2, 64)), ("output.bias", "F32", (3,))]


def write(folder: Path, raw: bytes, name: str = "model.gguf") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def one(raw: bytes = bytes(32), **lies: object) -> bytes:
    """A file with one tensor of eight numbers."""
    return files.file(tensors=[tensor("a", **({"sizes": (8,)} | lies))], data=raw)  # type: ignore[arg-type]


def with_keys(*keys: bytes) -> bytes:
    return files.file(keys, [tensor("a", (8,))], bytes(32))


# --- what is valid ----------------------------------------------------------------------------------------------------


def test_tensors_are_as_torch_would_say_them(tmp_path: Path) -> None:
    header = read_header(write(tmp_path, model(SMALL)))
    assert header.format == "gguf" and header.notes == ()
    assert {name: (info.dtype, info.shape) for name, info in header.tensors.items()} == {
        name: (word, shape) for name, word, shape in SMALL
    }
    assert [info.end - info.start for info in header.tensors.values()] == [64, 2 * 2 * 34, 12]
    assert header.parameters == 32 + 128 + 3 and header.bytes == 64 + 136 + 12
    assert header.dtypes == {"Q8_0": 136, "F16": 64, "F32": 12}
    assert all(info.start % 32 == 0 and info.end <= header.path.stat().st_size for info in header.tensors.values())


# Elements and bytes of a block, as the documentation of ggml has them; a block of each type makes one tensor.
PUBLISHED = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34), "Q8_1": (9, 32, 36), "Q2_K": (10, 256, 256 // 16 + 256 // 4 + 4),
    "Q3_K": (11, 256, 256 // 8 + 256 // 4 + 12 + 2), "Q4_K": (12, 256, 4 + 12 + 128),
    "Q5_K": (13, 256, 4 + 12 + 32 + 128), "Q6_K": (14, 256, 128 + 64 + 16 + 2), "Q8_K": (15, 256, 4 + 256 + 32),
    "IQ2_XXS": (16, 256, 2 + 64), "IQ2_XS": (17, 256, 2 + 64 + 8), "IQ3_XXS": (18, 256, 2 + 64 + 32),
    "IQ1_S": (19, 256, 2 + 32 + 16), "IQ4_NL": (20, 32, 2 + 16), "IQ3_S": (21, 256, 2 + 64 + 32 + 8 + 4),
    "IQ2_S": (22, 256, 2 + 64 + 16), "IQ4_XS": (23, 256, 2 + 2 + 128 + 4), "I8": (24, 1, 1), "I16": (25, 1, 2),
    "I32": (26, 1, 4), "I64": (27, 1, 8), "F64": (28, 1, 8), "IQ1_M": (29, 256, 32 + 16 + 8), "BF16": (30, 1, 2),
    "TQ1_0": (34, 256, 2 + 4 * 13), "TQ2_0": (35, 256, 2 + 64), "MXFP4": (39, 32, 1 + 16), "NVFP4": (40, 64, 4 + 32),
    "Q1_0": (41, 128, 2 + 16), "Q2_0": (42, 64, 2 + 16),
}  # fmt: skip


@pytest.mark.parametrize("word", PUBLISHED)
def test_every_published_type(tmp_path: Path, word: str) -> None:
    number, block, size = PUBLISHED[word]
    path = write(tmp_path, files.file(tensors=[tensor("a", (block, 2), number)], data=bytes(2 * size)))
    (info,) = read_header(path).tensors.values()
    assert (info.dtype, info.shape, info.end - info.start) == (word, (2, block), 2 * size)
    assert (word in gguf.QUANTISED) == (block > 1)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="1 are missing"):
        read_header(path)


def test_no_other_type_is_known() -> None:
    assert {word: (number, block, size) for number, (word, block, size) in gguf.TYPES.items()} == PUBLISHED


def test_metadata_becomes_text(tmp_path: Path) -> None:
    keys = [
        key("general.name", TEXT, "Röd räv \U0001f98a"),
        key("general.quantization_version", U32, 2),
        key("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        key("llama.rope.freq_base", F32, 500000.0),
        key("x.third", F32, 1 / 3),
        key("x.double", F64, 1 / 3),
        key("x.nan", F32, math.nan),
        key("x.flag", BOOL, 1),
        key("x.big", U64, 2**64 - 1),
        key("general.tags", LIST, items(TEXT, ["a", 'quoted "b"', "雪"])),
        key("x.none", LIST, items(U8, [])),
        key("x.flags", LIST, items(BOOL, [1, 0])),
        key("x.sizes", LIST, items(U64, range(64))),
        key("x.more", LIST, items(U64, range(65))),
        key("x.truths", LIST, items(BOOL, [0] * 65)),
        key("x.odd", LIST, items(F32, [math.inf, 0.1])),
        key("tokenizer.ggml.tokens", LIST, items(TEXT, [f"token {number}" for number in range(32_000)])),
        key("x.lists", LIST, struct.pack("<IQ", LIST, 2) + items(U8, [1]) + items(TEXT, ["a"] * 100)),
        key("tokenizer.huggingface.json", TEXT, "x" * 300_000),
        key("x.not_text", TEXT, text(b"caf\xe9")),
        key("tokenizer.chat_template", TEXT, "{{ x }}" * 9000),
    ]
    metadata = read_header(write(tmp_path, with_keys(*keys))).metadata
    assert metadata["tokenizer.chat_template"] == "{{ x }}" * 9000
    del metadata["tokenizer.chat_template"]  # type: ignore[attr-defined]
    assert metadata == {
        "general.name": "Röd räv \U0001f98a",
        "general.quantization_version": "2",
        "llama.attention.layer_norm_rms_epsilon": "1e-05",
        "llama.rope.freq_base": "500000.0",
        "x.third": "0.33333334",
        "x.double": str(1 / 3),
        "x.nan": "nan",
        "x.flag": "true",
        "x.big": "18446744073709551615",
        "general.tags": '["a", "quoted \\"b\\"", "雪"]',
        "x.none": "[]",
        "x.flags": "[true, false]",
        "x.sizes": json.dumps(list(range(64))),
        "x.more": "[65 numbers]",
        "x.truths": "[65 truth values]",
        "x.odd": '["inf", 0.1]',
        "tokenizer.ggml.tokens": "[32000 texts]",
        "x.lists": "[2 lists]",
        "tokenizer.huggingface.json": "[300,000 bytes of text]",
        "x.not_text": "caf\ufffd",
    }


def test_texts_of_every_length_are_walked_over(tmp_path: Path) -> None:
    """Windows end inside of texts, inside of lengths and between them."""
    chance = random.Random(1)
    for _ in range(8):
        texts = ["x" * chance.choice((0, 1, 7, 300, 70_000, chance.randrange(400_000))) for _ in range(100)]
        raw = with_keys(key("x", LIST, items(TEXT, texts)), key("y", TEXT, "found"))
        assert read_header(write(tmp_path, raw)).metadata["y"] == "found"


def test_version_2_and_another_alignment(tmp_path: Path) -> None:
    keys = [key("general.alignment", U32, 4096)]
    raw = files.file(keys, [tensor("a", (8,)), tensor("b", (8,), 0, 4096)], bytes(4096 + 32), version=2, alignment=4096)
    header = read_header(write(tmp_path, raw))
    assert [info.start for info in header.tensors.values()] == [4096, 8192]
    assert header.notes == ()


def test_what_is_odd_is_noted(tmp_path: Path) -> None:
    raw = files.file(tensors=[tensor("a", (8,)), tensor("b", (8,), 0, 96)], data=bytes(128 + 31))
    assert read_header(write(tmp_path, raw)).notes == ("64 bytes in a row belong to no tensor",)
    assert read_header(write(tmp_path, raw + bytes(1000))).notes == ("1,031 bytes in a row belong to no tensor",)
    assert read_header(write(tmp_path, files.file([key("a.b", TEXT, "c")]))).notes == ("no tensors",)
    long = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_out.0.weight"
    (note,) = read_header(write(tmp_path, model([(long, "F16", (2, 2))]))).notes
    assert "too long for llama.cpp" in note and long in note


def test_a_shape_that_was_cut_into_rows(tmp_path: Path) -> None:
    """ComfyUI-GGUF quantises a convolution as rows of 256 and keeps its shape beside it."""
    name, original = "patch_embedding.weight", (2, 16, 1, 4, 4)
    for kind in (I32, U64):
        keys = [key(f"comfy.gguf.orig_shape.{name}", LIST, items(kind, original))]
        header = read_header(write(tmp_path, model([(name, "Q4_K", (2, 256))], keys, architecture="wan")))
        assert header.tensors[name].shape == original and header.metadata["general.architecture"] == "wan"
    for wrong, word in (((2, 256, 2), "as many numbers"), ((0, 512), "no list of sizes")):
        keys = [key(f"comfy.gguf.orig_shape.{name}", LIST, items(I32, wrong))]
        with pytest.raises(FormatError, match=word):
            read_header(write(tmp_path, model([(name, "Q4_K", (2, 256))], keys)))


# --- what is refused --------------------------------------------------------------------------------------------------

HUGE = 1 << 63
HOSTILE = {
    "version 0": (files.file(version=0), "version 0"),
    "version 1": (files.file(version=1), "version 1"),
    "version 4": (files.file(version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "too many keys": (files.file(counts=(0, 65_537)), "65,537 keys"),
    "too many tensors": (files.file(counts=(65_537, 0)), "65,537 tensors"),
    "2^63 keys": (files.file(counts=(0, HUGE)), "keys, of"),
    "2^63 tensors": (files.file(counts=(HUGE, 0)), "tensors, of"),
    "a key of 65 KiB": (with_keys(key("k" * 65_537, U8, 1)), "a key claims 65,537"),
    "a key of 2^63": (files.file([text("k", HUGE)]), "a key claims"),
    "a key that is no text": (with_keys(key(b"\xff", U8, 1)), "a key is no text"),
    "a key twice": (with_keys(key("k", U8, 1), key("k", U8, 2)), "'k' appears twice"),
    "an unknown type of value": (with_keys(key("k", 13, b"")), "type 13 are unknown"),
    "a text of 17 MiB": (with_keys(key("k", TEXT, text("v", 17 << 20))), "claims 17,825,792 bytes"),
    "a text of 2^63": (with_keys(key("k", TEXT, text("v", HUGE))), "claims"),
    "a list of 2^63 texts": (files.file([key("k", LIST, items(TEXT, [], HUGE))]), "items, of 8,000,000"),
    "a list of 2^63 numbers": (files.file([key("k", LIST, items(U8, [], HUGE))]), "items, of 8,000,000"),
    "a list of nothing known": (with_keys(key("k", LIST, struct.pack("<IQ", 13, 0))), "type 13 are unknown"),
    "a text in a list of 2^63": (
        with_keys(key("k", LIST, struct.pack("<IQ", TEXT, 70) + text("a") * 69 + text("", HUGE))),
        "cut short|claims",
    ),
    "a text in a list of 17 MiB": (
        with_keys(key("k", LIST, struct.pack("<IQ", TEXT, 70) + text("a", 17 << 20) + bytes(18 << 20))),
        "claims 17,825,792 bytes",
    ),
    "lists of lists of lists": (
        with_keys(key("k", LIST, struct.pack("<IQIQ", LIST, 1, LIST, 1) + items(U8, [1]))),
        "lists of lists",
    ),
    "65,537 lists": (with_keys(key("k", LIST, struct.pack("<IQ", LIST, 65_537))), "65,537 lists"),
    "65,537 lists in two lists": (
        with_keys(
            key("a", LIST, struct.pack("<IQ", LIST, 65_536) + struct.pack("<IQ", U8, 0) * 65_536),
            key("b", LIST, struct.pack("<IQIQ", LIST, 1, U8, 0)),
        ),
        "65,537 lists",
    ),
    "an inner list of 2^63": (
        with_keys(key("k", LIST, struct.pack("<IQIQ", LIST, 1, TEXT, HUGE))),
        "items, of 8,000,000",
    ),
    "an inner list of nothing known": (
        with_keys(key("k", LIST, struct.pack("<IQIQ", LIST, 1, 99, 0))),
        "type 99 are unknown",
    ),
    "a truth value of 2": (with_keys(key("k", BOOL, 2)), "neither true nor false"),
    "a name of 128 bytes": (files.file(tensors=[tensor("n" * 128, (8,))], data=bytes(32)), "name claims 128 bytes"),
    "a name that is no text": (files.file(tensors=[tensor(b"\xff", (8,))], data=bytes(32)), "name is no text"),
    "a name twice": (
        files.file(tensors=[tensor("a", (8,)), tensor("a", (8,), 0, 32)], data=bytes(64)),
        "two tensors are called 'a'",
    ),
    "no axes": (one(sizes=()), "0 axes"),
    "five axes": (one(sizes=(8, 1, 1, 1, 1)), "5 axes"),
    "five axes, one of size 0": (one(sizes=(8, 1, 0, 1, 1)), "from 1 to"),
    "six axes": (one(sizes=(8, 1, 1, 1, 1, 1)), "6 axes, of 1 to 4"),
    "2^31 axes": (one(axes=1 << 31), "2,147,483,648 axes"),
    "a size of 0": (one(sizes=(8, 0)), "from 1 to"),
    "a size of 2^41": (one(sizes=(1 << 41,)), "from 1 to"),
    "a size of -1": (one(sizes=((1 << 64) - 1,)), "from 1 to"),
    "a product of 2^64": (one(sizes=(1 << 16,) * 4), "numbers, of"),
    "a product of 2^49": (one(sizes=(1 << 25, 1 << 24)), "numbers, of"),
    "an unknown type": (one(kind=43), "type 43 are unknown"),
    "a private type": (one(kind=142), "type 142 are unknown"),
    "a withdrawn type": (one(kind=31), "Q4_0_4_4, which ggml has withdrawn"),
    "a half block": (one(kind=2, sizes=(48,)), "whole blocks of 32"),
    "rows of half blocks": (one(kind=12, sizes=(128, 2)), "whole blocks of 256"),
    "an odd place": (one(offset=8), "no multiple of 32"),
    "an odd place in another alignment": (
        files.file(
            [key("general.alignment", U32, 64)], [tensor("a", (8,), 0, 32)], data=bytes(96), alignment=64
        ),
        "no multiple of 64",
    ),
    "a place behind the end": (one(offset=32), "32 are missing"),
    "a place far behind the end": (one(offset=(1 << 64) - 32), "are missing"),
    "an overlap": (files.file(tensors=[tensor("a", (16,)), tensor("b", (8,), 0, 32)], data=bytes(64)), "shares bytes"),
    "the same bytes": (files.file(tensors=[tensor("a", (8,)), tensor("b", (8,))], data=bytes(64)), "shares bytes"),
    "no data": (one(b""), "32 are missing"),
    "more than its data": (one(sizes=(9,)), "4 are missing"),
    "alignment of 0": (with_keys(key("general.alignment", U32, 0)), "power of two"),
    "alignment of 4": (with_keys(key("general.alignment", U32, 4)), "power of two"),
    "alignment of 48": (with_keys(key("general.alignment", U32, 48)), "power of two"),
    "alignment of 2 MiB": (with_keys(key("general.alignment", U32, 2 << 20)), "power of two"),
    "alignment of 2^31": (with_keys(key("general.alignment", U32, 1 << 31)), "power of two"),
    "alignment of 64 bits": (with_keys(key("general.alignment", U64, 32)), "32 bits"),
    "alignment as text": (with_keys(key("general.alignment", TEXT, "32")), "32 bits"),
    "1,025 blocks": (with_keys(key("llama.block_count", U32, 1025)), "at most 1,024"),
    "-1 blocks": (with_keys(key("llama.block_count", I32, -1)), "at most 1,024"),
    "blocks as text": (with_keys(key("llama.block_count", TEXT, "7")), "at most 1,024"),
    "half a block count": (with_keys(key("llama.block_count", F32, 0.5)), "at most 1,024"),
    "a template of 257 KiB": (with_keys(key("tokenizer.chat_template", TEXT, "x" * (257 << 10))), "chat_template"),
    "a named template of 257 KiB": (
        with_keys(key("tokenizer.chat_template.rag", TEXT, "x" * (257 << 10))),
        "chat_template.rag",
    ),
    "a template that is a number": (with_keys(key("tokenizer.chat_template", U8, 1)), "must be a text"),
    "an architecture that is a number": (with_keys(key("general.architecture", U8, 1)), "must be a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_lies_are_refused_with_their_reason(tmp_path: Path, case: str) -> None:
    raw, word = HOSTILE[case]
    path = write(tmp_path, raw)
    with pytest.raises(FormatError, match=word) as caught:
        read_header(path)
    assert caught.value.remedy and caught.value.path == path
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_file_for_comfyui_alone_is_not_called_damaged(tmp_path: Path) -> None:
    convolution = tensor("patch_embedding.weight", (2, 2, 1, 16, 64))
    path = write(tmp_path, files.file([key("general.architecture", TEXT, "wan")], [convolution], bytes(4 * 64 * 64)))
    with pytest.raises(FormatError, match="has 5 axes") as caught:
        read_header(path)
    assert "made for ComfyUI-GGUF alone" in caught.value.what
    assert caught.value.remedy == "that is no damage; use it there, or get this model as safetensors"
    with pytest.raises(FormatError, match="is damaged or was written by a broken tool"):
        read_header(write(tmp_path, one(sizes=(8, 1, 1, 1, 1, 1))))


@pytest.mark.parametrize("kind", [U8, U64, TEXT, LIST])
def test_a_file_of_43_bytes_takes_no_memory(tmp_path: Path, kind: int) -> None:
    raw = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", LIST, kind, HUGE)
    for count in (HUGE, 7_999_999):
        path = write(tmp_path, raw[:-8] + struct.pack("<Q", count))
        tracemalloc.start()
        with pytest.raises(FormatError):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1 << 20


def test_metadata_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 5))
        for number in range(5):
            file.write(key(f"k{number}", LIST, items(U64, [], 8_000_000)))
            file.seek(64_000_000, 1)  # a sparse file: the lists are there, and their zeros take no room
        file.truncate()
    with pytest.raises(FormatError, match="larger than 268,435,456 bytes"):
        read_header(path)


def test_all_texts_together_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "MAX_ITEMS", 1000)
    keys = [key(f"k{number}", LIST, items(TEXT, [""] * 400)) for number in range(3)]
    with pytest.raises(FormatError, match="1,200 texts, of 1,000"):
        read_header(write(tmp_path, with_keys(*keys)))


def test_metadata_larger_than_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key("k", TEXT, "x" * 5000), key("l", LIST, items(TEXT, ["y" * 60] * 100))]
    path = write(tmp_path, with_keys(*keys))
    for limit, word in (("MAX_METADATA", "larger than 4,096 bytes"), ("MAX_KEPT", "larger than 4,096 characters")):
        with monkeypatch.context() as patch, pytest.raises(FormatError, match=word):
            patch.setattr(gguf, limit, 4096)
            read_header(path)


def test_a_file_that_is_cut_anywhere_says_so(tmp_path: Path) -> None:
    keys = [key("x", LIST, items(TEXT, ["a", "bc"] * 40)), key("y", F32, 0.5), key("z", LIST, items(I32, [1, 2]))]
    raw = model(SMALL, keys)
    path = write(tmp_path, raw)
    assert len(read_header(path).tensors) == 3
    end = max(info.end for info in read_header(path).tensors.values())
    for length in range(4, end):
        with pytest.raises(FormatError, match="cut short"):
            read_header(write(tmp_path, raw[:length]))


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    chance = random.Random(2)
    keys = [key("x", LIST, items(TEXT, ["a", "bc"] * 40)), key("general.alignment", U32, 32), key("s", U16, 3)]
    raw = model(SMALL, keys)
    for _ in range(1500):
        damaged = bytearray(raw)
        for _ in range(chance.randint(1, 3)):
            damaged[chance.randrange(len(damaged))] = chance.choice((0, 1, 255, chance.randrange(256)))
        path = write(tmp_path, bytes(damaged))
        try:
            header = read_header(path)
        except FormatError:
            continue
        size = path.stat().st_size
        assert all(0 <= info.start < info.end <= size for info in header.tensors.values())


def test_a_real_tokenizer_is_walked_over_quickly_and_in_little_memory(tmp_path: Path) -> None:
    keys = [
        key("tokenizer.ggml.tokens", LIST, items(TEXT, [f"Ġtoken{number}" for number in range(152_000)])),
        key("tokenizer.ggml.merges", LIST, items(TEXT, [f"Ġtok en{number}" for number in range(152_000)])),
        key("tokenizer.ggml.token_type", LIST, items(I32, [1] * 152_000)),
    ]
    path = write(tmp_path, model([(f"blk.{number}.w", "Q4_K", (2, 256)) for number in range(300)], keys))
    assert len(read_header(path).tensors) == 300
    tracemalloc.start()
    read_header(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


# --- split models -----------------------------------------------------------------------------------------------------


def split(
    folder: Path, count: int = 3, *, lies: dict[int, list[bytes]] | None = None, total: int | None = None
) -> Path:
    """A model in parts of one tensor each; `lies` are the keys of a part if not the truth."""
    for number in range(count):
        keys = [key("split.no", U16, number), key("split.count", U16, count)]
        keys.append(key("split.tensors.count", I32, count if total is None else total))
        raw = model([(f"blk.{number}.w", "F32", (8,))], (lies or {}).get(number, keys))
        write(folder, raw, f"big-{number + 1:05}-of-{count:05}.gguf")
    return folder / f"big-00001-of-{count:05}.gguf"


def test_the_first_part_stands_for_all(tmp_path: Path) -> None:
    header = read_header(split(tmp_path))
    assert list(header.tensors) == ["blk.0.w", "blk.1.w", "blk.2.w"]
    assert [info.file.name[4:9] for info in header.tensors.values()] == ["00001", "00002", "00003"]
    assert header.metadata["split.count"] == "3" and header.path.name == "big-00001-of-00003.gguf"


def test_a_later_part_names_the_first(tmp_path: Path) -> None:
    path = split(tmp_path)
    with pytest.raises(FormatError, match=r"part 2 of 3.*choose its first part, 'big-00001-of-00003\.gguf'"):
        read_header(path.with_name("big-00002-of-00003.gguf"))
    with pytest.raises(FormatError, match=r"part 3 of 3.*choose its first part$"):
        read_header(path.with_name("big-00003-of-00003.gguf").rename(tmp_path / "renamed.gguf"))
    assert gguf.later_part_of("big-00002-of-00003.gguf") == "big-00001-of-00003.gguf"
    assert gguf.later_part_of("big-00001-of-00003.gguf") is None and gguf.later_part_of("big.gguf") is None


def test_missing_parts_are_told(tmp_path: Path) -> None:
    path = split(tmp_path, 6)
    for number in (2, 3, 5, 6):
        path.with_name(f"big-{number:05}-of-00006.gguf").unlink()
    with pytest.raises(FormatError, match=r"4 of its 6 parts are missing: 'big-00002-of-00006.gguf', .*\.\.\."):
        read_header(path)
    with pytest.raises(FormatError, match=r"first of 6 parts.*not called NAME-00001-of-00006\.gguf"):
        read_header(path.rename(tmp_path / "renamed.gguf"))


@pytest.mark.parametrize(
    ("number", "keys", "word"),
    [
        (1, [], "not part 2 of 3"),
        (1, [key("split.no", U16, 2), key("split.count", U16, 3)], "not part 2 of 3"),
        (1, [key("split.no", U16, 1), key("split.count", U16, 4)], "not part 2 of 3"),
        (0, [key("split.no", U16, 3), key("split.count", U16, 3)], "part 4 of 3"),
        (0, [key("split.no", U16, 1), key("split.count", U16, 1)], "part 2 of 1"),
        (0, [key("split.no", I32, -1), key("split.count", U16, 3)], "part 0 of 3"),
        (0, [key("split.no", U16, 0), key("split.count", U16, 9)], "first of 9 parts"),
        (0, [key("split.no", U16, 0), key("split.count", U16, 2000)], "part 1 of 2,000"),
    ],
)
def test_parts_that_disagree_are_refused(tmp_path: Path, number: int, keys: list[bytes], word: str) -> None:
    with pytest.raises(FormatError, match=word):
        read_header(split(tmp_path, lies={number: keys}))


def test_parts_hold_each_tensor_once_and_all_of_them(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="3 tensors, 4 are promised"):
        read_header(split(tmp_path, total=4))
    path = split(tmp_path)
    keys = [key("split.no", U16, 1), key("split.count", U16, 3)]
    write(tmp_path, model([("blk.0.w", "F32", (8,))], keys), "big-00002-of-00003.gguf")
    with pytest.raises(FormatError, match=r"00002-of-00003.*'blk.0.w' is in another part"):
        read_header(path)
    write(tmp_path, b"<html>", "big-00002-of-00003.gguf")
    with pytest.raises(FormatError, match=r"00002-of-00003.*web page"):
        read_header(path)


def test_parts_lie_in_the_same_folder(tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    second = split(shelf).with_name("big-00002-of-00003.gguf")
    second.rename(tmp_path / "elsewhere.gguf")
    second.symlink_to(tmp_path / "elsewhere.gguf")
    with pytest.raises(FormatError, match="leads out"):
        read_header(shelf / "big-00001-of-00003.gguf")
