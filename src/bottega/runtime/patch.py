"""Changes of a network's weights that can be taken back to the bit: the changed weight stands in for the original.

The original tensor is never written to. It may be a view of a memory-mapped file, and is given back as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from bottega.errors import FileError
from bottega.runtime.deltas import Numbers, change
from bottega.runtime.turns import Turns

if TYPE_CHECKING:
    from bottega.spec import Rotation

Parameters = Mapping[str, Mapping[str, nn.Parameter]]  # by the part of a model and their name in its network
Mark = tuple[object, ...]


@dataclass(frozen=True, eq=False)
class Change:
    """What is done to one weight, and when: from `start` to `end`, parts of the steps.

    `numbers` are as `deltas.change` takes them, from `file`. `mark` stands for all that decides the result: a change
    of the same mark is not computed again.
    """

    part: str
    name: str
    mark: Mark
    numbers: Numbers
    strength: float
    file: Path
    scale: float | None = None
    rotation: Rotation | None = None
    start: float = 0.0
    end: float = 1.0

    def works_at(self, share: float) -> bool:
        """Whether it works when that part of the steps lies behind; a sampler may take more than were counted on."""
        return self.start <= share and (share < self.end or self.end >= 1)


class _Weight:
    """One weight, what is to be done to it in order, and what came of that, by the changes that work together."""

    def __init__(self, parameter: nn.Parameter, turns: Turns) -> None:
        self.parameter = parameter
        self.turns = turns
        self.original = self.current = turns.weight(parameter)
        self.changes: list[Change] = []
        self.made: dict[tuple[Mark, ...], torch.Tensor] = {}

    def at(self, share: float) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.works_at(share))

    def bring_to(self, share: float) -> bool:
        """Let the parameter be what it is at a part of the steps; whether it was another tensor."""
        working = _marks(self.at(share))
        return self.become(self.made[working] if working else self.original)

    def become(self, tensor: torch.Tensor) -> bool:
        """Let a tensor stand in for the weight; whether it was another one."""
        if self.current is tensor:
            return False
        self.turns.put(self.parameter, tensor)
        self.current = tensor
        return True


def _marks(changes: Sequence[Change]) -> tuple[Mark, ...]:
    return tuple(change.mark for change in changes)


class Patcher:
    """All changes of one model's weights. They are made in the order in which they were added, from the original.

    `turns` knows which of them wait in main memory, where what stands in for them waits, too.
    """

    def __init__(self, parameters: Parameters, turns: Turns) -> None:
        self._parameters = parameters
        self._turns = turns
        self._weights: dict[tuple[str, str], _Weight] = {}

    def add(self, changes: Sequence[Change]) -> Callable[[], None]:
        """Have weights changed from the next `settle` on; answers with what takes these changes away again.

        Raises KeyError for a weight that the model has not.
        """
        for each in changes:
            place = each.part, each.name
            if place not in self._weights:
                self._weights[place] = _Weight(self._parameters[each.part][each.name], self._turns)
            self._weights[place].changes.append(each)

        def take_away() -> None:
            for each in changes:
                self._weights[each.part, each.name].changes.remove(each)

        return take_away

    @torch.inference_mode(False)
    @torch.no_grad()
    def settle(self) -> frozenset[str]:
        """Make the weights what they are at the first step; the parts of the model in which any is another now.

        What was computed before, and is the same, is kept. Raises FileError for numbers that do not fit their weight.
        """
        moments, room = (0.0, *self.moments()), _Room(self._turns.device)
        changed = set()
        for place, weight in list(self._weights.items()):
            wanted = {_marks(working): working for share in moments if (working := weight.at(share))}
            free = [tensor for marks, tensor in weight.made.items() if marks not in wanted]
            weight.made = {marks: tensor for marks, tensor in weight.made.items() if marks in wanted}
            # Written into what stands in now, a tensor would be another without being another object.
            if any(tensor is weight.current for tensor in free):
                weight.become(weight.original)
                changed.add(place[0])
            for marks, working in wanted.items():
                if marks not in weight.made:
                    into = free.pop() if free else torch.empty_like(weight.original)
                    weight.made[marks] = room.changed(weight.original, working, into)
            if weight.bring_to(0.0):
                changed.add(place[0])
            if not weight.changes:
                del self._weights[place]
        return frozenset(changed)

    def moments(self, *parts: str) -> tuple[float, ...]:
        """The parts of the steps, above 0, at which some weight (of these parts of the model) becomes another."""
        found = {
            share
            for (part, _), weight in self._weights.items()
            if not parts or part in parts
            for each in weight.changes
            for share in (each.start, each.end)
        }
        return tuple(sorted(share for share in found if 0 < share < 1))

    def go_to(self, share: float) -> frozenset[str]:
        """Make the weights what they are at that part of the steps; the parts of the model in which any is another."""
        return frozenset(place[0] for place, weight in list(self._weights.items()) if weight.bring_to(share))

    @property
    def bytes(self) -> int:
        """What the changed weights hold, beside the originals."""
        return sum(tensor.nbytes for weight in self._weights.values() for tensor in weight.made.values())


class _Room:
    """Room to compute in, the same for one weight after the other: fresh memory costs more than the work.

    It is on the model's device for weights that wait elsewhere, too, so that where they wait decides about no bit.
    """

    def __init__(self, device: torch.device) -> None:
        self._room = torch.empty(0, device=device)

    def changed(self, original: torch.Tensor, changes: Sequence[Change], into: torch.Tensor) -> torch.Tensor:
        """The weight with these changes, computed in float32 and rounded once."""
        if self._room.numel() < original.numel():
            self._room = torch.empty(original.numel(), dtype=torch.float32, device=self._room.device)
        weight = self._room[: original.numel()].view(original.shape)
        weight.copy_(original)
        for each in changes:
            numbers = {role: tensor.to(weight.device, torch.float32) for role, tensor in each.numbers.items()}
            if not all(bool(torch.isfinite(tensor).all()) for tensor in numbers.values()):
                raise FileError(each.file, f"has numbers for {each.name} that are none (NaN)", "get it again")
            try:
                change(weight, numbers, each.strength, each.scale, each.rotation)
            except (ValueError, KeyError) as error:
                raise FileError(each.file, f"does not fit {each.name}: {error}", "use one that fits") from None
        return into.copy_(weight)
