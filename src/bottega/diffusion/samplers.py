"""Samplers that walk a noisy latent down a list of sigmas, each a short function named after its method.

They share one signature, in the spirit of k-diffusion (Crowson 2022):

    sampler(denoise, x, sigmas, *, noise, step, **options) -> x

denoise(x, sigma)            the clean latent that the model sees in x: x is (B, C, H, W), sigma is (B,)
x                            float32, scaled as clean + sigma * noise
sigmas                       (steps + 1,) falling, on the CPU: scalars stay there, so that no step waits for the device
noise(sigma, sigma_next)     what to add on the way from one sigma to the next: (B, C, H, W) of unit variance
step(i, sigma, x, denoised)  is told of every step once it is done; it cancels by raising

Symbols are the papers': d is the slope dx/dsigma, t is -log(sigma) and h a step in it, eta is how much of the noise
that a step removes comes back as fresh noise.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .schedules import karras_ramp

Denoise = Callable[[Tensor, Tensor], Tensor]
StepNoise = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[int, Tensor, Tensor, Tensor], None]

# Adams-Bashforth weights for equal steps, newest slope first, by the number of slopes at hand.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


def euler(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: StepNoise,
    step: Step,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Euler's method with churn (Karras et al. 2022, arXiv:2206.00364, algorithm 2 without its correction)."""
    churn = _Churn(noise, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma)
        denoised = denoise(x, batch(sigma_hat, x))
        x = x + slope(x, sigma_hat, denoised) * (sigma_next - sigma_hat)
        step(i, sigma, x, denoised)
    return x


def euler_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """Euler below the next sigma, then noise up to it: the sampling of DDPM (Ho et al. 2020, arXiv:2006.11239)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        down, up = ancestral(sigma, sigma_next, eta)
        x = x + slope(x, sigma, denoised) * (down - sigma)
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        step(i, sigma, x, denoised)
    return x


def heun(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: StepNoise,
    step: Step,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun's method with churn (Karras et al. 2022, arXiv:2206.00364, algorithm 2)."""
    churn = _Churn(noise, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma)
        x, denoised = _heun_step(denoise, x, sigma_hat, sigma_next)
        step(i, sigma, x, denoised)
    return x


def heunpp2(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: StepNoise,
    step: Step,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Heun++ (Carzit 2023, sd-webui-samplers-scheduler): looks up to two sigmas ahead and blends the slopes there.

    A slope weighs as its sigma does against the largest one, so this is a method for few steps, of first order.
    """
    churn = _Churn(noise, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma)
        denoised = denoise(x, batch(sigma_hat, x))
        d = slope(x, sigma_hat, denoised)
        # Never the last sigma: the slope at zero does not exist.
        ahead = sigmas[i + 1 : min(i + 3, len(sigmas) - 1)]
        weights = ahead / (sigmas[0] * (len(ahead) + 1))
        blend = d * (1 - weights.sum())
        x_ahead, d_ahead, sigma_ahead = x, d, sigma_hat
        for weight, later in zip(weights, ahead, strict=True):
            x_ahead = x_ahead + d_ahead * (later - sigma_ahead)
            d_ahead, sigma_ahead = slope(x_ahead, later, denoise(x_ahead, batch(later, x))), later
            blend = blend + d_ahead * weight
        x = x + blend * (sigma_next - sigma_hat)
        step(i, sigma, x, denoised)
    return x


def dpm_2(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: StepNoise,
    step: Step,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927) with Karras's churn: the slope in the middle of log sigma."""
    churn = _Churn(noise, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma)
        x, denoised = _midpoint_step(denoise, x, sigma_hat, sigma_next)
        step(i, sigma, x, denoised)
    return x


def dpm_2_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927) below the next sigma, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        down, up = ancestral(sigma, sigma_next, eta)
        x, denoised = _midpoint_step(denoise, x, sigma, down)
        if down > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        step(i, sigma, x, denoised)
    return x


def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, order: int = 4) -> Tensor:
    """Linear multistep: Adams-Bashforth in sigma with weights for the steps as they are (Crowson 2022)."""
    slopes: deque[Tensor] = deque(maxlen=order)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        slopes.appendleft(slope(x, sigma, denoised))
        past = sigmas[i + 1 - len(slopes) : i + 1].flip(0)
        x = x + _weighted(_interpolation_weights(past, sigma, sigma_next), slopes)
        step(i, sigma, x, denoised)
    return x


def ipndm(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step) -> Tensor:
    """Improved pseudo numerical method (Zhang and Chen 2023, arXiv:2204.13902): weights as if steps were equal."""
    slopes: deque[Tensor] = deque(maxlen=4)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        slopes.appendleft(slope(x, sigma, denoised))
        x = x + _weighted(ADAMS_BASHFORTH[len(slopes) - 1], slopes) * (sigma_next - sigma)
        step(i, sigma, x, denoised)
    return x


def ipndm_v(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step) -> Tensor:
    """iPNDM for unequal steps, as published with diff-sampler (Zhou et al. 2024, arXiv:2312.00094)."""
    slopes: deque[Tensor] = deque(maxlen=4)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        slopes.appendleft(slope(x, sigma, denoised))
        past = sigmas[i + 1 - len(slopes) : i + 1].flip(0)
        x = x + _weighted(_ipndm_v_weights(past, sigma_next), slopes) * (sigma_next - sigma)
        step(i, sigma, x, denoised)
    return x


def deis(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, order: int = 3) -> Tensor:
    """DEIS-tAB (Zhang and Chen 2023, arXiv:2204.13902): slopes interpolated over the time of a VP diffusion."""
    slopes: deque[Tensor] = deque(maxlen=order)
    times = _vp_times(sigmas)
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        slopes.appendleft(slope(x, sigma, denoised))
        if len(slopes) == 1 or sigma_next == 0:
            x = x + slopes[0] * (sigma_next - sigma)
        else:
            past = times[i + 1 - len(slopes) : i + 1].flip(0)
            x = x + _weighted(_vp_weights(past, times[i], times[i + 1]), slopes)
        step(i, sigma, x, denoised)
    return x


def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2)."""
    before: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        t, t_next = -sigma.log(), -sigma_next.log()
        h = t_next - t
        target = denoised
        if before is not None and sigma_next > 0:
            r = (t + sigmas[i - 1].log()) / h
            target = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * before
        x = (sigma_next / sigma) * x - (-h).expm1() * target
        before = denoised
        step(i, sigma, x, denoised)
    return x


def dpmpp_2s_ancestral(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++(2S) (Lu et al. 2022, arXiv:2211.01095, algorithm 1) below the next sigma, then noise up to it."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        down, up = ancestral(sigma, sigma_next, eta)
        if down == 0:
            x = x + slope(x, sigma, denoised) * (down - sigma)
        else:
            t, t_next = -sigma.log(), -down.log()
            h = t_next - t
            middle = (-(t + 0.5 * h)).exp()
            x_2 = (middle / sigma) * x - (-0.5 * h).expm1() * denoised
            denoised_2 = denoise(x_2, batch(middle, x))
            x = (down / sigma) * x - (-h).expm1() * denoised_2
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        step(i, sigma, x, denoised)
    return x


def dpmpp_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095) made stochastic, with a step at half of log sigma (Crowson)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        if sigma_next == 0:
            x = x + slope(x, sigma, denoised) * (sigma_next - sigma)
        else:
            # Through t and back: the Brownian path is asked at exactly the sigmas that k-diffusion asks it at.
            t, t_next = -sigma.log(), -sigma_next.log()
            here, middle, there = (-t).exp(), (-(t + 0.5 * (t_next - t))).exp(), (-t_next).exp()
            x_2 = _stochastic_step(x, denoised, here, middle, noise, eta, s_noise)
            denoised_2 = denoise(x_2, batch(middle, x))
            x = _stochastic_step(x, denoised_2, here, there, noise, eta, s_noise)
        step(i, sigma, x, denoised)
    return x


def dpmpp_2m_sde(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: StepNoise,
    step: Step,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver: str = "midpoint",
) -> Tensor:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, section 4.3); `solver` is midpoint or heun."""
    before: Tensor | None = None
    h_before = sigmas[0]
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        if sigma_next == 0:
            x = denoised
        else:
            h = sigma.log() - sigma_next.log()
            shrink = (-h - eta * h).expm1()
            x = (sigma_next / sigma) * (-eta * h).exp() * x - shrink * denoised
            if before is not None:
                correction = -0.5 * shrink if solver == "midpoint" else 1 - shrink / (-h - eta * h)
                x = x + correction * (h / h_before) * (denoised - before)
            if eta:
                up = sigma_next * (-(-2 * eta * h).expm1()).sqrt()
                x = x + noise(sigma, sigma_next) * (s_noise * up)
            h_before = h
        before = denoised
        step(i, sigma, x, denoised)
    return x


def dpmpp_3m_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """SDE-DPM-Solver++(3M) (Crowson 2023): the third-order multistep of arXiv:2211.01095, made stochastic."""
    past: deque[tuple[Tensor, Tensor]] = deque(maxlen=2)  # (denoised, h), newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = denoise(x, batch(sigma, x))
        if sigma_next == 0:
            x = denoised
        else:
            h = sigma.log() - sigma_next.log()
            h_eta = h * (eta + 1)
            x = (-h_eta).exp() * x - (-h_eta).expm1() * denoised
            phi_2 = (-h_eta).expm1() / h_eta + 1
            if len(past) == 2:
                (denoised_1, h_1), (denoised_2, h_2) = past
                r0, r1 = h_1 / h, h_2 / h
                d1_0, d1_1 = (denoised - denoised_1) / r0, (denoised_1 - denoised_2) / r1
                d1 = d1_0 + (d1_0 - d1_1) * (r0 / (r0 + r1))
                d2 = (d1_0 - d1_1) / (r0 + r1)
                x = x + phi_2 * d1 - (phi_2 / h_eta - 0.5) * d2
            elif past:
                denoised_1, h_1 = past[0]
                x = x + phi_2 * ((denoised - denoised_1) / (h_1 / h))
            if eta:
                up = sigma_next * (-(-2 * eta * h).expm1()).sqrt()
                x = x + noise(sigma, sigma_next) * (s_noise * up)
            past.appendleft((denoised, h))
        step(i, sigma, x, denoised)
    return x


def dpm_fast(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """DPM-Solver-fast (Lu et al. 2022, arXiv:2206.00927, section 3.4): third-order steps, even in log sigma.

    Only the ends of `sigmas`, neither of them zero, and its length count: it spends len(sigmas) - 1 model calls.
    """
    t_end, calls = -sigmas[-1].log(), len(sigmas) - 1
    rest = [2, 1] if calls % 3 == 0 else [calls % 3]
    orders = [3] * (calls // 3 + 1 - len(rest)) + rest
    times = torch.linspace(-sigmas[0].log(), t_end, len(orders) + 1)
    predict = partial(_epsilon, denoise)
    for i, (order, (t, t_next)) in enumerate(zip(orders, pairwise(times), strict=True)):
        t_down, up = _ancestral_time(t, t_next, t_end, eta)
        eps = predict(x, t)
        denoised = x - (-t).exp() * eps
        if order == 1:
            x = _dpm_solver_1(x, t, t_down, eps)
        elif order == 2:
            x, _ = _dpm_solver_2(predict, x, t, t_down, eps, 1 / 2)
        else:
            _, eps_third = _dpm_solver_2(predict, x, t, t_down, eps, 1 / 3)
            x = _dpm_solver_3(predict, x, t, t_down, eps, eps_third)
        if eta:
            x = x + noise((-t).exp(), (-t_next).exp()) * (s_noise * up)
        step(i, (-t).exp(), x, denoised)
    return x


def dpm_adaptive(
    denoise: Denoise,
    x: Tensor,
    sigmas: Tensor,
    *,
    noise: StepNoise,
    step: Step,
    eta: float = 1.0,
    s_noise: float = 1.0,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
) -> Tensor:
    """DPM-Solver-12 and -23 (Lu et al. 2022, arXiv:2206.00927, appendix C): steps as long as the error allows.

    Only the ends of `sigmas`, neither of them zero, count. The error is the whole batch's, so here, and only here, a
    picture depends on its neighbours.
    """
    t, t_end = -sigmas[0].log(), -sigmas[-1].log()
    predict = partial(_epsilon, denoise)
    h, h_power, x_before, i = 0.05, 1 / (1.5 if eta else order), x, 0
    while t < t_end - 1e-5:
        t_next = torch.minimum(t_end, t + h)
        t_down, up = _ancestral_time(t, t_next, t_end, eta)
        eps = predict(x, t)
        denoised = x - (-t).exp() * eps
        if order == 2:
            x_low = _dpm_solver_1(x, t, t_down, eps)
            x_high, _ = _dpm_solver_2(predict, x, t, t_down, eps, 1 / 2)
        else:
            x_low, eps_third = _dpm_solver_2(predict, x, t, t_down, eps, 1 / 3)
            x_high = _dpm_solver_3(predict, x, t, t_down, eps, eps_third)
        tolerance = (rtol * torch.maximum(x_low.abs(), x_before.abs())).clamp(min=atol)
        error = (torch.linalg.norm((x_low - x_high) / tolerance) / x.numel() ** 0.5).item()
        # An integral controller whose factor is kept gentle by an arc tangent.
        factor = 1 + math.atan((1 / (error + 1e-8)) ** h_power - 1)
        if factor >= 0.81:
            x_before, x, sigma, sigma_next = x_low, x_high, (-t).exp(), (-t_next).exp()
            if eta:
                x = x + noise(sigma, sigma_next) * (s_noise * up)
            t = t_next
        h *= factor
        step(i, (-t).exp(), x, denoised)
        i += 1
    return x


def restart(
    denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step, s_noise: float = 1.0
) -> Tensor:
    """Restart sampling (Xu et al. 2023, arXiv:2306.14878) on Heun steps: goes back from 0.1 to 2 and down again."""
    last: Tensor | None = None
    for i, (sigma, sigma_next) in enumerate(_restart_steps(sigmas)):
        if last is not None and last < sigma:
            x = x + noise(last, sigma) * (s_noise * (sigma**2 - last**2).sqrt())
        x, denoised = _heun_step(denoise, x, sigma, sigma_next)
        last = sigma_next
        step(i, sigma, x, denoised)
    return x


def lcm(denoise: Denoise, x: Tensor, sigmas: Tensor, *, noise: StepNoise, step: Step) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023, arXiv:2310.04378): all the way down, then noise up again."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = denoised = denoise(x, batch(sigma, x))
        if sigma_next > 0:
            x = x + noise(sigma, sigma_next) * sigma_next
        step(i, sigma, x, denoised)
    return x


def batch(sigma: Tensor, x: Tensor) -> Tensor:
    """The scalar sigma once per image of x: (B,), on its device."""
    return x.new_ones(x.shape[0]) * sigma


def slope(x: Tensor, sigma: Tensor, denoised: Tensor) -> Tensor:
    """dx/dsigma of the probability flow; also the predicted noise."""
    return (x - denoised) / sigma


def ancestral(sigma: Tensor, sigma_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """The sigma to step down to, and how much noise to add to be at sigma_next again."""
    if not eta:
        return sigma_next, torch.zeros_like(sigma)
    up = torch.minimum(sigma_next, eta * (sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2) ** 0.5)
    return (sigma_next**2 - up**2) ** 0.5, up


class _Churn:
    """Raises the noise a little before a step (Karras et al. 2022, arXiv:2206.00364, algorithm 2, lines 4 to 6)."""

    def __init__(
        self, noise: StepNoise, steps: int, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
    ) -> None:
        self.noise, self.s_noise, self.s_tmin, self.s_tmax = noise, s_noise, s_tmin, s_tmax
        self.gamma = min(s_churn / max(steps, 1), 2**0.5 - 1)

    def __call__(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        if self.gamma <= 0:
            return x, sigma
        # Drawn on every step, used or not: the numbers of the later steps must not depend on s_tmin and s_tmax.
        eps = self.noise(sigma, sigma) * self.s_noise
        if not self.s_tmin <= sigma <= self.s_tmax:
            return x, sigma
        sigma_hat = sigma * (self.gamma + 1)
        return x + eps * (sigma_hat**2 - sigma**2) ** 0.5, sigma_hat


def _heun_step(denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """One step with the mean of the slopes at both ends; towards zero Euler's."""
    denoised = denoise(x, batch(sigma, x))
    d = slope(x, sigma, denoised)
    x_2 = x + d * (sigma_next - sigma)
    if sigma_next == 0:
        return x_2, denoised
    d_2 = slope(x_2, sigma_next, denoise(x_2, batch(sigma_next, x)))
    return x + (d + d_2) / 2 * (sigma_next - sigma), denoised


def _midpoint_step(denoise: Denoise, x: Tensor, sigma: Tensor, sigma_next: Tensor) -> tuple[Tensor, Tensor]:
    """One step with the slope at the geometric mean of both ends; towards zero Euler's."""
    denoised = denoise(x, batch(sigma, x))
    d = slope(x, sigma, denoised)
    if sigma_next == 0:
        return x + d * (sigma_next - sigma), denoised
    middle = sigma.log().lerp(sigma_next.log(), 0.5).exp()
    x_2 = x + d * (middle - sigma)
    d_2 = slope(x_2, middle, denoise(x_2, batch(middle, x)))
    return x + d_2 * (sigma_next - sigma), denoised


def _stochastic_step(
    x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, noise: StepNoise, eta: float, s_noise: float
) -> Tensor:
    """One first-order step of DPM-Solver++ below sigma_next, then noise up to it."""
    down, up = ancestral(sigma, sigma_next, eta)
    x = (down / sigma) * x - (down.log() - sigma.log()).expm1() * denoised
    return x + noise(sigma, sigma_next) * (s_noise * up)


def _epsilon(denoise: Denoise, x: Tensor, t: Tensor) -> Tensor:
    sigma = (-t).exp()
    return slope(x, sigma, denoise(x, batch(sigma, x)))


def _dpm_solver_1(x: Tensor, t: Tensor, t_next: Tensor, eps: Tensor) -> Tensor:
    return x - (-t_next).exp() * (t_next - t).expm1() * eps


def _dpm_solver_2(
    predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, t_next: Tensor, eps: Tensor, r1: float
) -> tuple[Tensor, Tensor]:
    """The second-order step, and the noise predicted on the way, at t + r1 * h."""
    h = t_next - t
    eps_1 = predict(_dpm_solver_1(x, t, t + r1 * h, eps), t + r1 * h)
    correction = (-t_next).exp() / (2 * r1) * h.expm1() * (eps_1 - eps)
    return _dpm_solver_1(x, t, t_next, eps) - correction, eps_1


def _dpm_solver_3(
    predict: Callable[[Tensor, Tensor], Tensor], x: Tensor, t: Tensor, t_next: Tensor, eps: Tensor, eps_third: Tensor
) -> Tensor:
    """The third-order step, from the noise predicted at its start and at a third of it."""
    h, h_2 = t_next - t, 2 / 3 * (t_next - t)
    s_2 = t + h_2
    u_2 = _dpm_solver_1(x, t, s_2, eps) - (-s_2).exp() * 2 * (h_2.expm1() / h_2 - 1) * (eps_third - eps)
    eps_2 = predict(u_2, s_2)
    return _dpm_solver_1(x, t, t_next, eps) - (-t_next).exp() * 1.5 * (h.expm1() / h - 1) * (eps_2 - eps)


def _ancestral_time(t: Tensor, t_next: Tensor, t_end: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """`ancestral` in t, stepping down no further than the end."""
    if not eta:
        return t_next, torch.zeros_like(t)
    down, _ = ancestral((-t).exp(), (-t_next).exp(), eta)
    t_down = torch.minimum(t_end, -down.log())
    # Rounding can put t_down a hair above t_next when eta is tiny.
    return t_down, ((-t_next).exp() ** 2 - (-t_down).exp() ** 2).clamp(min=0) ** 0.5


def _restart_steps(sigmas: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The paper's default restarts within the same number of model calls; fewer than 20 steps get none."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    length, times = (9, 1) if steps < 36 else (steps // 4, 2)
    sigmas = karras_ramp(steps - length * times, sigmas[-2].item(), sigmas[0].item())
    low, high = int((sigmas - 0.1).abs().argmin()), int((sigmas - 2).abs().argmin())
    path = list(pairwise(sigmas))
    if low < 1 or high >= low:
        return path
    again = list(pairwise(karras_ramp(length + 1, sigmas[low].item(), sigmas[high].item())[:-1]))
    return path[:low] + again * times + path[low:]


def _weighted(weights: Sequence[float] | np.ndarray, slopes: Sequence[Tensor]) -> Tensor:
    total = slopes[0] * weights[0]
    for weight, d in zip(weights[1:], list(slopes)[1:], strict=True):
        total = total + d * weight
    return total


def _interpolation_weights(at: Tensor, start: Tensor, end: Tensor) -> list[float]:
    """The integral from start to end of each Lagrange polynomial over the points `at`."""
    points = at.double().numpy() - start.item()
    width = end.item() - start.item()
    weights = []
    for j, point in enumerate(points):
        others = np.delete(points, j)
        basis = np.poly1d(others, r=True).integ() / np.prod(point - others)
        weights.append(float(basis(width)))
    return weights


def _ipndm_v_weights(past: Tensor, sigma_next: Tensor) -> np.ndarray:
    """The weights of diff-sampler's iPNDM_v: Newton's divided differences of the slopes, each with its factor.

    Two of them are not what Adams-Bashforth gives for unequal steps: a bracket is missing in the factor of the
    second difference, and the oldest slope has the newer ratio of steps. Every workbench copied the code and the
    pictures people have depend on it. With equal steps they are Adams-Bashforth's.
    """
    h, h1, h2, h3 = (*torch.cat([sigma_next[None], past]).diff().neg().tolist(), 1.0, 1.0, 1.0)[:4]
    r1, r2 = h1 / h2, h2 / h3
    q = h1 * (h1 + h2) / (h2 * (h2 + h3))
    differences = np.array(
        [
            [1, 0, 0, 0],
            [1, -1, 0, 0],
            [1, -1 - r1, r1, 0],
            [1, -1 - r1 - q, r1 + q * (1 + r2), -q * r1],
        ]
    )
    near = 1 - h / (3 * (h + h1))
    cubic = near / 2 + (1 - h / (2 * (h + h1))) * h / (6 * (h + h1 + h2))
    factors = np.array(
        [
            1,
            h / h1 / 2,
            (1 - h * h / (3 * h1 * (h1 + h2))) / 2,
            cubic * h * (h + h1) * (h + h1 + h2) / (h1 * (h1 + h2) * (h1 + h2 + h3)),
        ]
    )
    order = len(past)
    return factors[:order] @ differences[:order, :order]


# The variance-preserving diffusion whose time DEIS counts in: Karras et al. 2022, appendix C, from 0.002 to 80.
_VP_START = 1e-3
_VP_LOW, _VP_HIGH = math.log(0.002**2 + 1), math.log(80.0**2 + 1)
_VP_BETA_D = 2 * (_VP_LOW / _VP_START - _VP_HIGH) / (_VP_START - 1)
_VP_BETA_MIN = _VP_HIGH - 0.5 * _VP_BETA_D


def _vp_times(sigmas: Tensor) -> Tensor:
    """The time at which that diffusion has each sigma."""
    return ((_VP_BETA_MIN**2 + 2 * _VP_BETA_D * (sigmas.double() ** 2 + 1).log()).sqrt() - _VP_BETA_MIN) / _VP_BETA_D


def _vp_weights(at: Tensor, start: Tensor, end: Tensor, points: int = 10_000) -> list[float]:
    """The integral over sigma of each Lagrange polynomial in time, as the sum that the published code takes."""
    tau = torch.linspace(start.item(), end.item(), points, dtype=torch.float64)
    alpha = (-0.5 * _VP_BETA_D * tau**2 - _VP_BETA_MIN * tau).exp()
    rate = 0.5 * (_VP_BETA_D * tau + _VP_BETA_MIN) / (alpha * (1 - alpha)).sqrt()  # dsigma/dtau
    weights = []
    for j in range(len(at)):
        basis = torch.ones_like(tau)
        for k in range(len(at)):
            if k != j:
                basis = basis * (tau - at[k]) / (at[j] - at[k])
        weights.append((rate * basis).sum().item() * (end - start).item() / points)
    return weights
