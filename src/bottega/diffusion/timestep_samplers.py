"""Samplers that walk a model's trained timesteps: the DDIM family.

Their papers and A1111 write them for the variance-preserving latent x / sqrt(1 + sigma**2). In the scaling of
`samplers.py` (clean + sigma * noise) the same steps are shorter, so that is how they stand here, with the same
signature; `plan.py` scales what comes in and what goes out. The sigmas are those of the timesteps, and they end at
the first timestep, not at zero.
"""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .samplers import ADAMS_BASHFORTH, Denoise, Step, StepNoise, ancestral, batch, slope


class PairDenoise(Protocol):
    """A denoiser that also tells what it sees without the prompt."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor: ...

    def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(guided as CFG++ guides, unconditional), each (B, C, H, W)."""
        ...


def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 0.0) -> Tensor:
    """DDIM (Song et al. 2021, arXiv:2010.02502, equation 12); eta 1 is DDPM."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        down, up = ancestral(sigma, sigma_next, eta)
        x = denoised + slope(x, sigma, denoised) * down
        if eta:
            x = x + noise(sigma, sigma_next) * up
        step(i, sigma, x, denoised)
    return x


def ddim_cfgpp(
    denoise: PairDenoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 0.0
) -> Tensor:
    """DDIM with CFG++ (Chung et al. 2024, arXiv:2406.08070): goes on along the noise that no prompt has bent."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised, unconditional = denoise.pair(x, batch(sigma, x))
        down, up = ancestral(sigma, sigma_next, eta)
        x = denoised + slope(x, sigma, unconditional) * down
        if eta:
            x = x + noise(sigma, sigma_next) * up
        step(i, sigma, x, denoised)
    return x


def plms(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778): Adams-Bashforth on the noise, begun with Heun."""
    slopes: deque[Tensor] = deque(maxlen=4)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        eps = slope(x, sigma, denoise(x, batch(sigma, x)))
        slopes.appendleft(eps)
        if len(slopes) == 1:
            x_next = x + eps * (sigma_next - sigma)
            eps_next = slope(x_next, sigma_next, denoise(x_next, batch(sigma_next, x)))
            direction = (eps + eps_next) / 2
        else:
            weights = ADAMS_BASHFORTH[len(slopes) - 1]
            direction = sum((d * w for d, w in zip(slopes, weights, strict=True)), torch.zeros_like(x))
        denoised = x - direction * sigma
        x = x + direction * (sigma_next - sigma)
        step(i, sigma, x, denoised)
    return x


def unipc(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, order: int = 3, variant: str = "bh1"
) -> Tensor:
    """UniPC (Zhao et al. 2023, arXiv:2302.04867), predicting the clean latent; `variant` names B(h), bh1 or bh2.

    A step predicts with the past, looks at the model there, and corrects with what it saw; the last two steps fall
    back to lower orders and the last is not corrected.
    """
    steps = len(sigmas) - 1
    past: deque[tuple[Tensor, Tensor]] = deque(maxlen=order)  # (sigma, denoised), newest first
    past.append((sigmas[0], denoise(x, batch(sigmas[0], x))))
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        reach = min(len(past), order, steps - i)
        (_, newest), older = past[0], list(past)[1:reach]
        h = (sigma.log() - sigma_next.log()).item()
        ratios = [(sigma.log() - old.log()).item() / h for old, _ in older]
        differences = [(seen - newest) / ratio for (_, seen), ratio in zip(older, ratios, strict=True)]
        b_h = -h if variant == "bh1" else float(np.expm1(-h))
        base = (sigma_next / sigma) * x - float(np.expm1(-h)) * newest
        x = _add(base, -b_h, _unipc_weights(ratios, h, b_h), differences)
        denoised = newest
        if i + 1 < steps:
            denoised = denoise(x, batch(sigma_next, x))
            x = _add(base, -b_h, _unipc_weights([*ratios, 1.0], h, b_h), [*differences, denoised - newest])
        past.appendleft((sigma_next, denoised))
        step(i, sigma, x, denoised)
    return x


def _unipc_weights(ratios: list[float], h: float, b_h: float) -> np.ndarray:
    """The weights that make the step exact for polynomials up to the number of ratios (equation 7 of the paper)."""
    if len(ratios) < 2:
        return np.full(len(ratios), 0.5)  # the authors' simplification
    powers = np.vander(ratios, increasing=True).T
    phi, factorial, wanted = np.expm1(-h) / -h - 1, 1.0, []
    for k in range(1, len(ratios) + 1):
        wanted.append(phi * factorial / b_h)
        factorial *= k + 1
        phi = phi / -h - 1 / factorial
    return np.linalg.solve(powers, np.array(wanted))


def _add(base: Tensor, scale: float, weights: np.ndarray, differences: list[Tensor]) -> Tensor:
    for weight, difference in zip(weights, differences, strict=True):
        base = base + difference * (scale * float(weight))
    return base
