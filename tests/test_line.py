"""Blocking work beside the event loop: little pieces in turn, and none that waits for one that takes long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from bottega.api.line import Line

LONG = 30.0  # seconds that nothing here takes


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def within_time() -> None:
        async with asyncio.timeout(LONG):
            await test()

    asyncio.run(within_time())


def test_little_pieces_are_done_by_one_thread_in_the_order_in_which_they_came() -> None:
    async def test() -> None:
        done: list[tuple[int, int]] = []

        def piece(number: int) -> int:
            done.append((number, threading.get_ident()))
            return number

        pieces = Line(most=4, patience=LONG)
        assert await asyncio.gather(*(pieces.do(lambda n=n: piece(n)) for n in range(50))) == list(range(50))
        assert [number for number, _ in done] == list(range(50))
        assert len({thread for _, thread in done}) == 1

    run(test)


def test_another_thread_helps_where_a_piece_takes_long() -> None:
    async def test() -> None:
        go_on = threading.Event()
        pieces = Line(most=2, patience=0.01)
        long = asyncio.ensure_future(pieces.do(lambda: go_on.wait(LONG)))
        behind = asyncio.ensure_future(pieces.do(lambda: "behind"))
        assert await behind == "behind"
        assert not long.done()
        go_on.set()
        assert await long

    run(test)


def test_what_was_done_before_a_piece_that_takes_long_is_told() -> None:
    async def test() -> None:
        all_here, go_on = threading.Event(), threading.Event()
        pieces = Line(most=1, patience=0.01)
        before = asyncio.ensure_future(pieces.do(lambda: all_here.wait(LONG)))
        long = asyncio.ensure_future(pieces.do(lambda: go_on.wait(LONG)))
        await asyncio.sleep(0)  # until both are in line
        all_here.set()
        assert await before
        assert not long.done()
        go_on.set()
        assert await long

    run(test)


def test_no_more_threads_help_than_there_may_be() -> None:
    async def test() -> None:
        go_on, begun = threading.Event(), [threading.Event() for _ in range(3)]
        pieces = Line(most=2, patience=0.0)

        def piece(number: int) -> bool:
            begun[number].set()
            return go_on.wait(LONG)

        waiting = [asyncio.ensure_future(pieces.do(lambda n=n: piece(n))) for n in range(3)]
        await asyncio.gather(*(asyncio.to_thread(each.wait, LONG) for each in begun[:2]))
        await asyncio.sleep(0)
        assert not begun[2].is_set()
        go_on.set()
        assert await asyncio.gather(*waiting) == [True] * 3

    run(test)


def test_what_a_piece_raises_is_raised_where_it_is_waited_for_and_the_others_are_done() -> None:
    async def test() -> None:
        pieces = Line(most=1, patience=LONG)
        wrong, right = await asyncio.gather(
            pieces.do(lambda: 1 // 0), pieces.do(lambda: "right"), return_exceptions=True
        )
        assert isinstance(wrong, ZeroDivisionError)
        assert right == "right"

    run(test)


def test_who_is_cancelled_waits_for_what_is_begun_and_has_nothing_else_done() -> None:
    async def test() -> None:
        begun, go_on = threading.Event(), threading.Event()
        done: list[str] = []

        def first() -> None:
            begun.set()
            go_on.wait(LONG)
            done.append("first")

        pieces = Line(most=1, patience=LONG)
        running = asyncio.ensure_future(pieces.do(first))
        waiting = asyncio.ensure_future(pieces.do(lambda: done.append("second")))
        await asyncio.to_thread(begun.wait, LONG)
        for each in (running, waiting):
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        running.cancel()  # who can't wait is told to once more
        await asyncio.sleep(0)
        assert not running.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert done == ["first"]

    run(test)
