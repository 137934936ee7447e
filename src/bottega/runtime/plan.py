"""How much memory a model will need, from its header alone, and how much there is: standard library only."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.formats.header import BYTES_OF_DTYPE, Header

if TYPE_CHECKING:
    from bottega.spec import Match

GIB = 1 << 30
BYTES_OF = {"float32": 4, "float16": 2, "bfloat16": 2}
TURNS = (("text_encoder", "text_encoder_2"), ("unet",), ("vae",))  # parts that run at different times
# Which parts may wait in main memory: the less of them, the less is moved for each picture.
WAITING: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"text_encoder", "text_encoder_2", "vae"}),
    frozenset(part for turn in TURNS for part in turn),
)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a job will take, against what the device has.

    `weights` are by part, with all that `adapters` take under that name; these are by the part whose weights they
    change, too. `tile_vae` says that the picture is decoded in tiles. The parts `away` wait in main memory while others
    run, with what adapters changed in them.
    """

    weights: Mapping[str, int]
    sampling: int
    decoding: int
    available: int
    tile_vae: bool
    batch: int
    size: tuple[int, int]
    away: frozenset[str] = frozenset()
    adapters: Mapping[str, int] = field(default_factory=dict)

    @property
    def needed(self) -> int:
        """The peak: sampling and decoding take turns, and so do the parts that wait."""
        return self._peak(self.sampling, self.decoding)

    @property
    def waiting(self) -> int:
        """What is in main memory."""
        return sum(self.weights.get(part, 0) + self.adapters.get(part, 0) for part in self.away)

    @property
    def staying(self) -> int:
        """What is always on the device."""
        return sum(self.weights.values()) - self.waiting

    def _peak(self, sampling: int, decoding: int) -> int:
        turns = [sum(self.weights.get(part, 0) for part in turn if part in self.away) for turn in TURNS]
        return self.staying + max(map(sum, zip(turns, (0, sampling, decoding), strict=True)))

    @property
    def fits(self) -> bool:
        """Whether the device has that much."""
        return self.needed <= self.available

    @property
    def words(self) -> str:
        """The plan in one sentence, with what to change where it does not fit."""
        width, height = self.size
        need = f"{self.batch} x {width}x{height} needs {_gib(self.needed)} of memory"
        if self.fits:
            tiled = ", decoding the picture in tiles" if self.tile_vae else ""
            waiting = f", while {_gib(self.waiting)} of the model waits in main memory" if self.away else ""
            return f"{need}{tiled}{waiting}; {_gib(self.available)} is available"
        advice = "close other programs, or use a smaller model"
        if self._peak(0, 0) < self.available:
            advice = "make fewer pictures at once" if self.batch > 1 else "make a smaller picture"
            if self.decoding > self.sampling and not self.tile_vae and max(self.size) > TILE:
                advice = "decode it in tiles (vae_tiling=on)"
        return f"{need} and {_gib(self.available)} is available: {advice}"


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"


# Calibrated by the peaks of float32 and bfloat16 runs on a CPU, where convolutions unfold their input.
_ATTENDED, _PLAIN = 40, 30  # live copies of a level's picture where there is attention, and where there is none
_DECODED = 6.5  # of the last but one level's channels at full size, while the decoder works on the last
_FIXED = 192 << 20  # what the libraries take for themselves
TILE = 512  # pixels along a side of the tiles that the decoder can be given


def plan(
    header: Header,
    match: Match,
    dtypes: Mapping[str, str],
    available: int,
    *,
    size: tuple[int, int],
    batch: int = 1,
    guided: bool = True,
    tiled: bool | None = None,
    weights: Mapping[str, int] | None = None,
    adapters: Mapping[str, int] | None = None,
    away: frozenset[str] = frozenset(),
) -> MemoryPlan:
    """What a recognised latent diffusion model will take for pictures of this size, before any of it is loaded.

    `dtypes` are those of the parts on their device. Guidance runs the network on twice the batch. `tiled` says whether
    the picture is decoded in tiles; None decodes it so where the whole does not fit. `weights` are those that
    `weigh` told of the same model earlier, `adapters` what adapters put in the places of weights by the part that those
    are of, and all else that they take under any other name. `away` are the parts that shall take turns.
    """
    weights = weigh(header, match, dtypes) if weights is None else weights
    away, adapters = away & weights.keys(), adapters or {}
    if adapters:
        weights = {**weights, "adapters": sum(adapters.values())}
    sampling = _FIXED + batch * (2 if guided else 1) * _unet_peak(match.dimensions["unet"], size, dtypes["unet"])
    decoding = in_tiles = 0
    if "vae" in match.dimensions:
        # Pictures are decoded one by one.
        decoding = _FIXED + _decoder_peak(match.dimensions["vae"], size, dtypes["vae"])
        tile = min(size[0], TILE), min(size[1], TILE)
        in_tiles = _FIXED + _decoder_peak(match.dimensions["vae"], tile, dtypes["vae"]) + _picture(size)
    whole = MemoryPlan(weights, sampling, decoding, available, False, batch, size, away, adapters)
    if tiled is None:
        tiled = in_tiles < decoding and whole._peak(0, decoding) > available
    return replace(whole, decoding=in_tiles, tile_vae=True) if tiled else whole


def weigh(header: Header, match: Match, dtypes: Mapping[str, str]) -> dict[str, int]:
    """The bytes of each part of a model in these dtypes; a millisecond or more for large ones."""
    return {part: _weights(header, prefix, dtypes.get(part)) for part, prefix in match.parts.items()}


def _weights(header: Header, prefix: str, dtype: str | None) -> int:
    width = BYTES_OF.get(dtype or "")
    return sum(
        round(info.elements * (width or BYTES_OF_DTYPE[info.dtype]))
        for name, info in header.tensors.items()
        if name.startswith(prefix)
    )


def _unet_peak(unet: Mapping[str, Any], size: tuple[int, int], dtype: str) -> int:
    """The skips of the whole way down, and the working set of the widest level."""
    area = size[0] * size[1] // 64
    skips = work = 0
    for level, (width, depths) in enumerate(zip(unet["channels"], unet["down"], strict=True)):
        picture = width * max(area >> (2 * level), 1)
        skips += picture * (len(depths) + 1)
        work = max(work, picture * (_ATTENDED if any(depths) else _PLAIN))
    return (skips + work) * BYTES_OF[dtype]


def _decoder_peak(vae: Mapping[str, Any], size: tuple[int, int], dtype: str) -> int:
    channels = vae["channels"]
    widest = channels[1] if len(channels) > 1 else channels[0]
    return round(_DECODED * widest * size[0] * size[1] * BYTES_OF[dtype])


def _picture(size: tuple[int, int]) -> int:
    return 2 * 3 * 4 * size[0] * size[1]


# --- what there is ---------------------------------------------------------------------------------------------------


def available_memory() -> int:
    """Bytes of main memory that can be taken now, within the limit of the container if there is one."""
    free = _linux_available() if sys.platform == "linux" else None
    if sys.platform == "win32":
        free = _windows_available()
    if free is None:
        # No standard call tells what is free on macOS: most of the whole is.
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4
    return min([free, *_container_room()])


def main_memory() -> int:
    """Bytes of main memory that this machine has, or its container may take."""
    if sys.platform == "win32":
        status = _windows_status()
        return int(status.total) if status else 0
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_container_limit()])


def _linux_available() -> int | None:
    with suppress(OSError), open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


_UNLIMITED = 1 << 60  # bytes; how version 1 of control groups says that there is no limit


def _container_room() -> list[int]:
    """What a control group (version 2, then 1) still allows; page cache counts as free, because it is given back."""
    for limit, used, stat in _container_files():
        with suppress(OSError, ValueError):
            allowed = int(limit.read_text())
            if allowed >= _UNLIMITED:
                return []
            taken = int(used.read_text())
            cache = dict(line.split() for line in stat.read_text().splitlines())
            return [max(allowed - taken + int(cache.get("inactive_file", 0)), 0)]
    return []


@cache
def _container_files() -> tuple[tuple[Path, Path, Path], ...]:
    """Where control groups, if there are any, tell what they allow, what of it is taken, and for what."""
    root, old = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
    files = (
        (root / "memory.max", root / "memory.current", root / "memory.stat"),
        (old / "memory.limit_in_bytes", old / "memory.usage_in_bytes", old / "memory.stat"),
    )
    return tuple(each for each in files if each[0].exists())


def _container_limit() -> list[int]:
    """What a control group allows in all."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):
            return [int((Path("/sys/fs/cgroup") / name).read_text())]
    return []


class _MemoryStatus(ctypes.Structure):
    """Windows' MEMORYSTATUSEX."""

    _fields_ = (
        ("length", ctypes.c_ulong),
        ("load", ctypes.c_ulong),
        *(
            (name, ctypes.c_ulonglong)
            for name in ("total", "available", "page", "page_free", "own", "own_free", "more")
        ),
    )


def _windows_status() -> _MemoryStatus | None:
    status = _MemoryStatus(length=ctypes.sizeof(_MemoryStatus))
    windows = getattr(ctypes, "windll", None)
    return status if windows is not None and windows.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else None


def _windows_available() -> int | None:
    status = _windows_status()
    return int(status.available) if status else None
