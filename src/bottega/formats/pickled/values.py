"""What a pickle's parts become when nothing in it is ever called: names, calls that were not made, and tensors.

Text, bytes, numbers, None, lists and tuples stand for themselves. A dict is a `Table`, so that no key of a hostile file
is ever hashed or compared; a set is a list.
"""

from __future__ import annotations

from collections.abc import Callable


class Broken(ValueError):
    """A file that breaks the rules of its format; the text says how."""


class CutShort(Broken):
    """A file whose end is missing; the text says what."""


class Poisonous(Broken):
    """A file that changes what others use, such as a module's functions, or calls what it has been given by a call."""


class Sparse(Broken):
    """A file that holds a sparse tensor, wherever in it, and even if nothing refers to it."""


class Name:
    """A global that a pickle mentions. It is never looked up: `make` and `dtype` are what *we* know of it, if anything.

    `make` builds what the global would have returned, as data; `dtype` is the name of the dtype that it stands for.
    """

    __slots__ = ("dtype", "make", "module", "name")

    def __init__(self, module: str, name: str, make: Callable[[tuple[object, ...]], object] | None, dtype: str) -> None:
        self.module, self.name, self.make, self.dtype = module, name, make, dtype

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Node:
    """A call that was not made: an object of some class, with what the pickle puts into it afterwards."""

    __slots__ = ("args", "entries", "function", "items", "state")

    def __init__(self, function: Name, args: tuple[object, ...]) -> None:
        self.function, self.args = function, args
        self.state: object = None
        self.items: list[object] | None = None
        self.entries: Table | None = None


class Table(list[object]):
    """A dict as the list of its keys and values in turns: key, value, key, value."""

    __slots__ = ()


class Storage:
    """A stretch of numbers that tensors look into: `nbytes` bytes from byte `first` of what is stored under `key`.

    `dtype` is the name of its class where it is quantised; no tensor that can be read looks into such a one.
    """

    __slots__ = ("dtype", "first", "key", "nbytes")

    def __init__(self, key: str, dtype: str, first: int, nbytes: int) -> None:
        self.key, self.dtype, self.first, self.nbytes = key, dtype, first, nbytes


class Tensor:
    """A tensor whose numbers are known to lie within its storage: bytes `start` to `end` of what is under `key`."""

    __slots__ = ("dtype", "end", "key", "shape", "start", "strides")

    def __init__(
        self, key: str, dtype: str, start: int, end: int, shape: tuple[int, ...], strides: tuple[int, ...] | None
    ) -> None:
        self.key, self.dtype, self.start, self.end, self.shape, self.strides = key, dtype, start, end, shape, strides


class Unreadable:
    """A tensor of a sort that has no plain numbers, such as a quantised one; `why` goes on "tensor x "."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why
