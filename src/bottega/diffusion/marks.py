"""Where in a prompt its weights, its chunks and its extra networks are, for whoever shows it while it is typed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from bottega.diffusion.clip_tokenizer import (
    ClipTokenizer,
    NewWords,
    TokenCount,
    builtin_tokenizer,
    count_tokens,
    new_words,
    split_into_chunks,
    word_at,
)
from bottega.diffusion.prompt import (
    BREAK,
    Network,
    Run,
    attention_runs,
    find_extra_networks,
    parse_composable,
    schedule_parts,
)

Parts = Sequence[tuple[int, str]]  # texts of a prompt, each with the place where it begins


class Weighted(NamedTuple):
    """A stretch of a prompt, and how strongly its words weigh."""

    begin: int
    end: int
    weight: float


class Embedded(NamedTuple):
    """An embedding that is named, the stretch of the prompt that names it, and how many tokens it takes."""

    begin: int
    end: int
    name: str
    vectors: int


class Placed(NamedTuple):
    """An extra network, and the stretch of the prompt that names it."""

    begin: int
    end: int
    network: Network


@dataclass(frozen=True)
class Marks:
    """All that can be shown of a prompt; places are characters from its start.

    `chunks` are the places where the text encoder's chunks begin. They are only told of a prompt that says the same at
    every step and is composed of one part.
    """

    tokens: TokenCount
    chunks: tuple[int, ...]
    weighted: tuple[Weighted, ...]
    networks: tuple[Placed, ...]
    embedded: tuple[Embedded, ...] = ()


def marks(prompt: str, tokenizer: ClipTokenizer | None = None, vectors: Mapping[str, int] | None = None) -> Marks:
    """The marks of a prompt, which may be anything that somebody types.

    `vectors` are the embeddings that it may name, by name, with how many tokens each takes.
    """
    tokenizer = tokenizer or builtin_tokenizer()
    known = new_words(vectors or {}, tokenizer)
    embedded: list[Embedded] = []
    networks = tuple(Placed(*found) for found in find_extra_networks(prompt))
    words = _Source(_between(prompt, networks))
    weighted: list[Weighted] = []
    chunks: list[int] = []
    composed = parse_composable(words.text)
    at = 0
    for text, _ in composed:
        begin = words.text.index(text, at) if text else at
        at = begin + len(text)
        scheduled = schedule_parts(text)
        said = _Source([(0, text)] if scheduled is None else scheduled)
        for run in attention_runs(said.text):
            if (run.text, run.weight) != BREAK:
                if known:
                    for start, stop, name, count in _embedded(run, tokenizer, known):
                        first, last = (words.place(begin + said.place(at)) for at in (start, stop - 1))
                        embedded.append(Embedded(first, last + 1, name, count))
                for start, stop in said.stretches(run.parts):
                    at_start, at_end = begin + said.place(start), begin + said.place(stop - 1) + 1
                    for first, last in words.stretches([(at_start, words.text[at_start:at_end])]):
                        weighted.append(Weighted(words.place(first), words.place(last - 1) + 1, run.weight))
        if scheduled is None and len(composed) == 1:
            chunks = [words.place(begin + place) for place in _chunk_places(text, tokenizer, known)]
    return Marks(
        count_tokens(prompt, tokenizer, vectors=vectors),
        tuple(chunks),
        tuple(_joined(weighted)),
        networks,
        tuple(sorted(set(embedded))),
    )


def _embedded(run: Run, tokenizer: ClipTokenizer, known: NewWords) -> list[Embedded]:
    """The embeddings that a run names, and where."""
    source, found, at = _Source(run.parts), list[Embedded](), 0
    tokens, offsets = tokenizer.encode(run.text), tokenizer.offsets(run.text)
    while at < len(tokens):
        word = word_at(tokens, at, known)
        if word is not None:
            begin, end = offsets[at][0], offsets[at + len(word.tokens) - 1][1]
            found.append(Embedded(source.place(begin), source.place(end - 1) + 1, word.name, word.vectors))
        at += len(word.tokens) if word else 1
    return found


class _Source:
    """A text that was put together of texts of another one, and where in that one each of its characters is."""

    def __init__(self, parts: Parts) -> None:
        self.text = "".join(text for _, text in parts)
        self._begins: list[int] = []
        self._shifts: list[int] = []
        length = 0
        for begin, text in parts:
            self._begins.append(length)
            self._shifts.append(begin - length)
            length += len(text)

    def place(self, at: int) -> int:
        """Where the character is that is here at `at`."""
        part = bisect_right(self._begins, at) - 1
        return at + self._shifts[part] if part >= 0 else at

    def stretches(self, parts: Parts) -> list[tuple[int, int]]:
        """Begin and end, here, of these texts; those that are apart at the source are apart in the answer."""
        found = []
        for begin, text in parts:
            end = begin + len(text)
            cuts = self._begins[bisect_right(self._begins, begin) : bisect_right(self._begins, end - 1)]
            edges = [begin, *cuts, end]
            found += [(start, stop) for start, stop in pairwise(edges) if start < stop]
        return found


def _between(prompt: str, networks: Sequence[Placed]) -> list[tuple[int, str]]:
    """The texts of a prompt that are no extra networks."""
    edges = [0, *(edge for begin, end, _ in networks for edge in (begin, end)), len(prompt)]
    return [(edges[index], prompt[edges[index] : edges[index + 1]]) for index in range(0, len(edges), 2)]


def _chunk_places(text: str, tokenizer: ClipTokenizer, known: NewWords) -> list[int]:
    """Where in a text each of its chunks begins."""
    places: list[int] = []
    for run in attention_runs(text):
        if (run.text, run.weight) != BREAK:
            source, at = _Source(run.parts), 0
            tokens, offsets = tokenizer.encode(run.text), tokenizer.offsets(run.text)
            while at < len(tokens):
                word = word_at(tokens, at, known)
                places += [source.place(offsets[at][0])] * (word.vectors if word else 1)
                at += len(word.tokens) if word else 1
    begins, used = [], 0
    for chunk in split_into_chunks(text, tokenizer, words=known):
        begins.append(places[used] if used < len(places) else len(text))
        used += len(chunk.tokens)
    return [0, *begins[1:]]


def _joined(weighted: Sequence[Weighted]) -> list[Weighted]:
    """Stretches that touch and weigh the same as one."""
    joined: list[Weighted] = []
    for each in sorted(weighted):
        if joined and joined[-1].end == each.begin and joined[-1].weight == each.weight:
            joined[-1] = Weighted(joined[-1].begin, each.end, each.weight)
        else:
            joined.append(each)
    return joined
