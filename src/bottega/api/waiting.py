"""Answers a request with what a job makes: waits while its client does, and stops the job once the client is gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from fastapi import Request

import bottega.errors
from bottega.errors import BottegaError, FieldProblem, InvalidRecipe
from bottega.jobs.job import Job
from bottega.workshop import Workshop

GRACE = 5.0  # seconds in which a client whose connection broke may come back for its job


class Waiting:
    """Which jobs clients wait for, and how many for each; one for a server, used in its event loop only."""

    def __init__(self, workshop: Workshop, grace: float = GRACE) -> None:
        self._workshop = workshop
        self._grace = grace
        self._clients: Counter[str] = Counter()

    async def finished(self, id: str, request: Request) -> Job:
        """The job once it has ended.

        When the client goes away, and no other comes to wait for the job within the grace, it is cancelled. When the
        server stops it stays in the queue.
        """
        self._clients[id] += 1
        finished = asyncio.ensure_future(self._workshop.finished(id))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait({finished, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not finished.done():
                await asyncio.wait({finished}, timeout=self._grace)
                if not finished.done() and self._clients[id] == 1:
                    await asyncio.to_thread(self._workshop.queue.cancel, id)
            return await finished
        finally:
            self._clients[id] -= 1
            self._clients += Counter()  # forgets those that nobody waits for
            finished.cancel()
            gone.cancel()


async def _gone(request: Request) -> None:
    """Comes back once the client has gone away; the body of its request was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def failure(job: Job) -> BottegaError:
    """The error that a job failed with in its worker: of the same name and words, so that it is answered in its way."""
    told: Mapping[str, str] = job.error or {}
    name = told.get("error", "BottegaError")
    kind = getattr(bottega.errors, name, BottegaError)
    # The classes' own constructors make their words from parts that are not told any more.
    same = type(name, (BottegaError,), {"exit_code": kind.exit_code})
    error: BottegaError = same(told.get("what", "the job failed"), told.get("remedy", ""))
    return error


def renamed(error: InvalidRecipe, names: Mapping[str, str]) -> InvalidRecipe:
    """The same problems at the fields that the client knows, each said once; what it does not know keeps its name."""
    told = {(_name(each.field, names), each.what, each.remedy): None for each in error.problems}
    return InvalidRecipe([FieldProblem(*problem) for problem in told])


def _name(field: str, names: Mapping[str, str]) -> str:
    known = (names.get(each) for each in (field, field.rpartition(".")[0], field.partition(".")[0]))
    return next(filter(None, known), None) or field.removeprefix("knobs.")
