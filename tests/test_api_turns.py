"""However many come at the same moment, whoever asks for little is answered in between."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from bottega.api.turns import Turns


def test_one_begins_each_time_the_loop_goes_round_in_order() -> None:
    async def ask() -> list[tuple[int, int]]:
        turns, loop = Turns(), asyncio.get_running_loop()
        begun: list[tuple[int, int]] = []
        rounds = 0

        def tick() -> None:
            nonlocal rounds
            rounds += 1
            if len(begun) < 9:
                loop.call_soon(tick)

        async def one(number: int) -> None:
            await turns.come()
            begun.append((number, rounds))

        loop.call_soon(tick)
        asked = [asyncio.ensure_future(one(number)) for number in range(10)]
        await asyncio.sleep(0)
        asked[4].cancel()
        await asyncio.wait(asked)
        await asyncio.gather(one(10), one(11))  # and again, when nobody has come for a while
        return begun

    begun = asyncio.run(ask())
    assert [number for number, _ in begun] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    times = [round for _, round in begun[:9]]
    assert all(later - earlier >= 1 for earlier, later in pairwise(times))
