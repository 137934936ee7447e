"""Muon: momentum whose every weight matrix is made orthogonal before it is applied; learns in fewer steps than Adam."""

from __future__ import annotations

from collections.abc import Iterable

import torch


def orthogonal(matrix: torch.Tensor, rounds: int = 5) -> torch.Tensor:
    """The nearest (semi-)orthogonal matrix, roughly, by Newton and Schulz's iteration.

    A round takes x to (a + b g + c g g) x with g = x x'. All rounds are polynomials of the first g, so they are
    carried out on it, which is small and square, and applied to x once.
    """
    tall = matrix.size(0) > matrix.size(1)
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    total = one = torch.eye(len(gram), device=x.device)
    for _ in range(rounds):
        step = 3.4445 * one + (-4.7750 * gram + 2.0315 * gram @ gram)
        gram = step @ gram @ step
        total = step @ total
    x = (total.bfloat16() @ x.bfloat16()).float()
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum with orthogonal steps, for weights of two or more dimensions (flattened to two)."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                speed = state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(speed, group["momentum"]).flatten(1)
                size = max(1, update.size(0) / update.size(1)) ** 0.5
                weight.add_(orthogonal(update).view_as(weight), alpha=-group["lr"] * size)
