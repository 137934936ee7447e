"""From a draft to a recipe that says everything: the only place where defaults are decided and fields are checked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from textwrap import shorten
from typing import Any

from bottega.diffusion.names import find_sampler, find_schedule, split_old_name
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.recipe import KnobValue, Recipe, Ref, Sampling, Size
from bottega.spec import Family, Knob

MAX_PROMPT = 20_000
MAX_SEED = 2**63 - 1
MIN_SIDE, MAX_SIDE = 64, 8192


@dataclass(frozen=True)
class Chosen:
    """The model that a recipe will run on: its name and SHA-256, its family, its own defaults and limits of knobs."""

    name: str
    sha256: str
    family: Family
    defaults: Mapping[str, Any]
    limits: Mapping[str, int]

    @cached_property
    def knobs(self) -> tuple[Knob, ...]:
        """The family's knobs, as far as this model goes."""
        return tuple(
            replace(knob, high=self.limits[knob.name]) if knob.name in self.limits else knob
            for knob in self.family.knobs
        )


@dataclass(frozen=True)
class Device:
    """What a recipe must know of the device: its best number format, and whether a picture needs tiles there."""

    precision: str
    needs_tiles: Callable[[Size], bool]


def resolve(
    draft: Recipe,
    model: Chosen,
    device: Device,
    input_size: tuple[int, int] | None = None,
    problems: Sequence[FieldProblem] = (),
) -> Recipe:
    """Fill what the draft leaves open, from the model's defaults, and check everything.

    The device decides where the draft says `auto`; `input_size` is the size of the input picture. Adapters are pinned
    already; `problems` are those that were found with them. Raises InvalidRecipe with all problems at once, each at
    its field.
    """
    filled = _filled(draft, model, device, input_size)
    if found := [*_problems(filled, model), *problems]:
        raise InvalidRecipe(found)
    return filled


def _filled(draft: Recipe, model: Chosen, device: Device, input_size: tuple[int, int] | None) -> Recipe:
    told, defaults = draft.sampling, model.defaults
    sampler_name, implied = told.sampler or defaults["sampler"], defaults["schedule"]
    if told.sampler:  # "DPM++ 2M Karras" names both, as A1111 up to 1.8 and Civitai do
        sampler_name, implied = split_old_name(told.sampler) or (told.sampler, "Automatic")
    sampler, schedule = find_sampler(sampler_name), find_schedule(told.schedule or implied)
    if sampler and schedule and (schedule.name == "Automatic" or sampler.timesteps):
        # Timestep samplers walk no schedule; what was asked for must not make another digest of the same picture.
        schedule = find_schedule(sampler.schedule)
    seed = told.seed
    size = draft.size or _size(defaults["size"], input_size)
    return draft.changed(
        # A name that is no valid Unicode could be written into no picture; it is the hash that finds the model again.
        model=Ref(name=model.name.encode(errors="replace").decode(), sha256=model.sha256),
        sampling=Sampling(
            sampler=sampler.name if sampler else sampler_name,
            schedule=schedule.name if schedule else told.schedule,
            steps=defaults["steps"] if told.steps is None else told.steps,
            guidance=defaults["guidance"] if told.guidance is None else told.guidance,
            seed=secrets.randbelow(2**32) if seed is None or seed == -1 else seed,
            strength=(0.75 if told.strength is None else told.strength) if draft.inputs else told.strength,
        ),
        size=size,
        knobs=_knobs(draft, model, device, size),
    )


def _knobs(draft: Recipe, model: Chosen, device: Device, size: Size) -> dict[str, KnobValue]:
    automatic: dict[str, Callable[[], KnobValue]] = {
        "precision": lambda: device.precision,
        "prediction": lambda: str(model.defaults["prediction"]),
        "vae_tiling": lambda: "on" if device.needs_tiles(size) else "off",
    }
    knobs: dict[str, KnobValue] = {}
    for knob in model.knobs:
        default = knob.default if knob.name in automatic else model.defaults.get(knob.name, knob.default)
        value = draft.knobs.get(knob.name, default)
        value = automatic[knob.name]() if value == "auto" else value
        # So that 1 and 1.0, which make the same picture, make the same digest.
        whole = knob.type is float and isinstance(value, int) and not isinstance(value, bool)
        knobs[knob.name] = float(value) if whole else value
    return knobs | draft.knobs | knobs  # in the family's order, however the draft names them


def _size(native: tuple[int, int], picture: tuple[int, int] | None) -> Size:
    """The input picture's own size if the model is at home near it, else its shape at the model's area."""
    if picture is None:
        return Size(width=native[0], height=native[1])
    area, wanted = picture[0] * picture[1], native[0] * native[1]
    scale = 1.0 if wanted / 2 <= area <= wanted * 2 else (wanted / area) ** 0.5
    width, height = (max(MIN_SIDE, round(side * scale / 8) * 8) for side in picture)
    return Size(width=width, height=height)


def _problems(recipe: Recipe, model: Chosen) -> Iterator[FieldProblem]:
    yield from _task_problems(recipe, model.family)
    yield from _prompt_problems(recipe)
    yield from _sampling_problems(recipe)
    assert recipe.size is not None
    for field, side in (("size.width", recipe.size.width), ("size.height", recipe.size.height)):
        if not MIN_SIDE <= side <= MAX_SIDE:
            yield FieldProblem(field, f"{side} is not between {MIN_SIDE} and {MAX_SIDE}")
        elif side % 8:
            yield FieldProblem(field, f"{side} is no multiple of 8", f"use {side // 8 * 8} or {side // 8 * 8 + 8}")
    if not 1 <= recipe.count <= 1000:
        yield FieldProblem("count", f"{recipe.count} is not between 1 and 1000")
    for index, use in enumerate(recipe.adapters):
        if use.ref.sha256 is None:
            yield FieldProblem(f"adapters.{index}", f"{use.ref.name} was not looked for among the models")
    wrong = list(_knob_problems(recipe.knobs, model.knobs))
    yield from wrong or model.family.problems(recipe.knobs)


def _task_problems(recipe: Recipe, family: Family) -> Iterator[FieldProblem]:
    task = family.tasks.get(recipe.task)
    if task is None:
        yield FieldProblem("task", f"{family.title} does no {recipe.task!r}", f"it does {', '.join(family.tasks)}")
        return
    roles = [media.role for media in recipe.inputs]
    for role in task.needs:
        if role not in roles:
            yield FieldProblem(
                "inputs", f"{recipe.task} needs a picture to start from", f"give one as {role} (--{role})"
            )
    for index, role in enumerate(roles):
        if role not in task.needs or role in roles[:index]:
            yield FieldProblem(f"inputs.{index}", f"{recipe.task} has no use for another {role!r}", "leave it out")


def _prompt_problems(recipe: Recipe) -> Iterator[FieldProblem]:
    from bottega.diffusion.prompt import MAX_WEIGHT, too_heavy

    for field, text in (("prompt", recipe.prompt), ("negative", recipe.negative)):
        if len(text) > MAX_PROMPT:
            yield FieldProblem(field, f"has {len(text):,} characters", f"at most {MAX_PROMPT:,} are read")
        elif networks := _networks(text):
            yield FieldProblem(
                field, f"names the adapter {networks[0]}, and adapters are named in the prompt alone", "move it there"
            )
        elif heavy := too_heavy(text):
            words, weight = heavy
            what = f"gives {shorten(words.strip(), 40, placeholder='...')!r} the weight {weight:g}"
            yield FieldProblem(field, f"{what}, with which nothing can be computed", f"at most {MAX_WEIGHT:g} is")


def _networks(text: str) -> list[str]:
    from bottega.diffusion.prompt import take_extra_networks

    return [f"<{network.kind}:{network.name}>" for network in take_extra_networks(text)[1]]


def _sampling_problems(recipe: Recipe) -> Iterator[FieldProblem]:
    sampling = recipe.sampling
    assert sampling.sampler is not None and sampling.steps is not None
    assert sampling.guidance is not None and sampling.seed is not None
    if find_sampler(sampling.sampler) is None:
        yield FieldProblem(
            "sampling.sampler", f"no sampler is called {sampling.sampler!r}", _nearest_sampler(sampling.sampler)
        )
    if sampling.schedule is not None and find_schedule(sampling.schedule) is None:
        yield FieldProblem("sampling.schedule", f"no schedule is called {sampling.schedule!r}", _schedules())
    if not 1 <= sampling.steps <= 1000:
        yield FieldProblem("sampling.steps", f"{sampling.steps} is not between 1 and 1000")
    if not 0 <= sampling.guidance <= 100:
        yield FieldProblem("sampling.guidance", f"{sampling.guidance:g} is not between 0 and 100")
    most = MAX_SEED - recipe.count  # each further picture takes the next seed
    if not 0 <= sampling.seed <= most:
        yield FieldProblem("sampling.seed", f"{sampling.seed} is not between 0 and {most}", "-1 draws one")
    if sampling.strength is not None and not 0 <= sampling.strength <= 1:
        yield FieldProblem("sampling.strength", f"{sampling.strength:g} is not between 0 and 1")
    if sampling.strength is not None and not recipe.inputs:
        yield FieldProblem(
            "sampling.strength", "says how much of a picture to change", "give the picture to start from"
        )


def _nearest_sampler(name: str) -> str:
    from difflib import get_close_matches

    from bottega.diffusion.names import SAMPLERS

    by_lower = {sampler.name.lower(): sampler.name for sampler in SAMPLERS}
    near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.4)]
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(by_lower.values())}"


def _schedules() -> str:
    from bottega.diffusion.names import SCHEDULES

    return f"there are {', '.join(schedule.name for schedule in SCHEDULES)}"


def _knob_problems(values: Mapping[str, KnobValue], knobs: tuple[Knob, ...]) -> Iterator[FieldProblem]:
    known = {knob.name: knob for knob in knobs}
    for name, value in values.items():
        if name not in known:
            yield FieldProblem(f"knobs.{name}", "is no setting of this model", f"there are {', '.join(known)}")
        elif wrong := known[name].check(value):
            yield FieldProblem(f"knobs.{name}", wrong)
