"""What all trainings do with the gradients: optimizers whose rates move together, and a running average of weights."""

from __future__ import annotations

import copy
from typing import Any

import torch


class Optimizers:
    """Several optimizers as one, for weights that want different ones."""

    def __init__(self, *tools: torch.optim.Optimizer) -> None:
        self._tools = tools
        self._rates = [[group["lr"] for group in tool.param_groups] for tool in tools]

    def step(self, factor: float) -> None:
        """Change the weights, each at its own learning rate times `factor`."""
        for tool, rates in zip(self._tools, self._rates, strict=True):
            for group, lr in zip(tool.param_groups, rates, strict=True):
                group["lr"] = lr * factor
            tool.step()

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [tool.state_dict()["state"] for tool in self._tools]

    def restore(self, states: dict[int, dict[int, Any]]) -> None:
        """Go on with what a checkpoint kept."""
        for place, tool in enumerate(self._tools):
            tool.load_state_dict({"state": states[place], "param_groups": tool.state_dict()["param_groups"]})


class Average:
    """A copy of a network whose weights are the running average of the network's; it makes better pictures.

    It forgets within some 1 / (1 - `keeping`) steps, and sooner at first.
    """

    def __init__(self, network: torch.nn.Module, keeping: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self._keeping = keeping

    @torch.no_grad()
    def follow(self, network: torch.nn.Module, step: int) -> None:
        """Take in the weights after so many steps."""
        share = min(self._keeping, step / (step + 10))
        for mean, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            mean.lerp_(weight, 1 - share)
