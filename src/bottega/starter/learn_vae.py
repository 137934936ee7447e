"""Teach the VAE to squeeze pictures of 128x128 into latents of 16x16 and to bring them back."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from bottega.starter import networks
from bottega.starter.crew import Crew
from bottega.starter.muon import Muon
from bottega.starter.progress import Budget, load, rate, resume, save, say
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


def optimizers(model: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the weights inside, Adam for biases, norms, and the first and last convolutions."""
    inside, rest = [], []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (inside if weight.ndim >= 2 and "conv_in" not in name and "conv_out" not in name else rest).append(weight)
    return [Muon(inside, lr=lr), torch.optim.AdamW(rest, lr=lr * 0.15, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


def train(folder: Path, minutes: float, device: torch.device, seed: int = 0) -> AutoencoderKL:
    """Train (or go on training) the VAE for so many minutes in all; the result stands in `folder`/vae.safetensors."""
    torch.manual_seed(seed)
    model = networks.vae()
    with torch.no_grad():
        model.quant_conv.bias[4:] = -4.0  # start with little noise in the latents
    average = copy.deepcopy(model).requires_grad_(False).to(device)
    model.to(device)
    tools = optimizers(model, lr=0.02)
    rates = [group["lr"] for tool in tools for group in tool.param_groups]
    checkpoint, step, budget = folder / "vae.safetensors", 0, Budget(minutes)
    if checkpoint.exists():
        state = load(checkpoint)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        resume(tools, state["tools"])
        step, budget = state["step"], Budget(minutes, state["spent"])
    rng = random.Random(seed + step)
    losses: list[float] = []
    saved_at = budget.spent

    def keep() -> None:
        save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "tools": [tool.state_dict()["state"] for tool in tools],
                "step": step,
                "spent": budget.spent,
            },
            checkpoint,
        )

    while not budget.over:
        factor = rate(budget.share, step)
        for group, lr in zip((g for tool in tools for g in tool.param_groups), rates, strict=True):
            group["lr"] = lr * factor
        whole = budget.share > WHOLE_AFTER
        batch = pictures(rng, BATCH // (4 if whole else 2))
        batch = (batch if whole else crops(rng, batch)).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            latents = model.encode(batch).latent_dist
            made = model.decode(latents.sample()).sample
        loss = difference(made.float(), batch) + KL_WEIGHT * latents.kl().mean() / latents.mean[0].numel() * 4
        for tool in tools:
            tool.zero_grad(set_to_none=True)
        loss.backward()
        for tool in tools:
            tool.step()
        step += 1
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
                mean.lerp_(weight, 1 - min(0.99, step / (step + 10)))
        losses.append(F.l1_loss(made.detach().float(), batch).item())
        if step % 25 == 0:
            error = np.mean(losses[-25:]) * 127.5
            say(f"vae step {step} {budget.share:.0%} error {error:.2f}/255 loss {loss.item():.4f}")
        if budget.spent - saved_at > 60:
            keep()
            saved_at = budget.spent
    keep()
    if budget.interrupted:
        raise KeyboardInterrupt
    return average


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
    leader writes `folder`/vae-polished.safetensors.
    """
    model = networks.vae()
    model.load_state_dict(load(folder / "vae-settled.safetensors"))
    model.requires_grad_(False).to(device)
    decoder = torch.nn.ModuleList([model.post_quant_conv, model.decoder]).requires_grad_(True)
    weights = list(decoder.parameters())
    average = [weight.detach().clone() for weight in weights]
    tools = optimizers(decoder, lr=0.01)
    rates = [group["lr"] for tool in tools for group in tool.param_groups]
    rng = random.Random(10 + crew.rank)
    torch.manual_seed(10 + crew.rank)
    budget, step, over = Budget(minutes), 0, False
    while not over:
        crew.lead(over=budget.over, factor=rate(budget.share, step, warmup=20))
        batch = pictures(rng, POLISH_BATCH // crew.size).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            latents = model.encode(batch).latent_dist.mode()
            latents = latents + torch.randn_like(latents) * (POLISH_NOISE / networks.LATENT_SCALE)
            made = model.decode(latents).sample
        loss = difference(made.float(), batch)
        for weight in weights:
            weight.grad = None
        loss.backward()
        over, factor = crew.share_gradients(weights)
        for group, lr in zip((g for tool in tools for g in tool.param_groups), rates, strict=True):
            group["lr"] = lr * factor
        for tool in tools:
            tool.step()
        step += 1
        with torch.no_grad():
            for mean, weight in zip(average, weights, strict=True):
                mean.lerp_(weight, 1 - min(0.98, step / (step + 10)))
        if crew.rank == 0 and step % 20 == 0:
            error = (made.detach().float() - batch).abs().mean().item()
            say(f"decoder step {step} {budget.share:.0%} error {error * 127.5:.2f}/255 loss {loss.item():.4f}")
    with torch.no_grad():
        for mean, weight in zip(average, weights, strict=True):
            weight.copy_(mean)
    if crew.rank == 0:
        save(model.state_dict(), folder / "vae-polished.safetensors")
    if budget.interrupted:
        raise KeyboardInterrupt
