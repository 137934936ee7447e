"""Measures a model in this process: how it loads, and how long each phase of a picture takes once it is loaded."""

from __future__ import annotations

import gc
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bottega.bench.figures import Peaks
from bottega.bench.machine import synchronize
from bottega.errors import BrokenPicture
from bottega.events import Event, Step
from bottega.families import family
from bottega.formats import read_header
from bottega.recipe import Recipe
from bottega.runtime.place import Place
from bottega.runtime.weights import DTYPES

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

FAMILY = family("sd1")


def least_load(path: Path, place: Place) -> float:
    """The seconds to map a file and cast its bytes once into one fresh allocation: no loader can do with less.

    The whole file has to be of one number format.
    """
    import torch

    header = read_header(path)
    infos = header.tensors.values()
    (stored,) = {info.dtype for info in infos}
    begin, end = min(info.start for info in infos), max(info.end for info in infos)
    began = perf_counter()
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    source = torch.frombuffer(mapped, dtype=torch.uint8)[begin:end].view(DTYPES[stored])
    room = torch.empty(source.numel(), dtype=place.dtype("unet"), device=place.torch_device)
    room.copy_(source)
    synchronize(place.torch_device)
    return perf_counter() - began


@dataclass(frozen=True)
class Work:
    """What has to be computed, in floating-point operations, and how many bytes of weights have to be read for it."""

    matrix: int
    convolution: int
    weights: int

    def least_seconds(self, peaks: Peaks, bandwidth: float) -> float:
        """How long it takes at best."""
        return max(self.matrix / peaks.matrix + self.convolution / peaks.convolution, self.weights / bandwidth)


@dataclass(frozen=True)
class Timing:
    """The seconds that a picture took: its text with all other preparation, each step, its decoding, and in all."""

    text: float
    steps: tuple[float, ...]
    decode: float
    total: float

    @property
    def rate(self) -> float:
        """Steps per second."""
        return 1 / median(self.steps)


@dataclass
class _Watch:
    """Hears a picture's events and notes the time at each, and what had been computed by then."""

    device: Any
    counter: Any = None
    previews: bool = False
    marks: dict[tuple[str, int], tuple[float, int, int]] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            synchronize(self.device)
            self.marks[event.phase, event.done] = (perf_counter(), *self._computed())

    def preview(self, image: int, step: int, picture: Image) -> None:
        raise AssertionError("nobody asked for previews")

    def _computed(self) -> tuple[int, int]:
        if self.counter is None:
            return 0, 0
        counts = self.counter.get_flop_counts()["Global"]
        convolved = sum(count for operation, count in counts.items() if "convolution" in str(operation))
        return sum(counts.values()) - convolved, convolved


class Ours:
    """A model in this process, loaded and run by the same code as `bottega make image`."""

    def __init__(self, path: Path, place: Place) -> None:
        self.path, self.place = path, place
        self.pipe: Any = None
        self.pictures: dict[str, Image] = {}  # by the digests of their recipes

    def load(self) -> float:
        """The seconds from a path to networks that are ready to run; what was loaded before is let go first."""
        self.pipe = None
        gc.collect()
        began = perf_counter()
        header = read_header(self.path)
        match = FAMILY.recognise(header)
        assert match is not None
        self.pipe = FAMILY.load(header, match, self.place)
        synchronize(self.place.torch_device)
        return perf_counter() - began

    def make(self, recipe: Recipe) -> Timing:
        """How long the phases of a picture took."""
        watch = _Watch(self.place.torch_device)
        began = perf_counter()
        self.pictures[recipe.digest] = _run(self.pipe, recipe, watch)
        ended = perf_counter()
        times = {mark: told[0] for mark, told in watch.marks.items()}
        sampled = [time for (phase, _), time in times.items() if phase == "sample"]
        steps = tuple(after - before for before, after in pairwise(sampled))
        return Timing(sampled[0] - began, steps, times["decode", 1] - times["decode", 0], ended - began)

    @property
    def weights(self) -> int:
        """The bytes of the networks as they are in memory."""
        return sum(map(_bytes, (self.pipe.unet, self.pipe.vae, self.pipe.text_encoders[0].model)))


def _run(pipe: Any, recipe: Recipe, watch: _Watch) -> Image:
    picture: Image | BrokenPicture
    (picture,) = FAMILY.tasks[recipe.task].run(pipe, [recipe], {}, watch)
    if isinstance(picture, BrokenPicture):
        raise picture
    return picture


def work_of(pipe: Any, recipe: Recipe) -> Mapping[str, Work]:
    """What the phases of this recipe's picture take: `text`, one `step`, `decode`; counted while one is made."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))

    # The one kernel that torch's counter does not know.
    fused_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={fused_on_cpu: attention})
    one_step = recipe.changed(sampling=recipe.sampling.model_copy(update={"steps": 1}))
    watch = _Watch(pipe.place.torch_device, counter)
    with counter:
        _run(pipe, one_step, watch)
    marks = watch.marks
    phases = {
        "text": ((0, 0), marks["sample", 0][1:], pipe.text_encoders[0].model),
        "step": (marks["sample", 0][1:], marks["sample", 1][1:], pipe.unet),
        "decode": (marks["decode", 0][1:], marks["decode", 1][1:], pipe.vae.decoder),
    }
    return {
        phase: Work(after[0] - before[0], after[1] - before[1], _bytes(network))
        for phase, (before, after, network) in phases.items()
    }


def _bytes(network: Any) -> int:
    return sum(int(weights.nbytes) for weights in network.parameters())
