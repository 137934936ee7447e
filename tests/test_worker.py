"""What a worker says of its job, and when: as little as is enough to see how it gets on, in its order."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bottega import worker
from bottega.events import Event, Note, Started, Step
from bottega.jobs.wire import Pipe, batches, messages
from bottega.worker import Life, Telling, Told


@pytest.fixture
def said() -> Iterator[tuple[Pipe, Iterator[dict[str, Any]]]]:
    """A worker's way to its server, and what the server hears there."""
    here, there = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    yield Pipe(there), messages(here)
    there.close()
    here.close()


def step(done: int, phase: str = "sample") -> Step:
    return Step(phase, done, 4)


def event(event: Event) -> dict[str, Any]:
    return {"say": "event", "job": "j", "event": event.to_json()}


def test_a_beginning_and_steps_that_come_soon_are_told_with_what_follows_and_none_of_what_is_over(
    said: tuple[Pipe, Iterator[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, heard = said
    monkeypatch.setattr(worker, "STEP_EVERY", 3600.0)
    life = Life(pipe, dict)
    telling = Telling(pipe, "j", life)
    for each in (Started("d", 1), step(1), step(2), step(3, "decode"), Note("dark"), step(4, "save")):
        telling(each)
    telling.over("done", done={})
    told = [next(heard) for _ in range(4)]
    assert told[:3] == [event(each) for each in (Started("d", 1), step(3, "decode"), Note("dark"))]
    assert told[3]["say"] == "done"


def test_a_step_that_nothing_follows_is_told_with_the_next_sign_of_life(
    said: tuple[Pipe, Iterator[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, heard = said
    monkeypatch.setattr(worker, "STEP_EVERY", 3600.0)
    monkeypatch.setattr(worker, "BEAT_EVERY", 0.01)
    life = Life(pipe, dict)
    life.begin()
    telling = Telling(pipe, "j", life)
    told = (message for message in heard if message["say"] == "event")
    telling(step(1))
    assert next(told) == event(step(1))
    telling(step(2, "decode"))
    assert next(told) == event(step(2, "decode"))
    life.end()


def test_a_beginning_that_nothing_follows_is_told_soon(
    said: tuple[Pipe, Iterator[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, heard = said
    monkeypatch.setattr(worker, "STEP_EVERY", 0.01)
    monkeypatch.setattr(worker, "BEAT_EVERY", 3600.0)
    life = Life(pipe, dict)
    life.begin()
    Telling(pipe, "j", life)(Started("d", 1))
    assert next(heard) == event(Started("d", 1))
    life.end()


def test_what_is_sent_in_one_go_is_heard_in_one_go() -> None:
    here, there = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    heard = batches(here)
    pipe = Pipe(there)
    pipe.send({"number": 1}, {"number": 2})
    assert next(heard) == [{"number": 1}, {"number": 2}]
    there.write(b'{"number": 3}\n{"num')
    there.flush()
    assert next(heard) == [{"number": 3}]
    there.write(b'ber": 4}\n')
    there.flush()
    assert next(heard) == [{"number": 4}]
    there.write(b'{"number": 5}\n["no message"]\n{"number": 6}\n')
    there.flush()
    assert list(heard) == [[{"number": 5}]]
    pipe.close()
    here.close()


def test_a_path_that_is_no_text_arrives() -> None:
    here, there = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    told = {"home": os.fsdecode(b"/tmp/caf\xe9"), "prompt": "caf\xe9 \U0001f3e0"}
    Pipe(there).send(told)
    assert next(messages(here)) == told
    there.close()
    here.close()


def test_a_message_that_is_longer_than_a_pipe_holds_arrives() -> None:
    here, there = (os.fdopen(end, mode) for end, mode in zip(os.pipe(), ("rb", "wb"), strict=True))
    long = {"png": "x" * 1_000_000}
    sender = threading.Thread(target=Pipe(there).send, args=({"short": 1}, long))
    sender.start()
    heard = messages(here)
    assert [next(heard), next(heard)] == [{"short": 1}, long]
    sender.join()
    there.close()
    assert list(heard) == []
    here.close()


def test_a_job_that_is_cancelled_before_it_is_taken_up_is_told_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, hang_up, gone = (threading.Event() for _ in range(3))

    def said(stream: object) -> Iterator[dict[str, Any]]:
        yield {"do": "cancel", "job": "a"}  # of an earlier time: it has been told of its end since
        yield {"do": "work", "jobs": [{"job": "a"}]}
        yield {"do": "work", "jobs": [{"job": "b"}]}
        yield {"do": "cancel", "job": "b"}
        heard.set()
        hang_up.wait()

    monkeypatch.setattr(worker, "messages", said)
    monkeypatch.setattr(worker, "LEAVE_WITHIN", 0.0)
    monkeypatch.setattr(os, "_exit", lambda code: gone.set())
    told = Told()
    told.listen()
    assert heard.wait(120.0)
    stopped = []
    for _ in range(2):
        told.next()
        stopped.append(told.stop.is_set())
        told.done()
    assert stopped == [False, True]
    hang_up.set()
    assert gone.wait(120.0)
