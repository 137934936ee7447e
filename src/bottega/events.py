"""The typed events of a job: what a running recipe says, from queued to done."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a job says; media are named by hash, never carried."""

    def to_json(self) -> dict[str, Any]:
        """The event as plain data, its kind under `event`."""
        return {"event": type(self).__name__.lower(), **{name: getattr(self, name) for name in self.names()}}

    @classmethod
    @cache
    def names(cls) -> tuple[str, ...]:
        """The names of its fields."""
        return tuple(entry.name for entry in fields(cls))


@dataclass(frozen=True, slots=True)
class Queued(Event):
    """The job waits behind `ahead` others."""

    job: str
    ahead: int = 0


@dataclass(frozen=True, slots=True)
class Started(Event):
    """Work has begun on `count` outputs of the recipe with this digest."""

    digest: str
    count: int


@dataclass(frozen=True, slots=True)
class Step(Event):
    """`done` of `total` steps of a phase (`load`, `sample`, `decode`, `save`) are behind us."""

    phase: str
    done: int
    total: int
    image: int = 0


@dataclass(frozen=True, slots=True)
class Preview(Event):
    """A rough picture of what is being made, kept under its hash until the job ends."""

    image: int
    step: int
    sha256: str
    path: str


@dataclass(frozen=True, slots=True)
class Made(Event):
    """An output is on disk: at `path`, or where a server keeps it under the id `output`."""

    image: int
    path: str
    sha256: str
    digest: str
    seed: int
    width: int
    height: int
    output: str = ""

    def to_json(self) -> dict[str, Any]:
        """The event as plain data, without the one of `path` and `output` that is not told."""
        told = Event.to_json(self)
        return {name: value for name, value in told.items() if value != "" or name not in ("path", "output")}


@dataclass(frozen=True, slots=True)
class Learned(Event):
    """`step` of `total` steps of a training are behind us; `validation` is the loss on held-out pictures, if judged."""

    step: int
    total: int
    loss: float
    rate: float
    validation: float | None = None


@dataclass(frozen=True, slots=True)
class Sampled(Event):
    """What a model in training makes of a prompt after `step` steps, at `path`."""

    step: int
    image: int
    prompt: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Trained(Event):
    """What was trained is on disk at `path`, after `steps` steps of the recipe with this digest."""

    path: str
    sha256: str
    digest: str
    steps: int


@dataclass(frozen=True, slots=True)
class Note(Event):
    """Something worth knowing that stopped nothing."""

    text: str


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """The job ended without its outputs."""

    error: str
    what: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Done(Event):
    """The job ended with all its outputs."""

    digest: str
    outputs: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Result(Event):
    """What a job that makes no output has found or done, as plain data."""

    data: Any


@dataclass(frozen=True, slots=True)
class Cancelled(Event):
    """The job ended because somebody wanted it to, without what was not made yet."""


@dataclass(frozen=True, slots=True)
class Retried(Event):
    """The job waits again after attempt number `attempt`, for the reason in words."""

    attempt: int
    why: str


@dataclass(frozen=True, slots=True)
class Changed(Event):
    """Somebody steered a job, or the whole queue: it is `paused`, `resumed`, `moved`, `prioritised`, `cancelling`."""

    what: str
