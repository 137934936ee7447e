"""A plan: which sampler walks which sigmas, and how the latent is scaled on the way in and out.

    plan = make_plan("DPM++ 2M", "Karras", steps=20, table=table)
    noise = Noise(shape, seeds)
    x = plan.start(noise.initial)
    latent = plan.sample(denoise, x, noise, step=report)

From an image, at a strength between 0 and 1:

    steps, begin = partial_steps(20, strength)
    plan = make_plan("DPM++ 2M", "Karras", steps=steps, table=table, begin=begin)
    x = plan.start(noise.initial, latent)
    latent = plan.sample(denoise, x, noise, step=report, keep=Keep(latent, mask))   # a mask inpaints
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import names, samplers, schedules, timestep_samplers
from .noise import Noise
from .samplers import Denoise, Step
from .schedules import Range, SigmaTable

SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpmpp_sde": samplers.dpmpp_sde,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "dpmpp_2m_sde_heun": partial(samplers.dpmpp_2m_sde, solver="heun"),
    "dpmpp_2s_ancestral": samplers.dpmpp_2s_ancestral,
    "dpmpp_3m_sde": samplers.dpmpp_3m_sde,
    "euler_ancestral": samplers.euler_ancestral,
    "euler": samplers.euler,
    "lms": samplers.lms,
    "heun": samplers.heun,
    "dpm_2": samplers.dpm_2,
    "dpm_2_ancestral": samplers.dpm_2_ancestral,
    "dpm_fast": samplers.dpm_fast,
    "dpm_adaptive": samplers.dpm_adaptive,
    "restart": samplers.restart,
    "heunpp2": samplers.heunpp2,
    "ipndm": samplers.ipndm,
    "ipndm_v": samplers.ipndm_v,
    "deis": samplers.deis,
    "ddim": timestep_samplers.ddim,
    "ddim_cfgpp": timestep_samplers.ddim_cfgpp,
    "plms": timestep_samplers.plms,
    "unipc": timestep_samplers.unipc,
    "lcm": samplers.lcm,
}


@dataclass(frozen=True)
class Keep:
    """What inpainting keeps: the (B, C, H, W) latent of the image, and a mask that is 1 where it is painted anew."""

    latent: Tensor
    mask: Tensor

    def blend(self, x: Tensor, scale: float | Tensor = 1.0) -> Tensor:
        return x * self.mask + self.latent * scale * (1 - self.mask)


@dataclass(frozen=True)
class Plan:
    """One run of a sampler, ready to go.

    schedule    the sigmas of the whole schedule, as another workbench would list them
    sigmas      those that this run walks
    noisy       the sigma of the noise that `start` puts on; not quite the first of `sigmas` for some samplers
    table       the trained noise levels: what the denoiser must turn sigmas into timesteps with
    """

    sampler: names.Sampler
    schedule: Tensor
    sigmas: Tensor
    noisy: float
    table: SigmaTable

    @property
    def steps(self) -> int:
        """How many steps the sampler reports; an adaptive one, DPM fast and Restart differ from it."""
        return len(self.sigmas) - 1

    @property
    def calls(self) -> int:
        """How many model calls A1111 reckons with when it times prompt edits and skipped guidance."""
        return self.steps * (2 if self.sampler.second_order else 1)

    def start(self, noise: Tensor, latent: Tensor | None = None, extra: float = 0.0) -> Tensor:
        """The latent to begin with, from (B, C, H, W) unit noise and the clean latent of an image, if there is one.

        `extra` is A1111's "extra noise" for images: a sigma on top of the one that the noise has anyway.
        """
        first = float(self.sigmas[0])
        if latent is None:
            return noise * ((1 + first**2) ** 0.5 if self.sampler.timesteps else self.noisy)
        x = latent + noise * (self.noisy + extra)
        if self.sampler.timesteps:
            # Variance-preserving at the noise it was given, then read at the sigma the walk begins with.
            x = x * ((1 + first**2) / (1 + self.noisy**2)) ** 0.5
        return x

    @torch.no_grad()
    def sample(
        self, denoise: Denoise, x: Tensor, noise: Noise, *, step: Step, keep: Keep | None = None, **options: Any
    ) -> Tensor:
        """Runs the sampler; returns the clean latent. Options that this sampler does not know are left aside."""
        known = {key: value for key, value in options.items() if key in self.sampler.options}
        if self.sampler.brownian:
            positive = self.schedule[self.schedule > 0]
            step_noise = noise.brownian(positive.min().item(), positive.max().item())
        else:
            step_noise = noise.step
        if keep is not None:
            denoise = _BlendBefore(denoise, keep) if self.sampler.timesteps else _BlendAfter(denoise, keep)
        x = SAMPLERS[self.sampler.id](denoise, x.float(), self.sigmas, noise=step_noise, step=step, **known)
        if self.sampler.timesteps:
            x = x / (1 + float(self.sigmas[-1]) ** 2) ** 0.5
        return keep.blend(x) if keep is not None else x


def make_plan(
    sampler: str, schedule: str, steps: int, table: SigmaTable, *, begin: int | None = None, **shape: Any
) -> Plan:
    """Plans `steps` steps; `begin`, for images, is how many of them lie below the noise that is put on (A1111's t_enc).

    `shape` is what `schedules.Range` takes: sigma_min, sigma_max, rho, alpha, beta, anchors.
    """
    found, curve = names.find_sampler(sampler), names.find_schedule(schedule)
    if found is None:
        raise ValueError(f"unknown sampler {sampler!r}; choose one of {', '.join(s.name for s in names.SAMPLERS)}")
    if curve is None:
        raise ValueError(f"unknown schedule {schedule!r}; choose one of {', '.join(s.name for s in names.SCHEDULES)}")
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if found.id == "lcm":
        table = table.consistency()
    if found.timesteps:
        return _timestep_plan(found, steps, table, begin)
    sigmas = schedules.sigmas_for(found, curve, steps, Range(table, **shape))
    walked = sigmas if begin is None else sigmas[steps - begin - 1 :]
    if found.spans:
        # From an image it spans the schedule's part; from noise the model's whole range, whatever the schedule.
        high, low = (table.sigma_max, table.sigma_min) if begin is None else walked[[0, -2]].tolist()
        calls = steps if begin is None else len(walked) - 1
        path = torch.linspace(high, low, calls + 1)
        path[-1] = low  # to the last bit: DPM fast's first step is very sensitive to where it is to end
        return Plan(found, sigmas, path, float(walked[0]), table)
    return Plan(found, sigmas, walked, float(walked[0]), table)


def partial_steps(steps: int, strength: float) -> tuple[int, int]:
    """(steps of the schedule, where to begin): a strength of 0.5 walks the lower half of the schedule."""
    return steps, int(min(strength, 0.999) * steps)


def exact_steps(steps: int, strength: float) -> tuple[int, int]:
    """The same for exactly `steps` steps, on a schedule long enough; what a hires pass with its own steps does."""
    if strength <= 0:
        return steps, 0
    return int(steps / min(strength, 0.999)), steps - 1


def _timestep_plan(sampler: names.Sampler, steps: int, table: SigmaTable, begin: int | None) -> Plan:
    timesteps = schedules.trained_timesteps(steps, table)
    # A1111 puts the noise of timestep number `begin` on an image, then walks down from the one before it.
    chosen = timesteps if begin is None else timesteps[: max(begin, 1)]
    noisy = float(table.sigmas[timesteps[-1 if begin is None else begin]])
    sigmas = table.sigmas[chosen.flip(0)]
    if sampler.id == "unipc":
        top = torch.tensor(len(table) - 1) if begin is None else chosen[-1]
        sigmas = schedules.even_log_alpha(top, len(chosen), table)
    return Plan(sampler, sigmas, sigmas, noisy, table)


@dataclass(frozen=True)
class _BlendAfter:
    """Inpainting along sigmas: the model's answer is replaced by the image outside the mask."""

    denoise: Denoise
    keep: Keep

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.keep.blend(self.denoise(x, sigma))


@dataclass(frozen=True)
class _BlendBefore:
    """Inpainting along timesteps: the model is shown the image, without noise, outside the mask.

    What it predicts is noise, and that is taken out of the latent as it was.
    """

    denoise: Any
    keep: Keep

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        shown = self._shown(x, sigma)
        return self.denoise(shown, sigma) + (x - shown)

    def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        shown = self._shown(x, sigma)
        guided, unconditional = self.denoise.pair(shown, sigma)
        return guided + (x - shown), unconditional + (x - shown)

    def _shown(self, x: Tensor, sigma: Tensor) -> Tensor:
        return self.keep.blend(x, scale=(1 + sigma**2).sqrt().view(-1, 1, 1, 1))
