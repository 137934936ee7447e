"""Every random number of a batch, drawn image by image, so that a picture does not depend on its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

SOURCES = ("CPU", "NV", "GPU")

_GOLDEN = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_ROUND = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))


class Stream(Protocol):
    """A seeded sequence of standard normal tensors."""

    def draw(self, shape: Sequence[int]) -> Tensor: ...


class TorchStream:
    """PyTorch's generator on a device: CPU and CUDA give different numbers for the same seed."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def draw(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator, device=self.generator.device)


class PhiloxStream:
    """What `torch.randn` draws on an NVIDIA GPU, computed on the CPU.

    Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"). The counter holds the number
    of the call and the index of the element, the key is the seed; Box-Muller's sine turns two words into one normal.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.calls = 0

    def draw(self, shape: Sequence[int]) -> Tensor:
        first, second = self._words(math.prod(shape))
        self.calls += 1
        # The two factors are CUDA's single-precision constants; the rest is double until the very end.
        unit = float(np.float32(2.0**-32))
        turn = float(np.float32(2.0**-32 * 2 * math.pi))
        radius = np.sqrt(-2.0 * np.log(first * unit + unit / 2))
        normal = radius * np.sin(second * turn + turn / 2)
        return torch.from_numpy(normal.astype(np.float32)).reshape(tuple(shape))

    def _words(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The first two of the four 32-bit words that ten rounds make of each element's counter."""
        a = np.full(count, self.calls, np.uint32)
        b = np.zeros(count, np.uint32)
        c = np.arange(count, dtype=np.uint32)
        d = np.zeros(count, np.uint32)
        key = [np.uint32(self.seed & 0xFFFFFFFF), np.uint32(self.seed >> 32 & 0xFFFFFFFF)]
        for _ in range(10):
            left, right = a * _ROUND[0], c * _ROUND[1]
            a, b, c, d = _high(right) ^ b ^ key[0], _low(right), _high(left) ^ d ^ key[1], _low(left)
            with np.errstate(over="ignore"):
                key = [key[0] + _GOLDEN[0], key[1] + _GOLDEN[1]]
        return a, b


class BrownianTree:
    """A Brownian path between two times that is the same whatever is asked of it, and in whatever order.

    It halves the interval again and again; each half draws from a seed made of the tree's seed and its own place
    (Li et al. 2020, arXiv:2001.01328, section 4). Times are rounded to a millionth. The numbers are torchsde's, but
    they come from any source of noise: `draw(seed)` gives the normal tensor of a node.
    """

    DIGITS = 6

    def __init__(self, start: float, end: float, seed: int, draw: Callable[[int], Tensor]) -> None:
        self.start, self.end, self.seed = round(start, self.DIGITS), round(end, self.DIGITS), seed
        # Neighbouring queries share most of their way down the tree; two ways are about fifty nodes.
        self._draw = lru_cache(maxsize=64)(draw)
        self._whole = draw(self._node_seed(())) * math.sqrt(end - start)

    def increment(self, start: float, end: float) -> Tensor:
        """W(end) - W(start), for start <= end."""
        start = max(round(start, self.DIGITS), self.start)
        end = min(round(end, self.DIGITS), self.end)
        return self._within(self.start, self.end, self._whole, 0, 0, start, end)

    def _within(self, left: float, right: float, w: Tensor, place: int, depth: int, start: float, end: float) -> Tensor:
        """The part of the increment `w` over [left, right] that falls between start and end."""
        if start <= left and right <= end:
            return w
        if end <= start:
            return torch.zeros_like(w)
        middle = round(0.5 * (left + right), self.DIGITS)
        before, after, whole = middle - left, right - middle, right - left
        bridge = self._draw(self._node_seed((place, depth))) * math.sqrt(before * after / whole)
        w_before = w * (before / whole) + bridge
        if end <= middle:
            return self._within(left, middle, w_before, 2 * place, depth + 1, start, end)
        w_after = w - w_before
        if start >= middle:
            return self._within(middle, right, w_after, 2 * place + 1, depth + 1, start, end)
        return self._within(left, middle, w_before, 2 * place, depth + 1, start, middle) + self._within(
            middle, right, w_after, 2 * place + 1, depth + 1, middle, end
        )

    def _node_seed(self, place: tuple[int, ...]) -> int:
        return int(np.random.SeedSequence(self.seed, spawn_key=place, pool_size=24).generate_state(1)[0])


class Noise:
    """The noise of one batch: `initial`, (B, *shape) standard normal, and what the samplers add on the way.

    shape             of one image's latent, (C, H, W)
    source            CPU and NV give the same picture on every machine; GPU is the device's own generator
    variation_*       a second seed per image and how far to turn towards it, 0..1
    resize_from       (H, W) in latent cells: the noise of that size, placed in the middle of this one
    ensd              added to every seed for the step noise ("eta noise seed delta"); the initial noise keeps the seed
    """

    def __init__(
        self,
        shape: Sequence[int],
        seeds: Sequence[int],
        *,
        source: str = "CPU",
        device: torch.device | str = "cpu",
        variation_seeds: Sequence[int] | None = None,
        variation_strength: float = 0.0,
        resize_from: tuple[int, int] | None = None,
        ensd: int = 0,
    ) -> None:
        if source not in SOURCES:
            raise ValueError(f"unknown source of noise {source!r}; choose one of {', '.join(SOURCES)}")
        self.shape, self.seeds, self.source, self.device = tuple(shape), list(seeds), source, torch.device(device)
        small = (self.shape[0], *resize_from) if resize_from else self.shape
        streams = [self._stream(seed) for seed in self.seeds]
        images = []
        for i, (seed, stream) in enumerate(zip(self.seeds, streams, strict=True)):
            resized = small != self.shape
            image = self._stream(seed).draw(small) if resized else stream.draw(small)
            if variation_seeds is not None and variation_strength != 0:
                image = slerp(variation_strength, image, self._stream(variation_seeds[i]).draw(small))
            images.append(_centred(image, stream.draw(self.shape)) if resized else image)
        self.initial = torch.stack(images).to(self.device)
        self._streams = [self._stream(seed + ensd) for seed in self.seeds] if ensd else streams

    def step(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """The next draw of every image's own generator: (B, *shape). The sigmas do not matter."""
        return torch.stack([stream.draw(self.shape) for stream in self._streams]).to(self.device)

    def brownian(self, sigma_min: float, sigma_max: float) -> Callable[[Tensor, Tensor], Tensor]:
        """Step noise for the SDE samplers: increments of one Brownian path per image, scaled to unit variance."""

        def draw(seed: int) -> Tensor:
            return self._stream(seed).draw(self.shape).to(self.device)

        trees = [BrownianTree(sigma_min, sigma_max, seed, draw) for seed in self.seeds]

        def between(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            low, high = sorted((float(sigma), float(sigma_next)))
            # The path runs towards larger sigmas, the samplers towards smaller ones.
            sign = 1 if sigma < sigma_next else -1
            return torch.stack([tree.increment(low, high) for tree in trees]) * (sign / math.sqrt(high - low))

        return between

    def _stream(self, seed: int) -> Stream:
        if self.source == "NV":
            return PhiloxStream(seed)
        # Apple's generator is not reproducible across versions; A1111 falls back to the CPU's, and so do we.
        on_device = self.source == "GPU" and self.device.type != "mps"
        return TorchStream(seed, self.device if on_device else "cpu")


def slerp(weight: float, low: Tensor, high: Tensor) -> Tensor:
    """Spherical interpolation from `low` to `high`, (C, H, W) each.

    Angles are taken per channel and column, over the height: an accident of A1111's first version that every
    published variation seed depends on. So does the fall-back for parallel tensors, which swaps the two.
    """
    cosine = (low / low.norm(dim=1, keepdim=True) * (high / high.norm(dim=1, keepdim=True))).sum(1)
    if cosine.mean() > 0.9995:
        return low * weight + high * (1 - weight)
    angle = cosine.acos()
    scale = angle.sin()
    to_low = (((1.0 - weight) * angle).sin() / scale).unsqueeze(1)
    to_high = ((weight * angle).sin() / scale).unsqueeze(1)
    return to_low * low + to_high * high


def _centred(image: Tensor, canvas: Tensor) -> Tensor:
    """`image` in the middle of `canvas`, cropped where it is larger; both (C, H, W). `canvas` is written to."""
    (h, w), (height, width) = image.shape[1:], canvas.shape[1:]
    # Python's // rounds an odd difference down on both sides of zero, and so does A1111's placement.
    dy, dx = (height - h) // 2, (width - w) // 2
    top, left, skip_y, skip_x = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
    rows, columns = h - 2 * skip_y, w - 2 * skip_x
    patch = image[:, skip_y : skip_y + rows, skip_x : skip_x + columns]
    canvas[:, top : top + rows, left : left + columns] = patch
    return canvas


def _high(word: np.ndarray) -> np.ndarray:
    return (word >> np.uint64(32)).astype(np.uint32)


def _low(word: np.ndarray) -> np.ndarray:
    return word.astype(np.uint32)
