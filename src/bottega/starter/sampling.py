"""Look at what a model in training makes: 20 steps of DPM++ 2M Karras, with guidance 7."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel

from bottega.starter.networks import LATENT_SCALE, noise_levels
from bottega.starter.precision import mixed
from bottega.starter.tokens import tokens


def karras(steps: int) -> list[float]:
    """`steps` noise levels from the schedule's highest to its lowest, and 0."""
    levels = noise_levels()
    high, low = (((1 - a) / a).sqrt().item() ** (1 / 7) for a in (levels[-1], levels[0]))
    return [(high + (low - high) * i / (steps - 1)) ** 7 for i in range(steps)] + [0.0]


@torch.no_grad()
def sample(
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    captions: Sequence[str],
    steps: int = 20,
    guidance: float = 7.0,
    seed: int = 0,
) -> list[Image.Image]:
    """One picture of 128x128 for every caption."""
    device = unet.device
    noise = torch.randn(len(captions), 4, 16, 16, generator=torch.Generator().manual_seed(seed)).to(device)
    words = text(input_ids=tokens([*captions, ""]).to(device)).last_hidden_state
    words = torch.cat([words[:-1], words[-1:].expand(len(captions), -1, -1)])
    sigmas = karras(steps)
    log_sigmas = ((1 - noise_levels()) / noise_levels()).sqrt().log().numpy()
    x, before = noise * sigmas[0], None
    for i, (now, after) in enumerate(itertools.pairwise(sigmas)):
        when = torch.full((2 * len(captions),), float(np.interp(math.log(now), log_sigmas, range(1000))), device=device)
        seen = (x / (now**2 + 1) ** 0.5).repeat(2, 1, 1, 1)
        with mixed(device):
            told, untold = unet(seen, when, words).sample.float().chunk(2)
        clean = x - now * (untold + guidance * (told - untold))
        if after == 0:
            x = clean
            break
        stride = math.log(now / after)
        guess = clean
        if before is not None:
            ratio = math.log(sigmas[i - 1] / now) / stride
            guess = (1 + 1 / (2 * ratio)) * clean - before / (2 * ratio)
        x = after / now * x - math.expm1(-stride) * guess
        before = clean
    made = torch.cat([vae.decode(part / LATENT_SCALE).sample for part in x.split(8)])
    pixels = ((made + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def sheet(pictures: Sequence[Image.Image], columns: int = 8) -> Image.Image:
    """All pictures on one page, row by row."""
    rows = math.ceil(len(pictures) / columns)
    page = Image.new("RGB", (columns * 132 + 4, rows * 132 + 4), (128, 128, 128))
    for i, picture in enumerate(pictures):
        page.paste(picture, (4 + 132 * (i % columns), 4 + 132 * (i // columns)))
    return page
