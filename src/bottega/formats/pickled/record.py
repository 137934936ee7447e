"""The opcodes that torch writes for one tensor of a state dict, taken in one step where they are the usual ones.

A checkpoint is a thousand times the same thirty opcodes with other numbers in them. A regular expression finds them, and
what they would have done is done at once: the same values, and the same of them remembered, as when a machine takes one
after the other. Whatever is not exactly the usual record is left to it, and nothing has changed then.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from bottega.formats.pickled.rebuild import make_table, make_tensor_v2, view
from bottega.formats.pickled.values import Broken, Name, Storage, Table, Tensor
from bottega.formats.tensor_bytes import BYTES_OF_ELEMENT

_INT = rb"(?:K.|M..|J....)"  # BININT1, BININT2, BININT
_GET = rb"h(.)"  # BINGET, which recalls one of the first 256 things that were remembered
_PUT = rb"r(?!.\0\0)(..[\0-\x0e]\0)"  # LONG_BINPUT of what is none of these, and less than the machine's limit
_TUPLE = rb"(\)|%b\x85|%b{2}\x86|%b{3}\x87|\(%b{4,64}t)(?:%b)?" % (_INT, _INT, _INT, _INT, _PUT)
# What follows a tensor's name: _rebuild_tensor_v2, its arguments, which are
# (("storage", class, key, location, count[, None]), offset, shape, strides, False, OrderedDict()), and the call.
_RECORD = re.compile(
    (_PUT + _GET + rb"\(\(")
    + (_GET + _GET)
    + (rb"X(.)\0\0\0([0-9]+)" + _PUT)
    + (rb"(?:X(\x03\0\0\0cpu|\x06\0\0\0cuda:[0-9])%b|%b)" % (_PUT, _GET))
    + (rb"(%b)(N?)t%bQ" % (_INT, _PUT))
    + (rb"(%b)" % _INT + _TUPLE + _TUPLE + rb"\x89")
    + (_GET + rb"\)R" + _PUT)
    + (rb"t" + _PUT + rb"R" + _PUT),
    re.DOTALL,
).match
_OPCODES = 23  # of every record: all but those of shape and strides, the None, and three that may remember something
MARKS = 2  # that a record sets at one time

_INTS = re.compile(_INT, re.DOTALL).findall
_MAX_LAYOUTS = 4_096  # that are kept: a model has a few dozen


class _Layout(NamedTuple):
    """What a record says but for the names: numbers and bytes in the storage, and where in it the tensor lies."""

    count: int
    nbytes: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    start: int
    end: int
    odd_strides: tuple[int, ...] | None  # if the elements don't lie one after the other
    opcodes: int  # of shape and strides


class Records:
    """Reads the records of one machine, and keeps the layouts that it has seen, by the opcodes for them.

    What a record remembers is hardly ever recalled. It is remembered when that matters: before any other opcode
    remembers or recalls what is not among the first 256 things, or counts what is remembered, `remember` has to be
    called if `unsaid` is not empty.
    """

    def __init__(self) -> None:
        self.unsaid: list[tuple[re.Match[bytes], tuple[object, ...]]] = []
        self._layouts: dict[tuple[bytes, str], _Layout] = {}

    def read(
        self, data: bytes, at: int, edge: int, name: object, memo: dict[int, object], storages: dict[str, Storage]
    ) -> tuple[Tensor, int, int, int] | None:
        """The record that begins at `at`, behind a tensor's name, and ends before `edge`, if one does.

        It gives a tensor, where its record ends, and how many opcodes that was, of which some are rare elsewhere.
        Broken if the tensor is, as the opcodes would have found.
        """
        match = _RECORD(data, at, edge)
        if match is None:
            return None
        (_, function_at, word_at, kind_at, length, key, _, location, location_put, location_at, count, none, _, offset,
         shape, shape_put, strides, strides_put, hooks_at, *_) = match.groups(b"")  # fmt: skip
        function, word, kind = memo.get(function_at[0]), memo.get(word_at[0]), memo.get(kind_at[0])
        hooks = memo.get(hooks_at[0])
        if (
            length[0] != len(key)
            or type(function) is not Name
            or function.make is not make_tensor_v2
            or word != "storage"
            or type(kind) is not Name
            or not kind.dtype
            or type(hooks) is not Name
            or hooks.make is not make_table
            or (location_at and location_at[0] not in memo)
        ):
            return None
        layout = self._layouts.get((count + offset + shape + strides, kind.dtype))
        if layout is None:
            layout = self._layout(kind.dtype, count, offset, shape, strides)
        _, nbytes, _, sizes, _, start, end, odd_strides, opcodes = layout
        storage_key = key.decode("ascii")
        storage = Storage(storage_key, kind.dtype, 0, nbytes)
        known = storages.get(storage_key)
        if known is None or known.first + known.nbytes < nbytes:
            storages[storage_key] = storage
        tensor = Tensor(storage_key, kind.dtype, start, end, sizes, odd_strides)
        where = memo[location_at[0]] if location_at else location[4:].decode("ascii")
        self.unsaid.append((match, (name, word, kind, where, layout, storage, tensor)))
        opcodes += _OPCODES + len(none) + (len(location_put + shape_put + strides_put) >> 2)
        return tensor, match.end(), opcodes, len(none)

    def remember(self, memo: dict[int, object]) -> None:
        """Put into `memo` what the records since the last time have put there."""
        for match, (name, word, kind, where, layout, storage, tensor) in self.unsaid:
            (name_put, _, _, _, _, _, key_put, _, location_put, _, _, none, identity_put, _, _, shape_put, _,
             strides_put, _, hooks_put, args_put, put) = match.groups(b"")  # fmt: skip
            key = storage.key
            identity = (word, kind, key, where, layout.count) + ((None,) if none else ())
            hooks = Table()
            args = (storage, layout.offset, layout.shape, layout.strides, False, hooks)
            for index, value in (
                (name_put, name),
                (key_put, key),
                (location_put, where),
                (identity_put, identity),
                (shape_put, layout.shape),
                (strides_put, layout.strides),
                (hooks_put, hooks),
                (args_put, args),
                (put, tensor),
            ):
                if index:
                    memo[int.from_bytes(index, "little")] = value
        self.unsaid.clear()

    def _layout(self, dtype: str, count: bytes, offset: bytes, shape: bytes, strides: bytes) -> _Layout:
        numbers, first, sizes, steps = _number(count), _number(offset), _numbers(shape), _numbers(strides)
        if numbers < 0:
            raise Broken("a storage in it has an impossible size")
        nbytes = numbers * BYTES_OF_ELEMENT[dtype]
        tensor = view(Storage("", dtype, 0, nbytes), dtype, first, sizes, steps)
        opcodes = len(sizes) + len(steps) + 2 + shape.startswith(b"(") + strides.startswith(b"(")
        layout = _Layout(numbers, nbytes, first, sizes, steps, tensor.start, tensor.end, tensor.strides, opcodes)
        if len(self._layouts) < _MAX_LAYOUTS:
            self._layouts[count + offset + shape + strides, dtype] = layout
        return layout


def _numbers(opcodes: bytes) -> tuple[int, ...]:
    """The tuple that the opcodes make, of which the last makes it."""
    return tuple(map(_number, _INTS(opcodes, 1 if opcodes.startswith(b"(") else 0, len(opcodes) - 1)))


def _number(opcode: bytes) -> int:
    """The number that BININT1, BININT2 or BININT puts on the stack."""
    if len(opcode) == 2:
        return opcode[1]
    return int.from_bytes(opcode[1:], "little", signed=len(opcode) == 5)
