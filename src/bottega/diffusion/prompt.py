"""Reads the prompt language of stable-diffusion-webui: emphasis, scheduling, composition and extra networks.

    (a cat) (a cat:1.3) [a cat]      emphasis: how strongly the words weigh
    [cat:dog:0.5] [:dog:8] [cat::8]  editing: which words are there at which step
    [cat|dog]                        alternation: other words at every step
    a cat AND a dog:0.7              composition: several prompts that guide together
    a cat BREAK a dog                a new chunk for the text encoder
    <lora:name:0.8>                  extra networks: not words at all

Prompts are pasted from everywhere, so nothing here raises: what is no syntax is text. The rules, down to what becomes
of unbalanced brackets, are those of stable-diffusion-webui 1.10, so that its prompts give the same words and weights.
Only where loose brackets make its own grammar ambiguous (there the answer changes with the seed of Python's hashes) is
the rule ours: what can be an edit or an alternation is one. No function recurses, and each takes time in proportion to
the length of the prompt, whatever it holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

# ---------------------------------------------------------------------------------------------------------- emphasis

EMPHASIS = 1.1
"""What a pair of round brackets multiplies by, and a pair of square brackets divides by."""

BREAK = ("BREAK", -1.0)
"""The piece that stands for a chunk break. Inside of emphasis its weight is another one, which makes it a word."""

_EMPHASIS_TOKEN = re.compile(
    r"\\[()\[\]\\]?"
    r"|[(\[\])]"
    r"|:\s*(?P<weight>[+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*\)"
    r"|[^\\()\[\]:]+"
    r"|:"
)
_BREAK_WORD = re.compile(r"\bBREAK\b")
_SPACES = re.compile(r"\s*")

_EXACT_DEPTH = 32
"""How many brackets around a word multiply its weight one by one, innermost first.

That order decides about the last bit of the weight. The brackets outside of these multiply all at once: one by one, a
deep nest would take the square of its depth.
"""


class _Bracket:
    """One opening bracket, and the brackets of the same shape that are open around it."""

    __slots__ = ("closed", "multiplier", "outer", "product")

    def __init__(self, outer: _Bracket | None) -> None:
        self.outer = outer
        self.multiplier = self.product = 1.0
        self.closed = 0

    def close(self, multiplier: float, when: int) -> _Bracket | None:
        self.multiplier = multiplier
        self.closed = when
        return self.outer


@dataclass(slots=True)
class _Piece:
    """Some text, where it begins, its weight before emphasis, and the innermost brackets that are open around it."""

    text: str
    begin: int
    weight: float
    round: _Bracket | None
    square: _Bracket | None

    def emphasised(self) -> float:
        """The weight times all brackets around it, in the order in which they close."""
        weight, round_, square = self.weight, self.round, self.square
        for _ in range(_EXACT_DEPTH):
            if round_ and (not square or round_.closed < square.closed):
                weight *= round_.multiplier
                round_ = round_.outer
            elif square:
                weight *= square.multiplier
                square = square.outer
            else:
                return weight
        return weight * (round_.product if round_ else 1.0) * (square.product if square else 1.0)


@dataclass(frozen=True, slots=True)
class Run:
    """Text of one weight; `parts` are the texts it is joined from, each with the place where the prompt has it."""

    parts: tuple[tuple[int, str], ...]
    weight: float

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(text for _, text in self.parts)


def parse_attention(text: str) -> list[tuple[str, float]]:
    """Splits a prompt into (text, weight), neighbours of equal weight joined; a chunk break is the piece `BREAK`.

    A bracket that is never closed reaches to the end of the prompt, one that was never opened is text, and so is one
    behind a backslash. There is always at least one piece.
    """
    return [(run.text, run.weight) for run in attention_runs(text)] or [("", 1.0)]


def attention_runs(text: str) -> list[Run]:
    """What `parse_attention` gives, with the places in the prompt; nothing for a prompt without text."""
    pieces: list[_Piece] = []
    brackets: list[_Bracket] = []
    round_: _Bracket | None = None
    square: _Bracket | None = None

    for now, match in enumerate(_EMPHASIS_TOKEN.finditer(text)):
        token = match[0]
        if token.startswith("\\"):
            pieces.append(_Piece(token[1:], match.start() + 1, 1.0, round_, square))
        elif token == "(":
            round_ = _Bracket(round_)
            brackets.append(round_)
        elif token == "[":
            square = _Bracket(square)
            brackets.append(square)
        elif round_ and match["weight"]:
            round_ = round_.close(float(match["weight"]), now)
        elif round_ and token == ")":
            round_ = round_.close(EMPHASIS, now)
        elif square and token == "]":
            square = square.close(1 / EMPHASIS, now)
        else:
            pieces.extend(
                _Piece(part, match.start() + begin, weight, round_, square)
                for part, weight, begin in _split_at_breaks(token)
            )

    end = len(text)
    while round_:
        round_ = round_.close(EMPHASIS, end)
    while square:
        square = square.close(1 / EMPHASIS, end + 1)
    for bracket in brackets:  # the outer ones come first
        bracket.product = bracket.multiplier * (bracket.outer.product if bracket.outer else 1.0)

    return _join_equal_weights([(piece.begin, piece.text, piece.emphasised()) for piece in pieces])


def _split_at_breaks(text: str) -> Iterator[tuple[str, float, int]]:
    """The texts between the words BREAK, without the whitespace next to them, and a `BREAK` between each two; each with
    the place where it begins."""
    # A pattern that eats the whitespace itself would take the square of the length of a run of spaces.
    begin = 0
    for word in _BREAK_WORD.finditer(text):
        yield text[begin : word.start()].rstrip(), 1.0, begin
        yield (*BREAK, word.start())
        begin = _SPACES.match(text, word.end()).end()
    yield text[begin:], 1.0, begin


def _join_equal_weights(pieces: list[tuple[int, str, float]]) -> list[Run]:
    runs: list[tuple[list[tuple[int, str]], float]] = []
    for begin, text, weight in pieces:
        if runs and runs[-1][1] == weight:
            runs[-1][0].append((begin, text))
        else:
            runs.append(([(begin, text)], weight))
    return [Run(tuple(parts), weight) for parts, weight in runs]


# -------------------------------------------------------------------------------------------------------- scheduling

_SCHEDULE_TOKEN = re.compile(r"[\[\]():|]|(?:[^\\\[\]():|]|\\.)+")
_STEP_NUMBER = re.compile(
    r"\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*"  # the spaces around it are no part of it
)


@dataclass(frozen=True, slots=True)
class _Edit:
    """Goes on at one place up to and including step `until`, and at another one after it."""

    until: int
    before: int
    after: int

    def target(self, step: int) -> int:
        return self.before if step <= self.until else self.after


@dataclass(frozen=True, slots=True)
class _Alternation:
    """Goes on at the next one of its places with every step."""

    places: tuple[int, ...]

    def target(self, step: int) -> int:
        return self.places[(step - 1) % len(self.places)]


_Program = list["str | int | _Edit | _Alternation"]
"""A prompt as instructions: write a text, go on elsewhere (an index), or go on where the step says.

It starts as the tokens of the prompt. When a bracket closes that is an edit or an alternation, its opening token and
its separators become jumps, and everything else stays what it was: text.
"""


@dataclass(slots=True)
class _Group:
    """A bracket that is open while a program is read: its place, and the separators directly inside of it."""

    opening: str
    start: int
    colons: list[int] = field(default_factory=list)
    bars: list[int] = field(default_factory=list)


def parse_schedule(
    text: str, steps: int, hires_steps: int | None = None, old_timeline: bool = False
) -> list[tuple[int, str]]:
    """What a prompt says at each step: (last step it holds for, text), steps counted from 1, emphasis left alone.

    `hires_steps` is given for the second pass. A number with a decimal point is a fraction of the pass (of the second
    one from 1 to 2), one without is a step counted from the start of the first pass. In the old timeline a number
    below 1 is a fraction, and both passes read the prompt alike. A prompt that breaks the grammar holds as it is: one
    with a `|` outside of an alternation, or with a backslash that has nothing behind it.
    """
    first_pass = hires_steps is None or old_timeline
    total = steps if first_pass else hires_steps

    def step_of(number: str) -> int:
        value = float(number)
        if old_timeline:
            value = value * total if value < 1 else value
        elif "." in number:
            value = (value if first_pass else value - 1) * total
        elif not first_pass:
            value -= steps
        return int(max(-1, min(total, value)))  # bounded before int(), which refuses infinity

    program = _read_schedule(text, step_of)
    if program is None:
        return [(total, text)]
    last_steps = {total}
    for instruction in program:
        if isinstance(instruction, _Edit) and instruction.until >= 1:
            last_steps.add(instruction.until)
        elif isinstance(instruction, _Alternation):
            last_steps.update(range(1, total + 1))
    return [(step, _text_at(step, program)) for step in sorted(last_steps)]


def _read_schedule(text: str, step_of: Callable[[str], int]) -> _Program | None:
    """The program of a prompt, or nothing when it breaks the grammar.

    A bracket can be an edit or an alternation only if all brackets inside of it are well formed: the first one that is
    not makes text of all that are open around it, and there a `|` breaks the grammar.
    """
    program: _Program = []
    groups: list[_Group] = []
    end = 0
    for match in _SCHEDULE_TOKEN.finditer(text):
        if match.start() != end:
            return None
        end = match.end()
        token = match[0]
        program.append(token)
        here = len(program) - 1
        if token in ("(", "["):
            groups.append(_Group(token, here))
        elif token == ":" and groups:
            groups[-1].colons.append(here)
        elif token == "|":
            if not groups:
                return None
            groups[-1].bars.append(here)
        elif token in (")", "]"):
            if groups and _close(groups[-1], here, program, step_of):
                groups.pop()
            elif any(group.bars for group in groups):
                return None
            else:
                groups.clear()
    if end != len(text) or any(group.bars for group in groups):
        return None
    return program


def _close(group: _Group, end: int, program: _Program, step_of: Callable[[str], int]) -> bool:
    """Whether a group is well formed with the closing bracket at `end`; an edit or alternation becomes jumps."""
    colons, bars, inside, behind = group.colons, group.bars, group.start + 1, end + 1

    if (group.opening, program[end]) == ("(", ")"):
        return len(colons) <= 1 and not bars
    if (group.opening, program[end]) != ("[", "]") or (colons and bars):
        return False

    if bars:
        program[group.start] = _Alternation((inside, *(bar + 1 for bar in bars)))
        for separator in (*bars, end):
            program[separator] = behind
    elif colons:
        number = _STEP_NUMBER.fullmatch(program[end - 1]) if colons[-1] == end - 2 else None
        if number is None or len(colons) > 2:
            return False
        before, after = (inside, colons[0] + 1) if len(colons) == 2 else (behind, inside)
        program[group.start] = _Edit(step_of(number[1]), before, after)
        for separator in colons:
            program[separator] = behind
    return True


def schedule_parts(text: str) -> list[tuple[int, str]] | None:
    """Every text of a prompt that it says at some step, with the place where it begins; None where what it says does
    not change with the step."""
    program = _read_schedule(text, lambda number: 1)
    if program is None or all(isinstance(instruction, str) for instruction in program):
        return None
    places = [match.start() for match in _SCHEDULE_TOKEN.finditer(text)]
    parts: list[tuple[int, str]] = []
    reached, waiting = set[int](), [0]
    while waiting:
        at = waiting.pop()
        if at in reached or at == len(program):
            continue
        reached.add(at)
        instruction = program[at]
        if isinstance(instruction, str):
            parts.append((places[at], instruction))
            waiting.append(at + 1)
        elif isinstance(instruction, int):
            waiting.append(instruction)
        else:
            waiting += (
                instruction.places if isinstance(instruction, _Alternation) else (instruction.before, instruction.after)
            )
    return sorted(parts)


def _text_at(step: int, program: _Program) -> str:
    written: list[str] = []
    at = 0
    while at < len(program):
        instruction = program[at]
        if isinstance(instruction, str):
            written.append(instruction)
            at += 1
        else:
            at = instruction if isinstance(instruction, int) else instruction.target(step)
    return "".join(written)


# ------------------------------------------------------------------------------------- composition and extra networks

_AND_WORD = re.compile(r"\bAND\b")
_PROMPT_WEIGHT = re.compile(r"\s*([-+]?(?:\d*\.\d+|\d+\.?))\s*")


def parse_composable(text: str) -> list[tuple[str, float]]:
    """Splits a prompt at the word AND into (sub-prompt, weight), the weight from a `:1.5` at its very end.

    The end counts even without an AND: `portrait, 16:9` is a prompt of weight 9, as it is in stable-diffusion-webui.
    """
    subprompts = []
    for part in _AND_WORD.split(text):
        words, colon, last = part.rpartition(":")
        weight = _PROMPT_WEIGHT.fullmatch(last) if colon else None
        subprompts.append((words.rstrip(), float(weight[1])) if weight else (part.rstrip(), 1.0))
    return subprompts


MAX_WEIGHT = 1e15
"""The largest weight with which networks can compute: they take squares, and float32 ends at 3e38."""


@lru_cache(64)  # many recipes in a row have the same words
def too_heavy(text: str) -> tuple[str, float] | None:
    """The first text of a prompt (without extra networks) whose weight is beyond MAX_WEIGHT, and that weight."""
    for part, weight in parse_composable(text):
        said = schedule_parts(part)
        whole = part if said is None else "".join(words for _, words in said)
        for words, each in [(part, weight), *parse_attention(whole)]:
            if not abs(each) <= MAX_WEIGHT:  # nor is NaN
                return words, each
    return None


_NETWORK_START = re.compile(r"<(\w+):")


@dataclass(frozen=True, slots=True)
class Network:
    """One `<kind:name:argument:key=value>` of a prompt; what the arguments mean is up to the kind of network."""

    kind: str
    name: str
    args: tuple[str, ...] = ()
    named_args: dict[str, str] = field(default_factory=dict)


def take_extra_networks(text: str) -> tuple[str, list[Network]]:
    """Takes everything that looks like `<word:...>` out of a prompt, and returns the rest and what it was."""
    rest: list[str] = []
    networks: list[Network] = []
    at = 0
    for begin, end, network in find_extra_networks(text):
        rest.append(text[at:begin])
        networks.append(network)
        at = end
    return "".join(rest) + text[at:], networks


def find_extra_networks(text: str) -> Iterator[tuple[int, int, Network]]:
    """Everything that looks like `<word:...>` in a prompt, and where it begins and ends."""
    start = _NETWORK_START.search(text)
    while start:
        end = text.find(">", start.end())
        if end < 0:
            break  # nor does any later one end
        if end > start.end():
            yield start.start(), end + 1, _network(start[1], text[start.end() : end])
        start = _NETWORK_START.search(text, end + 1)


def _network(kind: str, arguments: str) -> Network:
    positional: list[str] = []
    named: dict[str, str] = {}
    for argument in arguments.split(":"):
        key, *value = argument.split("=")
        if len(value) == 1:
            named[key] = value[0]
        else:
            positional.append(argument)
    name, *args = positional or [""]
    return Network(kind, name, tuple(args), named)
