"""What any model file says of itself before a tensor is read: names, shapes, dtypes, places and metadata."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

BYTES_OF_DTYPE: dict[str, float] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1, "F8_E8M0": 1,
    "F4": 0.5, "F6_E2M3": 0.75, "F6_E3M2": 0.75,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2, "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip


def shown(name: str) -> str:
    """A name from a file as one short line of printable ASCII: it may hold anything, escape codes too."""
    text = ascii(name)
    return text if len(text) <= 120 else f"{text[:100]}...{text[-1]}"


@dataclass(frozen=True, slots=True)
class Packed:
    """A stretch of a file that is compressed (raw deflate), and how many bytes it holds."""

    start: int
    end: int
    size: int


class TensorInfo(NamedTuple):  # a scan makes millions of these, and a frozen dataclass takes three times as long
    """One tensor: safetensors' (or ggml's) name of its dtype, its shape, and where its bytes lie in which file.

    `start` and `end` enclose all bytes of its elements; where it is `packed` they count within the unpacked bytes. Most
    tensors lie one element after the other; a pickle's may have `strides` (in elements), and share bytes with others.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int
    strides: tuple[int, ...] | None = None
    packed: Packed | None = None
    big_endian: bool = False

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Safety:
    """Whether a model file holds nothing but data: `clean` or `unusual` (what is worse is refused).

    `names` are those that an unusual pickle mentions beside the harmless ones, `reasons` are for people. Nothing that
    is named is ever run, whatever the verdict.
    """

    verdict: str = "clean"
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Header:
    """The tensors of one model (a file, or a folder's part) and the metadata beside them.

    `format` is one of safetensors, pickle, gguf, diffusers, transformers. In a diffusers folder the names are prefixed
    with the part they belong to (`unet/conv_in.weight`), `metadata` is empty and `configs` holds each part's parsed
    `config.json` (the scheduler's `scheduler_config.json`) under its name, and `model_index.json` under `""`. A
    transformers folder has one part, without a prefix, whose config is under `""`. `notes` are things that are unusual
    but allowed, in words for the user.
    """

    path: Path
    format: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    safety: Safety = Safety()

    @cached_property
    def roots(self) -> frozenset[str]:
        """What the names of the tensors begin with, up to their first dot or slash."""
        words = {name.partition(".")[0] for name in self.tensors}
        return frozenset(word.partition("/")[0] for word in words)

    @cached_property
    def endings(self) -> frozenset[str]:
        """What the names of the tensors end with: their last word, and their last two (`weight`, `lora_up.weight`)."""
        ends = {name[name.rfind(".", 0, name.rfind(".")) + 1 :] for name in self.tensors}
        return frozenset(ends.union(end.rpartition(".")[2] for end in ends))

    def under(self, prefix: str) -> View:
        """The tensors whose names begin with `prefix`, seen without it."""
        return View(self, prefix)

    @cached_property
    def parameters(self) -> int:
        """How many numbers all tensors hold together."""
        return sum(math.prod(info.shape) for info in self.tensors.values())

    @cached_property
    def bytes(self) -> int:
        """How many bytes all tensors take on disk."""
        return sum(self.dtypes.values())

    @cached_property
    def dtypes(self) -> dict[str, int]:
        """Bytes of each dtype, the largest first."""
        totals: dict[str, int] = {}
        for info in self.tensors.values():
            totals[info.dtype] = totals.get(info.dtype, 0) + info.end - info.start
        return dict(sorted(totals.items(), key=lambda item: -item[1]))


class View:
    """A header's tensors under one prefix."""

    def __init__(self, header: Header, prefix: str) -> None:
        self.header = header
        self.prefix = prefix

    @cached_property
    def names(self) -> frozenset[str]:
        """The names without the prefix."""
        skip = len(self.prefix)
        return frozenset(name[skip:] for name in self.header.tensors if name.startswith(self.prefix))

    def __bool__(self) -> bool:
        return bool(self.names)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.prefix + name in self.header.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of one tensor, or None if there is no such tensor."""
        info = self.header.tensors.get(self.prefix + name)
        return info.shape if info else None

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
