"""CLIP's byte-pair tokenizer, and how a prompt is cut into the chunks of 75 tokens that CLIP has room for.

Single-file checkpoints carry no tokenizer, and Stable Diffusion 1, 2 and XL all use the one of OpenAI's CLIP. Its
merges are `bpe_simple_vocab_16e6.txt.gz` (MIT, the notice lies beside it); the ids follow from their order.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE

from bottega.diffusion.prompt import BREAK, parse_attention, parse_composable, parse_schedule, take_extra_networks
from bottega.errors import FormatError

START = "<|startoftext|>"
END = "<|endoftext|>"
WORD_END = "</w>"

_MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49_152 - 256 - 2
"""How many lines of the file CLIP uses: as many as bring its vocabulary to 49,152 before the bytes that end a word."""

_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class ClipTokenizer:
    """Text to CLIP's token ids, without the start and end tokens, which belong to a chunk and not to its text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.start = self._id(START)
        self.end = self._id(END)
        self.comma = self._id("," + WORD_END)

    def _id(self, token: str) -> int:
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise ValueError(f"not a tokenizer of CLIP: its vocabulary has no {token!r}")
        return number

    def encode(self, text: str) -> list[int]:
        """The ids of a text of any length, lower-cased and with runs of whitespace as one space, as CLIP reads it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Where in the text each token of `encode` begins and ends, in characters."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets

    def save(self, folder: Path) -> None:
        """Writes `tokenizer.json`, as a diffusers folder has it."""
        self._tokenizer.save(str(folder / "tokenizer.json"))

    def tables(self) -> tuple[dict[str, int], list[tuple[str, str]]]:
        """The vocabulary and the merges: what `vocab.json` and `merges.txt` of such a folder hold."""
        model = json.loads(self._tokenizer.to_str())["model"]
        return model["vocab"], [(left, right) for left, right in model["merges"]]

    @classmethod
    def from_folder(cls, folder: Path) -> ClipTokenizer:
        """Reads a `tokenizer` folder of a diffusers model: `vocab.json` and `merges.txt`, or `tokenizer.json`."""
        vocab, merges, whole = folder / "vocab.json", folder / "merges.txt", folder / "tokenizer.json"
        try:
            if vocab.is_file() and merges.is_file():
                return cls(_build(json.loads(vocab.read_bytes()), _read_merges(merges.read_text(encoding="utf-8"))))
            if whole.is_file():
                return cls(Tokenizer.from_buffer(whole.read_bytes()))
        except Exception as error:  # the tokenizers library raises nothing more special
            raise FormatError(folder, f"can't be read as CLIP's tokenizer: {error}") from error
        raise FormatError(folder, "holds no tokenizer", "it needs vocab.json and merges.txt, or tokenizer.json")


@cache
def builtin_tokenizer() -> ClipTokenizer:
    """The tokenizer of OpenAI's CLIP: 49,408 ids."""
    packed = files(__package__).joinpath(_MERGES_FILE).read_bytes()
    merges = _read_merges(gzip.decompress(packed).decode("utf-8"))[:_MERGES]
    characters = _byte_characters()
    tokens = [
        *characters,
        *(character + WORD_END for character in characters),
        *(left + right for left, right in merges),
        START,
        END,
    ]
    return ClipTokenizer(_build({token: number for number, token in enumerate(tokens)}, merges))


def _build(vocab: dict[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    tokenizer = Tokenizer(BPE(vocab, merges, end_of_word_suffix=WORD_END, unk_token=END))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def _read_merges(text: str) -> list[tuple[str, str]]:
    """The pairs of a merges file, one to a line below its `#version`, the ones to merge first in front."""
    pairs = (line.split() for line in text.split("\n")[1:])
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2]


def _byte_characters() -> list[str]:
    """The printable character for each of the 256 bytes, in the order of their ids.

    Bytes that print in Latin-1 stand for themselves and come first; the others are the characters from 256 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [chr(code) for code in (*printable, *range(256, 256 + others))]


# ------------------------------------------------------------------------------------------------------------ chunks

CHUNK = 75
"""Tokens of text in one chunk; with the start and the end token it fills CLIP's 77 positions."""

COMMA_BACKTRACK = 20
"""How far from the end of a full chunk its last comma may be for the words behind it to move to the next chunk."""

Emphasis = Literal["Original", "No norm", "Ignore", "None"]
"""What brackets do, in stable-diffusion-webui's words.

`Original` multiplies the encoded tokens by their weights and then brings their mean back to what it was, `No norm`
only multiplies, `Ignore` reads the brackets and gives them no effect, and for `None` brackets and BREAK are words.
"""


class Chunk(NamedTuple):
    """At most 75 tokens, without start and end, and the weight of each.

    `embedded` are the embeddings in it, by name, each with the place of the first of the tokens that stand for its
    vectors.
    """

    tokens: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    embedded: tuple[tuple[int, str], ...] = ()


class TokenCount(NamedTuple):
    """How many tokens a prompt has, and for how many there is room in the chunks that it takes."""

    used: int
    room: int


PLACEHOLDER = 0
"""The token that holds the place of one vector of an embedding."""


class NewWord(NamedTuple):
    """The name of an embedding, the tokens that it is written with, and how many vectors take their place."""

    name: str
    tokens: tuple[int, ...]
    vectors: int


NewWords = Mapping[int, Sequence[NewWord]]
"""New words by the first token of their names, those with the longest names first."""


def new_words(vectors: Mapping[str, int], tokenizer: ClipTokenizer) -> NewWords:
    """What a tokenizer has to know of embeddings, from the number of their vectors by name.

    A name is found wherever its tokens follow each other, as in stable-diffusion-webui: in any case, and in pieces of
    words that happen to be written with the same tokens.
    """
    found: dict[int, list[NewWord]] = {}
    for name, count in vectors.items():
        if tokens := tuple(tokenizer.encode(name)):
            found.setdefault(tokens[0], []).append(NewWord(name, tokens, count))
    return {first: sorted(words, key=lambda word: len(word.tokens), reverse=True) for first, words in found.items()}


def split_into_chunks(
    text: str, tokenizer: ClipTokenizer, emphasis: Emphasis = "Original", words: NewWords | None = None
) -> list[Chunk]:
    """Cuts a prompt into one chunk or more: at each BREAK, and where a chunk is full.

    A full chunk is cut behind its last comma when that is near the end, so that a phrase stays in one piece. The
    vectors of an embedding are never parted: where they do not all fit, a chunk ends before them. (What moves behind a
    comma takes its vectors along; in stable-diffusion-webui they stay behind, on tokens that nobody reads.)
    """
    chunks: list[Chunk] = []
    open_chunk: list[tuple[int, float]] = []
    embedded: list[tuple[int, str]] = []
    last_comma: int | None = None

    def cut(length: int) -> None:
        nonlocal open_chunk, embedded, last_comma
        tokens, weights = zip(*open_chunk[:length], strict=True) if length else ((), ())
        chunks.append(Chunk(tokens, weights, tuple(each for each in embedded if each[0] < length)))
        embedded = [(at - length, name) for at, name in embedded if at >= length]
        open_chunk, last_comma = open_chunk[length:], None

    for said, weight in parse_attention(text) if emphasis != "None" else [(text, 1.0)]:
        if (said, weight) == BREAK:
            cut(len(open_chunk))
            continue
        tokens, position = tokenizer.encode(said), 0
        while position < len(tokens):
            token = tokens[position]
            is_comma = token == tokenizer.comma
            if len(open_chunk) == CHUNK:
                comma_is_near = last_comma is not None and CHUNK - last_comma <= COMMA_BACKTRACK
                cut(last_comma + 1 if comma_is_near and not is_comma else CHUNK)
            elif is_comma:
                last_comma = len(open_chunk)
            word = word_at(tokens, position, words) if words else None
            if word is None:
                open_chunk.append((token, weight))
                position += 1
                continue
            if len(open_chunk) + word.vectors > CHUNK:
                cut(len(open_chunk))
            embedded.append((len(open_chunk), word.name))
            open_chunk += [(PLACEHOLDER, weight)] * word.vectors
            position += len(word.tokens)

    if open_chunk or not chunks:
        cut(len(open_chunk))
    return chunks


def word_at(tokens: Sequence[int], position: int, words: NewWords) -> NewWord | None:
    """The longest new word whose tokens begin here."""
    for word in words.get(tokens[position], ()):
        if tuple(tokens[position : position + len(word.tokens)]) == word.tokens:
            return word
    return None


def words_used(
    texts: Iterable[str], names: Iterable[str], tokenizer: ClipTokenizer, emphasis: Emphasis = "Original"
) -> set[str]:
    """Which embeddings of these names some texts name, as `parse_schedule` gives them of a prompt."""
    words = new_words(dict.fromkeys(names, 1), tokenizer)
    chunks = (chunk for text in texts for chunk in split_into_chunks(text, tokenizer, emphasis, words))
    return {name for chunk in chunks for _, name in chunk.embedded}


def count_tokens(
    text: str, tokenizer: ClipTokenizer | None = None, steps: int = 20, vectors: Mapping[str, int] | None = None
) -> TokenCount:
    """The tokens of the longest text that a prompt stands for at any step, as a counter beside a prompt shows them.

    `vectors` are the embeddings that it may name, by name, with how many tokens each takes.
    """
    tokenizer = tokenizer or builtin_tokenizer()
    prompt, _ = take_extra_networks(text)
    texts = {words for part, _ in parse_composable(prompt) for _, words in parse_schedule(part, steps)}
    words = new_words(vectors or {}, tokenizer)
    return max(_count(split_into_chunks(text, tokenizer, words=words)) for text in texts)


def _count(chunks: list[Chunk]) -> TokenCount:
    full = CHUNK * (len(chunks) - 1)
    return TokenCount(full + len(chunks[-1].tokens), full + CHUNK)
