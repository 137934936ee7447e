"""Turns a network that predicts noise or velocity into the guided denoiser that a sampler walks with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from .schedules import SigmaTable


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What one prompt says to the network.

    `context` is (1, tokens, width), what cross-attention reads; `vector` is (1, size), what SDXL adds to the
    timestep (pooled text and picture sizes). The first dimension may also be the batch's, one prompt per image.
    """

    context: Tensor
    vector: Tensor | None = None

    def expand(self, size: int) -> Conditioning:
        """The same for every image of a batch."""
        vector = None if self.vector is None else self.vector.expand(size, -1)
        return Conditioning(self.context.expand(size, -1, -1), vector)


# (x (B, C, H, W) scaled to unit variance, timestep (B,), conditioning of B) -> noise or velocity (B, C, H, W)
Network = Callable[[Tensor, Tensor, Conditioning], Tensor]
# The number of the model call, from 0 -> the prompt's parts and their weights, several where AND joins them.
PromptAt = Callable[[int], Sequence[tuple[Conditioning, float]]]

# CFG++ wants a strength between 0 and 1; people give the usual scale, and A1111 divides it by this.
CFGPP_SCALE = 12.5


@dataclass(frozen=True)
class Denoiser:
    """A network and what it predicts: answers with the clean latent (Karras et al. 2022, arXiv:2206.00364, table 1).

    `prediction` is "epsilon" (the noise) or "v" (alpha * noise - sigma * clean; Salimans and Ho 2022,
    arXiv:2202.00512). Velocity stays finite where nearly all is noise, so zero-terminal-SNR models use it.
    """

    network: Network
    table: SigmaTable
    prediction: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction not in ("epsilon", "v"):
            raise ValueError(f"prediction must be 'epsilon' or 'v', not {self.prediction!r}")

    def __call__(self, x: Tensor, sigma: Tensor, cond: Conditioning, concat: Tensor | None = None) -> Tensor:
        """x (B, C, H, W) = clean + sigma * noise, sigma (B,) -> the clean latent.

        `concat` (B, C', H, W) joins the network's input on the channels: the mask and masked picture of inpainting
        models, the picture of instruct-pix2pix.
        """
        s = sigma.view(-1, 1, 1, 1)
        unit = (s**2 + 1).sqrt()
        seen = x / unit if concat is None else torch.cat([x / unit, concat], dim=1)
        out = self.network(seen, self.table.timestep(sigma), cond).to(x.dtype)
        if self.prediction == "epsilon":
            return x - s * out
        return x / unit**2 - s / unit * out


@dataclass(frozen=True)
class Guidance:
    """How strongly, and when, the prompt is told apart from its absence.

    scale         classifier-free guidance (Ho and Salimans 2022, arXiv:2207.12598); 1 is the prompt alone
    rescale       0..1, pulls the spread of the result back to the prompt's (Lin et al. 2023, arXiv:2305.08891)
    skip_early    0..1, the first part of the model calls that goes without guidance
    min_sigma     below this sigma, every other call goes without (A1111's "negative guidance minimum sigma")
    always_min    below it, every call does
    image_scale   instruct-pix2pix: how strongly the picture is told apart from its absence (Brooks et al. 2023,
                  arXiv:2211.09800, equation 3); None for other models, and 1 is ordinary guidance
    """

    scale: float = 7.0
    rescale: float = 0.0
    skip_early: float = 0.0
    min_sigma: float = 0.0
    always_min: bool = False
    image_scale: float | None = None


class Guided:
    """The denoiser a sampler calls: looks up the prompt for this call, asks the network, weighs the answers.

    It counts its calls, because prompts and skipping go by them; use a fresh one for every run. `calls` is how many
    are expected; `before(call)` is told of each, counted from 0, before the network is asked. Of the negative prompt
    only the first part is used.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        positive: PromptAt,
        negative: PromptAt,
        guidance: Guidance,
        *,
        calls: int,
        concat: Tensor | None = None,
        before: Callable[[int], object] = lambda call: None,
    ) -> None:
        self.denoiser, self.positive, self.negative, self.guidance = denoiser, positive, negative, guidance
        self.calls, self.concat, self.before, self.call = calls, concat, before, 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        parts, negative = self.positive(self.call), self.negative(self.call)[0][0]
        guidance, skipped = self.guidance, self._skipped(sigma)
        self.before(self.call)
        self.call += 1
        if guidance.image_scale is not None and guidance.image_scale != 1:
            return self._with_picture(x, sigma, parts, negative)
        # At scale 1 the negative cancels out, unless the weights of AND leave some of it over.
        alone = guidance.scale == 1 and sum(weight for _, weight in parts) == 1
        if skipped or alone:
            seen = self._ask(x, sigma, [cond for cond, _ in parts])
            return _combine(seen[0], seen, parts, 1.0)
        *seen, unconditional = self._ask(x, sigma, [*(cond for cond, _ in parts), negative])
        return self._rescaled(x, sigma, _combine(unconditional, seen, parts, guidance.scale), seen, parts)

    def pair(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """For CFG++: (guided at a 12.5th of the scale, what the network sees without the prompt)."""
        parts, negative = self.positive(self.call), self.negative(self.call)[0][0]
        skipped = self._skipped(sigma)
        self.before(self.call)
        self.call += 1
        if skipped:
            seen = self._ask(x, sigma, [cond for cond, _ in parts])
            return _combine(seen[0], seen, parts, 1.0), seen[0]
        *seen, unconditional = self._ask(x, sigma, [*(cond for cond, _ in parts), negative])
        return _combine(unconditional, seen, parts, self.guidance.scale / CFGPP_SCALE), unconditional

    def _skipped(self, sigma: Tensor) -> bool:
        """Whether this call goes without guidance, by A1111's two rules."""
        rules = self.guidance
        if rules.skip_early > 0 and self.call / self.calls <= rules.skip_early:
            return True
        may = self.call % 2 == 1 or rules.always_min
        return may and rules.min_sigma > 0 and float(sigma[0]) < rules.min_sigma

    def _with_picture(
        self, x: Tensor, sigma: Tensor, parts: Sequence[tuple[Conditioning, float]], negative: Conditioning
    ) -> Tensor:
        if self.concat is None:
            raise ValueError("guidance by a picture needs the picture: pass its latent as concat")
        if len(parts) != 1:
            raise ValueError("instruct-pix2pix takes one prompt; use an image scale of 1 to join several with AND")
        blank = torch.zeros_like(self.concat)
        conds = [parts[0][0], negative, negative]
        both, picture, neither = self._ask(x, sigma, conds, [self.concat, self.concat, blank])
        scale, image_scale = self.guidance.scale, self.guidance.image_scale or 0.0
        return neither + scale * (both - picture) + image_scale * (picture - neither)

    def _ask(
        self, x: Tensor, sigma: Tensor, conds: Sequence[Conditioning], concats: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """What the network sees under each conditioning, in as few calls as their lengths allow."""
        size, answers = len(x), []
        jobs = [(cond.expand(size), concats[i] if concats else self.concat) for i, cond in enumerate(conds)]
        for _, same in groupby(jobs, key=lambda job: job[0].context.shape):
            group = list(same)
            n = len(group)
            vectors = [cond.vector for cond, _ in group if cond.vector is not None]
            planes = [plane.expand(size, -1, -1, -1) for _, plane in group if plane is not None]
            cond = Conditioning(torch.cat([cond.context for cond, _ in group]), torch.cat(vectors) if vectors else None)
            plane = torch.cat(planes) if planes else None
            answers += self.denoiser(x.repeat(n, 1, 1, 1), sigma.repeat(n), cond, plane).chunk(n)
        return answers

    def _rescaled(
        self,
        x: Tensor,
        sigma: Tensor,
        guided: Tensor,
        seen: Sequence[Tensor],
        parts: Sequence[tuple[Conditioning, float]],
    ) -> Tensor:
        """Guided, with the spread of its velocity moved towards that of the prompt without guidance."""
        amount = self.guidance.rescale
        if not amount:
            return guided
        s = sigma.view(-1, 1, 1, 1)
        unit = (s**2 + 1).sqrt()
        velocity = (x / unit**2 - guided) * unit / s
        wanted = (x / unit**2 - _combine(seen[0], seen, parts, 1.0)) * unit / s
        ratio = wanted.std(dim=(1, 2, 3), keepdim=True) / velocity.std(dim=(1, 2, 3), keepdim=True)
        return x / unit**2 - s / unit * velocity * (amount * ratio + 1 - amount)


def _combine(base: Tensor, seen: Sequence[Tensor], parts: Sequence[tuple[Conditioning, float]], scale: float) -> Tensor:
    """base + sum of weight * scale * (part - base): composable diffusion (Liu et al. 2022, arXiv:2206.01714)."""
    total = base
    for answer, (_, weight) in zip(seen, parts, strict=True):
        total = total + (answer - base) * (weight * scale)
    return total
