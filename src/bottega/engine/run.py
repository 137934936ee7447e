"""Running a resolved recipe: a generator of typed events, with outputs on disk at its end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.engine.a1111 import fields_of
from bottega.engine.save import Destination, sha256_of, write_whole
from bottega.errors import BottegaError, BrokenPicture, Interrupted, OutOfMemory, SaveError
from bottega.events import Done, Event, Failed, Made, Note, Preview, Started
from bottega.formats import infotext, media
from bottega.recipe import Made as MadeBy
from bottega.recipe import Recipe
from bottega.spec import Family

if TYPE_CHECKING:
    from PIL.Image import Image

    from bottega.spec import Emit

SUFFIX = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


@dataclass(frozen=True)
class Work:
    """A resolved recipe and all it needs to run.

    `load(precision, emit)` answers with the family's pipe; `batch` is how many pictures the device makes at once;
    `previews` is the file that rough pictures are written to, if they are wanted.
    """

    recipe: Recipe
    family: Family
    inputs: Mapping[str, Image]
    made: MadeBy
    load: Callable[[str, Emit], Any]
    batch: int
    destination: Destination
    previews: Path | None = None


def run(work: Work) -> Generator[Event]:
    """Make every picture of a resolved recipe and write it; the events tell how it goes.

    Closing the generator, or an interrupt while it waits, stops the work within a step. When the work fails the last
    event is Failed, and then its error is raised. Raises any BottegaError.
    """
    work.destination.prepare()
    events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
    stop = threading.Event()
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
            work.previews.unlink(missing_ok=True)


@dataclass
class _Emit:
    """Hands events from the working thread to the generator, and the user's wish to stop the other way."""

    events: queue.SimpleQueue[Any]
    stop: threading.Event
    preview_path: Path | None
    previews: bool = field(init=False)

    def __post_init__(self) -> None:
        self.previews = self.preview_path is not None

    def __call__(self, event: Event) -> None:
        if self.stop.is_set():
            raise Interrupted("stopped", "nothing of the unfinished picture was kept")
        self.events.put(event)

    def preview(self, image: int, step: int, picture: Image) -> None:
        assert self.preview_path is not None
        content = media.encode(picture, "png")
        try:
            write_whole(self.preview_path, content)
        except SaveError as error:
            self.previews = False  # nobody's picture is lost for want of a preview
            self(Note(f"no previews: {error.what}"))
            return
        self(Preview(image, step, sha256_of(content), str(self.preview_path)))


def _make_all(work: Work, emit: _Emit, events: queue.SimpleQueue[Any]) -> None:
    try:
        began = time.monotonic()
        recipe = work.recipe
        emit(Started(recipe.digest, recipe.count))
        singles = [recipe.single(index) for index in range(recipe.count)]
        for first in range(0, recipe.count, work.batch):
            _make_batch(work, singles[first : first + work.batch], first, emit)
        emit(Done(recipe.digest, recipe.count, round(time.monotonic() - began, 3)))
        events.put(None)
    except BaseException as error:  # handed to the generator, which raises it in the caller's thread
        events.put(error)


def _make_batch(work: Work, batch: list[Recipe], first: int, emit: _Emit) -> None:
    pictures, batch = make_pictures(work, batch, emit)
    for offset, (picture, single) in enumerate(zip(pictures, batch, strict=True)):
        index = first + offset
        single = single.changed(made=work.made)
        content = encode_output(picture, single)
        assert single.sampling.seed is not None
        suffix = SUFFIX[single.output.format]
        path = work.destination.write(content, index, work.recipe.count, single.sampling.seed, suffix)
        digest, sha256 = single.digest, sha256_of(content)
        emit(Made(index, os.path.abspath(path), sha256, digest, single.sampling.seed, picture.width, picture.height))


def make_pictures(work: Work, batch: list[Recipe], emit: Emit) -> tuple[list[Image], list[Recipe]]:
    """The pictures of recipes that differ in their seeds only, and the recipes as they were run.

    A picture of NaN or of one colour is made once more in float32, and its recipe then says so.
    """
    task = work.family.tasks[batch[0].task]
    precision = str(batch[0].knobs["precision"])
    try:
        return _guarded(lambda: task.run(work.load(precision, emit), batch, work.inputs, emit), batch[0]), batch
    except BrokenPicture as broken:
        if precision == "float32":
            raise
        emit(Note(f"{broken.what} in {precision}; once more in float32"))
    batch = [single.changed(knobs={**single.knobs, "precision": "float32"}) for single in batch]
    return _guarded(lambda: task.run(work.load("float32", emit), batch, work.inputs, emit), batch[0]), batch


def _guarded(make: Callable[[], list[Image]], recipe: Recipe) -> list[Image]:
    try:
        return make()
    except BottegaError:
        raise
    except (MemoryError, RuntimeError) as error:
        # torch has a class of its own for a full GPU, and plain RuntimeErrors for a full main memory.
        full = ("out of memory", "can't allocate memory", "not enough memory")
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in full):
            raise
        assert recipe.size is not None
        raise OutOfMemory(
            f"the device ran out of memory at {recipe.size.width}x{recipe.size.height}",
            "make it smaller, or set vae_tiling=on",
        ) from error


def encode_output(picture: Image, recipe: Recipe) -> bytes:
    """The bytes of an output file: the picture with its recipe, and A1111's `parameters` for other tools."""
    assert recipe.model is not None and recipe.model.sha256 is not None
    text = infotext.format(recipe.prompt, recipe.negative, fields_of(recipe, recipe.model.sha256))
    output = recipe.output
    return media.encode(picture, output.format, recipe=recipe.to_json(), parameters=text, quality=output.quality)
