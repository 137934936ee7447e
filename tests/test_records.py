"""What a tensor's opcodes do when they are taken in one step is what they do one after the other."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest
from hostile.opcodes import name, text, whole

from bottega.formats.pickled.machine import MAX_MEMO, Machine
from bottega.formats.pickled.record import Records
from bottega.formats.pickled.values import Name, Node, Storage, Table, Tensor, Unreadable

NAMES = (
    name("torch._utils", "_rebuild_tensor_v2"), text("storage"), name("torch", "HalfStorage"),
    name("collections", "OrderedDict"), text("cpu"), text("1"),
)  # fmt: skip
FUNCTION, WORD, KIND, HOOKS, CPU, ONE = (b"h" + bytes([index]) for index in range(len(NAMES)))


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def sizes(numbers: tuple[int, ...], index: int) -> list[bytes]:
    """A tuple the way pickles have it, and remembered unless it is empty."""
    wholes = [whole(number) for number in numbers]
    if not numbers:
        return [b")"]
    if len(numbers) < 4:
        return [*wholes, bytes([0x84 + len(numbers)]), put(index)]
    return [b"(", *wholes, b"t", put(index)]


def record(
    key: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *,
    named: bytes = b"",
    kind: bytes = KIND,
    place: bytes = CPU,
    old: bool = False,
) -> list[bytes]:
    """The opcodes of one tensor and of its name; its storage is called by the key unless one that was `named` is."""
    at = 300 + 10 * key
    where = [place] if place.startswith(b"h") else [place, put(at + 2)]
    storage = [
        b"(",
        WORD,
        kind,
        *([named] if named else [text(str(key)), put(at + 1)]),
        *where,
        b"M\x40\0",
        *([b"N"] if old else []),
        b"t",
        put(at + 3),
    ]
    hooks = [HOOKS, b")", b"R", put(at + 6)]
    args = [b"(", *storage, b"Q", whole(2), *sizes(shape, at + 4), *sizes(strides, at + 5), b"\x89", *hooks, b"t"]
    return [text(f"layer.{key}"), put(at), FUNCTION, *args, put(at + 7), b"R", put(at + 8)]


BEGIN = [b"\x80\2"]
for index, opcode in enumerate(NAMES):
    BEGIN += [opcode, b"q" + bytes([index]), b"0"]
PICKLE = [
    *BEGIN, b"}", b"(",
    *record(1, (4, 2), (2, 1)),
    *record(2, (), (), place=text("cuda:0")),
    *record(3, (2, 3, 1, 2), (6, 1, 9, 3), place=text("cpu"), old=True),
    *record(4, (0, 300, 2), (600, 2, 1)),
    *record(5, (4,), (1,)),
    *record(6, (3, 2), (2, 1), named=ONE),
    *record(7, (5,), (1,), named=ONE, place=text("cpu")),
    b"u", b".",
]  # fmt: skip


def told(value: object, seen: dict[int, int] | None = None) -> object:
    """A value as nested tuples; what is met again is told by when it was met, but for tuples of whole numbers."""
    seen = {} if seen is None else seen
    if type(value) in (str, bytes, int, bool, float, type(None)):
        return type(value), value
    if type(value) is not tuple or not all(type(item) is int for item in value):
        if id(value) in seen:
            return "again", seen[id(value)]
        seen[id(value)] = len(seen)
    if isinstance(value, list | tuple):
        return type(value), [told(item, seen) for item in value]
    if type(value) is Name:
        return str(value)
    assert isinstance(value, Node | Storage | Tensor | Unreadable)
    return type(value), [told(getattr(value, slot), seen) for slot in type(value).__slots__]


def run(data: bytes) -> tuple[object, ...]:
    """All that a machine has come to: the value or the error, what it remembers, and what it may still do."""
    machine = Machine()
    try:
        value, end = machine.run(data)
    except (ValueError, IndexError, KeyError, struct.error) as error:
        return type(error), str(error)
    machine._records.remember(machine._memo)
    seen: dict[int, int] = {}
    memo = [(index, told(value, seen)) for index, value in sorted(machine._memo.items())]
    storages = {key: told(storage) for key, storage in machine.storages.items()}
    left = machine._fuel.__length_hint__(), machine._dear_fuel
    return told(value, seen), end, memo, storages, machine.hides_pickle, left


def mutations(count: int) -> Iterator[bytes]:
    chance = random.Random(11)
    places = [0, 4, 255, 256, 300, 310, 311, 322, 334, 348, 983_039, 983_040, MAX_MEMO, MAX_MEMO + 1]

    def another() -> bytes:
        index = chance.choice(places)
        return chance.choice([
            put(index), get(index), b"q" + bytes([index % 256]), b"h" + bytes([index % 256]), b"g%d\n" % index,
            b"p%d\n" % index, b"\x94", b"N", b"(", b")", b"t", b"0", b"1", b"2", b"\x88", whole(index), text("7"),
            struct.pack("<ci", b"J", chance.choice([-1, 0, 64, 1 << 30])), text("cpu"), *NAMES,
        ])  # fmt: skip

    for _ in range(count):
        opcodes = list(PICKLE)
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            at = chance.randrange(len(opcodes))
            like = [opcode for opcode in opcodes if opcode[:1] == opcodes[at][:1]]
            change = chance.randrange(5)
            if change == 0:
                opcodes[at : at + 1] = [another()]
            elif change == 1:
                opcodes.insert(at, another())
            elif change == 2:
                opcodes[at] = chance.choice(like)
            elif change == 3:
                del opcodes[at]
            else:  # what was remembered shows in the value
                opcodes[-2:-2] = [text("extra"), get(chance.choice(places))]
        yield b"".join(opcodes)


def test_every_record_is_taken_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    read = Records.read

    def counted(self: Records, *args: object) -> object:
        found = read(self, *args)  # type: ignore[arg-type]
        taken.append(found is not None)
        return found

    monkeypatch.setattr(Records, "read", counted)
    value, _ = Machine().run(b"".join(PICKLE))
    assert taken == [True] * 7
    assert type(value) is Table
    assert [type(tensor) for tensor in value[1::2]] == [Tensor] * 7


FLOAT = [name("torch", "FloatStorage"), b"q\6", b"0"]
SCALAR = record(1, (), ())
SCALAR.insert(SCALAR.index(b")") + 1, put(950))  # it remembers the empty tuple
ODD = [
    [*BEGIN, b"(", *record(1, (4,), (1,), named=text("800228000000") + put(900)), b"t."],  # which hides a pickle
    [*BEGIN, *FLOAT, b"(", *record(1, (4,), (1,)), *record(2, (4,), (1,), named=ONE, kind=b"h\6"), b"t."],
    [*BEGIN, *FLOAT, b"(", *record(1, (4,), (1,)), *record(2, (40_000,), (1,), named=ONE, kind=b"h\6"), b"t."],
    [*BEGIN, b"(", *record(1, (4,), (1,)), *record(2, (40_000,), (1,), named=ONE), b"t."],
    [*BEGIN, b"(", *SCALAR, b"t."],
]


def test_one_step_is_what_all_steps_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pickles = [b"".join(PICKLE), *map(b"".join, ODD), *mutations(2000)]
    at_once = [run(data) for data in pickles]
    monkeypatch.setattr(Records, "read", lambda self, *args: None)
    for data, outcome in zip(pickles, at_once, strict=True):
        assert run(data) == outcome, data
    assert sum(len(outcome) > 2 for outcome in at_once) > 300  # a good part of them can be read
