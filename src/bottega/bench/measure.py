"""The whole measurement: the machine's peaks, then each model in rounds in which we and the peer take turns."""

from __future__ import annotations

import gc
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from bottega import __version__
from bottega.bench import fresh, pictures
from bottega.bench.figures import Figure, Peaks, Report
from bottega.bench.full_size import full_size_model
from bottega.bench.machine import describe, measure_bandwidth, measure_peaks
from bottega.bench.peer import Peer, write_configs
from bottega.engine.replay import psnr_of
from bottega.errors import OutOfMemory
from bottega.recipe import Recipe, Ref, Sampling, Size
from bottega.runtime.place import Place, choose
from bottega.settings import STARTER_SHELF, Settings
from bottega.workbench import Workbench, versions

Say = Callable[[str], None]

PROMPT, NEGATIVE = "a red house by the sea at sunset, watercolor", "a boat"
LOADS = 3


@dataclass(frozen=True)
class Subject:
    """A model to measure, with the picture that is made with it, and how often."""

    name: str
    path: Path
    size: int
    steps: int
    rounds: int
    cold_starts: int

    def draft(self, round: int, precision: str) -> Recipe:
        """The recipe of one round; its words are new each time, as those of a new picture are."""
        return Recipe(
            model=Ref(name=str(self.path)),
            prompt=f"{PROMPT}, {round}",
            negative=f"{NEGATIVE}, {round}",
            sampling=Sampling(steps=self.steps, seed=round),
            size=Size(width=self.size, height=self.size),
            knobs={"precision": precision},
        )


def measure(settings: Settings, say: Say, *, quick: bool = False, against_diffusers: bool = False) -> Report:
    """Measure the starter and, unless `quick`, a full-size Stable Diffusion 1.5; `say` tells how far it is.

    Everything but the full-size model, which stays in the home for the next time, is written to a temporary folder.
    Raises SaveError or OutOfMemory where there is no room for the full-size model.
    """
    began, when = perf_counter(), datetime.now(UTC)
    rounds, cold = (2, 1) if quick else (3, 3)
    subjects = [Subject("starter-image", STARTER_SHELF / "starter-image.safetensors", 128, 20, rounds, cold)]
    if not quick:
        say(f"full-size model in {settings.home / 'bench'} (2.1 GB, kept for the next time)")
        subjects.append(Subject("SD 1.5, random", full_size_model(settings.home / "bench"), 256, 3, rounds, 1))
    with tempfile.TemporaryDirectory(prefix="bottega-bench-") as scratch:
        bench = Bench(replace(settings, home=Path(scratch), outputs=Path(scratch) / "outputs"), say, against_diffusers)
        figures = tuple(figure for subject in subjects for figure in bench.figures_of(subject))
    return Report(
        app=f"bottega {__version__}",
        when=when.isoformat(timespec="seconds"),
        seconds=perf_counter() - began,
        machine=describe(bench.place.torch_device),
        versions={"python": platform.python_version(), **versions()},
        precision=bench.place.precision,
        peaks=bench.peaks,
        bandwidth=bench.bandwidth,
        peer="diffusers" if against_diffusers else None,
        figures=figures,
    )


class Bench:
    """A machine whose peaks are known, ready to measure models on it."""

    def __init__(self, settings: Settings, say: Say, against_diffusers: bool) -> None:
        self.settings, self.say, self.against_diffusers = settings, say, against_diffusers
        self.workbench = Workbench(settings)
        self.place = choose(settings.device, settings.precision)
        self.plain = choose(settings.device, "float32")
        say("machine")
        device = self.place.torch_device
        self.bandwidth = measure_bandwidth(device)
        self.peaks: dict[str, Peaks] = {
            precision: measure_peaks(device, precision) for precision in dict.fromkeys((self.place.precision, "float32"))
        }
        self.import_torch = median(fresh.import_torch() for _ in range(LOADS))

    def figures_of(self, subject: Subject) -> Iterator[Figure]:
        """Everything there is to know of one model."""
        recipes = [self._recipe(subject, round) for round in range(subject.rounds)]
        ...
