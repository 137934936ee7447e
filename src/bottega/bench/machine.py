"""What a machine can do at best: multiply matrices, convolve, read its memory; and what a process holds of it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from bottega.bench.figures import Peaks

AT_LEAST = 0.4  # seconds for which each operation is repeated; the best of them counts


def synchronize(device: Any) -> None:
    """Wait until the device has done what it was told: a GPU answers before it has."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def measure_peaks(device: Any, precision: str) -> Peaks:
    """The most floating-point operations per second in a large matrix product, and in a UNet's convolutions."""
    import torch
    from torch.nn.functional import conv2d

    dtype = getattr(torch, precision)
    matrix = convolution = 0.0
    for side in (8192,) if device.type == "cuda" else (1024, 2048, 3072):
        left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        matrix = max(matrix, 2 * side**3 / _best(partial(torch.mm, left, right), device))
    for channels, pixels in ((320, 64), (640, 32), (1280, 16)):
        work = 2 * 2 * channels**2 * 9 * pixels**2
        for memory_format in (torch.contiguous_format, torch.channels_last):
            picture = torch.randn(2, channels, pixels, pixels, device=device).to(dtype, memory_format=memory_format)
            kernel = torch.randn(channels, channels, 3, 3, device=device).to(dtype, memory_format=memory_format)
            seconds = _best(partial(conv2d, picture, kernel, padding=1), device)
            convolution = max(convolution, work / seconds)
    return Peaks(matrix, convolution)


def measure_bandwidth(device: Any) -> float:
    """The most bytes per second that are read from memory, in numbers that no cache has room for."""
    import torch

    numbers = torch.ones(128 << 20, device=device)  # 512 MiB
    return float(numbers.nbytes / _best(numbers.max, device))


def _best(call: Callable[[], object], device: Any) -> float:
    """The least seconds that a call takes, once it is warm."""
    import torch

    times: list[float] = []
    with torch.inference_mode():
        call()
        while len(times) < 3 or sum(times) < AT_LEAST:
            synchronize(device)
            began = perf_counter()
            call()
            synchronize(device)
            times.append(perf_counter() - began)
    return min(times)


def describe(device: Any) -> dict[str, str]:
    """The machine in words."""
    import torch

    from bottega.runtime.place import device_name

    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} processors"
    told = {
        "device": f"{device}, {device_name(str(device))}, {threads}",
        "system": f"{platform.system()} {platform.release()}",
    }
    if hasattr(os, "getloadavg"):  # not on Windows
        told["busy"] = f"{os.getloadavg()[0]:.1f} processes in the minute before; more than 0.5 makes figures doubtful"
    return told


def forget_peak() -> None:
    """Have `peak_memory` tell of what comes from now on only, where the system can do that (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """The most bytes that this process has held at once, mapped files included; None where no system call tells."""
    if sys.platform == "linux":  # whose getrusage gives a child the peak of the process that started it
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return None
