"""Muon: momentum whose every weight matrix is made orthogonal before it is applied; learns in fewer steps than Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from bottega.starter.precision import mixed

Work = Callable[[torch.Tensor], torch.Tensor]
Divide = Callable[[Work, list[torch.Tensor]], list[torch.Tensor]]
"""Does the work on every tensor, shared among whoever is there; the results have the tensors' shapes."""


def orthogonal(matrix: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrix, roughly, by Newton and Schulz's iteration.

    A round takes x to (a + b g + c g g) x with g = x x'. All rounds are polynomials of the first g, so they are
    carried out on it, which is small and square, and applied to x once.
    """
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    one = torch.eye(len(gram), device=x.device)
    total = None
    for _ in range(rounds):
        step = 3.4445 * one + (-4.7750 * gram + 2.0315 * gram @ gram)
        gram = step @ gram @ step
        total = step if total is None else step @ total
    with mixed(x.device):
        x = (total @ x).float()
    return x.T if tall else x


def alone(work: Work, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """All the work in this process."""
    return [work(part) for part in parts]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonal steps, for weights of two or more dimensions (flattened to two).

    A step has a spectral norm of `lr`; `decay` (times `lr`, a step) keeps that of the weights below its inverse.
    Source: Keller Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024).
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float,
        decay: float = 0.0,
        momentum: float = 0.95,
        divide: Divide = alone,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay, "momentum": momentum})
        self._divide = divide

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            updates = []
            for weight in weights:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                speed = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                updates.append(weight.grad.lerp(speed, group["momentum"]).flatten(1))
            for weight, update in zip(weights, self._divide(orthogonal, updates), strict=True):
                size = max(1, update.size(0) / update.size(1)) ** 0.5
                weight.mul_(1 - group["lr"] * group["decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * size)
