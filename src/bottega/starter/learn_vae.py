"""Teach the VAE to squeeze pictures of 128x128 into latents of 16x16 and to bring them back."""

from __future__ import annotations

import copy
import random
from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from bottega.starter import networks
from bottega.starter.crew import Crew
from bottega.starter.muon import Divide, Muon, alone
from bottega.starter.optimizers import Average, Optimizers
from bottega.starter.precision import mixed
from bottega.starter.progress import SAVE_EVERY, Budget, load, rate, save, say
from bottega.starter.scenes import SIZE, draw, imagine

CROP = 64
BATCH = 16
WHOLE_AFTER = 0.75
"""Crops at first, because they are cheaper; whole pictures from this share of the budget on."""
KL_WEIGHT = 1e-4
POLISH_BATCH = 8
POLISH_NOISE = 0.05
"""Deviation of the noise, where the latents' own deviation is one."""


def pictures(rng: random.Random, count: int) -> torch.Tensor:
    """Freshly drawn scenes: (count, 3, 128, 128) in -1..1."""
    drawn = np.stack([np.asarray(draw(imagine(rng), rng.getrandbits(32))) for _ in range(count)])
    return torch.from_numpy(drawn).permute(0, 3, 1, 2).float() / 127.5 - 1


def crops(rng: random.Random, whole: torch.Tensor, each: int = 2) -> torch.Tensor:
    """`each` squares of 64x64 from every picture, on the 8-pixel grid of the latents."""
    places = range(0, SIZE - CROP + 1, 8)
    parts = []
    for picture in whole:
        for _ in range(each):
            y, x = rng.choice(places), rng.choice(places)
            parts.append(picture[:, y : y + CROP, x : x + CROP])
    return torch.stack(parts)


def difference(made: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute error of the pixels and of their steps to the neighbours: the second keeps edges crisp."""
    error = made - wanted
    steps = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * steps + error.square().mean()


def optimizers(model: torch.nn.Module, lr: float, divide: Divide = alone) -> Optimizers:
    """Muon for the weights inside, Adam for biases, norms, and the first and last convolutions."""
    inside, rest = [], []
    for name, weight in model.named_parameters():
        (inside if weight.ndim >= 2 and "conv_in" not in name and "conv_out" not in name else rest).append(weight)
    adam = torch.optim.AdamW(rest, lr=lr * 0.15, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return Optimizers(Muon(inside, lr=lr, divide=divide), adam)


def train(folder: Path, minutes: float, device: torch.device, seed: int = 0) -> AutoencoderKL:
    """Train (or go on training) the VAE for so many minutes in all; the result stands in `folder`/vae.safetensors."""
    torch.manual_seed(seed)
    model = networks.vae()
    with torch.no_grad():
        model.quant_conv.bias[4:] = -4.0  # start with little noise in the latents
    model.to(device)
    average = Average(model, keeping=0.99)
    tools = optimizers(model, lr=0.02)
    checkpoint, step, spent = folder / "vae.safetensors", 0, 0.0
    if checkpoint.exists():
        state = load(checkpoint)
        model.load_state_dict(state["model"])
        average.network.load_state_dict(state["average"])
        tools.restore(state["tools"])
        step, spent = state["step"], state["spent"]
    rng = random.Random(seed + step)
    budget = Budget(minutes, spent)
    recent: deque[float] = deque(maxlen=25)
    saved_at = budget.spent
    over = False
    while not over:
        over = budget.over
        whole = budget.share > WHOLE_AFTER
        batch = pictures(rng, BATCH // (4 if whole else 2))
        batch = (batch if whole else crops(rng, batch)).to(device)
        with mixed(device):
            latents = model.encode(batch).latent_dist
            made = model.decode(latents.sample()).sample
        loss = difference(made.float(), batch) + KL_WEIGHT * latents.kl().mean() / latents.mean[0].numel() * 4
        model.zero_grad()
        loss.backward()
        tools.step(rate(budget.share, step))
        step += 1
        average.follow(model, step)
        recent.append(F.l1_loss(made.detach().float(), batch).item())
        if step % 25 == 0:
            error = sum(recent) / len(recent) * 127.5
            say(f"vae step {step} {budget.share:.0%} error {error:.2f}/255 loss {loss.item():.4f}")
        if over or budget.spent - saved_at > SAVE_EVERY:
            state = {"model": model.state_dict(), "average": average.network.state_dict(), "tools": tools.state()}
            save({**state, "step": step, "spent": budget.spent}, checkpoint)
            saved_at = budget.spent
    if budget.interrupted:
        raise KeyboardInterrupt
    return average.network


@torch.no_grad()
def settle(model: AutoencoderKL, device: torch.device, count: int = 256) -> AutoencoderKL:
    """A copy whose latents have, channel by channel, mean 0 and deviation 1/0.18215, as Stable Diffusion 1 expects.

    The change is folded into the 1x1 convolutions on either side of the latents, so that pictures stay the same.
    """
    model = copy.deepcopy(model).eval().to(device)
    rng = random.Random(1)
    means = torch.cat([model.encode(pictures(rng, 16).to(device)).latent_dist.mode() for _ in range(count // 16)])
    shift = means.mean((0, 2, 3))
    scale = means.std((0, 2, 3)) * networks.LATENT_SCALE
    before, after = model.quant_conv, model.post_quant_conv
    channels = len(shift)
    before.bias[:channels] = (before.bias[:channels] - shift) / scale
    before.weight[:channels] /= scale.view(-1, 1, 1, 1)
    before.bias[channels:] -= 2 * scale.log()
    after.bias += after.weight[:, :, 0, 0] @ shift
    after.weight *= scale.view(1, -1, 1, 1)
    return model


def polish(crew: Crew, folder: Path, minutes: float, device: torch.device) -> None:
    """Go on training the decoder alone, on whole pictures, so that what the UNet learned to make stays valid.

    A little noise in the latents teaches it to forgive the UNet's errors. Reads `folder`/vae-settled.safetensors; the
    leader keeps the state in `folder`/polish.safetensors and writes `folder`/vae-polished.safetensors.
    """
    model = networks.vae()
    model.load_state_dict(load(folder / "vae-settled.safetensors"))
    model.requires_grad_(False).to(device)
    decoder = torch.nn.ModuleList([model.post_quant_conv, model.decoder]).requires_grad_(True)
    weights = list(decoder.parameters())
    average = Average(decoder, keeping=0.98)
    tools = optimizers(decoder, lr=0.01, divide=crew.divide)
    checkpoint, step, spent = folder / "polish.safetensors", 0, 0.0
    if checkpoint.exists():
        state = load(checkpoint)
        decoder.load_state_dict(state["decoder"])
        average.network.load_state_dict(state["average"])
        tools.restore(state["tools"])
        step, spent = state["step"], state["spent"]
    rng = random.Random(10 + 1000 * step + crew.rank)
    torch.manual_seed(10 + 1000 * step + crew.rank)
    budget = Budget(minutes, spent)
    recent: deque[float] = deque(maxlen=20)
    saved_at = budget.spent
    over = False
    while not over:
        crew.lead(over=budget.over, factor=rate(budget.share, step, warmup=20))
        batch = pictures(rng, POLISH_BATCH // crew.size).to(device)
        with mixed(device):
            latents = model.encode(batch).latent_dist.mode()
            latents = latents + torch.randn_like(latents) * (POLISH_NOISE / networks.LATENT_SCALE)
            made = model.decode(latents).sample
        decoder.zero_grad()
        difference(made.float(), batch).backward()
        over, factor = crew.share_gradients(weights)
        tools.step(factor)
        step += 1
        if crew.rank > 0:
            continue
        average.follow(decoder, step)
        recent.append(F.l1_loss(made.detach().float(), batch).item())
        if step % 20 == 0:
            error = sum(recent) / len(recent) * 127.5
            say(f"decoder step {step} {budget.share:.0%} error {error:.2f}/255")
        if over or budget.spent - saved_at > SAVE_EVERY:
            state = {"decoder": decoder.state_dict(), "average": average.network.state_dict(), "tools": tools.state()}
            save({**state, "step": step, "spent": budget.spent}, checkpoint)
            saved_at = budget.spent
    if budget.interrupted:
        raise KeyboardInterrupt
    if crew.rank == 0:
        decoder.load_state_dict(average.network.state_dict())
        save(model.state_dict(), folder / "vae-polished.safetensors")
