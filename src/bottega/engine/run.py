"""Running a resolved recipe: a generator of typed events, with outputs on disk at its end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bottega.engine.a1111 import text_of
from bottega.engine.save import Target, sha256_of, write_whole
from bottega.errors import BrokenPicture, Interrupted, OutOfMemory, SaveError
from bottega.events import Done, Event, Failed, Made, Note, Preview, Started
from bottega.formats import media
from bottega.recipe import Made as MadeBy
from bottega.recipe import Recipe
from bottega.spec import Family

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.spec import Emit

SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
# How torch's RuntimeErrors tell of a full memory: a GPU's (by a class of its own, too) and its libraries', then main
# memory's on Linux and macOS, and on Windows.
FULL = ("out of memory", "ALLOC_FAILED", "can't allocate memory", "not enough memory")


class Previews(Protocol):
    """Where rough pictures are shown while the work goes on."""

    @property
    def wanted(self) -> bool:
        """Whether somebody wants to see one now."""

    def show(self, content: bytes) -> str:
        """Show a PNG; the path where it can be seen, empty if it is no file. SaveError if it can't be shown."""

    def close(self) -> None:
        """Take away what is shown: the work has ended."""


class PreviewFile:
    """A file that always has the newest rough picture."""

    wanted = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self, content: bytes) -> str:
        """Write it over the one before; SaveError with the system's reason."""
        write_whole(self.path, content)
        return str(self.path)

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):  # where none could be written, none can be taken away
            self.path.unlink()


@dataclass(frozen=True)
class Work:
    """A resolved recipe and all it needs to run.

    `load(precision, emit)` answers with the family's pipe; `batch` is how many pictures the device makes at once;
    `previews` is where rough pictures are shown, if they are wanted. Setting `stop` ends it within a step.
    """

    recipe: Recipe
    family: Family
    inputs: Mapping[str, Image]
    made: MadeBy
    load: Callable[[str, Emit], Any]
    batch: int
    destination: Target
    previews: Previews | None = None
    stop: threading.Event = field(default_factory=threading.Event)


def run(work: Work) -> Generator[Event]:
    """Make every picture of a resolved recipe and write it; the events tell how it goes.

    Closing the generator, or an interrupt while it waits, stops the work within a step. When the work fails the last
    event is Failed, and then its error is raised. Raises any BottegaError.
    """
    work.destination.prepare()
    events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    stop = work.stop
    emit = _Emit(events, stop, work.previews)
    thread = threading.Thread(target=_make_all, args=(work, emit, events), name="bottega-run")
    thread.start()
    try:
        while (told := events.get()) is not None:
            if isinstance(told, BaseException):
                yield Failed(type(told).__name__, getattr(told, "what", str(told)), getattr(told, "remedy", ""))
                raise told
            yield told
    finally:
        stop.set()
        thread.join()
        if work.previews:
            work.previews.close()


@dataclass
class _Emit:
    """Hands events from the working thread to the generator, and the user's wish to stop the other way."""

    events: queue.SimpleQueue[Any]
    stop: threading.Event
    shown: Previews | None
    _noted: set[Note] = field(default_factory=set, init=False)

    @property
    def previews(self) -> bool:
        return self.shown is not None and self.shown.wanted

    def __call__(self, event: Event) -> None:
        if self.stop.is_set():
            raise Interrupted("stopped", "nothing of the unfinished picture was kept")
        if isinstance(event, Note):
            if event in self._noted:
                return  # what holds for every picture of a job is said once
            self._noted.add(event)
        self.events.put(event)

    def preview(self, image: int, step: int, picture: Image) -> None:
        if self.shown is None:
            return
        content = media.encode(picture, "png")
        try:
            path = self.shown.show(content)
        except SaveError as error:
            self.shown = None  # nobody's picture is lost for want of a preview
            self(Note(f"no previews: {error.what}"))
            return
        self(Preview(image, step, sha256_of(content), path))


def _make_all(work: Work, emit: _Emit, events: queue.SimpleQueue[Any]) -> None:
    try:
        began = time.monotonic()
        recipe = work.recipe
        emit(Started(recipe.digest, recipe.count))
        for index, (picture, single) in enumerate(_pictures(work, emit)):
            _save(work, index, picture, single.changed(made=work.made), emit)
        emit(Done(recipe.digest, recipe.count, round(time.monotonic() - began, 3)))
        events.put(None)
    except BaseException as error:  # handed to the generator, which raises it in the caller's thread
        events.put(error)


def _pictures(work: Work, emit: Emit) -> Iterator[tuple[Image, Recipe]]:
    """Every picture of a job, in order, and the recipe as it was run.

    A picture of NaN or of one colour is made once more in float32. So is everything that was not begun then: it would
    most likely break too. That goes one by one, as float32 takes twice the memory.
    """
    size, waiting = work.batch, [work.recipe.single(index) for index in range(work.recipe.count)]
    while waiting:
        batch, waiting = waiting[:size], waiting[size:]
        for single, picture in zip(batch, _run_batch(work, batch, emit), strict=True):
            if isinstance(picture, BrokenPicture) and single.knobs["precision"] != "float32":
                emit(Note(f"{picture.what} in {single.knobs['precision']}; once more in float32"))
                size, waiting = 1, list(map(_in_float32, waiting))
                single = _in_float32(single)
                (picture,) = _run_batch(work, [single], emit)
            if isinstance(picture, BrokenPicture):
                raise picture
            yield picture, single


def _in_float32(recipe: Recipe) -> Recipe:
    return recipe.changed(knobs={**recipe.knobs, "precision": "float32"})


def _run_batch(work: Work, batch: list[Recipe], emit: Emit) -> list[Image | BrokenPicture]:
    """What the family makes of recipes that differ in their seeds only; OutOfMemory if the device can't hold it."""
    recipe = batch[0]
    assert recipe.size is not None
    try:
        pipe = work.load(str(recipe.knobs["precision"]), emit)
        return work.family.tasks[recipe.task].run(pipe, batch, work.inputs, emit)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in FULL):
            raise
        raise OutOfMemory(
            f"the device ran out of memory at {recipe.size.width}x{recipe.size.height}",
            "make it smaller, or set vae_tiling=on",
        ) from error


def _save(work: Work, index: int, picture: Image, recipe: Recipe, emit: Emit) -> None:
    seed = recipe.sampling.seed
    assert seed is not None
    content = encode_output(picture, recipe)
    path = work.destination.write(content, index, work.recipe.count, seed, SUFFIX[recipe.output.format])
    emit(Made(index, os.path.abspath(path), sha256_of(content), recipe.digest, seed, picture.width, picture.height))


def encode_output(picture: Image, recipe: Recipe) -> bytes:
    """The bytes of an output file: the picture with its recipe, and A1111's `parameters` for other tools."""
    output, text = recipe.output, text_of(recipe)
    return media.encode(picture, output.format, recipe=recipe.to_json(), parameters=text, quality=output.quality)
