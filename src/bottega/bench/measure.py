"""The whole measurement: the machine's peaks, then each model in rounds in which we and the peer take turns."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from bottega import __version__
from bottega.bench import fresh
from bottega.bench.figures import Figure, Report, Unit
from bottega.bench.full_size import full_size_model
from bottega.bench.machine import describe, measure_bandwidth, measure_peaks
from bottega.bench.peer import Peer, write_configs
from bottega.bench.pictures import Ours, Timing, Work, least_load, work_of
from bottega.engine.replay import psnr_of
from bottega.errors import OutOfMemory
from bottega.recipe import Recipe, Ref, Sampling, Size
from bottega.runtime.place import choose
from bottega.settings import STARTER_SHELF, Settings
from bottega.workbench import Workbench, versions

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPT, NEGATIVE = "a red house by the sea at sunset, watercolor", "a boat"
LOADS = 3  # how often a model is loaded, and torch imported
EQUAL = 100.0  # decibels between equal pictures, for which the formula has no finite number

ARITHMETIC = "its arithmetic at the machine's peaks, or reading the network's weights once if that takes longer"
MAP_AND_CAST = "mapping the file and casting its bytes once into one allocation; the file is in the page cache"
IMPORT_AND_MAKE = "a Python that only imports torch, and the picture as it is once all is loaded"
WEIGHTS = "the bytes of the weights in the number format that they are run in"


@dataclass(frozen=True)
class Subject:
    """A model to measure, with the picture that is made with it, and how often."""

    name: str
    path: Path
    side: int  # of the picture, in pixels
    steps: int
    rounds: int
    cold_starts: int

    @property
    def title(self) -> str:
        """The model and the picture in words."""
        return f"{self.name}, {self.side}x{self.side}, {self.steps} steps"

    def draft(self, round: int, precision: str) -> Recipe:
        """The recipe of one round; its words are new each time, as those of a new picture are."""
        return Recipe(
            model=Ref(name=str(self.path)),
            prompt=f"{PROMPT}, {round}",
            negative=f"{NEGATIVE}, {round}",
            sampling=Sampling(steps=self.steps, seed=round),
            size=Size(width=self.side, height=self.side),
            knobs={"precision": precision},
        )


def measure(
    settings: Settings, say: Callable[[str], None], *, quick: bool = False, against_diffusers: bool = False
) -> Report:
    """Measure the starter and, unless `quick`, a full-size Stable Diffusion 1.5; `say` tells how far it is.

    All that is written is temporary but for the full-size model, which stays in the home for the next time.
    Raises SaveError or OutOfMemory where there is no room for it.
    """
    began, when = perf_counter(), datetime.now(UTC)
    rounds, cold_starts = (2, 1) if quick else (3, 3)
    starter = STARTER_SHELF / "starter-image.safetensors"
    subjects = [Subject("starter-image", starter, 128, 20, rounds, cold_starts)]
    if not quick:
        folder = settings.home / "bench"
        say(f"the full-size model (2.1 GB, kept in {folder})")
        subjects.append(Subject("SD 1.5", full_size_model(folder), 256, 3, rounds, 1))
    with tempfile.TemporaryDirectory(prefix="bottega-bench-") as scratch:
        bench = Bench(replace(settings, home=Path(scratch)), say, against_diffusers)
        figures = [figure for subject in subjects for figure in bench.figures_of(subject)]
    return Report(
        app=f"bottega {__version__}",
        when=when.isoformat(timespec="seconds"),
        seconds=perf_counter() - began,
        machine=bench.machine,
        versions={"python": platform.python_version(), **versions()},
        precision=bench.place.precision,
        peaks=bench.peaks,
        bandwidth=bench.bandwidth,
        peer="diffusers" if against_diffusers else None,
        figures=figures,
    )


class Bench:
    """A machine whose peaks are known, ready to measure models on it. What it writes goes into the settings' home."""

    def __init__(self, settings: Settings, say: Callable[[str], None], against_diffusers: bool) -> None:
        self.settings, self.say, self.against_diffusers = settings, say, against_diffusers
        self.workbench = Workbench(settings)
        self.place = choose(settings.device, settings.precision)
        say("what the machine can do at best")
        device = self.place.torch_device
        self.machine = describe(device)
        self.bandwidth = measure_bandwidth(device)
        self.peaks = {name: measure_peaks(device, name) for name in dict.fromkeys((self.place.precision, "float32"))}
        self.import_torch = median(fresh.import_torch() for _ in range(LOADS))

    def figures_of(self, subject: Subject) -> Iterator[Figure]:
        """Everything that there is to know of one model."""
        title = subject.title
        recipes = [self._recipe(subject, round, self.place.precision) for round in range(subject.rounds)]
        self.say(f"{title}: counting the operations of a picture")
        ours = Ours(subject.path, self.place)
        ours.load()
        work = work_of(ours.pipe, recipes[0])
        with self._peer(subject, ours) as peer:
            turns: list[Ours | Peer] = [ours, peer] if peer else [ours]
            self.say(f"{title}: first picture of a fresh process")
            cold = [self._first_picture(subject) for _ in range(subject.cold_starts)]
            peer_cold = peer.first_picture(recipes[0], self.settings.home / "peer.png") if peer else (None, None)
            self.say(f"{title}: loading")
            loads = [(least_load(subject.path, self.place), *(one.load() for one in turns)) for _ in range(LOADS)]
            self.say(f"{title}: pictures")
            rounds = [[one.make(recipe) for one in turns] for recipe in recipes]
        mine, theirs = [timings[0] for timings in rounds], [timings[1] for timings in rounds if peer]
        yield from self._picture_figures(subject, work, mine, theirs)
        least, loaded, *peer_loaded = zip(*loads, strict=True)
        yield Figure(title, "load", "s", loaded, median(least), MAP_AND_CAST, _median(*peer_loaded))
        at_best = self.import_torch + median(timing.total for timing in mine)
        seconds = tuple(seconds for seconds, _ in cold)
        yield Figure(title, "first picture of a fresh process", "s", seconds, at_best, IMPORT_AND_MAKE, peer_cold[0])
        if peaks := tuple(peak for _, peak in cold if peak):
            yield Figure(title, "its most memory", "bytes", peaks, ours.weights, WEIGHTS, peer_cold[1])
        if self.place.precision != "float32":
            picture = ours.pictures[recipes[0].digest]
            del ours, turns
            yield from self._float32_figures(subject, work, picture, theirs)

    def _picture_figures(
        self, subject: Subject, work: Mapping[str, Work], mine: Sequence[Timing], theirs: Sequence[Timing]
    ) -> Iterator[Figure]:
        least = self._least(work, self.place.precision)
        picture = least["text"] + subject.steps * least["step"] + least["decode"]
        taken: list[tuple[str, Unit, Callable[[Timing], float], float]] = [
            ("text encoding, two prompts", "s", lambda timing: timing.text, least["text"]),
            ("sampling", "steps/s", lambda timing: timing.rate, 1 / least["step"]),
            ("VAE decoding", "s", lambda timing: timing.decode, least["decode"]),
            ("a picture, once loaded", "s", lambda timing: timing.total, picture),
        ]
        for what, unit, take, limit in taken:
            measured, peers = tuple(map(take, mine)), map(take, theirs)
            yield Figure(subject.title, what, unit, measured, limit, ARITHMETIC, _median(peers))

    def _float32_figures(
        self, subject: Subject, work: Mapping[str, Work], picture: Image, theirs: Sequence[Timing]
    ) -> Iterator[Figure]:
        """What the number format gives and costs: the same picture once more in float32, which is the peer's own."""
        self.say(f"{subject.title}: once more in float32")
        recipe = self._recipe(subject, 0, "float32")
        plain = Ours(subject.path, choose(self.settings.device, "float32"))
        plain.load()
        rate = plain.make(recipe).rate
        limit, peer = 1 / self._least(work, "float32")["step"], _median(timing.rate for timing in theirs)
        yield Figure(subject.title, "sampling in float32", "steps/s", (rate,), limit, ARITHMETIC, peer)
        likeness = min(psnr_of(picture, plain.pictures[recipe.digest]), EQUAL)
        yield Figure(subject.title, f"picture in {self.place.precision} against float32 (PSNR)", "dB", (likeness,))

    def _least(self, work: Mapping[str, Work], precision: str) -> dict[str, float]:
        """The seconds that each phase takes at best."""
        return {phase: it.least_seconds(self.peaks[precision], self.bandwidth) for phase, it in work.items()}

    def _recipe(self, subject: Subject, round: int, precision: str) -> Recipe:
        """The recipe of one round, for which there is memory enough."""
        recipe = self.workbench.resolve(subject.draft(round, precision))
        plan = self.workbench.memory_plan(recipe)
        if not plan.fits:
            raise OutOfMemory(plan.words, "measure with --quick, which does without the full-size model")
        return recipe

    def _peer(self, subject: Subject, ours: Ours) -> AbstractContextManager[Peer | None]:
        if not self.against_diffusers:
            return nullcontext()
        configs = write_configs(self.settings.home / f"configs of {subject.name}", ours.pipe)
        return Peer(subject.path, configs, self.place.device)

    def _first_picture(self, subject: Subject) -> tuple[float, int | None]:
        words = {
            "--model": subject.path,
            "--negative": NEGATIVE,
            "--steps": subject.steps,
            "--size": f"{subject.side}x{subject.side}",
            "--seed": 0,
            "--set": f"precision={self.place.precision}",
            "--out": self.settings.home / "first.png",
        }
        environment = {"BOTTEGA_HOME": str(self.settings.home), "BOTTEGA_DEVICE": self.settings.device}
        return fresh.first_picture([PROMPT, *(str(word) for pair in words.items() for word in pair)], environment)


def _median(numbers: Iterable[float] = ()) -> float | None:
    """The median; None of nothing."""
    told = list(numbers)
    return median(told) if told else None
