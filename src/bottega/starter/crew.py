"""Several processes of one thread each that train one model together.

On a CPU that others use too, two threads of one process wait for each other at every operation, and a step takes many
times as long. Processes meet only once a step, when they average their gradients through shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
import torch.multiprocessing


class Crew:
    """What the members share: latents, gradients, and the leader's word on the rate and the end."""

    def __init__(self, size: int, latents: int, weights: int) -> None:
        self.size = size
        self.rank = 0
        self.latents = torch.zeros(latents, 4, 16, 16, dtype=torch.float16).share_memory_()
        self._gradients = torch.zeros(size, weights if size > 1 else 0).share_memory_()
        self._results = torch.zeros(weights if size > 1 else 0).share_memory_()
        self._word = torch.zeros(2, dtype=torch.float64).share_memory_()
        self._barrier = torch.multiprocessing.get_context("spawn").Barrier(size)

    def wait(self) -> None:
        """Until everyone is here."""
        self._barrier.wait()

    def lead(self, over: bool, factor: float) -> None:
        """The leader says whether this step is the last, and the factor on the learning rate; the others do not."""
        if self.rank == 0:
            self._word[:] = torch.tensor([float(over), factor])

    @torch.no_grad()
    def share_gradients(self, weights: list[torch.nn.Parameter]) -> tuple[bool, float]:
        """Give every member the mean gradient; returns the leader's word."""
        if self.size > 1:
            count = sum(weight.numel() for weight in weights)
            torch.cat([weight.grad.flatten() for weight in weights], out=self._gradients[self.rank, :count])
            self.wait()
            mean = self._gradients[:, :count].mean(0)
            word = self._word.tolist()
            self.wait()
            for weight, part in zip(weights, mean.split([w.numel() for w in weights]), strict=True):
                weight.grad.copy_(part.view_as(weight))
        else:
            word = self._word.tolist()
        return bool(word[0]), word[1]

    @torch.no_grad()
    def divide(self, work: Callable[[torch.Tensor], torch.Tensor], parts: list[torch.Tensor]) -> list[torch.Tensor]:
        """`work` on every part, each done by one member and given to all; a result has its part's shape.

        Everyone calls this with equal parts, once between two calls of `share_gradients`.
        """
        if self.size == 1:
            return [work(part) for part in parts]
        places = self._results[: sum(part.numel() for part in parts)].split([part.numel() for part in parts])
        largest_first = sorted(range(len(parts)), key=lambda i: -parts[i].numel())
        for i in largest_first[self.rank :: self.size]:
            places[i].copy_(work(parts[i]).flatten())
        self.wait()
        return [place.view_as(part) for place, part in zip(places, parts, strict=True)]


def _member(rank: int, crew: Crew, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    crew.rank = rank
    torch.set_num_threads(1)
    with suppress(KeyboardInterrupt):  # the leader tells of it
        work(crew, *arguments)


def together(crew: Crew, work: Callable[..., None], *arguments: object) -> None:
    """Run `work(crew, *arguments)` in every member; this process is the leader and returns when it is done."""
    context = torch.multiprocessing.get_context("spawn")
    others = [context.Process(target=_member, args=(rank, crew, work, arguments)) for rank in range(1, crew.size)]
    for other in others:
        other.start()
    if crew.size > 1:
        torch.set_num_threads(1)
    work(crew, *arguments)
    for other in others:
        other.join()
