"""What tensors are called, their dtypes, shapes and order: the same in all files that one program wrote of one design.

So it is worth while to keep a layout, and with it what was found by looking at nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, wraps
from typing import Any, Concatenate, NamedTuple, ParamSpec, Protocol, TypeVar

from bottega.formats.quantised import NOT_QUANTISED, SIGNS, Quantised, quantised_weights

_More = ParamSpec("_More")
_Found = TypeVar("_Found")


class Placed(Protocol):
    """What a layout knows of one tensor; `start` and `end` count from wherever the file's tensors begin."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class Row(NamedTuple):
    """One tensor of a file whose tensors lie one after the other; rows sort in the order of their bytes."""

    start: int
    end: int
    name: str
    dtype: str
    shape: tuple[int, ...]


class Layout:
    """The tensors of a file, or of all files that are laid out alike, by name. It is never changed: many share it."""

    def __init__(self, rows: Mapping[str, Placed]) -> None:
        self.rows = rows
        self._found: dict[tuple[object, ...], Any] = {}

    @cached_property
    def roots(self) -> frozenset[str]:
        """What the names of the tensors begin with, up to their first dot or slash."""
        words = {name.partition(".")[0] for name in self.rows}
        return frozenset(word.partition("/")[0] for word in words)

    @cached_property
    def endings(self) -> frozenset[str]:
        """What the names of the tensors end with: their last word, and their last two (`weight`, `lora_up.weight`)."""
        ends = {name[name.rfind(".", 0, name.rfind(".")) + 1 :] for name in self.rows}
        return frozenset(ends.union(end.rpartition(".")[2] for end in ends))

    @cached_property
    def quantised(self) -> Quantised:
        """The weights that are stored in fewer bits than their tensors' dtypes have."""
        return NOT_QUANTISED if SIGNS.isdisjoint(self.endings) else quantised_weights(self.rows)

    @cached_property
    def parameters(self) -> int:
        """How many numbers all weights hold together."""
        told = sum(math.prod(row.shape) for row in self.rows.values())
        for name, weight in self.quantised.weights.items():
            told += weight.elements - math.prod(self.rows[name].shape)
        return told - sum(math.prod(self.rows[name].shape) for name in self.quantised.numbers)

    @cached_property
    def dtypes(self) -> Mapping[str, int]:
        """Bytes of each dtype, the largest first."""
        totals: dict[str, int] = {}
        for row in self.rows.values():
            totals[row.dtype] = totals.get(row.dtype, 0) + row.end - row.start
        for name, weight in self.quantised.weights.items():
            row = self.rows[name]
            totals[row.dtype] -= row.end - row.start
            totals[weight.dtype] = totals.get(weight.dtype, 0) + row.end - row.start
        if self.quantised.weights:
            totals = {dtype: count for dtype, count in totals.items() if count}
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    def under(self, prefix: str) -> Names:
        """The tensors whose names begin with `prefix`, seen without it."""
        return Names(self, prefix)


def once_a_layout(
    find: Callable[Concatenate[Layout, _More], _Found],
) -> Callable[Concatenate[Layout, _More], _Found]:
    """Keep with each layout what `find` makes of it (and of a few constants), for all files that are laid out so.

    What is found must not be changed afterwards, nor lead back to the layout: it would take a garbage collection to
    get rid of the two.
    """

    @wraps(find)
    def found(layout: Layout, /, *constants: _More.args, **named: _More.kwargs) -> _Found:
        key = (find, *constants, *named.items())
        kept = layout._found
        if key not in kept:
            kept[key] = find(layout, *constants, **named)
        result: _Found = kept[key]
        return result

    return found


class Names:
    """The names and shapes of a layout's tensors under one prefix."""

    def __init__(self, layout: Layout, prefix: str) -> None:
        self._rows = layout.rows
        self.prefix = prefix

    @cached_property
    def names(self) -> frozenset[str]:
        """The names without the prefix."""
        skip = len(self.prefix)
        return frozenset(name[skip:] for name in self._rows if name.startswith(self.prefix))

    def __bool__(self) -> bool:
        return any(name.startswith(self.prefix) for name in self._rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.prefix + name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of one tensor, or None if there is no such tensor."""
        row = self._rows.get(self.prefix + name)
        return row.shape if row else None

    def size(self, name: str, axis: int) -> int | None:
        """One axis of one tensor's shape, or None if there is no such tensor or axis."""
        shape = self.shape(name)
        return shape[axis] if shape is not None and -len(shape) <= axis < len(shape) else None

    def count(self, pattern: str) -> int:
        """How many consecutive indices from 0 stand at the `{}` of a name's beginning, as in `layers.{}.`."""
        before, _, after = pattern.partition("{}")
        # One pass over the names, and indices kept as text: a hostile file can have many names and long numbers.
        numbered = re.compile(re.escape(before) + "(0|[1-9][0-9]*)" + re.escape(after))
        found = {match[1] for name in self.names if (match := numbered.match(name))}
        index = 0
        while str(index) in found:
            index += 1
        return index
