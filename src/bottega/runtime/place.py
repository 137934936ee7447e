"""Where a model runs: the device, the dtype of each part on it, and how much memory it has."""

from __future__ import annotations

import ctypes
import gc
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from bottega.errors import FieldProblem, InvalidRecipe, InvalidSetting
from bottega.formats import room
from bottega.runtime.facts import Facts
from bottega.runtime.plan import available_memory, main_memory

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Place:
    """One device, with the dtype (by name) in which each part of a model runs there.

    The parts `away` wait in main memory while they don't run.
    """

    device: str
    dtypes: Mapping[str, str]
    why: str  # the choice, in words
    away: frozenset[str] = frozenset()

    @property
    def torch_device(self) -> torch.device:
        """The device, for torch."""
        return torch.device(self.device)

    def dtype(self, part: str) -> torch.dtype:
        """The dtype of a part (`unet`, `vae`, `text_encoder`, `text_encoder_2`), for torch."""
        return getattr(torch, self.dtypes[part])

    @property
    def precision(self) -> str:
        """The dtype of the network that does the work: what a recipe records."""
        return self.dtypes["unet"]

    @property
    def memory(self) -> int:
        """Bytes that can be taken on the device now."""
        if self.torch_device.type == "cuda":
            # What torch has set aside and does not use is free as well.
            idle = torch.cuda.memory_reserved(self.torch_device) - torch.cuda.memory_allocated(self.torch_device)
            return torch.cuda.mem_get_info(self.torch_device)[0] + idle
        return available_memory()

    @property
    def waiting(self) -> int:
        """Bytes of main memory in which parts could wait now; 0 for a device that computes in main memory itself."""
        return available_memory() if self.torch_device.type == "cuda" else 0

    @property
    def threads(self) -> int | None:
        """How many threads share a CPU's work, and so in what order they add numbers up; None for a GPU."""
        return torch.get_num_threads() if self.torch_device.type == "cpu" else None

    @property
    def capability(self) -> str | None:
        """What the device computes with, as torch names it: `AVX512` for a CPU, `9.0` for a CUDA device."""
        if self.torch_device.type == "cuda":
            return ".".join(map(str, torch.cuda.get_device_capability(self.torch_device)))
        return torch.backends.cpu.get_cpu_capability() if self.torch_device.type == "cpu" else None


def choose(device: str = "auto", precision: str = "auto") -> Place:
    """The place for a device and a precision; `auto` takes the best that is there.

    Raises InvalidSetting for a device that this machine has not, InvalidRecipe for a precision that it can't compute
    in.
    """
    device = _device(device)
    dtype, why = _precision(device, precision)
    vae = dtype
    if dtype == "float16":  # the autoencoder of SD XL overflows in it
        vae = "bfloat16" if has_bfloat16(device) else "float32"
    return Place(device, {"unet": dtype, "text_encoder": dtype, "text_encoder_2": dtype, "vae": vae}, why)


def _device(wanted: str) -> str:
    kind, _, index = wanted.partition(":")
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, present in there.items() if present)
    count = torch.cuda.device_count() if kind == "cuda" else 0
    if not there.get(kind) or (":" in wanted and not (index.isdecimal() and int(index) < count)):
        names = ", ".join(name for name, present in there.items() if present)
        raise InvalidSetting(
            f"there is no device {wanted!r} here",
            f"set BOTTEGA_DEVICE, or device in settings.toml, to one of: auto, {names}",
        )
    return wanted


def _precision(device: str, wanted: str) -> tuple[str, str]:
    if wanted not in PRECISIONS:
        problem = FieldProblem("knobs.precision", f"{wanted!r} is none of {', '.join(PRECISIONS)}")
        raise InvalidRecipe([problem])
    on_cpu = device == "cpu"
    if wanted == "float16" and on_cpu:
        problem = FieldProblem("knobs.precision", "CPUs can't compute in float16 at a usable speed", "use auto")
        raise InvalidRecipe([problem])
    if wanted != "auto":
        return wanted, "asked for"
    if not on_cpu:  # more exact than bfloat16, and as fast
        return "float16", "GPUs compute in float16"
    if has_bfloat16(device):
        return "bfloat16", "it has instructions for bfloat16"
    return "float32", "it has no instructions for bfloat16"


def has_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 faster than in float32, not only correctly."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None
    if device == "mps":
        return False  # slower than float16 there
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def facts_of(device: str, app: str, versions: Mapping[str, str]) -> Facts:
    """What there is to know of a device of this machine (`auto`: the best), and of the programs that use it.

    Raises InvalidSetting for a device that this machine has not.
    """
    best = choose(device)
    dtypes, refused = {}, {}
    for precision in PRECISIONS[1:]:
        try:
            place = choose(best.device, precision)
        except InvalidRecipe as error:
            (problem,) = error.problems
            refused[precision] = (problem.what, problem.remedy)
        else:
            dtypes[precision] = dict(place.dtypes)
    is_cuda = best.torch_device.type == "cuda"
    everywhere = is_cuda and device in ("auto", "cuda")
    return Facts(
        device=best.device,
        name=device_name(best.device),
        memory=torch.cuda.mem_get_info(best.torch_device)[1] if is_cuda else main_memory(),
        free=best.memory,
        waiting=best.waiting,
        automatic=best.precision,
        dtypes=dtypes,
        refused=refused,
        versions=versions,
        app=app,
        threads=best.threads,
        capability=best.capability,
        others=tuple(f"cuda:{index}" for index in range(1, torch.cuda.device_count())) if everywhere else (),
    )


def device_name(device: str) -> str:
    """What the GPU or the processor calls itself."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    with suppress(OSError):  # elsewhere than on Linux
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def keep_precision() -> None:
    """Holds the device to the precision that the recipe names and to one algorithm, whatever the process was set to.

    torch lets float32 be computed in TF32 or bfloat16, by default or where a program asked for it, and tries
    algorithms out; either makes other pictures.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    # The older switches above leave out what these say; torch complains where the two kinds contradict each other.
    for operation in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.mkldnn.conv):
        operation.fp32_precision = "ieee"
    torch.backends.cudnn.benchmark = False


def give_back() -> None:
    """Give the memory of what was let go of back to the device, and to the other programs of this machine."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    room.give_back()


def keep_memory() -> bool:
    """Tells the C library to keep the memory that torch frees, at the start of work; whether it could be told.

    Without this every large activation is taken from the kernel anew, page by page (10 to 20 % of a step on a CPU).
    """
    if sys.platform != "linux":
        return False
    trim_threshold, mmap_threshold, arena_max = -1, -3, -8
    with suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        largest = 2**31 - 1
        # Older versions of glibc refuse more than 32 MiB.
        told = [
            mallopt(mmap_threshold, 1 << 30) or mallopt(mmap_threshold, 32 << 20),
            mallopt(trim_threshold, largest),
            mallopt(arena_max, 1),
        ]
        return all(told)
    return False
