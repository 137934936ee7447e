"""Between a recipe and the fields of stable-diffusion-webui's `parameters` text, in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite, nan
from typing import Any

from bottega.diffusion.names import split_old_name
from bottega.engine.automatic import NONE, likely
from bottega.engine.uses import TAG_OF_KIND, tag_name, take_tags, with_tags, written
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.formats import infotext
from bottega.recipe import KnobValue, Recipe, Ref, Sampling, Size, Use
from bottega.version import __version__


@dataclass(frozen=True)
class Setting:
    """A knob of ours and the field of A1111's that means the same; written when it differs from `default`.

    `option` is its name among A1111's options, empty where it is none of them.
    """

    knob: str
    field: str
    default: KnobValue
    option: str = ""


SETTINGS = (
    Setting("clip_skip", "Clip skip", 1, "CLIP_stop_at_last_layers"),
    Setting("ensd", "ENSD", 0, "eta_noise_seed_delta"),
    Setting("min_uncond_sigma", "NGMS", 0.0, "s_min_uncond"),
    Setting("image_guidance", "Image CFG scale", 1.5),
    Setting("mask_blur", "Mask blur", 4),
    Setting("masked_content", "Masked content", "original"),
    Setting("eta", "Eta", 1.0, "eta_ancestral"),
    Setting("eta_ddim", "Eta DDIM", 0.0, "eta_ddim"),
    Setting("s_churn", "Sigma churn", 0.0, "s_churn"),
    Setting("s_tmin", "Sigma tmin", 0.0, "s_tmin"),
    Setting("s_tmax", "Sigma tmax", 0.0, "s_tmax"),
    Setting("s_noise", "Sigma noise", 1.0, "s_noise"),
    Setting("sigma_min", "Schedule min sigma", 0.0, "sigma_min"),
    Setting("sigma_max", "Schedule max sigma", 0.0, "sigma_max"),
    Setting("rho", "Schedule rho", 0.0, "rho"),
    Setting("skip_early_guidance", "Skip Early CFG", 0.0, "skip_early_cond"),
    Setting("guidance_rescale", "CFG Rescale", 0.0),
    Setting("emphasis", "Emphasis", "Original", "emphasis"),
)
# Knobs that are on or off, and what A1111 writes when they are on.
SWITCHES = {
    "zero_snr": ("Noise Schedule", "Zero Terminal SNR"),
    "downcast_alphas": ("Downcast alphas_cumprod", "True"),
    "old_prompt_editing": ("Old prompt editing timelines", "True"),
}
# The same knobs among A1111's options, and the values that mean off and on.
SWITCH_OPTIONS: Mapping[str, tuple[str, KnobValue, KnobValue]] = {
    "zero_snr": ("sd_noise_schedule", "Default", "Zero Terminal SNR"),
    "downcast_alphas": ("use_downcasted_alpha_bar", False, True),
    "old_prompt_editing": ("use_old_scheduling", False, True),
}
# A1111's numbers for what a masked area starts from.
MASKED_CONTENT = ("fill", "original", "latent noise", "latent nothing")
# What changes an A1111 picture and can't be made here; a replay must not pretend to be one.
UNSUPPORTED = re.compile(
    r"Hires (upscale|resize-1|upscaler|checkpoint)|Refiner|Face restoration|Tiling"
    r"|Token merging ratio|ControlNet.*|ADetailer.*|AddNet.*|FreeU.*|Extra noise|(SGM n|N)oise multiplier|FP8 weight"
)
NO_HASHES: Mapping[str, str] = {}
NOT_USED = ("", "0", "False", "None", "Disable", "Automatic", "Use same checkpoint")


def text_of(recipe: Recipe, hashes: Mapping[str, str] = NO_HASHES) -> str:
    """The `parameters` text of a resolved recipe for one picture; `hashes` are adapters' short ones, by SHA-256."""
    assert recipe.model is not None and recipe.model.sha256 is not None
    return infotext.format(with_tags(recipe), recipe.negative, fields_of(recipe, recipe.model.sha256, hashes))


def fields_of(recipe: Recipe, model_sha256: str, hashes: Mapping[str, str] = NO_HASHES) -> dict[str, str]:
    """A resolved recipe for one picture as A1111's fields, in A1111's order."""
    sampling, size, knobs = recipe.sampling, recipe.size, recipe.knobs
    assert recipe.model is not None and size is not None
    fields: dict[str, Any] = {
        "Steps": sampling.steps,
        "Sampler": sampling.sampler,
        "Schedule type": sampling.schedule,
        "CFG scale": sampling.guidance,
        "Seed": sampling.seed,
        "Size": f"{size.width}x{size.height}",
        "Model hash": model_sha256[:10],
        "Model": recipe.model.name,
    }
    for use in recipe.adapters:
        if use.kind == "vae" and use.ref.sha256:
            fields |= {"VAE hash": use.ref.sha256[:10], "VAE": use.ref.name}
    if knobs.get("variation_strength"):
        fields |= {"Variation seed": knobs["variation_seed"], "Variation seed strength": knobs["variation_strength"]}
    if knobs.get("seed_resize_width") and knobs.get("seed_resize_height"):
        fields["Seed resize from"] = f"{knobs['seed_resize_width']}x{knobs['seed_resize_height']}"
    if recipe.inputs:
        fields["Denoising strength"] = sampling.strength
    for setting in SETTINGS:
        value = knobs.get(setting.knob, setting.default)
        if value != setting.default:
            fields[setting.field] = value
    if knobs.get("noise_source") != "GPU":
        fields["RNG"] = knobs.get("noise_source")
    fields |= {field: value for knob, (field, value) in SWITCHES.items() if knobs.get(knob)}
    if loras := _hashes("lora", recipe, hashes):
        fields["Lora hashes"] = loras
    own = {use.ref.sha256: use.ref.sha256[:12] for use in recipe.adapters if use.ref.sha256}
    if embeddings := _hashes("embedding", recipe, own):
        fields["TI hashes"] = embeddings
    if hypernetworks := _hashes("hypernetwork", recipe, own):
        fields["Hypernet hashes"] = hypernetworks
    fields["Version"] = f"Bottega {__version__}"
    return {name: _written(value) for name, value in fields.items() if value is not None}


def _hashes(kind: str, recipe: Recipe, hashes: Mapping[str, str]) -> str:
    """The adapters of a kind with their hashes, as far as they are known, as A1111 lists them."""
    known = {
        tag_name(use.ref.name): hashes[use.ref.sha256]
        for use in recipe.adapters
        if use.kind == kind and use.ref.sha256 is not None and use.ref.sha256 in hashes
    }
    return ", ".join(f"{name}: {digits}" for name, digits in known.items())


def _written(value: Any) -> str:
    return written(value) if isinstance(value, float) else str(value)


def draft_of(told: infotext.Infotext) -> Recipe:
    """The draft that a text of A1111's (or Civitai's) describes.

    Raises InvalidRecipe for fields that are no numbers where they should be, and for pictures that were made in a way
    that this version can't repeat.
    """
    fields = infotext.with_defaults({infotext.PROMPT: told.prompt, infotext.NEGATIVE: told.negative, **told.fields})
    used = [name for name, value in fields.items() if UNSUPPORTED.fullmatch(name) and value not in NOT_USED]
    if used:
        raise InvalidRecipe(
            [FieldProblem(name, f"{fields[name]!r} can't be repeated by this version") for name in used]
        )
    if float_or_zero(fields.get("Denoising strength", "")):
        raise InvalidRecipe(
            [
                FieldProblem(
                    "inputs",
                    "it was made from another picture, which the file does not carry",
                    "give that picture as the one to start from",
                )
            ]
        )
    read = _Reader(fields)
    prompt, asked = take_tags(fields[infotext.PROMPT])
    name = fields.get("Sampler", "Euler")
    sampler, schedule = split_old_name(name) or (name, "Automatic")
    if fields.get("Schedule type", "Automatic") != "Automatic":
        schedule = fields["Schedule type"]
    draft = Recipe(
        model=_model(told),
        prompt=prompt,
        adapters=(*(_with_hash(each.use, told.hashes) for each in asked), *_embeddings(told), *_vae(fields)),
        negative=fields[infotext.NEGATIVE],
        sampling=Sampling(
            sampler=sampler,
            schedule=schedule,
            steps=read.number("Steps", int),
            guidance=read.number("CFG scale", float),
            seed=read.number("Seed", int),
        ),
        size=read.size("Size"),
        knobs=_knobs(fields, read),
    )
    if read.problems:
        raise InvalidRecipe(read.problems)
    return draft


def _with_hash(use: Use, hashes: Mapping[str, str]) -> Use:
    """A use of an adapter by its name, and by its hash where the text says it."""
    digits = hashes.get(f"{TAG_OF_KIND[use.kind]}:{tag_name(use.ref.name)}")
    return use.model_copy(update={"ref": Ref(name=f"{use.ref.name} [{digits}]")}) if digits else use


def _embeddings(told: infotext.Infotext) -> Iterator[Use]:
    """The embeddings whose hashes a text tells, as far as their names are in its prompts."""
    by_name = {key.removeprefix("embed:"): digits for key, digits in told.hashes.items() if key.startswith("embed:")}
    for name in likely(by_name, (told.prompt, told.negative)):
        yield Use(kind="embedding", ref=Ref(name=f"{name} [{by_name[name]}]"))


def _vae(fields: Mapping[str, str]) -> Iterator[Use]:
    """The VAE that a text names, also by its hash; without one the model's own was used."""
    name, digits = fields.get("VAE", ""), fields.get("VAE hash", "")
    title = f"{name} [{digits}]" if digits else name or NONE
    yield Use(kind="vae", ref=Ref(name=title.strip()))


def _model(told: infotext.Infotext) -> Ref | None:
    """The model by A1111's title, `name [hash]`, as far as the text says it; Civitai's texts name it in their list."""
    used = (str(entry.get("modelName", "")) for entry in told.resources if entry.get("type") in ("checkpoint", "model"))
    name, short_hash = told.fields.get("Model") or next(used, ""), told.hashes.get("model")
    title = f"{name} [{short_hash}]" if short_hash else name
    return Ref(name=title.strip()) if title else None


def _knobs(fields: Mapping[str, str], read: _Reader) -> dict[str, KnobValue]:
    knobs: dict[str, KnobValue] = {}
    # A1111 draws on the GPU unless it says otherwise; NV makes the same numbers on any machine.
    knobs["noise_source"] = {"CPU": "CPU"}.get(fields.get("RNG", "GPU"), "NV")
    for setting in SETTINGS:
        if setting.field not in fields or setting.knob in ("mask_blur", "masked_content"):
            continue
        if isinstance(setting.default, str):
            knobs[setting.knob] = fields[setting.field]
        elif (number := read.number(setting.field, type(setting.default))) is not None:
            knobs[setting.knob] = max(1, number) if setting.knob == "clip_skip" else number  # 0 was 1 in old versions
    if fields.get("Variation seed strength") and (strength := read.number("Variation seed strength", float)):
        knobs |= {"variation_seed": read.number("Variation seed", int) or 0, "variation_strength": strength}
    if resize := read.size("Seed resize from"):
        knobs |= {"seed_resize_width": resize.width, "seed_resize_height": resize.height}
    for knob, (field, value) in SWITCHES.items():
        if fields.get(field) == value:
            knobs[knob] = True
    return knobs


def float_or_zero(text: str) -> float:
    """The number that a text is, or 0."""
    try:
        return float(text)
    except ValueError:
        return 0.0


class _Reader:
    """Reads numbers out of fields and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self.problems: list[FieldProblem] = []

    def number(self, name: str, kind: type) -> Any:
        if name not in self.fields:
            return None
        try:
            number = kind(self.fields[name])
        except ValueError:
            number = nan
        if isinstance(number, int) or isfinite(number):  # of a whole number that no float holds, isfinite has no answer
            return number
        self.problems.append(FieldProblem(name, f"{self.fields[name]!r} is no number"))
        return None

    def size(self, name: str) -> Size | None:
        width, height = self.number(f"{name}-1", int), self.number(f"{name}-2", int)
        return None if width is None or height is None else Size(width=width, height=height)
