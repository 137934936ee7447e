"""What a job is to those who ask for it, and what can be wrong with asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from bottega.errors import BottegaError

WAITING, PAUSED, RUNNING, DONE, FAILED, CANCELLED = "waiting", "paused", "running", "done", "failed", "cancelled"
OPEN = (WAITING, PAUSED, RUNNING)
ENDED = (DONE, FAILED, CANCELLED)
STATES = OPEN + ENDED

OWNER = "owner"  # whose the jobs and outputs are of whoever has this home
MAKE, LIBRARY = "make", "library"  # the lanes: work for any device, and work on the shelves
TRAIN = "train"  # a kind of job in the lane MAKE


class QueueError(BottegaError):
    """The queue's file can't be used."""


class QueueFull(BottegaError):
    """As many jobs wait as may; `retry_after` is in how many seconds there may be room."""

    def __init__(self, what: str, remedy: str, retry_after: int) -> None:
        super().__init__(what, remedy)
        self.retry_after = retry_after


class KeyReused(BottegaError):
    """The idempotency key was used before, for another request."""

    exit_code = 2


class UnknownJob(BottegaError):
    """No job has this id, or it was forgotten since."""

    exit_code = 2

    def __init__(self, id: str) -> None:
        super().__init__(f"there is no job {id!r}", "see the list of jobs")


class WrongState(BottegaError):
    """The job is in a state in which this can't be done to it."""

    exit_code = 2


@dataclass(frozen=True)
class Job:
    """A piece of work that was asked for; times are unix seconds, `progress`, `error` and `result` plain data.

    `kind` is `make`, `train` or what is done to the library; `request` what was asked, of a `make` its resolved
    recipe under `recipe`, of a `train` that of the training. `after` are the jobs that it waits for, `attempt` how
    often it was begun, `key` the caller's idempotency key. `cancelling` says that it runs and was told to stop.
    `eta` is how many seconds it may still take, `seen` the number of the newest event that this tells of.
    """

    id: str
    kind: str
    lane: str
    owner: str
    state: str
    request: Mapping[str, Any]
    digest: str
    title: str
    priority: int
    position: float
    attempt: int
    after: tuple[str, ...]
    reuse: bool
    key: str | None
    created: float
    started: float | None
    ended: float | None
    progress: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    result: Any
    cancelling: bool = False
    eta: float | None = None
    seen: int = field(default=0, compare=False)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it unless somebody retries it."""
        return self.state in ENDED

    def to_json(self) -> dict[str, Any]:
        """The job as plain data."""
        return asdict(self)


class Numbered(NamedTuple):
    """An event as it is kept: its number, unique and rising within a queue, its job and when it was (unix seconds)."""

    number: int
    job: str
    owner: str
    at: float
    event: dict[str, Any]
