"""Teach the UNet and the text encoder, together, to make latents of scenes from captions."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from transformers import CLIPTextModel

from bottega.starter import networks
from bottega.starter.captions import EMPTY_SHARE, caption, imagine_for
from bottega.starter.crew import Crew
from bottega.starter.muon import Muon
from bottega.starter.networks import LATENT_SCALE
from bottega.starter.progress import Budget, load, rate, resume, save, say
from bottega.starter.scenes import Scene, draw
from bottega.starter.tokens import tokens

BATCH = 64
"""Over the whole crew."""
FIRST_SCENES, ALL_SCENES = 4000, 32000
"""The training set starts small, so that training starts at once, and grows while it goes on."""
GROWTH = 4
"""New scenes a step."""
SNR_CAP = 5.0
NOISE_BOOST = 4.0
"""Noisy times count up to so many times as much: there it is decided what stands where."""
MUON_RATE, ADAM_RATE = 0.02, 0.002


class PlainAttention:
    """Attention by two matrix products: on a CPU its backward pass is several times faster than the fused one."""

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        **_: object,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        query, key, value = (self._heads(part, attn.heads) for part in (query * attn.scale, key, value))
        scores = torch.bmm(query, key.transpose(1, 2))
        mixed = torch.bmm(torch.softmax(scores, dim=-1, dtype=scores.dtype), value)
        mixed = mixed.unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2)
        return attn.to_out[0](mixed)

    @staticmethod
    def _heads(part: torch.Tensor, heads: int) -> torch.Tensor:
        """(n, length, width) to (n * heads, length, width / heads)."""
        return part.unflatten(2, (heads, -1)).transpose(1, 2).flatten(0, 1)


def training_scene(number: int) -> Scene:
    """The scene of that number in the training set."""
    return imagine_for(random.Random(number), training=True)


class Latents:
    """The training set: scenes by number, each with the latents of its picture, scaled to a deviation of one.

    The latents lie in memory that the whole crew shares; every member encodes its part of the new scenes.
    """

    def __init__(self, vae: AutoencoderKL, device: torch.device, crew: Crew) -> None:
        self._vae = vae
        self._device = device
        self._crew = crew
        self.count = 0
        self.scenes: list[Scene] = []

    def adopt(self, count: int) -> None:
        """Take the first `count` latents as they stand in the shared memory."""
        self.scenes += [training_scene(number) for number in range(self.count, count)]
        self.count = count

    @torch.no_grad()
    def encode(self, by: int) -> int:
        """Draw and encode this member's part of the next scenes; returns how many there will be in all."""
        after = min(self.count + by, ALL_SCENES)
        numbers = range(self.count + self._crew.rank, after, self._crew.size)
        if numbers:
            drawn = np.stack([np.asarray(draw(training_scene(number), number)) for number in numbers])
            batch = torch.from_numpy(drawn).permute(0, 3, 1, 2).float().to(self._device) / 127.5 - 1
            with torch.autocast(self._device.type, torch.bfloat16):
                means = self._vae.encode(batch).latent_dist.mode().float()
            self._crew.latents[list(numbers)] = (means * LATENT_SCALE).cpu().half()
        return after

    def batch(self, rng: random.Random, size: int) -> tuple[torch.Tensor, list[str]]:
        """(size, 4, 16, 16) latents and a fresh caption for each."""
        chosen = [rng.randrange(self.count) for _ in range(size)]
        captions = ["" if rng.random() < EMPTY_SHARE else caption(self.scenes[i], rng) for i in chosen]
        return self._crew.latents[chosen].float(), captions


def optimizers(unet: UNet2DConditionModel, text: CLIPTextModel) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices inside; Adam for embeddings, biases, norms, and the first and last convolutions."""
    inside, rest = [], []
    for name, weight in [*unet.named_parameters(), *text.named_parameters()]:
        outer = name.startswith(("conv_in", "conv_out")) or "embedding.weight" in name
        (inside if weight.ndim >= 2 and not outer else rest).append(weight)
    adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    return [Muon(inside, lr=MUON_RATE), adam]


def train(
    vae: AutoencoderKL,
    folder: Path,
    minutes: float,
    device: torch.device,
    crew: Crew,
    look: Callable[[UNet2DConditionModel, CLIPTextModel, int], None],
    look_every: float = 12.0,
    seed: int = 0,
) -> tuple[UNet2DConditionModel, CLIPTextModel]:
    """Train (or go on training) for so many minutes in all; returns the averaged networks.

    Every member of the crew calls this. The first keeps the state in `folder`/unet.safetensors and calls `look` with
    the networks every `look_every` minutes.
    """
    torch.manual_seed(seed)
    models = torch.nn.ModuleList([networks.unet(), networks.text_encoder()])
    averages = copy.deepcopy(models).requires_grad_(False)
    if device.type == "cpu":
        for unet in (models[0], averages[0]):
            unet.set_attn_processor(PlainAttention())
    models.to(device)
    averages.to(device)
    weights = list(models.parameters())
    tools = optimizers(*models)
    rates = [group["lr"] for tool in tools for group in tool.param_groups]
    latents = Latents(vae, device, crew)
    checkpoint, step, spent = folder / "unet.safetensors", 0, 0.0
    if checkpoint.exists():
        state = load(checkpoint)
        models.load_state_dict(state["models"])
        averages.load_state_dict(state["averages"])
        resume(tools, state["tools"])
        step, spent = state["step"], state["spent"]
        crew.latents[: len(state["latents"])] = state["latents"]
        latents.adopt(len(state["latents"]))
    torch.manual_seed(seed + 1000 * step + crew.rank)
    rng = random.Random(seed + 1000 * step + crew.rank)
    while latents.count < FIRST_SCENES:
        after = latents.encode(64)
        crew.wait()
        latents.adopt(after)
    budget = Budget(minutes, spent)
    alphas = networks.noise_levels().to(device)
    snr = alphas / (1 - alphas)
    weight_of_time = snr.clamp(max=SNR_CAP) / snr * snr.rsqrt().clamp(1.0, NOISE_BOOST)
    weight_of_time /= weight_of_time.mean()
    losses: list[float] = []
    saved_at = looked_at = budget.spent

    def keep() -> None:
        state = {
            "models": models.state_dict(),
            "averages": averages.state_dict(),
            "tools": [tool.state_dict()["state"] for tool in tools],
            "latents": crew.latents[: latents.count].clone(),
            "step": step,
            "spent": budget.spent,
        }
        save(state, checkpoint)

    while True:
        crew.lead(over=budget.over, factor=rate(budget.share, step, warmup=60))
        after = latents.encode(GROWTH)
        clean, captions = latents.batch(rng, BATCH // crew.size)
        clean = clean.to(device)
        times = torch.randint(0, len(alphas), (len(clean),)).to(device)
        noise = torch.randn(clean.shape).to(device)
        level = alphas[times].view(-1, 1, 1, 1)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        with torch.autocast(device.type, torch.bfloat16):
            words = models[1](input_ids=tokens(captions).to(device)).last_hidden_state
            guess = models[0](noisy, times, words).sample
        loss = ((guess.float() - noise).square().mean((1, 2, 3)) * weight_of_time[times]).mean()
        for weight in weights:
            weight.grad = None
        loss.backward()
        over, factor = crew.share_gradients(weights)
        latents.adopt(after)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for group, lr in zip((g for tool in tools for g in tool.param_groups), rates, strict=True):
            group["lr"] = lr * factor
        for tool in tools:
            tool.step()
        step += 1
        if crew.rank == 0:
            share = min(0.997, step / (step + 10))
            for mean, weight in zip(averages.parameters(), weights, strict=True):
                mean.lerp_(weight.detach(), 1 - share)
            losses.append(loss.item())
            if step % 20 == 0:
                say(f"unet step {step} {budget.share:.1%} loss {np.mean(losses[-100:]):.4f} scenes {latents.count}")
            if budget.spent - saved_at > 240 or over:
                keep()
                saved_at = budget.spent
            if budget.spent - looked_at > look_every * 60:
                look(averages[0], averages[1], step)
                looked_at = budget.spent
        if over:
            break
    if budget.interrupted:
        raise KeyboardInterrupt
    return averages[0], averages[1]
