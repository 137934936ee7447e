"""Running a resolved recipe: a generator of typed events, with outputs on disk at its end."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bottega.engine.a1111 import NO_HASHES, text_of
from bottega.engine.save import Target, sha256_of, write_whole
from bottega.errors import BrokenPicture, Interrupted, OutOfMemory, SaveError
from bottega.events import Done, Event, Failed, Made, Note, Preview, Started
from bottega.formats import media
from bottega.recipe import KnobValue, Recipe
from bottega.recipe import Made as MadeBy
from bottega.runtime.plan import TILE
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

    def show(self, part: int, content: bytes) -> str:
        """Show a PNG of what is made for that part of the work; the path where it can be seen, empty if it is no file.

        Raises SaveError if it can't be shown.
        """

    def close(self) -> None:
        """Take away what is shown: the work has ended."""


class PreviewFile:
    """A file that always has the newest rough picture."""

    wanted = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def show(self, part: int, content: bytes) -> str:
        """Write it over the one before; SaveError with the system's reason."""
        write_whole(self.path, content)
        return str(self.path)

    def close(self) -> None:
        """Remove the file."""
        with suppress(OSError):  # where none could be written, none can be taken away
            self.path.unlink()


class Part(NamedTuple):
    """What is made for one resolved recipe, and where it goes."""

    recipe: Recipe
    destination: Target


@dataclass(frozen=True)
class Work:
    """A resolved recipe and all it needs to run.

    `load(precision, emit)` answers with the family's pipe; `batch` is how many pictures the device makes at once;
    `previews` is where rough pictures are shown, if they are wanted. `others` are made together with it: their recipes
    differ from it in seeds and count only. Setting `stop` ends it within a step. `free` gives memory back that can be
    had again, and says whether there was any. `hashes` are the short ones of adapters, by their SHA-256.
    """

    recipe: Recipe
    family: Family
    inputs: Mapping[str, Image]
    made: MadeBy
    load: Callable[[str, Emit], Any]
    batch: int
    destination: Target
    previews: Previews | None = None
    others: tuple[Part, ...] = ()
    stop: threading.Event = field(default_factory=threading.Event)
    free: Callable[[], bool] = lambda: False
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All that is made together."""
        return (Part(self.recipe, self.destination), *self.others)


Said = tuple[tuple[int, ...], Event]  # which parts of the work an event is about, and the event


def run(work: Work) -> Generator[Event]:
    """Make every picture of a resolved recipe and write it; the events tell how it goes.

    Closing the generator, or an interrupt while it waits, stops the work within a step. When the work fails the last
    event is Failed, and then its error is raised. Raises any BottegaError.
    """
    with closing(run_together(work)) as said:
        for _, event in said:
            yield event


def run_together(work: Work) -> Generator[Said]:
    """Run all parts of some work as `run` does; each event comes with the parts that it is about."""
    for part in work.parts:
        part.destination.prepare()
    events: queue.SimpleQueue[Said | BaseException | None] = queue.SimpleQueue()
    stop = work.stop
    emit = _Emit(events, stop, work.previews)
    thread = threading.Thread(target=_make_all, args=(work, emit, events), name="bottega-run")
    thread.start()
    try:
        while (told := events.get()) is not None:
            if isinstance(told, BaseException):
                failed = Failed(type(told).__name__, getattr(told, "what", str(told)), getattr(told, "remedy", ""))
                yield emit.parts, failed
                raise told
            yield told
    finally:
        stop.set()
        thread.join()
        if work.previews:
            work.previews.close()


@dataclass
class _Emit:
    """Hands events from the working thread to the generator, and the user's wish to stop the other way.

    `images` are the parts that the pictures of the batch in work belong to.
    """

    events: queue.SimpleQueue[Any]
    stop: threading.Event
    shown: Previews | None
    images: tuple[int, ...] = (0,)
    _noted: set[tuple[int, Note]] = field(default_factory=set, init=False)

    @property
    def parts(self) -> tuple[int, ...]:
        """The parts that are worked on."""
        return tuple(dict.fromkeys(self.images))

    @property
    def previews(self) -> bool:
        return self.shown is not None and self.shown.wanted

    def __call__(self, event: Event) -> None:
        if self.stop.is_set():
            raise Interrupted("stopped", "nothing of the unfinished picture was kept")
        parts = self.parts
        if isinstance(event, Note):  # what holds for every picture of a job is said once
            parts = tuple(part for part in parts if (part, event) not in self._noted)
            self._noted.update((part, event) for part in parts)
        if parts:
            self.events.put((parts, event))

    def preview(self, image: int, step: int, picture: Image) -> None:
        if self.shown is None:
            return
        content = media.encode(picture, "png")
        try:
            path = self.shown.show(self.images[image], content)
        except SaveError as error:
            self.shown = None  # nobody's picture is lost for want of a preview
            self(Note(f"no previews: {error.what}"))
            return
        self(Preview(image, step, sha256_of(content), path))


class _Single(NamedTuple):
    """One picture that is to be made: for which part, the how-manieth of it, and its own recipe."""

    part: int
    number: int
    recipe: Recipe

    def with_knobs(self, **knobs: KnobValue) -> _Single:
        """The same picture, made with other knobs."""
        return self._replace(recipe=self.recipe.changed(knobs={**self.recipe.knobs, **knobs}))


def _make_all(work: Work, emit: _Emit, events: queue.SimpleQueue[Any]) -> None:
    try:
        began = time.monotonic()
        for number, (recipe, _) in enumerate(work.parts):
            emit.images = (number,)
            emit(Started(recipe.digest, recipe.count))
        for picture, single in _pictures(work, emit):
            part = work.parts[single.part]
            images, emit.images = emit.images, (single.part,)
            _save(part, single.number, picture, single.recipe.changed(made=work.made), work.hashes, emit)
            if single.number == part.recipe.count - 1:
                emit(Done(part.recipe.digest, part.recipe.count, round(time.monotonic() - began, 3)))
            emit.images = images
        events.put(None)
    except BaseException as error:  # handed to the generator, which raises it in the caller's thread
        events.put(error)


def _pictures(work: Work, emit: _Emit) -> Iterator[tuple[Image, _Single]]:
    """Every picture of some work, in order, and how it was made in the end.

    A picture of NaN or of one colour is made once more in float32. So is everything of its part that was not begun
    then: it would most likely break too. That goes one by one, as float32 takes twice the memory.
    """
    waiting = [
        _Single(number, index, part.recipe.single(index))
        for number, part in enumerate(work.parts)
        for index in range(part.recipe.count)
    ]
    alone: set[int] = set()  # parts whose pictures are made one by one
    while waiting:
        batch = _batch(waiting, 1 if waiting[0].part in alone else work.batch, alone)
        waiting = waiting[len(batch) :]
        pictures = _in_memory(work, batch, emit)
        if pictures is None:  # less at once may fit
            alone.update(single.part for single in batch)
            waiting = [*batch, *waiting]
            continue
        for single, picture in zip(batch, pictures, strict=True):
            if isinstance(picture, BrokenPicture) and single.recipe.knobs["precision"] != "float32":
                emit.images = (single.part,)
                emit(Note(f"{picture.what} in {single.recipe.knobs['precision']}; once more in float32"))
                alone.add(single.part)
                waiting = [
                    each.with_knobs(precision="float32") if each.part == single.part else each for each in waiting
                ]
                again = [single.with_knobs(precision="float32")]
                made = _in_memory(work, again, emit)
                assert made is not None  # as it is for one alone
                (picture,), (single,) = made, again  # which may be decoded in tiles now
            if isinstance(picture, BrokenPicture):
                raise picture
            yield picture, single


def _batch(waiting: Sequence[_Single], size: int, alone: Set[int]) -> list[_Single]:
    """The first of the pictures that can be made at once."""
    first, *more = waiting
    batch = [first]
    for single in more:
        if len(batch) >= size or single.part in alone:
            break
        batch.append(single)
    return batch


def _in_memory(work: Work, batch: list[_Single], emit: _Emit) -> list[Image | BrokenPicture] | None:
    """The pictures of a batch; None for one of several that the device has not enough memory for.

    A picture alone is tried once more with all the memory that can be freed, and decoded in tiles if it was not.
    """
    try:
        return _run_batch(work, batch, emit)
    except OutOfMemory as error:
        freed = work.free()
        if len(batch) > 1:
            emit(Note(f"{error.what}; once more, one by one"))
            return None
        (single,) = batch
        size = single.recipe.size
        if size is not None and max(size.width, size.height) > TILE and single.recipe.knobs["vae_tiling"] == "off":
            emit(Note(f"{error.what}; once more, decoded in tiles"))
            batch[0] = single.with_knobs(vae_tiling="on")
        elif not freed:
            raise
    return _run_batch(work, batch, emit)


def _run_batch(work: Work, batch: list[_Single], emit: _Emit) -> list[Image | BrokenPicture]:
    """What the family makes of recipes that differ in their seeds only; OutOfMemory if the device can't hold it."""
    emit.images = tuple(single.part for single in batch)
    recipe = batch[0].recipe
    assert recipe.size is not None
    try:
        pipe = work.load(str(recipe.knobs["precision"]), emit)
        return work.family.tasks[recipe.task].run(pipe, [single.recipe for single in batch], work.inputs, emit)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in FULL):
            raise
        what = f"the device ran out of memory at {recipe.size.width}x{recipe.size.height}"
        full = OutOfMemory(what, "make it smaller, or set vae_tiling=on")
    # Raised here, where nothing holds on to the frames that the memory was taken in.
    raise full


def _save(part: Part, index: int, picture: Image, recipe: Recipe, hashes: Mapping[str, str], emit: Emit) -> None:
    seed = recipe.sampling.seed
    assert seed is not None
    content = encode_output(picture, recipe, hashes)
    path = part.destination.write(content, index, part.recipe.count, seed, SUFFIX[recipe.output.format])
    emit(Made(index, os.path.abspath(path), sha256_of(content), recipe.digest, seed, picture.width, picture.height))


def encode_output(picture: Image, recipe: Recipe, hashes: Mapping[str, str] = NO_HASHES) -> bytes:
    """The bytes of an output file: the picture with its recipe, and A1111's `parameters` for other tools.

    `hashes` are the short ones of adapters, by their SHA-256.
    """
    output, text = recipe.output, text_of(recipe, hashes)
    return media.encode(picture, output.format, recipe=recipe.to_json(), parameters=text, quality=output.quality)
