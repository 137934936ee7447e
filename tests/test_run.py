"""Running: float32 for what came out broken, a clear end for everything else, and events that tell it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import pixels
from PIL import Image

from bottega.engine.run import Part, Work, run, run_together
from bottega.engine.save import Destination
from bottega.errors import BrokenPicture, OutOfMemory
from bottega.events import Done, Event, Failed, Made, Note, Started
from bottega.formats import media
from bottega.recipe import Made as MadeBy
from bottega.recipe import Output, Recipe, Ref, Sampling, Size, read_recipe
from bottega.spec import Emit, Family, Task

Make = Callable[[Any, Sequence[Recipe], Mapping[str, Image.Image], Emit], list[Image.Image | BrokenPicture]]


def work(make: Make, folder: Path, count: int = 1, batch: int = 1) -> Work:
    """A job for a family whose one task is `make`; its pipe is the name of its precision."""
    recipe = Recipe(
        model=Ref(name="m", sha256="a" * 64),
        prompt="a",
        sampling=Sampling(sampler="Euler", schedule="Uniform", steps=1, guidance=1.0, seed=3),
        size=Size(width=64, height=64),
        count=count,
        output=Output(),
        knobs={"precision": "bfloat16"},
    )
    tasks = {"text-to-image": Task("text-to-image", make)}

    def unused(*_: object) -> None:
        raise AssertionError

    family = Family("stand-in", "Stand-in", "image", unused, unused, tasks, lambda *_: {}, (), unused)
    made = MadeBy(app="test", versions={}, device="cpu")
    return Work(recipe, family, {}, made, lambda precision, emit: precision, batch, Destination(folder))


def gradient(
    pipe: Any, batch: Sequence[Recipe], inputs: Mapping[str, Image.Image], emit: Emit
) -> list[Image.Image | BrokenPicture]:
    return [Image.linear_gradient("L").convert("RGB") for _ in batch]


def carried(made: Made) -> Recipe:
    """The recipe that an output carries."""
    return read_recipe(str(media.read(made.path).recipe))


def kinds(events: list[Event]) -> list[type[Event]]:
    return [type(event) for event in events]


def test_the_events_of_a_job_that_goes_well(tmp_path: Path) -> None:
    events = list(run(work(gradient, tmp_path, count=2)))
    assert kinds(events) == [Started, Made, Made, Done]
    assert [event.to_json()["event"] for event in events] == ["started", "made", "made", "done"]
    made = [event for event in events if isinstance(event, Made)]
    assert [event.seed for event in made] == [3, 4]
    assert all(pixels(Path(event.path)).size == (event.width, event.height) for event in made)


def test_a_broken_picture_is_made_once_more_in_float32_and_its_recipe_says_so(tmp_path: Path) -> None:
    tried = []

    def make(pipe: Any, batch: Any, inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        tried.append(pipe)
        return gradient(pipe, batch, inputs, emit) if pipe == "float32" else [BrokenPicture("not a number")]

    events = list(run(work(make, tmp_path)))
    assert tried == ["bfloat16", "float32"]
    assert kinds(events) == [Started, Note, Made, Done]
    (made,) = (event for event in events if isinstance(event, Made))
    assert carried(made).knobs["precision"] == "float32"
    assert carried(made).digest == made.digest


def test_what_is_made_once_more_gets_all_the_memory_that_can_be_had(tmp_path: Path) -> None:
    room = []

    def make(pipe: Any, batch: Any, inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        if pipe == "bfloat16":
            return [BrokenPicture("not a number")]
        if not room:
            raise MemoryError
        return gradient(pipe, batch, inputs, emit)

    told = replace(work(make, tmp_path), free=lambda: not room.append("freed"))
    (made,) = (event for event in run(told) if isinstance(event, Made))
    assert room == ["freed"] and carried(made).knobs["precision"] == "float32"


def test_of_a_batch_only_the_broken_picture_is_made_again_and_the_rest_of_the_job_stays_in_float32(
    tmp_path: Path,
) -> None:
    ran = []

    def make(pipe: Any, batch: Sequence[Recipe], inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        ran.append((pipe, [recipe.sampling.seed for recipe in batch]))
        made = gradient(pipe, batch, inputs, emit)
        breaks = [pipe == "bfloat16" and recipe.sampling.seed in (4, 7) for recipe in batch]
        return [BrokenPicture("not a number") if broken else each for broken, each in zip(breaks, made, strict=True)]

    events = list(run(work(make, tmp_path, count=6, batch=3)))
    assert ran == [("bfloat16", [3, 4, 5]), *(("float32", [seed]) for seed in (4, 6, 7, 8))]
    assert kinds(events) == [Started, Made, Note, *[Made] * 5, Done]
    made = [event for event in events if isinstance(event, Made)]
    assert [(event.image, event.seed) for event in made] == [(index, 3 + index) for index in range(6)]
    assert [carried(event).knobs["precision"] for event in made] == [
        "bfloat16",
        "float32",
        "bfloat16",  # had come out well before anything was made again
        *["float32"] * 3,
    ]
    assert all(carried(event).digest == event.digest for event in made)


def test_what_holds_for_every_picture_is_said_once(tmp_path: Path) -> None:
    def make(pipe: Any, batch: Any, inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        emit(Note("a knob has no effect"))
        return gradient(pipe, batch, inputs, emit)

    assert kinds(list(run(work(make, tmp_path, count=3)))) == [Started, Note, Made, Made, Made, Done]


def test_a_picture_that_stays_broken_fails_and_leaves_nothing(tmp_path: Path) -> None:
    def make(*_: Any) -> list[Image.Image | BrokenPicture]:
        return [BrokenPicture("not a number")]

    events: list[Event] = []
    with pytest.raises(BrokenPicture):
        for event in run(work(make, tmp_path)):
            events.append(event)  # a list() would lose what came before the error
    assert kinds(events) == [Started, Note, Failed]
    assert list(tmp_path.iterdir()) == []


def refuse(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    "fill",
    [
        lambda: torch.empty(1 << 50, dtype=torch.uint8),
        lambda: np.empty(1 << 50),
        lambda: refuse(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")),
        lambda: refuse(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
        lambda: refuse(RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)")),
        lambda: refuse(RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory")),
    ],
    ids=["torch", "numpy", "CUDA", "cuBLAS", "MPS", "Windows"],
)
def test_a_full_memory_is_told_with_what_to_do(fill: Callable[[], object], tmp_path: Path) -> None:
    def make(*_: Any) -> list[Image.Image | BrokenPicture]:
        fill()
        raise AssertionError("there was room")

    with pytest.raises(OutOfMemory, match="make it smaller"):
        list(run(work(make, tmp_path)))


def test_a_bug_is_not_dressed_up_as_something_else(tmp_path: Path) -> None:
    def make(*_: Any) -> list[Image.Image | BrokenPicture]:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(run(work(make, tmp_path)))


def test_closing_the_events_stops_the_work_within_a_step(tmp_path: Path) -> None:
    steps = []

    def make(pipe: Any, batch: Any, inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        for step in range(10_000_000):
            steps.append(step)
            emit(Note(str(step)))
        raise AssertionError("was not stopped")

    events = run(work(make, tmp_path))
    next(events)
    next(events)
    events.close()
    told = len(steps)
    assert told < 10_000_000
    assert list(tmp_path.iterdir()) == []


def test_jobs_that_write_into_one_folder_at_once_overwrite_nothing(tmp_path: Path) -> None:
    jobs = [run(work(gradient, tmp_path, count=5)) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        events = [event for job in pool.map(list, jobs) for event in job]
    paths = {event.path for event in events if isinstance(event, Made)}
    assert len(paths) == len(list(tmp_path.iterdir())) == 20


# --- memory that runs out, and several jobs at once ------------------------------------------------------------------


def test_a_batch_that_does_not_fit_is_made_one_by_one(tmp_path: Path) -> None:
    tried, freed = [], []

    def make(pipe: Any, batch: Sequence[Recipe], inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        tried.append(len(batch))
        if len(batch) > 1:
            raise MemoryError
        return gradient(pipe, batch, inputs, emit)

    told = replace(work(make, tmp_path, count=3, batch=3), free=lambda: bool(freed.append(1)))
    assert kinds(list(run(told))) == [Started, Note, Made, Made, Made, Done]
    assert tried == [3, 1, 1, 1] and freed == [1]


def test_one_picture_is_tried_once_more_with_what_can_be_freed(tmp_path: Path) -> None:
    held = [True]

    def make(pipe: Any, batch: Sequence[Recipe], inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        if held:
            raise RuntimeError("CUDA out of memory")
        return gradient(pipe, batch, inputs, emit)

    assert kinds(list(run(replace(work(make, tmp_path), free=lambda: held.pop())))) == [Started, Made, Done]
    held.append(True)
    with pytest.raises(OutOfMemory):
        list(run(replace(work(make, tmp_path), free=lambda: False)))


def test_a_large_picture_is_decoded_in_tiles_then_and_its_recipe_says_so(tmp_path: Path) -> None:
    def make(pipe: Any, batch: Sequence[Recipe], inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        if batch[0].knobs["vae_tiling"] == "off":
            raise MemoryError
        return gradient(pipe, batch, inputs, emit)

    told = work(make, tmp_path)
    knobs = {**told.recipe.knobs, "vae_tiling": "off"}
    recipe = told.recipe.changed(size=Size(width=1024, height=64), knobs=knobs)
    events = list(run(replace(told, recipe=recipe)))
    assert kinds(events) == [Started, Note, Made, Done]
    (made,) = (event for event in events if isinstance(event, Made))
    assert carried(made).knobs["vae_tiling"] == "on" and carried(made).digest == made.digest


def test_a_broken_picture_of_one_job_changes_none_that_is_made_with_it(tmp_path: Path) -> None:
    def make(pipe: Any, batch: Sequence[Recipe], inputs: Any, emit: Emit) -> list[Image.Image | BrokenPicture]:
        made = gradient(pipe, batch, inputs, emit)
        breaks = [pipe == "bfloat16" and recipe.sampling.seed == 3 for recipe in batch]
        return [BrokenPicture("no number") if broken else each for broken, each in zip(breaks, made, strict=True)]

    told = work(make, tmp_path / "a", count=3, batch=2)
    other = told.recipe.changed(sampling=told.recipe.sampling.model_copy(update={"seed": 10}), count=3)
    said = list(run_together(replace(told, others=(Part(other, Destination(tmp_path / "b")),))))
    by_part = [[event for which, event in said if part in which] for part in (0, 1)]
    assert kinds(by_part[0]) == [Started, Note, Made, Made, Made, Done]
    assert kinds(by_part[1]) == [Started, Made, Made, Made, Done]
    precisions = [[carried(event).knobs["precision"] for event in told if isinstance(event, Made)] for told in by_part]
    assert precisions == [["float32", "bfloat16", "float32"], ["bfloat16"] * 3]
