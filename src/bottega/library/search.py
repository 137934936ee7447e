"""The words by which models are found: folded alike in the index and in what somebody types."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

LONGEST_TEXT = 4000  # characters of a description that are indexed
MOST_WORDS = 12  # that a query looks for; what is typed beyond them does not narrow it further
LONGEST_WORD = 64

_RUN = re.compile(r"[^\W_]+")
# Parts that a name is made of: `dreamshaperXL_v21Turbo` is found by `xl`, `21` and `turbo` too.
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\x00-\x7f]+")
# Scripts that put no spaces between words: each of their characters is a word, and a word of theirs is a phrase.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003ffff"
_ALONE = re.compile(f"[{_UNSPACED}]")
_SEGMENT = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")


def folded(text: str) -> str:
    """The text without case, accents, and other differences that nobody types; always valid Unicode."""
    return _bare(text).casefold()


def indexed(texts: Iterable[str]) -> str:
    """The words of texts as the index takes them, in order, with spaces between them."""
    return " ".join(word for text in texts for word in _words(text[:LONGEST_TEXT]))


def query(text: str) -> str:
    """What somebody typed, as FTS5 is asked for it: every word must begin a word of the model. Empty without words.

    Quotes, operators and what else FTS5 gives a meaning are no part of words.
    """
    return " ".join(term for _, term in zip(range(MOST_WORDS), _terms(text), strict=False))


def pieces(text: str) -> list[str]:
    """What somebody typed, as parts that a name may contain anywhere."""
    return folded(text).split()[:MOST_WORDS]


def _terms(text: str) -> Iterator[str]:
    for run in _RUN.findall(folded(text)):
        for segment in _SEGMENT.findall(run):
            if _ALONE.match(segment):
                yield f'"{" ".join(segment[:LONGEST_WORD])}"'
            else:
                yield f'"{segment[:LONGEST_WORD]}"*'


def _words(text: str) -> Iterator[str]:
    bare = _bare(text)
    if not bare.isascii():
        bare = _ALONE.sub(r" \g<0> ", bare)
    for run in _RUN.findall(bare):
        yield run[:LONGEST_WORD].casefold()
        parts = _PART.findall(run)
        if len(parts) > 1:
            yield from (part.casefold() for part in parts if len(part) > 1)


def _bare(text: str) -> str:
    """The text in its compatible letters, without combining marks and halves of characters."""
    if text.isascii():
        return text
    decomposed = unicodedata.normalize("NFKD", text.encode(errors="replace").decode())
    return "".join(character for character in decomposed if not unicodedata.combining(character))
