"""What clients ask for at the same time goes into the queue with one write, and nobody waits for another's model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from native import Api, studio

from bottega.api.intake import MOST, THREADS, Intake
from bottega.errors import UnknownModel
from bottega.jobs.job import Job, QueueError, QueueFull
from bottega.recipe import Recipe, recipe_from
from bottega.workshop import Wanted, Workshop


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with studio(tmp_path_factory.mktemp("intake") / "home") as api:
        yield api


@pytest.fixture
def shop(api: Api) -> Iterator[Workshop]:
    yield api.shop
    for job in api.shop.queue.jobs(limit=1000):
        api.shop.queue.cancel(job.id)


@pytest.fixture
def intake(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Iterator[Intake]:
    monkeypatch.setattr("bottega.api.intake.SLOW", 3600.0)  # one thread, however long it takes
    intake = Intake(shop)
    yield intake
    intake.close()


def draft(prompt: str = "a", **more: Any) -> Recipe:
    return recipe_from({"prompt": prompt, "sampling": {"steps": 1, "seed": 1}, **more})


@contextmanager
def writes(shop: Workshop) -> Iterator[list[str]]:
    """How often the queue is written."""
    commits: list[str] = []
    shop.queue._write.set_trace_callback(lambda told: commits.append(told) if "COMMIT" in told else None)
    try:
        yield commits
    finally:
        shop.queue._write.set_trace_callback(None)


def test_what_comes_at_once_is_written_at_once_in_its_order(shop: Workshop, intake: Intake) -> None:
    async def ask() -> list[Job]:
        return list(await asyncio.gather(*(intake.submit(draft(str(n)), owner="ann") for n in range(MOST))))

    with writes(shop) as commits:
        jobs = asyncio.run(ask())
    assert [job.title for job in jobs] == [str(n) for n in range(MOST)]
    assert [job.id for job in shop.queue.jobs(states=["waiting"])] == [job.id for job in jobs]
    assert len(commits) == 1


def test_each_is_told_what_is_wrong_with_its_own(shop: Workshop, intake: Intake) -> None:
    async def ask() -> list[Job | BaseException]:
        unknown = draft(model={"name": "there is none"})
        asked = (intake.submit(each, owner="ann") for each in (draft("1"), unknown, draft("2"), draft("3")))
        return list(await asyncio.gather(*asked, return_exceptions=True))

    shop.queue.cap = 2
    try:
        first, unknown, second, third = asyncio.run(ask())
    finally:
        shop.queue.cap = 1000
    assert isinstance(first, Job) and isinstance(second, Job)
    assert isinstance(unknown, UnknownModel) and isinstance(third, QueueFull)
    assert [job.title for job in shop.queue.jobs(states=["waiting"])] == ["1", "2"]


def test_nobody_waits_for_a_model_that_another_has_hashed(
    shop: Workshop, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bottega.api.intake.SLOW", 0.05)
    hashed = threading.Event()

    def slowly() -> Wanted:
        assert hashed.wait(60)
        return shop.prepare(draft("slow"), owner="ann")

    def refused() -> Wanted:
        raise UnknownModel("x", [])

    async def ask() -> list[str]:
        ready = intake.submit(draft("ready"), owner="ann")
        unknown = intake.put(refused)
        slow = [intake.put(slowly) for _ in range(THREADS)]
        ready, unknown, *slow = (asyncio.ensure_future(each) for each in (ready, unknown, *slow))
        assert (await ready).title == "ready"
        with pytest.raises(UnknownModel):
            await unknown
        hashed.set()
        return [(await each).title for each in slow]

    assert asyncio.run(asyncio.wait_for(ask(), 60)) == ["slow"] * THREADS


def test_whoever_comes_later_is_helped_too(shop: Workshop, intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bottega.api.intake.SLOW", 0.05)
    hashed = threading.Event()

    def slowly() -> Wanted:
        assert hashed.wait(60)
        return shop.prepare(draft("slow"), owner="ann")

    async def ask() -> list[str]:
        slow = asyncio.ensure_future(intake.put(slowly))
        titles = [(await intake.submit(draft(str(number)), owner="ann")).title for number in range(3)]
        hashed.set()
        return [*titles, (await slow).title]

    assert asyncio.run(asyncio.wait_for(ask(), 60)) == ["0", "1", "2", "slow"]


@pytest.mark.parametrize("error", [StopIteration("here"), SystemExit("here"), KeyError("here")])
def test_no_error_keeps_others_waiting(shop: Workshop, intake: Intake, error: BaseException) -> None:
    def odd() -> Wanted:
        raise error

    async def ask() -> Job:
        with pytest.raises((RuntimeError, KeyError), match="here"):
            await intake.put(odd)
        return await intake.submit(draft("next"), owner="ann")

    assert asyncio.run(asyncio.wait_for(ask(), 60)).title == "next"


@pytest.mark.parametrize("error", [SystemExit("here"), QueueError("here", "there")])
def test_what_keeps_a_write_from_being_made_is_told_to_each(
    shop: Workshop, intake: Intake, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(wanted: Sequence[Wanted]) -> list[Job | Exception]:
        raise error

    async def ask() -> Job:
        with monkeypatch.context() as patch:
            patch.setattr(shop, "put", fails)
            both = [intake.submit(draft(each), owner="ann") for each in ("1", "2")]
            told = await asyncio.gather(*both, return_exceptions=True)
        assert [type(each) for each in told] == [RuntimeError if isinstance(error, SystemExit) else QueueError] * 2
        return await intake.submit(draft("next"), owner="ann")

    assert asyncio.run(asyncio.wait_for(ask(), 60)).title == "next"
    assert [job.title for job in shop.queue.jobs(states=["waiting"])] == ["next"]


def test_whoever_goes_has_the_job_made_nevertheless(shop: Workshop, intake: Intake) -> None:
    async def ask() -> None:
        gone, following = (asyncio.ensure_future(intake.submit(draft(each), owner="ann")) for each in ("gone", "next"))
        await asyncio.sleep(0)
        gone.cancel()
        await following

    asyncio.run(asyncio.wait_for(ask(), 60))
    assert [job.title for job in shop.queue.jobs(states=["waiting"])] == ["gone", "next"]


def test_what_is_not_written_counts_for_nobody(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []

    @contextmanager
    def allow(owner: str, recipe: Recipe) -> Iterator[None]:
        counted.append(owner)
        try:
            yield
        except BaseException:
            counted.remove(owner)
            raise

    monkeypatch.setattr(shop, "allow", allow)
    wanted = [shop.prepare(draft(), owner=owner) for owner in ("ann", "bob")]
    with monkeypatch.context() as patch:
        patch.setattr(shop.queue, "quota", {"bob": 0}.get)
        _, refused = shop.put(wanted)
        assert isinstance(refused, QueueFull) and counted == ["ann"]
    # SQLite has no way to make a commit fail but a full disk, and has written some of it by then.
    (pages,) = shop.queue._write.execute("PRAGMA page_count").fetchone()
    shop.queue._write.execute(f"PRAGMA max_page_count = {pages}")
    try:
        with pytest.raises(QueueError, match="full"):
            shop.put([shop.prepare(draft("x" * 15_000), owner="cleo")] * 3)
    finally:
        shop.queue._write.execute("PRAGMA max_page_count = 1000000")
    assert counted == ["ann"]
    same = [shop.prepare(draft("same"), owner="dan", key="k")] * 2
    one, other = shop.put(same)
    assert isinstance(one, Job) and one == other and counted == ["ann", "dan"]


def test_who_may_not_is_told_so_before_what_is_wrong_with_the_request(api: Api) -> None:
    reader = api.user("reader", "read")
    status, error = reader.refused("POST", "/jobs", {"recipe": {"nonsense": 1}})
    assert (status, error["class"]) == (403, "NotAllowed")
    assert api("POST", "/jobs", {"recipe": {"nonsense": 1}}).status == 422
