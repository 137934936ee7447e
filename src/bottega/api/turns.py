"""Begins requests one by one, so that those who ask much of a server do not keep those waiting who ask little."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Who waits to begin, in the order in which they came; used in one event loop only.

    Whatever has come by then is read when the loop goes round: what takes a millisecond for one client takes fifty for
    as many, in which nobody else is answered. So one of them begins each time.
    """

    def __init__(self) -> None:
        self._line: deque[asyncio.Future[None]] = deque()
        self._is_begun = False  # whether one has, in this round

    async def come(self) -> None:
        """Wait for one's turn, which mostly is at once."""
        loop = asyncio.get_running_loop()
        if not self._is_begun:
            self._is_begun = True
            loop.call_soon(self._round, loop)
            return
        turn = loop.create_future()
        self._line.append(turn)
        await turn

    def _round(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_begun = False
        while self._line and not self._is_begun:
            turn = self._line.popleft()
            if not turn.done():  # whoever waited may have gone
                turn.set_result(None)
                self._is_begun = True
        if self._is_begun:
            loop.call_soon(self._round, loop)
