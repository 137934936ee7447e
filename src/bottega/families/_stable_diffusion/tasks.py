"""What Stable Diffusion makes: a picture from words, from a picture and words, and in part of a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor, nn

from bottega.diffusion.conditioning import PictureSize, PromptEncoder, Schedule
from bottega.diffusion.guidance import Conditioning, Denoiser, Guidance, Guided
from bottega.diffusion.noise import Noise
from bottega.diffusion.plan import Keep, Plan, make_plan, partial_steps
from bottega.diffusion.prompt import parse_composable
from bottega.diffusion.schedules import (
    ANCHORS_SD1,
    ANCHORS_SDXL,
    SigmaTable,
    alphas_from_betas,
    rescale_zero_terminal_snr,
    stable_diffusion_alphas,
)
from bottega.errors import BrokenPicture, FieldProblem, InvalidRecipe
from bottega.events import Note, Step
from bottega.families._stable_diffusion.parts import ENCODERS
from bottega.families._stable_diffusion.pictures import Mask, decode, encode, preview, to_tensor
from bottega.families._stable_diffusion.recognise import INPAINTING, PIX2PIX

if TYPE_CHECKING:
    from bottega.families._stable_diffusion.load import Pipe
    from bottega.recipe import Recipe
    from bottega.spec import Emit

PREVIEWS = 8  # how many rough pictures are shown on the way, at most


@torch.inference_mode()
def make(
    pipe: Pipe, batch: Sequence[Recipe], inputs: Mapping[str, Image.Image], emit: Emit
) -> list[Image.Image | BrokenPicture]:
    """One picture for each of a batch of recipes that differ in their seeds only.

    Without inputs from noise alone; with `init` from that picture, noised as A1111 does; with `mask` too, only where
    the mask is white. A BrokenPicture stands in the place of what is no picture.
    """
    try:
        return _make(pipe, batch, inputs, emit)
    finally:
        pipe.turns.leave()


def _make(
    pipe: Pipe, batch: Sequence[Recipe], inputs: Mapping[str, Image.Image], emit: Emit
) -> list[Image.Image | BrokenPicture]:
    recipe = batch[0]
    pipe.go_to(0.0)
    for text in _notes(pipe, recipe):
        emit(Note(text))
    given = _given(pipe, recipe, inputs)
    plan = _plan(pipe, recipe, from_picture=given.latent is not None)
    noise = _noise(pipe, batch)
    keep = Keep(given.latent, given.mask) if given.latent is not None and given.mask is not None else None
    latents = plan.sample(
        _guided(pipe, recipe, plan, given.concat),
        plan.start(noise.initial, _start(given, recipe, noise.initial)),
        noise,
        step=_reporter(pipe, recipe, plan, emit),
        keep=keep,
        **_options(recipe),
    )
    emit(Step("decode", 0, len(batch)))
    pictures = decode(pipe, latents, tiled=recipe.knobs["vae_tiling"] == "on")
    emit(Step("decode", len(batch), len(batch)))
    if given.overlay is not None:
        return [made if isinstance(made, BrokenPicture) else given.overlay(made) for made in pictures]
    return pictures


def _notes(pipe: Pipe, recipe: Recipe) -> Iterator[str]:
    """What the recipe asks for and this model or this device can't do."""
    if recipe.knobs["clip_skip"] != 1 and not any(encoder.obeys_clip_skip for encoder in pipe.text_encoders):
        yield "clip_skip has no effect: this model always reads the layer of its text encoders that it was trained on"
    if recipe.knobs["noise_source"] == "GPU" and pipe.place.torch_device.type != "cuda":
        yield "noise_source=GPU: there is no CUDA device, so the CPU draws; NV draws as an NVIDIA GPU does, anywhere"


@dataclass(frozen=True)
class Given:
    """What the input pictures mean to the sampler; each None where there is no such input.

    `latent` (1, 4, h, w) to start from, `mask` (1, 1, h, w) with ones where it is made anew, `concat` what joins the
    UNet's input, `overlay` what puts the unmasked part of the original over the result.
    """

    latent: Tensor | None = None
    mask: Tensor | None = None
    concat: Tensor | None = None
    overlay: Callable[[Image.Image], Image.Image] | None = None


def _given(pipe: Pipe, recipe: Recipe, inputs: Mapping[str, Image.Image]) -> Given:
    assert recipe.size is not None
    size, device = (recipe.size.width, recipe.size.height), pipe.place.torch_device
    init = inputs.get("init")
    if init is None:
        return Given(concat=_concat(pipe, size, None, None))
    mask = Mask(inputs["mask"], size, int(recipe.knobs["mask_blur"])) if "mask" in inputs else None
    pixels = to_tensor(init, size)
    seen = mask.filled(init) if mask and recipe.knobs["masked_content"] == "fill" else init
    return Given(
        latent=encode(pipe, to_tensor(seen, size)),
        mask=mask.latent(pipe.size_factor).to(device) if mask else None,
        concat=_concat(pipe, size, pixels, mask),
        overlay=(lambda made: mask.overlay(made, init)) if mask else None,
    )


def _concat(pipe: Pipe, size: tuple[int, int], pixels: Tensor | None, mask: Mask | None) -> Tensor | None:
    """What an inpainting or an instruct-pix2pix UNet sees beside the noisy latent, (1, 5 or 4, h, w)."""
    if pipe.variant not in (INPAINTING, PIX2PIX):
        return None
    picture = torch.zeros(1, 3, size[1], size[0]) if pixels is None else pixels
    if pipe.variant == PIX2PIX:
        # Trained on the VAE's mean as it is, without the factor that latents are scaled by.
        return encode(pipe, picture) / pipe.scale_factor
    hole = torch.ones(1, 1, size[1], size[0]) if mask is None else mask.pixels
    shown = encode(pipe, picture * (1 - hole))  # the masked part is mid-grey, as in training
    cells = torch.nn.functional.interpolate(hole, shown.shape[-2:])
    return torch.cat([cells.to(shown), shown], dim=1)


def _start(given: Given, recipe: Recipe, noise: Tensor) -> Tensor | None:
    """The clean latent to start from; `noise` is the initial noise, in unit variance."""
    if given.latent is None or given.mask is None:
        return given.latent
    content = recipe.knobs["masked_content"]
    if content == "latent noise":
        return given.latent * (1 - given.mask) + noise * given.mask
    if content == "latent nothing":
        return given.latent * (1 - given.mask)
    return given.latent


def _table(pipe: Pipe, recipe: Recipe) -> SigmaTable:
    """The noise levels that the UNet was trained on."""
    start, end = pipe.schedule["beta_start"], pipe.schedule["beta_end"]
    count = pipe.schedule["num_train_timesteps"]
    if pipe.schedule["beta_schedule"] == "linear":
        alphas = alphas_from_betas(torch.linspace(start, end, count, dtype=torch.float64))
    else:
        alphas = stable_diffusion_alphas(start, end, count)
    if recipe.knobs["downcast_alphas"]:
        alphas = alphas.half().float()
    return SigmaTable(rescale_zero_terminal_snr(alphas) if recipe.knobs["zero_snr"] else alphas)


def _plan(pipe: Pipe, recipe: Recipe, *, from_picture: bool) -> Plan:
    sampling, knobs = recipe.sampling, recipe.knobs
    assert sampling.sampler is not None and sampling.steps is not None
    steps, begin = sampling.steps, None
    if from_picture:
        assert sampling.strength is not None
        steps, begin = partial_steps(steps, sampling.strength)
    return make_plan(
        sampling.sampler,
        sampling.schedule or "Automatic",
        steps,
        _table(pipe, recipe),
        begin=begin,
        sigma_min=knobs["sigma_min"],
        sigma_max=knobs["sigma_max"],
        rho=knobs["rho"],
        anchors=ANCHORS_SDXL if pipe.family == "sdxl" else ANCHORS_SD1,
    )


def _noise(pipe: Pipe, batch: Sequence[Recipe]) -> Noise:
    recipe, knobs = batch[0], batch[0].knobs
    assert recipe.size is not None
    factor = pipe.size_factor
    width, height = int(knobs["seed_resize_width"]), int(knobs["seed_resize_height"])
    return Noise(
        (pipe.latent_channels, recipe.size.height // factor, recipe.size.width // factor),
        [single.sampling.seed for single in batch],
        source=knobs["noise_source"],
        device=pipe.place.torch_device,
        variation_seeds=[int(single.knobs["variation_seed"]) for single in batch],
        variation_strength=knobs["variation_strength"],
        resize_from=(height // factor, width // factor) if width and height else None,
        ensd=int(knobs["ensd"]),
    )


def _guided(pipe: Pipe, recipe: Recipe, plan: Plan, concat: Tensor | None) -> Guided:
    knobs, guidance = recipe.knobs, recipe.sampling.guidance
    assert recipe.size is not None and recipe.sampling.steps is not None and guidance is not None
    calls = recipe.sampling.steps * (2 if plan.sampler.second_order else 1)
    size = PictureSize((recipe.size.height, recipe.size.width))
    prompts = _prompts(pipe)
    if pipe.variant == PIX2PIX and len(parse_composable(recipe.prompt)) > 1:
        problem = FieldProblem("prompt", "joins several with AND, and this model takes one", "take the AND out")
        raise InvalidRecipe([problem])

    def part_behind(call: int) -> float:
        return min(call / max(plan.calls, 1), 1.0)

    def encoded(text: str, negative: bool) -> Schedule:
        return prompts.encode(
            text,
            steps=calls,
            negative=negative,
            clip_skip=int(knobs["clip_skip"]),
            emphasis=knobs["emphasis"],
            old_timeline=knobs["old_prompt_editing"],
            size=size,
        )

    def said(text: str, *, negative: bool) -> Callable[[int], Sequence[tuple[Conditioning, float]]]:
        schedules = {}
        for share in (0.0, *pipe.patcher.moments(*ENCODERS)):
            pipe.go_to(share)
            schedules[share] = encoded(text, negative)
        pipe.go_to(0.0)
        return lambda call: schedules[max(share for share in schedules if share <= part_behind(call))].at(call)

    return Guided(
        Denoiser(_network(pipe), plan.table, knobs["prediction"]),
        said(recipe.prompt, negative=False),
        said(recipe.negative, negative=True),
        Guidance(
            scale=guidance,
            rescale=knobs["guidance_rescale"],
            skip_early=knobs["skip_early_guidance"],
            min_sigma=knobs["min_uncond_sigma"],
            image_scale=knobs["image_guidance"] if pipe.variant == PIX2PIX else None,
        ),
        calls=calls,
        concat=concat,
        before=lambda call: pipe.go_to(part_behind(call)),
    )


def _prompts(pipe: Pipe) -> PromptEncoder:
    """The model's prompt encoder, made once, so that equal prompts are encoded once."""
    if pipe.prompts is None:
        sizes = {6: "base", 5: "refiner"}.get(pipe.sizes)
        pipe.prompts = PromptEncoder(
            pipe.text_encoders,
            sizes=sizes,
            size_width=pipe.unet.config.addition_time_embed_dim or 256,
            zero_empty_negative=sizes is not None,
            embeddings=pipe.embeddings,
        )
    return pipe.prompts


def _network(pipe: Pipe) -> Callable[[Tensor, Tensor, Conditioning], Tensor]:
    """The UNet as the denoiser calls it: float32 in and out, its own number format inside."""
    unet, dtype, device = pipe.unet, pipe.unet.dtype, pipe.place.torch_device
    if pipe.sizes:
        unet.add_time_proj = nn.Identity()  # the conditioning's vector holds the embedded sizes already

    def network(x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        added = None
        if cond.vector is not None:
            vector = cond.vector.to(device, dtype)
            # The UNet joins the two again; where the cut is does not matter.
            added = {"text_embeds": vector[:, :1], "time_ids": vector[:, 1:]}
        out = unet(
            x.to(dtype),
            timestep,
            encoder_hidden_states=cond.context.to(device, dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return out[0].float()

    return network


def _options(recipe: Recipe) -> dict[str, float]:
    """The knobs that samplers may understand."""
    knobs = recipe.knobs
    is_ddim = recipe.sampling.sampler in ("DDIM", "DDIM CFG++")
    return {
        "eta": knobs["eta_ddim"] if is_ddim else knobs["eta"],
        "s_churn": knobs["s_churn"],
        "s_tmin": knobs["s_tmin"],
        "s_tmax": knobs["s_tmax"] or float("inf"),
        "s_noise": knobs["s_noise"],
    }


def _reporter(pipe: Pipe, recipe: Recipe, plan: Plan, emit: Emit) -> Callable[[int, Tensor, Tensor, Tensor], None]:
    """Tells of every step, and shows a rough picture after some."""
    assert recipe.size is not None
    size, every = (recipe.size.width, recipe.size.height), max(1, plan.steps // PREVIEWS)

    def step(index: int, sigma: Tensor, x: Tensor, denoised: Tensor) -> None:
        done = index + 1
        emit(Step("sample", done, max(plan.steps, done)))
        if emit.previews and (done % every == 0 or done == 1):
            for image, latent in enumerate(denoised):
                emit.preview(image, done, preview(pipe, latent, size))

    emit(Step("sample", 0, plan.steps))
    return step
