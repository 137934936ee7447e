"""Matches peft's patterns of modules (`rank_pattern`, `alpha_pattern`), which are regular expressions.

They come with a file, and Python's own matcher can be kept busy for ever by one that is made for it. Here a pattern is
an automaton of its characters (Glushkov 1961), all of whose states are followed at once, and all matching for one file
has a common limit. What has no place in such an automaton (looking around, references back) is not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_LONGEST = 500  # characters of a pattern
_DEEPEST = 20  # groups within each other
_LARGEST = 400  # states of a pattern, with all that it repeats
_STEPS = 20_000_000  # for one file: a few seconds
_STEPS_OF_NAME = 8  # as long as so many
_STEPS_OF_WAY = 10  # of a pattern, from one state to another: as much memory as so many take time

_NAME = re.compile(r"\^?[\w./-]+")  # which most patterns are
_LEAF = re.compile(r"[\w/-]|\\[^a-zA-Z0-9]|\\[dwsDWS]|\.|\[\^?(?!\S*--)(?:[\w./-]|\\[dws.-])+\]")
_TIMES = re.compile(r"([*+?]|\{(\d{1,3})(,?)(\d{0,3})\})\??(?![*+?{])")


class Matcher:
    """Tells which names fit which patterns, for one file; `unread` are the patterns of which it could not be told."""

    def __init__(self) -> None:
        self.unread: dict[str, None] = {}
        self._read: dict[str, _Name | _Automaton | None] = {}
        self._steps = 0

    @property
    def is_spent(self) -> bool:
        """Whether the file has had its time: nothing fits any more."""
        return self._steps > _STEPS

    def fits(self, pattern: str, name: str) -> bool:
        """Whether peft finds the pattern at the end of a module's name, from the name's start or behind a dot."""
        self._steps += 1
        if pattern not in self._read and not self.is_spent:
            self._read[pattern] = read = _read(pattern)
            # One that can't be read may have been as large as any before that was clear.
            self._steps += len(pattern) + (_STEPS_OF_WAY * read.ways if read else _LARGEST**2)
        known = None if self.is_spent else self._read[pattern]
        if known is None:
            self.unread[pattern] = None
            return False
        found, steps = known.fits(name)
        self._steps += steps
        return found


class _Name:
    """A pattern of as many characters as the names that it fits have at their ends."""

    ways = 0

    def __init__(self, pattern: str) -> None:
        self._anchored = pattern.startswith("^")
        self._characters = re.compile(pattern)
        self._length = len(pattern) - self._anchored

    def fits(self, name: str) -> tuple[bool, int]:
        """Whether it fits, and how many steps that is worth."""
        begin = len(name) - self._length
        begins = begin == 0 or (begin > 0 and name[begin - 1] == "." and not self._anchored)
        return begins and self._characters.fullmatch(name[begin:]) is not None, _STEPS_OF_NAME


@dataclass(frozen=True)
class _Piece:
    """A part of a pattern: whether it may be empty, and the states that can be its first and its last."""

    empty: bool
    first: frozenset[int]
    last: frozenset[int]


_NOTHING = _Piece(True, frozenset(), frozenset())


class _Automaton:
    """The states of a pattern, each of which is one character, and those that can go before each."""

    def __init__(self) -> None:
        self.characters: list[re.Pattern[str]] = []
        self.before: list[set[int]] = []
        self.anchored: frozenset[int] = frozenset()  # of the first states, those for the start of the name only
        self.whole = _NOTHING

    @property
    def ways(self) -> int:
        """How many ways there are from one state to another."""
        return sum(map(len, self.before))

    def fits(self, name: str) -> tuple[bool, int]:
        """Whether it fits, and in how many steps that was found. Names differ sooner when they are read backwards."""
        states, steps = self.whole.last, 1
        for at in range(len(name) - 1, -1, -1):
            here = [state for state in states if self.characters[state].match(name[at])]
            if at == 0 or name[at - 1] == ".":
                begins = self.whole.first - self.anchored if at else self.whole.first
                if not begins.isdisjoint(here):
                    return True, steps
            if not here:
                return False, steps
            steps += len(states) + sum(len(self.before[state]) for state in here)
            states = frozenset().union(*(self.before[state] for state in here))
        return False, steps

    def character(self, text: str) -> _Piece:
        """A state of its own."""
        state = frozenset({len(self.characters)})
        self.characters.append(re.compile(text))
        self.before.append(set())
        return _Piece(False, state, state)

    def follow(self, one: _Piece, two: _Piece) -> _Piece:
        """One piece and then the other."""
        self._connect(one, two)
        return _Piece(
            one.empty and two.empty,
            one.first | two.first if one.empty else one.first,
            one.last | two.last if two.empty else two.last,
        )

    def again(self, piece: _Piece) -> _Piece:
        """One or more of a piece."""
        self._connect(piece, piece)
        return piece

    def _connect(self, one: _Piece, two: _Piece) -> None:
        for state in two.first:
            self.before[state] |= one.last


class _Unreadable(ValueError):
    pass


def _read(pattern: str) -> _Name | _Automaton | None:
    """What matches a pattern, if it is one that can be matched here."""
    if len(pattern) > _LONGEST:
        return None
    if _NAME.fullmatch(pattern):
        return _Name(pattern)
    try:
        return _Reader(pattern).automaton
    except (_Unreadable, re.error):
        return None


class _Reader:
    """Reads a pattern from left to right; what is repeated is read again as often as it has states of its own."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = self._depth = self._pieces = 0
        self.automaton = _Automaton()
        self.automaton.whole = self._choice()
        if self._at < len(pattern):
            raise _Unreadable

    def _take(self, text: str) -> bool:
        taken = self._pattern.startswith(text, self._at)
        self._at += len(text) if taken else 0
        return taken

    def _choice(self) -> _Piece:
        pieces = [self._sequence()]
        while self._take("|"):
            pieces.append(self._sequence())
        return _one_of(pieces)

    def _sequence(self) -> _Piece:
        anchored = self._depth == 0 and self._take("^")
        made = _NOTHING
        while self._at < len(self._pattern) and self._pattern[self._at] not in "|)":
            if self._depth == 0 and self._take("$"):
                break  # where every name ends
            made = self.automaton.follow(made, self._repeated())
        if anchored:
            self.automaton.anchored |= made.first
        return made

    def _repeated(self) -> _Piece:
        begin = self._at
        made = self._one()
        times = _TIMES.match(self._pattern, self._at)
        if times is None:
            return made
        least, most = _bounds(times)
        pieces = [made]
        for _ in range(max(least, most or 0, 1) - 1):
            self._at = begin
            pieces.append(self._one())
        self._at = times.end()
        if most == 0:
            return _NOTHING
        if most is None:
            pieces[-1] = self.automaton.again(pieces[-1])
        made = _NOTHING
        for number, piece in enumerate(pieces):
            made = self.automaton.follow(made, piece if number < least else _one_of([piece, _NOTHING]))
        return made

    def _one(self) -> _Piece:
        self._pieces += 1
        if self._pieces > _LARGEST:
            raise _Unreadable
        if self._take("("):
            if self._pattern.startswith("?", self._at) and not self._take("?:"):
                raise _Unreadable
            self._depth += 1
            if self._depth > _DEEPEST:
                raise _Unreadable
            made = self._choice()
            self._depth -= 1
            if not self._take(")"):
                raise _Unreadable
            return made
        leaf = _LEAF.match(self._pattern, self._at)
        if leaf is None:
            raise _Unreadable
        self._at = leaf.end()
        return self.automaton.character(leaf[0])


def _bounds(times: re.Match[str]) -> tuple[int, int | None]:
    """How often at least and at most; None for any number."""
    if not times[2]:
        return {"*": (0, None), "+": (1, None), "?": (0, 1)}[times[1]]
    least, most = int(times[2]), int(times[4] or 0)
    if not times[3]:
        return least, least
    if times[4] and most < least:
        raise _Unreadable
    return least, most if times[4] else None


def _one_of(pieces: Sequence[_Piece]) -> _Piece:
    return _Piece(
        any(piece.empty for piece in pieces),
        frozenset().union(*(piece.first for piece in pieces)),
        frozenset().union(*(piece.last for piece in pieces)),
    )
