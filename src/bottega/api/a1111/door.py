"""What the A1111 door remembers of its clients, and the work that its routes share."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from bottega.api import caps, models
from bottega.api.a1111 import answer
from bottega.api.a1111.answer import Going
from bottega.api.a1111.asked import Making
from bottega.api.a1111.lists import title
from bottega.api.a1111.options import (
    ADAPTERS,
    AUTOMATIC_VAE,
    DEFAULTS,
    FIXED,
    HASH,
    MODEL,
    NOTHING,
    Chosen,
    known_options,
)
from bottega.api.a1111.translate import NAMES, Translated
from bottega.api.intake import Intake
from bottega.api.waiting import Waiting, failure, renamed
from bottega.engine.uses import short_hash
from bottega.errors import InvalidRecipe, UnknownModel
from bottega.gallery import Output
from bottega.jobs.job import CANCELLED, FAILED, Job
from bottega.library.entry import Entry
from bottega.recipe import KnobValue, Recipe, Ref, recipe_from
from bottega.workshop import Workshop

MOST_TASKS = 1000  # clients' own names of jobs that are remembered


@dataclass
class Door:
    """One server's A1111 door.

    `making` are the jobs that clients of this door wait for, with their owners: what they see and can stop is theirs,
    and not what the same user has made elsewhere. `skipped` are those whose present picture a client gave up, `before`
    those of what was left then, with how many pictures of the request were made or given up before, `tasks` those that
    clients gave names of their own, by owner and name.
    """

    workshop: Workshop
    intake: Intake
    waiting: Waiting
    chosen: Chosen
    making: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    before: dict[str, int] = field(default_factory=dict)
    tasks: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)

    # --- models and options

    def find(self, kind: str, name: str) -> Ref:
        """The model of a kind that a request names; raises UnknownModel."""
        return models.reference(models.chosen(self.workshop, kind, name))

    def options(self, owner: str) -> dict[str, Any]:
        """All options of a user, the model by its title."""
        chosen = self.chosen.of(owner)
        entry = self._model(str(chosen.get(MODEL, "")))
        for option in ADAPTERS:
            try:
                self._check_adapter(option, chosen)
            except UnknownModel:
                del chosen[option]  # it is gone, and what is told is taken back
        return {**FIXED, **DEFAULTS, **chosen, MODEL: title(entry), HASH: entry.sha256 or ""}

    def model(self, owner: str) -> Entry:
        """The model that a user has chosen."""
        return self._model(str(self.chosen.of(owner).get(MODEL, "")))

    def _check_adapter(self, option: str, chosen: Mapping[str, KnobValue]) -> None:
        """Raise UnknownModel where an option chooses an adapter that is not here."""
        name = str(chosen.get(option, ""))
        if name.casefold() not in (*AUTOMATIC_VAE, *NOTHING):
            self.find(ADAPTERS[option], name)

    def _model(self, name: str) -> Entry:
        """The model of this title; the usual one for no title, and for that of a model that is gone."""
        if name:
            with suppress(UnknownModel):
                return models.chosen(self.workshop, "checkpoint", name)
        return models.usual(self.workshop)

    def choose(self, owner: str, options: Mapping[str, KnobValue]) -> None:
        """Keep these options for a user.

        Raises UnknownModel, and UnsupportedModel for one that makes no pictures; comes back once a model can be used.
        """
        for option in ADAPTERS:
            self._check_adapter(option, options)
        if model := str(options.get(MODEL, "")):
            reference = self.find("checkpoint", model)
            self.workshop.resolve(Recipe(model=reference, prompt="a picture"))
            usual = models.usual(self.workshop)
            options = {**options, MODEL: "" if str(usual.path) == reference.name else model}
        self.chosen.change(owner, options)

    async def refresh(self, owner: str, request: Request) -> None:
        """Look through the shelves; comes back once that is done, or at once where the queue rests."""
        told = {"folders": [], "forget_missing": False}
        job = await asyncio.to_thread(self.workshop.submit_work, "scan", told, owner=owner, title="all shelves")
        if await asyncio.to_thread(lambda: self.workshop.queue.paused):
            return
        if (ended := await self.waiting.finished(job.id, request)).state == FAILED:
            raise failure(ended)

    # --- making

    async def make(self, asked: Making, translated: Translated, owner: str, request: Request) -> Response:
        """Have a draft made and answer as A1111 does. Raises what is wrong with it, or what the job failed with."""
        first = await self._submit(translated.recipe, owner, translated.names)
        if asked.override_settings and asked.override_settings_restore_afterwards is False:
            await asyncio.to_thread(self.choose, owner, known_options(asked.override_settings))
        warnings, outputs = [*translated.warnings], list[Output]()
        job: Job | None = first
        while job is not None:
            if asked.force_task_id:
                self._name(owner, asked.force_task_id, job.id)
            job = await self._follow(job, owner, request, outputs, warnings)
        warnings += await asyncio.to_thread(self._notes, first.id)
        hashes = await asyncio.to_thread(self._hashes, _recipe(first))
        told = await asyncio.to_thread(answer.made, asked, _recipe(first), outputs, warnings, first.created, hashes)
        return JSONResponse(told, headers={"X-Job-Id": first.id})

    async def _follow(
        self, job: Job, owner: str, request: Request, outputs: list[Output], warnings: list[str]
    ) -> Job | None:
        """Wait for a job and add what came of it; the job of what is left where one of its pictures was skipped."""
        self.making[job.id] = owner
        try:
            job = await self.waiting.finished(job.id, request)
            if job.state == FAILED:
                raise failure(job)
            made = await asyncio.to_thread(self.workshop.outputs, job.id)
            outputs += made
            if job.state != CANCELLED:
                return None
            if job.id not in self.skipped:
                warnings.append("interrupted: the job was stopped before it was done")
                return None
            warnings.append(f"skipped: the picture after {len(outputs)} was given up")
            gone = len(made) + 1
            if (rest := _without(_recipe(job), gone)) is None:
                return None
            following = await self._submit(rest, owner)
            self.before[following.id] = self.before.get(job.id, 0) + gone
            return following
        finally:
            del self.making[job.id]
            self.before.pop(job.id, None)
            self.skipped.discard(job.id)

    async def _submit(self, draft: Recipe, owner: str, names: Mapping[str, str] = NAMES) -> Job:
        try:
            caps.check(draft)
            return await self.intake.submit(draft, owner=owner)
        except InvalidRecipe as error:
            raise renamed(error, names) from None

    def _hashes(self, recipe: Recipe) -> dict[str, str]:
        """The hashes by which A1111 knows a resolved recipe's adapters, by their SHA-256."""
        pinned = [use.ref.sha256 for use in recipe.adapters if use.ref.sha256]
        return {sha256: short_hash(entry) for sha256 in pinned for entry in self.workshop.catalog.with_sha256(sha256)}

    def _notes(self, id: str) -> list[str]:
        told = (numbered.event for numbered in self.workshop.queue.events(job=id))
        return [event["text"] for event in told if event["event"] == "note"]

    def _name(self, owner: str, name: str, id: str) -> None:
        self.tasks[owner, name] = id
        if len(self.tasks) > MOST_TASKS:
            self.tasks.popitem(last=False)

    # --- steering

    def open_jobs(self, owner: str) -> Sequence[Job]:
        """The user's jobs that clients of this door wait for, in the order in which they were begun.

        One whose picture was skipped is among them until what is left of it is a job.
        """
        jobs = [self.workshop.queue.job(id) for id, whose in list(self.making.items()) if whose == owner]
        return sorted(
            (job for job in jobs if not job.over or job.id in self.skipped),
            key=lambda job: (job.started is None, job.started),
        )

    def going(self, job: Job) -> Going:
        """How far one of these jobs is."""
        made = len(self.workshop.outputs(job.id))
        return Going(job, made, self.before.get(job.id, 0), job.id in self.skipped)

    def interrupt(self, owner: str) -> None:
        """Stop what runs for this user, or what waits where nothing runs yet."""
        jobs = self.open_jobs(owner)
        for job in [job for job in jobs if job.started] or jobs:
            self.skipped.discard(job.id)
            self.workshop.queue.cancel(job.id)

    def skip(self, owner: str) -> None:
        """Give up the picture that is being made for this user, and go on with the next one of its job."""
        for job in self.open_jobs(owner)[:1]:
            if job.started:
                self.skipped.add(job.id)
                self.workshop.queue.cancel(job.id)


def _recipe(job: Job) -> Recipe:
    return recipe_from(job.request["recipe"])


def _without(recipe: Recipe, count: int) -> Recipe | None:
    """The recipe of a job's pictures without the first of them; None if those are all."""
    return recipe.single(count).changed(count=recipe.count - count) if count < recipe.count else None


async def door_of(request: Request) -> Door:
    """The door of the server that got this request; a dependency of its routes."""
    state = request.app.state
    if not hasattr(state, "a1111"):
        workshop: Workshop = state.workshop
        chosen = Chosen(workshop.settings.home / "a1111-options.json")
        state.a1111 = Door(workshop, state.intake, Waiting(workshop), chosen)
    door: Door = state.a1111
    return door
