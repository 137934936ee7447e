"""What any model file says of itself before a tensor is read: names, shapes, dtypes, places and metadata."""

from __future__ import annotations

import math
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from bottega.formats.layout import Layout, Names

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
    """A stretch of a file in which `size` bytes lie in another way: as raw deflate, or as a `picture` has them."""

    start: int
    end: int
    size: int
    way: str = "deflate"


class TensorInfo(NamedTuple):  # a model may have millions of these, and a frozen dataclass takes three times as long
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


class LaidOut(Mapping[str, TensorInfo]):
    """The tensors of a file that shares its layout with others, each made when it is asked for."""

    def __init__(self, layout: Layout, file: Path, begin: int) -> None:
        self.layout = layout
        self._file = file
        self._begin = begin

    def __getitem__(self, name: str) -> TensorInfo:
        row = self.layout.rows[name]
        return TensorInfo(row.dtype, row.shape, self._file, self._begin + row.start, self._begin + row.end)

    def __contains__(self, name: object) -> bool:
        return name in self.layout.rows

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.rows)

    def __len__(self) -> int:
        return len(self.layout.rows)

    def laid_out(self, layout: Layout) -> LaidOut:
        """The same bytes under a layout with other names."""
        return LaidOut(layout, self._file, self._begin)

    def keys(self) -> KeysView[str]:
        """The names, as a dict's own view of them: recognisers ask it hundreds of times."""
        return self.layout.rows.keys()


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

    `format` is one of safetensors, pickle, gguf, diffusers, transformers, picture. In a diffusers folder the names are
    prefixed with the part they belong to (`unet/conv_in.weight`), `metadata` is empty and `configs` holds each part's
    parsed `config.json` (the scheduler's `scheduler_config.json`) under its name, and `model_index.json` under `""`. A
    transformers folder has one part, without a prefix, whose config is under `""`. `notes` are things that are unusual
    but allowed, in words for the user; `unread` are tensors that the file has and this has not, as they are no plain
    numbers. `wrappers` were taken off the names of the tensors; `stored_names` are those that then stand in the file.
    """

    path: Path
    format: str
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str] = field(default_factory=dict)
    configs: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    safety: Safety = Safety()
    wrappers: tuple[str, ...] = ()
    stored_names: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def layout(self) -> Layout:
        """What can be told of the tensors without regard to this one file."""
        return self.tensors.layout if isinstance(self.tensors, LaidOut) else Layout(self.tensors)

    @property
    def roots(self) -> frozenset[str]:
        """What the names of the tensors begin with, up to their first dot or slash."""
        return self.layout.roots

    @property
    def endings(self) -> frozenset[str]:
        """What the names of the tensors end with: their last word, and their last two (`weight`, `lora_up.weight`)."""
        return self.layout.endings

    def under(self, prefix: str) -> View:
        """The tensors whose names begin with `prefix`, seen without it."""
        return View(self, prefix)

    @property
    def parameters(self) -> int:
        """How many numbers all weights hold together."""
        return self.layout.parameters

    @property
    def bytes(self) -> int:
        """How many bytes all tensors take on disk."""
        return sum(self.layout.dtypes.values())

    @property
    def dtypes(self) -> dict[str, int]:
        """Bytes of each dtype, the largest first."""
        return dict(self.layout.dtypes)


class View(Names):
    """A header's tensors under one prefix."""

    def __init__(self, header: Header, prefix: str) -> None:
        super().__init__(header.layout, prefix)
        self.header = header
