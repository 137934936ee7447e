"""Prompts become the token ids that CLIP learned, and chunks where stable-diffusion-webui cuts them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bottega.diffusion.clip_tokenizer import CHUNK, Chunk, ClipTokenizer, builtin_tokenizer, count_tokens
from bottega.diffusion.clip_tokenizer import split_into_chunks as split
from bottega.errors import FormatError

TEXTS = [
    "",
    " ",
    "a photo of a cat",
    "A Photo  of\ta\n\nCAT ",
    "it's they'll we've I'd 'tis don''t",
    "1girl, 4k, 3.14, 2026-11-22",
    "日本語のテキスト、漢字。中文，測試",
    "한국어 ไทย العربية हिन्दी",
    "🙂👩‍👩‍👧 café naïve Å e\u0301 ﬁ ½",
    "(masterpiece:1.2), [a|b], \\(x\\), <lora:y:1>",
    "!!! ... ,,, --- ___ __init__ a_b",
    "<|startoftext|>a <|endoftext|> <|EndOfText|>",
    "zero\u200bwidth nb\u00a0space \u3000 wide \x00 \x7f",
    "İstanbul STRASSE ß Σίσυφος ΟΔΟΣ",
    "antidisestablishmentarianism" * 5,
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The built-in tokenizer, written as transformers writes one: `vocab.json`, `merges.txt`, `tokenizer.json`."""
    folder = tmp_path_factory.mktemp("tokenizer")
    builtin_tokenizer()._tokenizer.model.save(str(folder))
    return folder


@pytest.fixture(scope="module")
def theirs(files):
    transformers = pytest.importorskip("transformers")
    vocab = json.loads((files / "vocab.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split()) for line in (files / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]]
    assert len(vocab) == 49_408
    assert len(merges) == 48_894
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges)


def test_known_ids():
    tokenizer = builtin_tokenizer()
    assert tokenizer.encode("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert (tokenizer.start, tokenizer.end, tokenizer.comma) == (49406, 49407, 267)


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(theirs, text):
    assert builtin_tokenizer().encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["vocab.json and merges.txt", "tokenizer.json"])
def test_a_folder_brings_its_own(files, theirs, tmp_path, kind):
    if kind == "tokenizer.json":
        theirs.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    else:
        for name in ("vocab.json", "merges.txt"):
            (tmp_path / name).write_bytes((files / name).read_bytes())
    tokenizer = ClipTokenizer.from_folder(tmp_path)
    for text in TEXTS:
        assert tokenizer.encode(text) == builtin_tokenizer().encode(text)


def test_a_folder_without_a_tokenizer_says_so(tmp_path):
    with pytest.raises(FormatError, match=r"vocab\.json"):
        ClipTokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(FormatError, match="can't be read"):
        ClipTokenizer.from_folder(tmp_path)


def test_it_is_built_late_and_without_torch():
    code = "import sys, bottega.diffusion.clip_tokenizer as c; print(c.count_tokens('a')[0], 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["1", "False"]


def words(count: int, word: str = "cat") -> str:
    return " ".join([word] * count)


def lengths(text: str, **options) -> list[int]:
    return [len(chunk.tokens) for chunk in split(text, builtin_tokenizer(), **options)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0]),
        (words(75), [75]),
        (words(76), [75, 1]),
        (words(160), [75, 75, 10]),
        ("a BREAK b", [1, 1]),
        ("BREAK b", [0, 1]),
        ("a BREAK", [1]),
        (f"{words(60)}, {words(30)}", [61, 30]),  # 14 tokens from the end: the phrase moves
        (f"{words(54)}, {words(40)}", [75, 20]),  # 21 tokens from the end: too far
        (f"{words(55)}, {words(40)}", [56, 40]),  # 20 tokens
        (f"{words(74)}, {words(10)}", [75, 10]),
        (f"{words(75)}, {words(80)}", [75, 75, 6]),  # a comma that opens a chunk is none to cut at
        (f"a, BREAK {words(80)}", [2, 75, 5]),
    ],
)
def test_chunks(text, expected):
    assert lengths(text) == expected


def test_words_keep_their_weights_across_chunks():
    first, second = split(f"{words(60)}, (dog {words(30)}:1.5)", builtin_tokenizer())
    assert first.weights == (1.0,) * 61
    assert second.weights == (1.5,) * 31
    assert len(first.tokens) + len(second.tokens) == 60 + 1 + 31


def test_brackets_are_words_without_emphasis():
    tokenizer = builtin_tokenizer()
    text = "(a) BREAK b"
    assert split(text, tokenizer, "None") == [Chunk(tuple(tokenizer.encode(text)), (1.0,) * 5)]
    assert [chunk.tokens for chunk in split(text, tokenizer, "Ignore")] == [(320,), (321,)]


def test_count_is_that_of_the_longest_text():
    assert count_tokens("") == (0, CHUNK)
    assert count_tokens("<lora:x:1>(a cat:1.2)") == (2, CHUNK)
    assert count_tokens(f"[a:{words(80)}:0.5] AND b") == (80, 2 * CHUNK)
