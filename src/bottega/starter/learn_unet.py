"""Teach the UNet to make latents of scenes from what the text encoder, which learns no more, says of their captions."""

from __future__ import annotations

import random
from collections import deque
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
from bottega.starter.optimizers import Average, Optimizers
from bottega.starter.precision import mixed
from bottega.starter.progress import SAVE_EVERY, Budget, load, rate, save, say
from bottega.starter.scenes import Scene, draw
from bottega.starter.tokens import tokens

BATCH = 48
"""Over the whole crew."""
FIRST_SCENES, ALL_SCENES = 4000, 32000
"""The training set starts small, so that training starts at once, and grows while it goes on."""
GROWTH = 2
"""New scenes a step."""
SNR_CAP = 5.0
NOISE_BOOST = 4.0
"""Noisy times count up to so many times as much: there it is decided what stands where."""
MUON_RATE, MUON_DECAY, ADAM_RATE = 0.015, 0.1, 0.001


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

    @property
    def all(self) -> torch.Tensor:
        """(count, 4, 16, 16), for a checkpoint."""
        return self._crew.latents[: self.count]

    def adopt(self, latents: torch.Tensor) -> None:
        """Begin with what a checkpoint kept."""
        self._crew.latents[: len(latents)] = latents
        self.count_to(len(latents))

    def count_to(self, count: int) -> None:
        """Take the first `count` latents for made, by the whole crew."""
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
            with mixed(self._device):
                means = self._vae.encode(batch).latent_dist.mode().float()
            self._crew.latents[list(numbers)] = (means * LATENT_SCALE).cpu().half()
        return after

    def batch(self, rng: random.Random, size: int) -> tuple[torch.Tensor, list[str]]:
        """(size, 4, 16, 16) latents and a fresh caption for each."""
        chosen = [rng.randrange(self.count) for _ in range(size)]
        captions = ["" if rng.random() < EMPTY_SHARE else caption(self.scenes[i], rng) for i in chosen]
        return self._crew.latents[chosen].float(), captions


def optimizers(unet: UNet2DConditionModel, crew: Crew) -> Optimizers:
    """Muon for the weight matrices inside; Adam for biases, norms, the first and last convolutions, queries and keys.

    Muon's steps are so long that queries and keys would settle on some words before the others had a say.
    """
    inside, rest = [], []
    for name, weight in unet.named_parameters():
        adam = weight.ndim < 2 or name.startswith(("conv_in", "conv_out")) or ".to_q." in name or ".to_k." in name
        (rest if adam else inside).append(weight)
    return Optimizers(
        Muon(inside, MUON_RATE, MUON_DECAY, divide=crew.divide),
        torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    )


class Lesson:
    """Noise to be told from pictures, with the weight that each time has in the loss."""

    def __init__(self, text: CLIPTextModel, device: torch.device) -> None:
        self._text = text
        self._device = device
        self._alphas = networks.noise_levels().to(device)
        snr = self._alphas / (1 - self._alphas)
        self._weights = snr.clamp(max=SNR_CAP) / snr * snr.rsqrt().clamp(1.0, NOISE_BOOST)
        self._weights /= self._weights.mean()

    def loss(self, unet: UNet2DConditionModel, clean: torch.Tensor, captions: list[str]) -> torch.Tensor:
        """The weighted error of the guessed noise, at times that are spread evenly over the batch."""
        clean = clean.to(self._device)
        spread = (torch.randperm(len(clean)) + torch.rand(len(clean))) / len(clean)
        times = (spread * len(self._alphas)).long().clamp(max=len(self._alphas) - 1).to(self._device)
        noise = torch.randn(clean.shape).to(self._device)
        level = self._alphas[times].view(-1, 1, 1, 1)
        noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
        with mixed(self._device):
            with torch.no_grad():
                words = self._text(input_ids=tokens(captions).to(self._device)).last_hidden_state
            guess = unet(noisy, times, words).sample
        return ((guess.float() - noise).square().mean((1, 2, 3)) * self._weights[times]).mean()


def train(
    vae: AutoencoderKL,
    text: CLIPTextModel,
    folder: Path,
    minutes: float,
    device: torch.device,
    crew: Crew,
    look: Callable[[UNet2DConditionModel, int], None],
    look_every: float = 12.0,
    seed: int = 0,
) -> UNet2DConditionModel:
    """Train (or go on training) for so many minutes in all; returns the averaged UNet.

    Every member of the crew calls this. The first keeps the state in `folder`/unet.safetensors and calls `look` with
    the averaged UNet every `look_every` minutes.
    """
    torch.manual_seed(seed)
    unet = networks.unet()
    if device.type == "cpu":
        unet.set_attn_processor(PlainAttention())
    unet.to(device)
    average = Average(unet, keeping=0.997)
    weights = list(unet.parameters())
    tools = optimizers(unet, crew)
    lesson = Lesson(text, device)
    latents = Latents(vae, device, crew)
    checkpoint, step, spent = folder / "unet.safetensors", 0, 0.0
    if checkpoint.exists():
        state = load(checkpoint)
        unet.load_state_dict(state["unet"])
        average.network.load_state_dict(state["average"])
        tools.restore(state["tools"])
        step, spent = state["step"], state["spent"]
        latents.adopt(state["latents"])
    torch.manual_seed(seed + 1000 * step + crew.rank)
    rng = random.Random(seed + 1000 * step + crew.rank)
    while latents.count < FIRST_SCENES:
        after = latents.encode(64)
        crew.wait()
        latents.count_to(after)
    budget = Budget(minutes, spent)
    recent: deque[float] = deque(maxlen=100)
    saved_at = looked_at = budget.spent
    over = False
    while not over:
        crew.lead(over=budget.over, factor=rate(budget.share, step, warmup=60))
        after = latents.encode(GROWTH)
        loss = lesson.loss(unet, *latents.batch(rng, BATCH // crew.size))
        unet.zero_grad()
        loss.backward()
        over, factor = crew.share_gradients(weights)
        latents.count_to(after)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        tools.step(factor)
        step += 1
        if crew.rank > 0:
            continue
        average.follow(unet, step)
        recent.append(loss.item())
        if step % 20 == 0:
            mean = sum(recent) / len(recent)
            say(f"unet step {step} {budget.share:.1%} loss {mean:.4f} scenes {latents.count}")
        if over or budget.spent - saved_at > SAVE_EVERY:
            state = {"unet": unet.state_dict(), "average": average.network.state_dict(), "tools": tools.state()}
            save({**state, "latents": latents.all, "step": step, "spent": budget.spent}, checkpoint)
            saved_at = budget.spent
        if budget.spent - looked_at > look_every * 60:
            look(average.network, step)
            looked_at = budget.spent
    if budget.interrupted:
        raise KeyboardInterrupt
    return average.network
