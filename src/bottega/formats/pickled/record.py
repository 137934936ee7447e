"""The opcodes that torch writes for one tensor of a state dict, taken in one step where they are the usual ones.

A checkpoint is a thousand times the same thirty opcodes with other numbers in them. A regular expression finds them,
and what they would do is done at once: the values are the same, and the same of them is remembered, as when a machine
takes one after the other. Whatever is not exactly the usual record is left to it, and nothing has changed then.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bottega.formats.pickled.rebuild import farther, make_table, make_tensor_v2, view
from bottega.formats.pickled.values import Broken, Name, Storage, Table, Tensor
from bottega.formats.tensor_bytes import BYTES_OF_ELEMENT

MARKS = 2  # that a record sets at one time
CALLS = 3  # in it, with the reference to its storage
MOST_DEAR = 3  # opcodes in it that cost much: the texts of key and location, and a None

_INT = "(?:K.|M..|J....)"  # BININT1, BININT2, BININT


def _record(told: str, remembered: str) -> re.Pattern[bytes]:
    """What follows a tensor's name: _rebuild_tensor_v2, its arguments, which are (("storage", class, key, location,
    count[, None]), offset, shape, strides, False, OrderedDict()), and the call.

    `told` opens the groups around what the record tells, `remembered` those around the places it remembers things at.
    """
    get = f"h{told}.)"  # BINGET, which recalls one of the first 256 things that were remembered
    # LONG_BINPUT of what is none of these, and below the machine's limit. Only an empty tuple is not remembered.
    put = rf"r{remembered}(?!.\0\0)..[\0-\x0e]\0)"
    # Recalled, if another tensor has named it. Twelve digits could be the beginning of a pickle in hexadecimal.
    key = rf"(?:X{told}.)\0\0\0{told}[0-9]{{1,11}}){put}|{get})"
    location = rf"(?:X{told}\x03\0\0\0cpu|\x06\0\0\0cuda:[0-9]){put}|{get})"
    sizes = rf"{told}\)|{_INT}\x85|{_INT}{{2}}\x86|{_INT}{{3}}\x87|\({_INT}{{4,64}}t)(?>(?<=\))|{put})"
    storage = rf"\({get}{get}{key}{location}{told}{_INT}N?)t{put}Q"
    text = rf"{put}{get}\({storage}{told}{_INT}){sizes}{sizes}\x89{get}\)R{put}t{put}R{put}"
    return re.compile(text.encode("ascii"), re.DOTALL)


_RECORD = _record(told="(", remembered="(?:").match
_REMEMBERED = _record(told="(?:", remembered="(").match
# Of every record: all but those of shape and strides, and a None; one less for each text that is recalled.
_OPCODES = 24
_INTS = re.compile(_INT.encode("ascii"), re.DOTALL).findall
_MAX_LAYOUTS = 4_096  # that are kept: a model has a few dozen


class _Layout(NamedTuple):
    """What a record says but for the names: numbers and bytes in the storage, and where in it the tensor lies."""

    numbers: int
    nbytes: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    end: int
    odd_strides: tuple[int, ...] | None  # if the elements don't lie one after the other
    opcodes: int
    rare: int  # of these, are rare elsewhere: a None behind the count


class Records:
    """Reads the records of one machine, and keeps the layouts that it has seen, by the opcodes for them.

    What a record remembers is hardly ever recalled. It is remembered when that matters: before any other opcode
    remembers or recalls what is not among the first 256 things, or counts what is remembered, `remember` has to be
    called if `unsaid` is not empty.
    """

    def __init__(self) -> None:
        self.unsaid: list[tuple[re.Match[bytes], object, str, Name, object, _Layout, Storage, Tensor]] = []
        self._layouts: dict[tuple[bytes, str], _Layout] = {}

    def read(
        self, data: bytes, at: int, edge: int, name: object, memo: dict[int, object], storages: dict[str, Storage]
    ) -> tuple[Tensor, int, int, int] | None:
        """The record that begins at `at`, behind a tensor's name, and ends before `edge`, if one does.

        It gives a tensor, where its record ends, and how many opcodes that was, of which some are dear.
        Broken if the tensor is, as the opcodes would have found.
        """
        match = _RECORD(data, at, edge)
        if match is None:
            return None
        function_at, word_at, kind_at, length, told, key_at, _, location_at, count, offset, shape, strides, hooks_at = (
            match.groups()
        )
        function, word, kind = memo.get(function_at[0]), memo.get(word_at[0]), memo.get(kind_at[0])
        hooks = memo.get(hooks_at[0])
        key = memo.get(key_at[0]) if key_at else told.decode("ascii")
        if (
            type(key) is not str
            or (key_at is None and length[0] != len(told))
            or type(function) is not Name
            or function.make is not make_tensor_v2
            or type(word) is not str
            or word != "storage"
            or type(kind) is not Name
            or not kind.dtype
            or type(hooks) is not Name
            or hooks.make is not make_table
            or (location_at and location_at[0] not in memo)
        ):
            return None
        dtype = kind.dtype
        layout = self._layouts.get((count + offset + shape + strides, dtype))
        nbytes = _bytes_of(dtype, count) if layout is None else layout.nbytes
        storage = Storage(key, dtype, 0, nbytes)
        known = storages.get(key)
        if known is None:
            storages[key] = storage
        elif known.nbytes != nbytes or known.dtype != dtype:
            storages[key] = farther(known, storage)
        if layout is None:
            layout = self._layout(dtype, nbytes, count, offset, shape, strides)
        _, _, _, sizes, _, start, end, odd_strides, opcodes, rare = layout
        tensor = Tensor(key, dtype, start, end, sizes, odd_strides)
        location = None  # or what will be found in the record
        dear = rare + 2  # the texts of key and location
        if key_at:
            opcodes -= 1
            dear -= 1
        if location_at:
            location = memo[location_at[0]]
            opcodes -= 1
            dear -= 1
        self.unsaid.append((match, name, word, kind, location, layout, storage, tensor))
        return tensor, match.end(), opcodes, dear

    def remember(self, memo: dict[int, object]) -> None:
        """Put into `memo` what the records since the last time have put there."""
        for match, name, word, kind, location, layout, storage, tensor in self.unsaid:
            if text := match[7]:
                location = text[4:].decode("ascii")
            identity = (word, kind, storage.key, location, layout.numbers) + (None,) * layout.rare
            hooks = Table()
            args = (storage, layout.offset, layout.shape, layout.strides, False, hooks)
            values = (name, storage.key, location, identity, layout.shape, layout.strides, hooks, args, tensor)
            puts = _REMEMBERED(match.string, match.start(), match.end())
            assert puts
            for put, value in zip(puts.groups(), values, strict=True):
                if put:
                    memo[int.from_bytes(put, "little")] = value
        self.unsaid.clear()

    def _layout(self, dtype: str, nbytes: int, count: bytes, offset: bytes, shape: bytes, strides: bytes) -> _Layout:
        number = _INTS(count)[0]
        rare = len(count) - len(number)
        numbers, first, sizes, steps = _number(number), _number(offset), _numbers(shape), _numbers(strides)
        tensor = view(Storage("", dtype, 0, nbytes), dtype, first, sizes, steps)
        opcodes = _OPCODES + rare + _opcodes_of(shape, sizes) + _opcodes_of(strides, steps)
        layout = _Layout(numbers, nbytes, first, sizes, steps, tensor.start, tensor.end, tensor.strides, opcodes, rare)
        if len(self._layouts) < _MAX_LAYOUTS:
            self._layouts[count + offset + shape + strides, dtype] = layout
        return layout


def _bytes_of(dtype: str, count: bytes) -> int:
    """How many bytes a storage of so many numbers takes."""
    numbers = _number(_INTS(count)[0])
    if numbers < 0:
        raise Broken("a storage in it has an impossible size")
    return numbers * BYTES_OF_ELEMENT[dtype]


def _numbers(opcodes: bytes) -> tuple[int, ...]:
    """The tuple that the opcodes make, of which the last makes it."""
    return tuple(map(_number, _INTS(opcodes, 1 if opcodes.startswith(b"(") else 0, len(opcodes) - 1)))


def _opcodes_of(opcodes: bytes, numbers: tuple[int, ...]) -> int:
    """How many opcodes make a tuple of these numbers, with the one that remembers it unless it is empty."""
    return len(numbers) + 1 + bool(numbers) + opcodes.startswith(b"(")


def _number(opcode: bytes) -> int:
    """The number that BININT1, BININT2 or BININT puts on the stack."""
    if len(opcode) == 2:
        return opcode[1]
    return int.from_bytes(opcode[1:], "little", signed=len(opcode) == 5)
