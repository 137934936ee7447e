"""Measures a model in this process: how it loads, and how long each phase of a picture takes once it is loaded."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bottega.bench.figures import Peaks
from bottega.bench.machine import synchronize
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


def load(path: Path, place: Place) -> tuple[Any, float]:
    """The model, and the seconds from its path to networks that are ready to run."""
    began = perf_counter()
    header = read_header(path)
    match = FAMILY.recognise(header)
    assert match is not None
    pipe = FAMILY.load(header, match, place)
    synchronize(place.torch_device)
    return pipe, perf_counter() - began


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


def make(pipe: Any, recipe: Recipe) -> tuple[Image, Timing]:
    """A picture, made by the loaded model just as `bottega make image` makes it, and how long its phases took."""
    watch = _Watch(pipe.place.torch_device)
    began = perf_counter()
    picture = _run(pipe, recipe, watch)
    ended = perf_counter()
    times = {mark: told[0] for mark, told in watch.marks.items()}
    sampled = [time for (phase, _), time in times.items() if phase == "sample"]
    steps = tuple(after - before for before, after in zip(sampled, sampled[1:], strict=False))
    decode = times["decode", 1] - times["decode", 0]
    return picture, Timing(sampled[0] - began, steps, decode, ended - began)


def _run(pipe: Any, recipe: Recipe, watch: _Watch) -> Image:
    return FAMILY.tasks[recipe.task].run(pipe, [recipe], {}, watch)[0]


def work_of(pipe: Any, recipe: Recipe) -> Mapping[str, Work]:
    """What the phases of this recipe's picture take: `text`, one `step`, `decode`; counted while one is made."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

    fused_on_cpu = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={fused_on_cpu: sdpa_flop})
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
