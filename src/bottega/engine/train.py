"""Running a resolved training: the model, the pictures and the loop brought together, and what was learned written."""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bottega.engine.run import FULL
from bottega.engine.save import write_whole
from bottega.errors import BrokenPicture, Different, Interrupted, OutOfMemory
from bottega.events import Done, Event, Failed, Note, Sampled, Started, Step, Trained
from bottega.formats import media
from bottega.formats.header import Header
from bottega.recipe import Recipe
from bottega.spec import Family, Lesson, Match, Pieces, Place
from bottega.training.data import Checked, Picture, digest_of, read_folder, with_word
from bottega.training.plan import TrainingPlan
from bottega.training.recipe import Source, TrainingRecipe

if TYPE_CHECKING:
    from torch import Tensor

SAVE_EVERY = 30.0  # seconds between two states on disk
SAMPLES = "samples"  # the folder of the pictures that are made on the way


@dataclass(frozen=True)
class TrainingWork:
    """A resolved training and all it needs to run.

    `pictures` are checked ones; `samples` the resolved recipes of the pictures that are made as it goes; `folder` is
    where its state, its log and these pictures lie, `destination` the file that it writes. Setting `stop` ends it
    after a step, and the same work goes on from there.
    """

    recipe: TrainingRecipe
    family: Family
    header: Header
    match: Match
    device: str
    pictures: Sequence[Picture]
    samples: Sequence[Recipe]
    folder: Path
    destination: Path
    notes: Sequence[str] = ()
    save_every: float = SAVE_EVERY
    stop: threading.Event = field(default_factory=threading.Event)


def run_training(work: TrainingWork) -> Generator[Event]:
    """Train what a resolved recipe says and write it; the events tell how it goes.

    Closing the generator stops it after the step in work, with its state saved. When it fails the last event is
    Failed, and then its error is raised. Raises any BottegaError.
    """
    import time

    began = time.monotonic()
    try:
        yield Started(work.recipe.digest, 1)
        for note in work.notes:
            yield Note(note)
        steps = yield from _train(work)
        sha256 = hashlib.sha256(work.destination.read_bytes()).hexdigest()
        yield Trained(os.path.abspath(work.destination), sha256, work.recipe.digest, steps)
        yield Done(work.recipe.digest, 1, round(time.monotonic() - began, 3))
    except GeneratorExit:
        raise
    except Exception as error:
        full = _full(error)
        told = full or error
        yield Failed(type(told).__name__, getattr(told, "what", str(told)), getattr(told, "remedy", ""))
        if full:
            raise full from None
        raise


def _full(error: Exception) -> OutOfMemory | None:
    """The error of a device that ran out of memory, in our words."""
    is_full = isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)
    if not isinstance(error, MemoryError) and not is_full:
        return None
    return OutOfMemory("the device ran out of memory", "use a smaller batch, or checkpointing")


def _train(work: TrainingWork) -> Generator[Event, None, int]:
    from bottega.training import files
    from bottega.training.loop import STATE, Work, train
    from bottega.training.pupils import pupil_of

    recipe, lesson, anatomy = work.recipe, work.family.train, work.family.anatomy
    assert lesson is not None and anatomy is not None
    work.folder.mkdir(parents=True, exist_ok=True)
    write_whole(work.folder / "recipe.json", recipe.to_json().encode())
    if not (work.folder / STATE).exists():
        shutil.rmtree(work.folder / SAMPLES, ignore_errors=True)  # it begins anew
    yield Step("load", 0, 1)
    pipe = _load(work)
    yield Step("load", 1, 1)
    lesson.ready(pipe, recipe.checkpointing)
    places = anatomy.places(work.header, work.match)
    pupil = pupil_of(recipe, pipe, lesson, places)
    pipe.embeddings.update(pupil.vectors)  # for the pictures on the way
    loop = Work(
        recipe=recipe,
        pipe=pipe,
        lesson=lesson,
        pupil=pupil,
        pictures=work.pictures,
        folder=work.folder,
        sample=partial(_sample, work, pipe, pupil.teaches_words),
        save_every=work.save_every,
        stop=work.stop,
    )
    steps: int = yield from train(loop)
    tensors, own = pupil.file()
    if recipe.kind == "full":
        tensors, own = whole_model(work.header, work.match, work.family, tensors)
    told = files.metadata(recipe, anatomy.names(work.match), own, work.pictures, work.destination)
    told["ss_steps"] = str(steps)
    work.destination.parent.mkdir(parents=True, exist_ok=True)
    files.write(work.destination, recipe.kind, tensors, told)
    (work.folder / STATE).unlink(missing_ok=True)
    shutil.rmtree(work.folder / "latents", ignore_errors=True)
    return steps


def _load(work: TrainingWork) -> Any:
    """A pipe of this training's own: what is trained changes it."""
    from bottega.formats.garbage import uncollected
    from bottega.runtime.guard import guarded
    from bottega.runtime.place import choose, keep_memory, keep_precision

    keep_memory()
    keep_precision()
    place = choose(work.device, work.recipe.precision)
    if work.recipe.kind == "full":
        # What is trained is kept in float32, or its steps would be lost in the rounding.
        place = replace(place, dtypes={**place.dtypes, **dict.fromkeys(("unet", *_ENCODERS), "float32")})
    with guarded(), uncollected():
        return work.family.load(work.header, work.match, place, lambda done, total: None)


_ENCODERS = ("text_encoder", "text_encoder_2")


class _Quiet:
    """What a sample's task says, which nobody needs to hear; it stops with the training."""

    previews = False

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __call__(self, event: Event) -> None:
        """Say nothing."""
        if self._stop.is_set():
            raise Interrupted("stopped")

    def preview(self, image: int, step: int, picture: Any) -> None:
        """Show nothing."""


def _sample(work: TrainingWork, pipe: Any, teaches_words: bool, number: int, step: int) -> Event:
    """The picture of one prompt as the model makes it now, in a file; one that was made before the training was
    stopped is not made again."""
    recipe = work.samples[number]
    path = work.folder / SAMPLES / f"{step:06}-{number + 1}.png"
    if path.is_file():
        return Sampled(step, number, recipe.prompt, str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    if teaches_words and pipe.prompts is not None:
        pipe.prompts.forget()
    (picture,) = work.family.tasks[recipe.task].run(pipe, [recipe], {}, _Quiet(work.stop))
    if isinstance(picture, BrokenPicture):
        return Note(f"sample {number + 1} after {step} steps: {picture.what}")
    content = media.encode(picture, "png")
    path.parent.mkdir(exist_ok=True)
    write_whole(path, content)
    return Sampled(step, number, recipe.prompt, str(path), hashlib.sha256(content).hexdigest())


def whole_model(
    header: Header, match: Match, family: Family, trained: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A whole model as a single file has it, with trained weights (`part.name`) in the place of the model's own.

    Each keeps the dtype in which the model stores it.
    """
    import torch

    from bottega.runtime.weights import MappedTensors

    assert family.anatomy is not None
    layout = family.anatomy.relayout(header, match, "single")
    pieces = layout.weights[""]
    flat = {f"{name}\0{index}": info for name, each in pieces.items() for index, info in enumerate(each)}
    mapped = MappedTensors(replace(header, tensors=flat))

    def stored(name: str, each: Pieces) -> Tensor:
        parts = [mapped[f"{name}\0{index}"] for index in range(len(each))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    tensors = {name: stored(name, each) for name, each in pieces.items()}
    thirds: dict[str, dict[int, Tensor]] = {}
    for place in family.anatomy.places(header, match):
        weight = trained.get(f"{place.part}.{place.name}")
        if weight is None:
            continue
        weight = weight.T if place.transposed else weight
        if place.third is None:
            tensors[place.tensor] = weight.reshape(tensors[place.tensor].shape).to(tensors[place.tensor].dtype)
        else:
            thirds.setdefault(place.tensor, {})[place.third] = weight
    for name, parts in thirds.items():
        tensors[name] = torch.cat([parts[index] for index in range(3)]).to(tensors[name].dtype)
    return tensors, dict(layout.metadata)


# --- before ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A training that could start: its resolved recipe, what the pictures are, the memory it takes, and its samples."""

    recipe: TrainingRecipe
    checked: Checked
    plan: TrainingPlan
    samples: tuple[Recipe, ...]


def read_data(draft: TrainingRecipe) -> tuple[list[Picture], tuple[Source, ...], tuple[Source, ...]]:
    """The pictures of a draft, with its word before their captions, and its sources pinned by what is in them.

    Raises FileError for what can't be learned from, Different for a folder that changed since it was pinned.
    """
    pictures: list[Picture] = []

    def pinned(source: Source, regular: bool) -> Source:
        found = read_folder(source.path, regular=regular)
        sha256 = digest_of(found)
        if source.sha256 and source.sha256 != sha256:
            what = f"{source.path}: its pictures or captions were changed since"
            raise Different(what, "put them back, or begin a new training")
        pictures.extend(found)
        return Source(path=os.path.abspath(Path(source.path).expanduser()), sha256=sha256)

    data = tuple(pinned(source, False) for source in draft.data)
    regularisation = tuple(pinned(source, True) for source in draft.regularisation)
    return with_word(pictures, draft.word), data, regularisation


def trained_count(recipe: TrainingRecipe, places: Sequence[Place], lesson: Lesson) -> int:
    """How many numbers a training teaches, from the shapes of the model."""
    if recipe.kind == "embedding":
        return sum(recipe.vectors * place.shape[1] for place in places if place.name.endswith("token_embedding.weight"))
    taught = [place for place in places if place.part == "unet" or recipe.text_encoder]
    if recipe.kind == "full":
        return sum(prod(place.shape) for place in taught)
    if recipe.kind == "hypernetwork":
        widths = {place.shape[1] for place in taught if place.name.endswith((".to_k.weight", ".to_v.weight"))}
        pairs = pairwise(recipe.structure)
        return round(2 * sum(before * after for before, after in pairs) * sum(width * width for width in widths))
    ranks = {"linear": recipe.rank, "convolution": recipe.conv_rank}
    return sum(ranks.get(lesson.group(place), 0) * (place.shape[0] + prod(place.shape[1:])) for place in taught)
