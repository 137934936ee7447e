"""Noise schedules: from a model's trained noise levels and a number of steps to the sigmas a sampler walks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from . import names

# Align Your Steps (Sabour et al. 2024, arXiv:2404.14507): the sigmas its authors found for these two families.
ANCHORS_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ANCHORS_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)

# What A1111 gives the last alpha of a zero-terminal-SNR model, so that its sigma stays finite (4518.6).
ZERO_SNR_FLOOR = 4.8973451890853435e-08


def alphas_from_betas(betas: Tensor) -> Tensor:
    """The cumulative product of (1 - beta), which DDPM calls alpha bar, in double precision."""
    return (1.0 - betas.double()).cumprod(0)


def stable_diffusion_alphas(start: float = 0.00085, end: float = 0.012, count: int = 1000) -> Tensor:
    """Stable Diffusion's `scaled_linear` noise: betas linear in their square root."""
    return alphas_from_betas(torch.linspace(start**0.5, end**0.5, count, dtype=torch.float64) ** 2)


def rescale_zero_terminal_snr(alphas_cumprod: Tensor) -> Tensor:
    """Lets the last timestep be pure noise (Lin et al. 2023, arXiv:2305.08891, algorithm 1)."""
    root = alphas_cumprod.sqrt()
    first, last = root[0].clone(), root[-1].clone()
    rescaled = ((root - last) * (first / (first - last))) ** 2
    rescaled[-1] = ZERO_SNR_FLOOR
    return rescaled


class SigmaTable:
    """A model's trained noise levels, rising, and the way between a sigma and a timestep.

    Row k belongs to timestep `first + stride * k`. Between rows the logarithm of sigma is linear in the timestep
    (k-diffusion's discrete schedule); a quantized table answers with the nearest trained timestep instead.
    """

    def __init__(self, alphas_cumprod: Tensor, *, first: int = 0, stride: int = 1, quantize: bool = False) -> None:
        self.alphas_cumprod = alphas_cumprod.detach().cpu()
        sigmas = ((1 - self.alphas_cumprod) / self.alphas_cumprod) ** 0.5
        self.sigmas, self.log_sigmas = sigmas.float(), sigmas.log().float()
        self.first, self.stride, self.quantize = first, stride, quantize

    def __len__(self) -> int:
        return len(self.sigmas)

    @property
    def sigma_min(self) -> float:
        return self.sigmas[0].item()

    @property
    def sigma_max(self) -> float:
        return self.sigmas[-1].item()

    def timestep(self, sigma: Tensor) -> Tensor:
        """The timestep at which the model was trained for this sigma (any shape, any device)."""
        log_sigma = sigma.log()
        rows = self.log_sigmas.to(sigma.device)
        if self.quantize:
            row = (log_sigma[..., None] - rows).abs().argmin(-1).to(sigma.dtype)
        else:
            low = (torch.searchsorted(rows, log_sigma, right=True) - 1).clamp(0, len(rows) - 2)
            weight = ((rows[low] - log_sigma) / (rows[low] - rows[low + 1])).clamp(0, 1)
            row = (1 - weight) * low + weight * (low + 1)
        return row * self.stride + self.first

    def sigma(self, timestep: Tensor) -> Tensor:
        """The sigma at a timestep, whole or fractional."""
        row = ((timestep.float() - self.first) / self.stride).clamp(0, len(self) - 1)
        low, high, weight = row.floor().long(), row.ceil().long(), row.frac()
        return ((1 - weight) * self.log_sigmas[low] + weight * self.log_sigmas[high]).exp()

    def consistency(self, count: int = 50) -> SigmaTable:
        """The `count` timesteps a latent consistency model was distilled on (Luo et al. 2023, arXiv:2310.04378)."""
        stride = len(self) // count
        return SigmaTable(self.alphas_cumprod[stride - 1 :: stride], first=stride - 1, stride=stride, quantize=True)


@dataclass(frozen=True)
class Range:
    """What a schedule is made from: the model's table, the ends to stay between, and the shape of the curve."""

    table: SigmaTable
    sigma_min: float = field(default=0.0)
    sigma_max: float = field(default=0.0)
    rho: float = 0.0
    alpha: float = 0.6
    beta: float = 0.6
    anchors: Sequence[float] = ANCHORS_SD1

    def __post_init__(self) -> None:
        # Zero means "the model's own", as in A1111's settings.
        object.__setattr__(self, "sigma_min", self.sigma_min or self.table.sigma_min)
        object.__setattr__(self, "sigma_max", self.sigma_max or self.table.sigma_max)

    @property
    def first_timestep(self) -> Tensor:
        return self.table.timestep(torch.tensor(self.sigma_max))

    @property
    def last_timestep(self) -> Tensor:
        return self.table.timestep(torch.tensor(self.sigma_min))


def uniform(n: int, span: Range) -> Tensor:
    """Evenly spaced timesteps from the last trained one to the first, whatever the range."""
    table = span.table
    last = table.first + table.stride * (len(table) - 1)
    return _end(table.sigma(torch.linspace(last, table.first, n)))


def karras(n: int, span: Range) -> Tensor:
    """Evenly spaced in sigma**(1/rho) (Karras et al. 2022, arXiv:2206.00364, equation 5)."""
    return karras_ramp(n, span.sigma_min, span.sigma_max, span.rho or 7.0)


def karras_ramp(n: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """The same between any two sigmas; Restart lays its detours with it."""
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    return _end((high + torch.linspace(0, 1, n) * (low - high)) ** rho)


def exponential(n: int, span: Range) -> Tensor:
    """Evenly spaced in log sigma."""
    return _end(torch.linspace(math.log(span.sigma_max), math.log(span.sigma_min), n).exp())


def polyexponential(n: int, span: Range) -> Tensor:
    """A power of an even ramp, in log sigma; with rho 1 the exponential schedule."""
    low, high = math.log(span.sigma_min), math.log(span.sigma_max)
    return _end((torch.linspace(1, 0, n) ** (span.rho or 1.0) * (high - low) + low).exp())


def sgm_uniform(n: int, span: Range) -> Tensor:
    """Evenly spaced timesteps that stop one step short of the first, as Stability's code does."""
    return _end(span.table.sigma(_even(span.first_timestep, span.last_timestep, n + 1)[:-1]))


def normal(n: int, span: Range) -> Tensor:
    """Evenly spaced timesteps over the range, both ends included."""
    return _end(span.table.sigma(_even(span.first_timestep, span.last_timestep, n)))


def simple(n: int, span: Range) -> Tensor:
    """Every (T/n)-th trained sigma, counted down from the top."""
    sigmas = span.table.sigmas
    stride = len(sigmas) / n
    return _end(sigmas[[-(1 + int(k * stride)) for k in range(n)]])


def ddim(n: int, span: Range) -> Tensor:
    """Every (T//n)-th trained sigma, counted up from the second; it may hold more than n."""
    sigmas = span.table.sigmas
    return _end(sigmas[1 :: max(len(sigmas) // n, 1)].flip(0))


def kl_optimal(n: int, span: Range) -> Tensor:
    """Evenly spaced in arctan sigma (Sabour et al. 2024, arXiv:2404.14507); it ends at sigma_min, not at zero."""
    low, high = torch.tensor(span.sigma_min).arctan(), torch.tensor(span.sigma_max).arctan()
    ramp = torch.arange(n + 1) / n
    return (ramp * low + (1.0 - ramp) * high).tan()


def align_your_steps(n: int, span: Range) -> Tensor:
    """The family's eleven optimised sigmas, interpolated to n log-linearly (Sabour et al. 2024, arXiv:2404.14507)."""
    import numpy as np

    if n == len(span.anchors):
        return _end(torch.tensor(span.anchors))
    rising = np.log(span.anchors[::-1])
    # From the low end up: so one step is the smallest sigma, as in A1111.
    places = np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(rising)), rising)
    return _end(torch.tensor(np.exp(places)[::-1].copy(), dtype=torch.float32))


def beta(n: int, span: Range) -> Tensor:
    """Quantiles of a beta distribution (Lee et al. 2024, arXiv:2407.12173), linear in sigma as A1111 reads it."""
    import numpy as np
    from scipy import stats

    places = stats.beta.ppf(1 - np.linspace(0, 1, n), span.alpha, span.beta)
    return _end(torch.tensor(span.sigma_min + places * (span.sigma_max - span.sigma_min), dtype=torch.float32))


def turbo(n: int, span: Range) -> Tensor:
    """The timesteps SD-Turbo was distilled on: the top one, then down in equal parts of the whole."""
    sigmas = span.table.sigmas
    rows = (torch.arange(1, n + 1) * (len(sigmas) / n) - 1).round().long().clamp(0, len(sigmas) - 1)
    return _end(sigmas[rows.flip(0)])


SCHEDULES: dict[str, Callable[[int, Range], Tensor]] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": normal,
    "DDIM": ddim,
    "Beta": beta,
    "Turbo": turbo,
}


def sigmas_for(sampler: names.Sampler, schedule: names.Schedule, n: int, span: Range) -> Tensor:
    """The sigmas, falling, that this sampler walks in n steps on this schedule."""
    curve = SCHEDULES[sampler.schedule if schedule.name == "Automatic" else schedule.name]
    if sampler.discard_penultimate:
        return discard_penultimate(curve(n + 1, span))
    return curve(n, span)


def discard_penultimate(sigmas: Tensor) -> Tensor:
    """Drops the sigma before the last: the step from there to zero adds noise that some samplers do not take out."""
    return torch.cat([sigmas[:-2], sigmas[-1:]])


def trained_timesteps(n: int, table: SigmaTable) -> Tensor:
    """The rising timesteps of A1111's DDIM family: every (T//n)-th plus one; often one more than n."""
    count = len(table)
    return (torch.arange(0, count, max(count // n, 1)) + 1).clamp(0, count - 1)


def even_log_alpha(start: Tensor, n: int, table: SigmaTable) -> Tensor:
    """UniPC's n + 1 sigmas: evenly spaced timesteps from `start` to the first, log alpha linear between rows.

    The other way round than `SigmaTable.sigma`, which is linear in log sigma; UniPC's authors chose log alpha.
    """
    count = len(table)
    row = torch.linspace((start.item() + 1) / count, 1 / count, n + 1) * count - 1
    low = row.floor().long().clamp(0, count - 2)
    log_alpha = 0.5 * table.alphas_cumprod.log()
    log_alpha = log_alpha[low] + (row - low) * (log_alpha[low + 1] - log_alpha[low])
    return ((-2 * log_alpha).expm1() ** 0.5).float()


def _end(sigmas: Tensor) -> Tensor:
    """The sigmas and the final zero."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def _even(start: Tensor, end: Tensor, n: int) -> Tensor:
    return torch.linspace(start.item(), end.item(), n)
