"""What the OpenAI door remembers of its clients, and the work that its routes share."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field

from fastapi import Request

from bottega.api import caps, models
from bottega.api.intake import Intake
from bottega.api.openai.translate import NAMES
from bottega.api.waiting import Waiting, failure, renamed
from bottega.errors import BottegaError, InvalidRecipe, UnknownModel
from bottega.gallery import Output
from bottega.jobs.job import CANCELLED, DONE, FAILED, Job, UnknownJob
from bottega.library.find import check_gone
from bottega.recipe import Recipe, Ref
from bottega.workshop import Workshop

RETRY_WITHIN = 900.0  # seconds; clients wait for ten minutes, then ask again
MOST_RECENT = 500


class Stopped(BottegaError):
    """The job was stopped by somebody before it was done."""


@dataclass
class Door:
    """One server's OpenAI door. `recent` are the jobs that were asked for lately, by owner and draft, and when."""

    workshop: Workshop
    intake: Intake
    waiting: Waiting
    recent: OrderedDict[tuple[str, str], tuple[str, float]] = field(default_factory=OrderedDict)
    streams: set[asyncio.Task[Job]] = field(default_factory=set)

    def find(self, kind: str, name: str) -> Ref | None:
        """The model of a kind that a request names; of checkpoints, None (the usual one) for a name that means nothing
        here, because clients have those of OpenAI's own models built in. Raises FileError for a model that was here."""
        try:
            return models.reference(models.chosen(self.workshop, kind, name))
        except UnknownModel:
            if kind != "checkpoint":
                raise
            check_gone(self.workshop.catalog, name)
            return None

    async def submit(self, draft: Recipe, owner: str, request: Request) -> Job:
        """The job of a draft: a new one, or that of the request that this one is a retry of.

        A client that lost its connection asks again, and says so; it sends no key by which to know it again.
        """
        key, now = (owner, draft.digest), time.monotonic()
        if request.headers.get("x-stainless-retry-count", "0") not in ("", "0") and key in self.recent:
            id, since = self.recent[key]
            with suppress(UnknownJob):
                job = await asyncio.to_thread(self.workshop.queue.job, id)
                if now - since < RETRY_WITHIN and job.state not in (FAILED, CANCELLED):
                    return job
        try:
            caps.check(draft)
            job = await self.intake.submit(draft, owner=owner)
        except InvalidRecipe as error:
            raise renamed(error, NAMES) from None
        self.recent[key] = job.id, now
        self.recent.move_to_end(key)
        if len(self.recent) > MOST_RECENT:
            self.recent.popitem(last=False)
        return job

    async def outputs(self, job: Job) -> list[Output]:
        """What a job that has ended made; raises what it failed with."""
        if job.state == FAILED:
            raise failure(job)
        if job.state != DONE:
            raise Stopped("the job was stopped before it was done")
        return await asyncio.to_thread(self.workshop.outputs, job.id)


async def door_of(request: Request) -> Door:
    """The door of the server that got this request; a dependency of its routes."""
    state = request.app.state
    if not hasattr(state, "openai"):
        workshop: Workshop = state.workshop
        state.openai = Door(workshop, state.intake, Waiting(workshop))
    door: Door = state.openai
    return door
