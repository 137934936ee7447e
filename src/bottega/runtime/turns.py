"""Networks that take turns on a device which has no room for all of them: the others wait in main memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bottega.runtime.weights import bring_constants, gathered


class Turns:
    """Which networks of a model are on its device now.

    Each of `turns` are networks that are there together. Whoever calls one of them, or a child of it, finds it there
    and its inputs with it, and no other turn's; whoever calls one of `staying`, which are always there, finds no turn's
    there. What waits is never written to, so that leaving costs nothing.
    """

    def __init__(
        self, turns: Sequence[Sequence[nn.Module]], device: torch.device, staying: Sequence[nn.Module] = ()
    ) -> None:
        self.device = device
        self._here: tuple[nn.Module, ...] = ()
        self._waiting: dict[nn.Parameter, Tensor] = {}
        self._turn_of: dict[nn.Parameter, tuple[nn.Module, ...]] = {}
        for turn in map(tuple, turns):
            for network in turn:
                for parameter in network.parameters():
                    self._waiting[parameter], self._turn_of[parameter] = parameter.data, turn
                bring_constants(network, device)  # small: they stay
                self._listen(network, turn)
        if turns:
            for network in staying:
                self._listen(network, ())

    def _listen(self, network: nn.Module, turn: tuple[nn.Module, ...]) -> None:
        for module in (network, *network.children()):
            module.register_forward_pre_hook(partial(self._called, turn), with_kwargs=True)

    @property
    def bytes(self) -> int:
        """What is on the device now and may leave it."""
        return sum(parameter.nbytes for network in self._here for parameter in network.parameters())

    def weight(self, parameter: nn.Parameter) -> Tensor:
        """What a weight is, wherever its network is: what `put` gave last, or what it was at the beginning."""
        return self._waiting.get(parameter, parameter.data)

    @torch.no_grad()
    def put(self, parameter: nn.Parameter, tensor: Tensor) -> None:
        """Let a tensor of the same form be a weight from now on; a network that is here for its turn takes it over."""
        if parameter not in self._waiting:
            parameter.data = tensor
            return
        self._waiting[parameter] = tensor
        if self._turn_of[parameter] == self._here:
            parameter.data.copy_(tensor)  # into the room that it has there already
        else:
            parameter.data = tensor

    def leave(self) -> None:
        """Have nothing on the device that takes turns."""
        if not self._here:
            return
        for network in self._here:
            for parameter in network.parameters():
                parameter.data = self._waiting[parameter]
        self._here = ()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # in pieces, it would not be room enough for the next

    def _called(
        self, turn: tuple[nn.Module, ...], module: nn.Module, args: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if turn != self._here:
            self.leave()
            self._here = turn
            try:
                self._bring()
            except BaseException:  # the device may be full: what has come so far goes again
                self.leave()
                raise
        return tuple(map(self._moved, args)), {name: self._moved(value) for name, value in named.items()}

    @torch.inference_mode(False)
    @torch.no_grad()
    def _bring(self) -> None:
        for network in self._here:
            parameters = dict(network.named_parameters())
            waiting = {name: self._waiting[parameter] for name, parameter in parameters.items()}
            for name, tensor in gathered(waiting, next(iter(waiting.values())).dtype, self.device).items():
                parameters[name].data = tensor

    def _moved(self, value: Any) -> Any:
        return value.to(self.device) if isinstance(value, Tensor) else value
