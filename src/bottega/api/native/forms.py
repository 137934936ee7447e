"""What can be made, and with which settings: all that a page needs to draw its forms from."""

from __future__ import annotations

from functools import cache
from typing import Literal

from fastapi import Depends
from pydantic import Field

from bottega.api.access import need
from bottega.api.native.shapes import Told
from bottega.api.native.subject import subject
from bottega.diffusion.names import SAMPLERS, SCHEDULES, Sampler
from bottega.families import all_families
from bottega.spec import Family, Knob

router = subject("forms", dependencies=[Depends(need("read"))])

SAMPLER_KNOBS = ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise")
TYPES: dict[type, Literal["int", "float", "bool", "str"]] = {int: "int", float: "float", bool: "bool", str: "str"}


class KnobForm(Told):
    """One setting beside the recipe's own fields; it goes into `knobs` of a recipe under its name."""

    name: str
    type: Literal["int", "float", "bool", "str"]
    default: bool | int | float | str
    help: str
    low: float | int | None = Field(description="the least value, null where there is none")
    high: float | int | None = Field(description="the highest value; some are beyond 2^53")
    choices: list[str] = Field(description="the values that a text may have; empty where it is free")


class TaskForm(Told):
    """Something that a family does, and the roles of the inputs without which it doesn't."""

    id: str
    needs: list[str]


class FamilyForm(Told):
    """A family of models that can be run, what its models do, and their settings."""

    id: str
    title: str
    medium: str
    tasks: list[TaskForm]
    knobs: list[KnobForm]


class SamplerForm(Told):
    """A sampler: its name, the other names it is known by, what the schedule "Automatic" means for it."""

    name: str
    aliases: list[str]
    schedule: str
    options: list[str] = Field(description="those of a family's knobs that it obeys, and not every sampler")
    adaptive: bool = Field(description="it decides by itself how many steps it takes")
    takes_schedule: bool = Field(description="false for one that walks the trained timesteps, whatever the schedule")


class ScheduleForm(Told):
    """A noise schedule: its name, and the other names it is known by."""

    name: str
    aliases: list[str]


class FormatForm(Told):
    """A file format of outputs."""

    id: Literal["png", "jpeg", "webp"]
    type: str = Field(description="media type")
    lossy: bool = Field(description="whether `output.quality` matters")


class Forms(Told):
    """Every family that can be run, and the names of all samplers, schedules and formats."""

    families: list[FamilyForm]
    samplers: list[SamplerForm]
    schedules: list[ScheduleForm]
    formats: list[FormatForm]


@router.get("/forms", summary="Everything that forms are drawn from")
async def forms() -> Forms:
    """The families that can be run, with their tasks and knobs; samplers, schedules and formats."""
    return _forms()


@cache
def _forms() -> Forms:
    return Forms(
        families=[family_form(family) for family in all_families()],
        samplers=[
            SamplerForm(
                name=sampler.name,
                aliases=list(sampler.aliases),
                schedule=sampler.schedule,
                options=[_knob(sampler, option) for option in sampler.options if option in SAMPLER_KNOBS],
                adaptive=sampler.adaptive,
                takes_schedule=not sampler.timesteps,
            )
            for sampler in SAMPLERS
        ],
        schedules=[ScheduleForm(name=schedule.name, aliases=list(schedule.aliases)) for schedule in SCHEDULES],
        formats=[
            FormatForm(id="png", type="image/png", lossy=False),
            FormatForm(id="jpeg", type="image/jpeg", lossy=True),
            FormatForm(id="webp", type="image/webp", lossy=True),
        ],
    )


def _knob(sampler: Sampler, option: str) -> str:
    """The knob that sets an option of a sampler."""
    return "eta_ddim" if option == "eta" and sampler.timesteps else option


def family_form(family: Family) -> FamilyForm:
    """A family's face as data."""
    return FamilyForm(
        id=family.id,
        title=family.title,
        medium=family.medium,
        tasks=task_forms(family),
        knobs=[knob_form(knob) for knob in family.knobs],
    )


def task_forms(family: Family) -> list[TaskForm]:
    """What a family does as data."""
    return [TaskForm(id=task.id, needs=list(task.needs)) for task in family.tasks.values()]


def knob_form(knob: Knob) -> KnobForm:
    """A knob as data."""
    return KnobForm(
        name=knob.name,
        type=TYPES[knob.type],
        default=knob.default,
        help=knob.help,
        low=knob.low,
        high=knob.high,
        choices=list(knob.choices),
    )
