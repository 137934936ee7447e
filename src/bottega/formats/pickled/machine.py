"""Runs a pickle's opcodes, protocols 0 to 5, on symbols: it builds data and calls nothing that the file names.

The opcodes are those of CPython's `Lib/pickletools.py`. Where its unpicklers disagree with each other about a file, or
about what a scanner would see in it, the file is refused here.
"""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable
from itertools import islice, repeat
from struct import Struct

from bottega.formats.pickled.names import DANGEROUS, INERT, is_class, is_unknown_function, judge
from bottega.formats.pickled.rebuild import (
    COPYING,
    MAX_NAME,
    STATED,
    check_build,
    farther,
    name_of,
    parts_of_state,
    storage_of,
)
from bottega.formats.pickled.record import CALLS, MARKS, MOST_DEAR, Records
from bottega.formats.pickled.values import Broken, CutShort, Name, Node, Poisonous, Storage, Table, Tensor

# Together these keep what any file can make below 400 MiB and two seconds. A hundred thousand tensors take 3.3 million
# opcodes, of which 200,000 are dear, and 800,000 memo entries.
MAX_OPCODES = 3_400_000
MAX_DEAR_OPCODES = 500_000  # that make a text, or are rare in checkpoints
MAX_CALLS = 500_000  # and references to storages, of which a tensor has one and at most four calls
MAX_COPIES = 4_000_000  # items that calls copy
MAX_COPIED_TEXT = 64 << 20  # bytes in memory of texts and bytes that calls copy
# In memory, one letter beyond Latin-1 makes every letter of its text take two or four bytes. Bytes, which protocol 2
# writes as text, have no such letter, and may be as long as a pickle.
MAX_WIDE_TEXT = 4 << 20  # bytes of one text that has such a letter
MAX_TEXTS = 128 << 20  # bytes that all texts which are not ASCII take in memory
MAX_MEMO = 1_000_000
MAX_MARKS = 1_000
MAX_NAMES = 10_000
_AXES = 8  # of a tensor, for which as much is to be done as for a call
_CALLS_OF_ATTRIBUTE = 10  # calls that a name made by `getattr` counts for: it is kept, and judged
_ARGUMENTS = 4  # of a call, and items of each, that are looked at for a text
MAX_DIGITS = 1_024  # of a number that is written out, and bytes of a long one

_UINT16, _INT32 = Struct("<H").unpack_from, Struct("<i").unpack_from
_UINT32, _UINT64 = Struct("<I").unpack_from, Struct("<Q").unpack_from
_DOUBLE = Struct(">d").unpack_from

# How a pickle of protocol 2 or later begins, as bytes, as text of the same letters, in base64 and in hexadecimal; with
# one of the opcodes that usually come first.
_PICKLE = re.compile(
    rb"(?:\x80|\xc2\x80)[\2-\5](?:[\x95\x80\x8a-\x8e]|\xc2[\x95\x80\x8a-\x8e]|[]}()cCBUTXVKMJIGNSi\x88\x89\x8f])"
    rb"|gA[I-X][A-Za-z0-9+/_-]{12}"
    rb"|800[2-5](?:95|8[0a-f]|5[d5468]|7d|2[89]|6[39]|4[23b9ad7e]|88)[0-9A-Fa-f]{6}",
).match
_BEGINNINGS = frozenset(b"\x80\xc2g8")  # the bytes that it can begin with
_WIDE = re.compile(rb"[\xc4-\xff]").search  # the first byte of a letter beyond Latin-1

# Numbers as every pickler writes them. Of other spellings Python's two unpicklers make other numbers than we would: a
# leading zero means octal to one of them, and -0 means False.
_WHOLE = re.compile(rb"0|-?[1-9][0-9]*").fullmatch
_FRACTION = re.compile(rb"-?(?:[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?|inf|nan)").fullmatch
_MISSPELT = "a number in it is written in a way that programs read differently"

_TOO_MANY = "it has too many texts, or opcodes that are rare in checkpoints"

_Work = Callable[["Machine", bytes, int], int]


class Machine:
    """One file's pickles: `names` and limits are those of all of them together, memo and stack belong to each.

    `run` raises Broken or another ValueError, IndexError or struct.error where the bytes end too early, and KeyError
    where it recalls what it never remembered. What was named until then is in `names`.
    """

    def __init__(self) -> None:
        self.names: dict[tuple[str, str], Name] = {}
        self.storages: dict[str, Storage] = {}
        self.hides_pickle = False  # in one of its texts or bytes
        self._told: dict[Name, None] = {}  # what it calls with a text, and classes that it calls
        self._fuel = repeat(None, MAX_OPCODES)
        self._dear_fuel = MAX_DEAR_OPCODES
        self._calls = MAX_CALLS
        self._copies, self._copied_text, self._texts = MAX_COPIES, MAX_COPIED_TEXT, MAX_TEXTS
        self._records = Records()
        self._stack: list[object] = []
        self._marked: list[list[object]] = []
        self._memo: dict[int, object] = {}
        self._end = self._edge = 0  # of the data, and of the frame that is being read
        self._framed = False

    def judged(self, verdict: str) -> list[str]:
        """The names so far that deserve this verdict."""
        return [str(name) for key, name in self.names.items() if judge(*key) == verdict]

    def unusual_names(self) -> list[Name]:
        """The names so far that are neither harmless nor dangerous."""
        return [name for key, name in self.names.items() if judge(*key) not in (INERT, DANGEROUS)]

    def unknown_calls(self) -> list[Name]:
        """The functions of which nothing is known that it calls with a text, which may be code, a command or a path."""
        return [name for name in self._told if is_unknown_function(name.module, name.name)]

    @property
    def stored(self) -> int:
        """How many bytes all storages take together."""
        return sum(storage.nbytes for storage in self.storages.values())

    def run(self, data: bytes, start: int = 0) -> tuple[object, int]:
        """The value of the pickle that begins at `start`, and where it ends."""
        stack: list[object] = []
        memo: dict[int, object] = {}
        marked: list[list[object]] = []
        self._memo, self._marked = memo, marked
        self._edge = self._end = len(data)
        self._framed = False
        unsaid = self._records.unsaid  # what has to be in the memo before anything there is recalled or counted
        unsaid.clear()
        position = start
        edge = self._edge
        # What a checkpoint is made of is done in this loop, because a call takes longer than most opcodes, and in three
        # groups, the most frequent first, because twenty comparisons do too. The rest is in a table of functions.
        for _ in self._fuel:
            if position >= edge:
                edge = self._pass_edge(position)
            code = data[position]
            position += 1
            if code <= 0x52:
                if code == 0x4B:  # BININT1
                    stack.append(data[position])
                    position += 1
                elif code == 0x28:  # MARK
                    marked.append(stack)
                    stack = []
                    if len(marked) > MAX_MARKS:
                        raise Broken("it is nested without end")
                elif code == 0x4D:  # BININT2
                    stack.append(_UINT16(data, position)[0])
                    position += 2
                elif code == 0x52:  # REDUCE
                    args = stack.pop()
                    stack[-1] = self._made(stack[-1], args)
                elif code == 0x51:  # BINPERSID
                    stack[-1] = self._refer(stack[-1])
                elif code == 0x29:  # EMPTY_TUPLE
                    stack.append(())
                elif code == 0x4A:  # BININT
                    stack.append(_INT32(data, position)[0])
                    position += 4
                elif code == 0x2E:  # STOP
                    if len(stack) != 1 or marked or (self._framed and position != edge):
                        raise Broken("it stops in the middle of something")
                    return stack[0], position
                else:
                    position, stack, edge = self._rare(code, data, position, stack)
            elif code <= 0x74:
                if code == 0x72:  # LONG_BINPUT
                    if unsaid:
                        self._records.remember(memo)
                    index = _UINT32(data, position)[0]
                    memo[index] = stack[-1]
                    position += 4
                    if index > MAX_MEMO:
                        raise Broken("it remembers too many things")
                elif code == 0x68:  # BINGET
                    stack.append(memo[data[position]])
                    position += 1
                elif code == 0x71:  # BINPUT
                    memo[data[position]] = stack[-1]
                    position += 1
                elif code == 0x74:  # TUPLE
                    items = tuple(stack)
                    stack = marked.pop()
                    stack.append(items)
                elif code == 0x58:  # BINUNICODE
                    length = _UINT32(data, position)[0]
                    position += 4
                    if length > MAX_WIDE_TEXT:
                        _check_width(data, position, position + length)
                    word = str(data[position : position + length], "utf-8", "surrogatepass")
                    stack.append(word)
                    if not word.isascii():
                        self._spend_text(word)
                    self._dear_fuel -= 1
                    if self._dear_fuel < 0:
                        raise Broken(_TOO_MANY)
                    if data[position] in _BEGINNINGS:
                        self._suspect(data, position, position + length)
                    position += length
                    if position < edge and data[position] == 0x72:  # what follows may be a whole tensor
                        position = self._record(data, position, edge, stack)
                elif code == 0x6A:  # LONG_BINGET
                    if unsaid:
                        self._records.remember(memo)
                    stack.append(memo[_UINT32(data, position)[0]])
                    position += 4
                else:
                    position, stack, edge = self._rare(code, data, position, stack)
            elif code == 0x94:  # MEMOIZE
                if unsaid:
                    self._records.remember(memo)
                memo[len(memo)] = stack[-1]
                if len(memo) > MAX_MEMO:
                    raise Broken("it remembers too many things")
            elif code == 0x86:  # TUPLE2
                last = stack.pop()
                stack[-1] = (stack[-1], last)
            elif code == 0x8C:  # SHORT_BINUNICODE
                length = data[position]
                position += 1
                word = str(data[position : position + length], "utf-8", "surrogatepass")
                stack.append(word)
                if not word.isascii():
                    self._spend_text(word)
                self._dear_fuel -= 1
                if self._dear_fuel < 0:
                    raise Broken(_TOO_MANY)
                if data[position] in _BEGINNINGS:
                    self._suspect(data, position, position + length)
                position += length
            elif code == 0x89:  # NEWFALSE
                stack.append(False)
            elif code == 0x85:  # TUPLE1
                stack[-1] = (stack[-1],)
            elif code == 0x87:  # TUPLE3
                last, middle = stack.pop(), stack.pop()
                stack[-1] = (stack[-1], middle, last)
            else:
                position, stack, edge = self._rare(code, data, position, stack)
        raise Broken(f"it has more than {MAX_OPCODES:,} opcodes")

    def _record(self, data: bytes, at: int, edge: int, stack: list[object]) -> int:
        """Do all opcodes that make the tensor whose name is on the stack, if they follow; where the next one is."""
        if len(self._marked) + MARKS > MAX_MARKS or self._dear_fuel < MOST_DEAR:
            return at
        record = self._records.read(data, at, edge, stack[-1], self._memo, self.storages)
        if record is None:
            return at
        tensor, end, opcodes, dear = record
        stack.append(tensor)
        self._dear_fuel -= dear
        self._spend_calls(CALLS + len(tensor.shape) // _AXES)
        next(islice(self._fuel, opcodes, opcodes), None)  # they count as if they had been taken one by one
        return end

    def _rare(self, code: int, data: bytes, position: int, stack: list[object]) -> tuple[int, list[object], int]:
        """Do one opcode by the table; where the next one is, and the stack and the edge as they are then."""
        self._stack = stack
        self._dear_fuel -= 1
        if self._dear_fuel < 0:
            raise Broken(_TOO_MANY)
        work = _RARE.get(code)
        if work is None:
            raise Broken(f"it has an opcode that no checkpoint needs (0x{code:02x})")
        position = work(self, data, position)
        return position, self._stack, self._edge

    def _pass_edge(self, position: int) -> int:
        """At the end of a frame, which must be the end of an opcode too: unpicklers differ in what they run if not."""
        if not self._framed:
            raise CutShort("it ends before its pickle does")
        if position > self._edge:
            raise Broken("an opcode reaches out of its frame")
        self._edge, self._framed = self._end, False
        return self._edge

    def _suspect(self, data: bytes, start: int, end: int) -> None:
        """Note if a text, or bytes, begin like a pickle; another program may read it, but nothing here does."""
        if _PICKLE(data, start, min(end, self._end)):
            self.hides_pickle = True

    def _refer(self, identity: object) -> object:
        self._spend_calls(1)
        storage = storage_of(identity)
        if type(storage) is Storage:
            known = self.storages.get(storage.key)
            self.storages[storage.key] = storage if known is None else farther(known, storage)
        return storage

    def name(self, module: str, name: str) -> Name:
        """The name of a global, the same object whenever it is mentioned."""
        known = self.names.get((module, name))
        if known is None:
            if len(module) > MAX_NAME or len(name) > MAX_NAME or len(self.names) >= MAX_NAMES:
                raise Broken("it mentions too many names, or too long ones")
            known = self.names[module, name] = name_of(module, name)
        return known

    def pop_mark(self) -> list[object]:
        """What was pushed since the last mark, which is taken off with it."""
        items = self._stack
        if not self._marked:
            raise Broken("it ends a group that it never began")
        self._stack = self._marked.pop()
        return items

    def _made(self, function: object, args: object) -> object:
        """What stands for a call: what our maker builds of its arguments, or a note that the call is in the file."""
        if type(args) is not tuple:
            raise Broken("it calls something without arguments")
        if type(function) is not Name:
            if type(function) is Node:
                raise Poisonous(f"it calls what a call of {function.function} would give")
            raise Broken("it calls something that is no function")
        self._spend_calls(1)
        if not function.make:
            if function not in self._told and (is_class(function.name.rpartition(".")[2]) or self._holds_text(args)):
                self._told[function] = None
            return Node(function, args)
        if function.make in COPYING:
            self._spend(args)
        elif function.make in STATED:
            self._spend(parts_of_state(args[-1] if args else None))
        made = function.make(args)
        if type(made) is Tensor:
            self._spend_calls(len(made.shape) // _AXES)
        elif type(made) is Name:
            self._spend_calls(_CALLS_OF_ATTRIBUTE)
        return made

    def _holds_text(self, args: tuple[object, ...]) -> bool:
        """Whether a text is among the first arguments of a call, or among the first things in one of them."""
        if str in map(type, args[:_ARGUMENTS]):
            return True
        groups = [each for each in args[:_ARGUMENTS] if isinstance(each, (list, tuple))]
        self._spend_calls(1 + len(groups))
        return any(str in map(type, group[:_ARGUMENTS]) for group in groups)

    def _spend_calls(self, calls: int) -> None:
        """Count calls, which take longer than any opcode, or what takes as long as so many."""
        self._calls -= calls
        if self._calls < 0:
            raise Broken("it has more calls than any checkpoint")

    def _spend(self, args: tuple[object, ...]) -> None:
        """Count what a call will copy: a few bytes can ask for the same large copy again and again."""
        for each in args:
            if isinstance(each, (list, tuple)):
                self._copies -= len(each)
            elif isinstance(each, (str, bytes)):
                self._copied_text -= sys.getsizeof(each)
        if self._copies < 0 or self._copied_text < 0:
            raise Broken("it makes more of its parts than any checkpoint does")

    def _spend_text(self, word: str) -> None:
        """Count what a text takes in memory."""
        self._texts -= sys.getsizeof(word)
        if self._texts < 0:
            raise Broken("the texts in it take more memory than those of any model")

    # --- opcodes that are rare in checkpoints; each takes what follows the opcode and tells where the next one is -----

    def _none(self, data: bytes, at: int) -> int:
        self._stack.append(None)
        return at

    def _true(self, data: bytes, at: int) -> int:
        self._stack.append(True)
        return at

    def _empty_dict(self, data: bytes, at: int) -> int:
        self._stack.append(Table())
        return at

    def _empty_list(self, data: bytes, at: int) -> int:
        self._stack.append([])
        return at

    def _global(self, data: bytes, at: int) -> int:
        module, at = _line(data, at)
        name, at = _line(data, at)
        self._stack.append(self.name(_text(module), _text(name)))
        return at

    def _stack_global(self, data: bytes, at: int) -> int:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise Broken("it names a global by something that is no text")
        self._stack.append(self.name(module, name))
        return at

    def _inst(self, data: bytes, at: int) -> int:
        module, at = _line(data, at)
        name, at = _line(data, at)
        args = tuple(self.pop_mark())
        self._stack.append(self._made(self.name(_text(module), _text(name)), args))
        return at

    def _obj(self, data: bytes, at: int) -> int:
        function, *args = self.pop_mark()
        self._stack.append(self._made(function, tuple(args)))
        return at

    def _newobj(self, data: bytes, at: int) -> int:
        args = self._stack.pop()
        self._stack[-1] = self._made(self._stack[-1], args)
        return at

    def _newobj_ex(self, data: bytes, at: int) -> int:
        named, args = self._stack.pop(), self._stack.pop()
        function = self._stack[-1]
        if type(function) is Name and function.make:
            raise Broken(f"it gives {function} arguments by their names")
        self._stack[-1] = self._made(function, (args, named))
        return at

    def _build(self, data: bytes, at: int) -> int:
        """Attributes are kept on objects and dropped elsewhere: an OrderedDict's `_metadata`, a parameter's hooks."""
        state = self._stack.pop()
        target = self._stack[-1]
        if type(target) is Name:
            raise Poisonous(f"it sets attributes of {target} itself")
        check_build(target, state)
        if type(target) is Node:
            target.state = state
        return at

    def _setitem(self, data: bytes, at: int) -> int:
        value, key = self._stack.pop(), self._stack.pop()
        _entries(self._stack[-1]).extend((key, value))
        return at

    def _setitems(self, data: bytes, at: int) -> int:
        items = self.pop_mark()
        if len(items) % 2:
            raise Broken("a key in it has no value")
        _entries(self._stack[-1]).extend(items)
        return at

    def _append(self, data: bytes, at: int) -> int:
        item = self._stack.pop()
        _items(self._stack[-1]).append(item)
        return at

    def _appends(self, data: bytes, at: int) -> int:
        items = self.pop_mark()
        _items(self._stack[-1]).extend(items)
        return at

    def _dict(self, data: bytes, at: int) -> int:
        items = self.pop_mark()
        if len(items) % 2:
            raise Broken("a key in it has no value")
        self._stack.append(Table(items))
        return at

    def _list(self, data: bytes, at: int) -> int:
        items = self.pop_mark()
        self._stack.append(items)
        return at

    def _pop(self, data: bytes, at: int) -> int:
        if self._stack:
            self._stack.pop()
        else:
            self.pop_mark()
        return at

    def _pop_mark(self, data: bytes, at: int) -> int:
        self.pop_mark()
        return at

    def _dup(self, data: bytes, at: int) -> int:
        self._stack.append(self._stack[-1])
        return at

    def _get(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        self._records.remember(self._memo)
        self._stack.append(self._memo[_index(line)])
        return at

    def _put(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        index = _index(line)
        self._records.remember(self._memo)
        self._memo[index] = self._stack[-1]
        if index > MAX_MEMO:
            raise Broken("it remembers too many things")
        return at

    def _int(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        self._stack.append(line == b"01" if line in (b"00", b"01") else _whole(line))
        return at

    def _long(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        self._stack.append(_whole(line.removesuffix(b"L")))
        return at

    def _float(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        if len(line) > MAX_DIGITS:
            raise Broken("a number in it has too many digits")
        if not _FRACTION(line):
            raise Broken(_MISSPELT)
        self._stack.append(float(line))
        return at

    def _long1(self, data: bytes, at: int) -> int:
        return self._number(data, at + 1, data[at])

    def _long4(self, data: bytes, at: int) -> int:
        return self._number(data, at + 4, _UINT32(data, at)[0])

    def _number(self, data: bytes, at: int, length: int) -> int:
        if length > MAX_DIGITS:
            raise Broken(f"a number in it takes {length:,} bytes")
        self._stack.append(int.from_bytes(data[at : at + length], "little", signed=True))
        return at + length

    def _binfloat(self, data: bytes, at: int) -> int:
        self._stack.append(_DOUBLE(data, at)[0])
        return at + 8

    def _string(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        if len(line) < 2 or line[0] != line[-1] or line[0] not in b"\"'":
            raise Broken("a text in it has no quotes")
        raw = codecs.escape_decode(line[1:-1])[0]
        self._suspect(raw, 0, len(raw))
        self._push_text(_text(raw))
        return at

    def _unicode(self, data: bytes, at: int) -> int:
        line, at = _line(data, at)
        if len(line) > MAX_WIDE_TEXT and (b"\\u" in line or b"\\U" in line):
            raise _too_long(len(line))
        value = str(line, "raw-unicode-escape")
        start = value[:32].encode("utf-8", "replace")
        self._suspect(start, 0, len(start))
        self._push_text(value)
        return at

    def _short_binstring(self, data: bytes, at: int) -> int:
        return self._text(data, at + 1, data[at])

    def _binstring(self, data: bytes, at: int) -> int:
        return self._text(data, at + 4, _UINT32(data, at)[0])

    def _binunicode8(self, data: bytes, at: int) -> int:
        return self._text(data, at + 8, _UINT64(data, at)[0])

    def _text(self, data: bytes, at: int, length: int) -> int:
        self._suspect(data, at, at + length)
        self._push_text(_text(data[at : at + length]))
        return at + length

    def _push_text(self, word: str) -> None:
        self._stack.append(word)
        if not word.isascii():
            self._spend_text(word)

    def _short_binbytes(self, data: bytes, at: int) -> int:
        return self._bytes(data, at + 1, data[at])

    def _binbytes(self, data: bytes, at: int) -> int:
        return self._bytes(data, at + 4, _UINT32(data, at)[0])

    def _binbytes8(self, data: bytes, at: int) -> int:
        return self._bytes(data, at + 8, _UINT64(data, at)[0])

    def _bytes(self, data: bytes, at: int, length: int) -> int:
        self._suspect(data, at, at + length)
        self._stack.append(data[at : at + length])
        return at + length

    def _frozenset(self, data: bytes, at: int) -> int:
        items = self.pop_mark()
        self._stack.append(items)
        return at

    def _proto(self, data: bytes, at: int) -> int:
        if data[at] > 5:
            raise Broken(f"its pickle is of the unknown protocol {data[at]}")
        return at + 1

    def _frame(self, data: bytes, at: int) -> int:
        end = at + 8 + _UINT64(data, at)[0]
        if self._framed:
            raise Broken("a frame in it begins within another one")
        if end > self._end:
            raise CutShort("it ends before its pickle does")
        self._edge, self._framed = end, True
        return at + 8


_RARE: dict[int, _Work] = {
    ord("N"): Machine._none, 0x88: Machine._true, ord("}"): Machine._empty_dict, ord("]"): Machine._empty_list,
    ord("c"): Machine._global, 0x93: Machine._stack_global, ord("i"): Machine._inst, ord("o"): Machine._obj,
    0x81: Machine._newobj, 0x92: Machine._newobj_ex, ord("b"): Machine._build,
    ord("s"): Machine._setitem, ord("u"): Machine._setitems,
    ord("a"): Machine._append, ord("e"): Machine._appends, ord("d"): Machine._dict, ord("l"): Machine._list,
    ord("0"): Machine._pop, ord("1"): Machine._pop_mark, ord("2"): Machine._dup, ord("g"): Machine._get,
    ord("p"): Machine._put, ord("I"): Machine._int, ord("L"): Machine._long, ord("F"): Machine._float,
    0x8A: Machine._long1, 0x8B: Machine._long4, ord("G"): Machine._binfloat, ord("S"): Machine._string,
    ord("V"): Machine._unicode, ord("U"): Machine._short_binstring, ord("T"): Machine._binstring,
    0x8D: Machine._binunicode8, ord("C"): Machine._short_binbytes, ord("B"): Machine._binbytes,
    0x8E: Machine._binbytes8, 0x96: Machine._binbytes8, 0x8F: Machine._empty_list, 0x90: Machine._appends,
    0x91: Machine._frozenset, 0x80: Machine._proto, 0x95: Machine._frame,
}  # fmt: skip


def _entries(target: object) -> list[object]:
    if type(target) is Table:
        return target
    if type(target) is not Node:
        raise Broken("it sets an item of something that has none")
    if target.entries is None:
        target.entries = Table()
    return target.entries


def _items(target: object) -> list[object]:
    if type(target) is list:
        return target
    if type(target) is not Node:
        raise Broken("it appends to something that is no list")
    if target.items is None:
        target.items = []
    return target.items


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.index(b"\n", at)
    return data[at:end], end + 1


def _whole(line: bytes) -> int:
    if len(line) > MAX_DIGITS:
        raise Broken("a number in it has too many digits")
    if not _WHOLE(line):
        raise Broken(_MISSPELT)
    return int(line)


def _index(line: bytes) -> int:
    """Where the memo keeps something."""
    index = _whole(line)
    if index < 0:
        raise Broken("it remembers things under a number below zero")
    return index


def _check_width(data: bytes, start: int, end: int) -> None:
    """Refuse a long text with letters beyond Latin-1; bytes that are written as text have none."""
    if _WIDE(data, start, end):
        raise _too_long(end - start)


def _too_long(length: int) -> Broken:
    return Broken(f"a text in it takes {length:,} bytes, of {MAX_WIDE_TEXT:,} allowed")


def _text(raw: bytes) -> str:
    """Text of any protocol; that of Python 2 has no encoding, and is nearly always ASCII, or bytes if it is long."""
    if len(raw) > MAX_WIDE_TEXT:
        return str(raw, "latin-1")
    try:
        return str(raw, "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return str(raw, "latin-1")
