"""Between a recipe and the fields of stable-diffusion-webui's `parameters` text, in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bottega.diffusion.names import split_old_name
from bottega.errors import FieldProblem, InvalidRecipe
from bottega.recipe import KnobValue, Recipe, Ref, Sampling, Size
from bottega.version import __version__


@dataclass(frozen=True)
class Setting:
    """A knob of ours and the field of A1111's that means the same; written when it differs from `default`."""

    knob: str
    field: str
    default: KnobValue


SETTINGS = (
    Setting("clip_skip", "Clip skip", 1),
    Setting("ensd", "ENSD", 0),
    Setting("min_uncond_sigma", "NGMS", 0.0),
    Setting("image_guidance", "Image CFG scale", 1.5),
    Setting("mask_blur", "Mask blur", 4),
    Setting("masked_content", "Masked content", "original"),
    Setting("eta", "Eta", 1.0),
    Setting("eta_ddim", "Eta DDIM", 0.0),
    Setting("s_churn", "Sigma churn", 0.0),
    Setting("s_tmin", "Sigma tmin", 0.0),
    Setting("s_tmax", "Sigma tmax", 0.0),
    Setting("s_noise", "Sigma noise", 1.0),
    Setting("sigma_min", "Schedule min sigma", 0.0),
    Setting("sigma_max", "Schedule max sigma", 0.0),
    Setting("rho", "Schedule rho", 0.0),
    Setting("skip_early_guidance", "Skip Early CFG", 0.0),
    Setting("guidance_rescale", "CFG Rescale", 0.0),
    Setting("emphasis", "Emphasis", "Original"),
)
# What changes an A1111 picture and can't be made here; a replay must not pretend to be one.
UNSUPPORTED = (
    "Hires upscale",
    "Hires resize-1",
    "Refiner",
    "Face restoration",
    "Tiling",
    "Hypernet",
    "Token merging ratio",
)


def fields_of(recipe: Recipe, model_sha256: str) -> dict[str, str]:
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
    if knobs.get("zero_snr"):
        fields["Noise Schedule"] = "Zero Terminal SNR"
    fields["Version"] = f"Bottega {__version__}"
    return {name: _written(value) for name, value in fields.items() if value is not None}


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def draft_of(prompt: str, negative: str, fields: Mapping[str, str]) -> Recipe:
    """The draft that A1111's fields describe (split as its parser splits them, sizes as `Size-1` and `Size-2`).

    Raises InvalidRecipe for fields that are no numbers where they should be, and for pictures that were made in a way
    that this version can't repeat.
    """
    if repeated := [name for name in UNSUPPORTED if fields.get(name) not in (None, "", "False", "0", "None")]:
        raise InvalidRecipe([FieldProblem(repeated[0], "was used, which this version can't repeat")])
    if "Denoising strength" in fields:
        raise InvalidRecipe(
            [
                FieldProblem(
                    "inputs",
                    "it was made from another picture, which the file does not carry",
                    "give it with `make image --init`",
                )
            ]
        )
    read = _Reader(fields)
    name = fields.get("Sampler", "Euler")
    sampler, schedule = split_old_name(name) or (name, "Automatic")
    if fields.get("Schedule type", "Automatic") != "Automatic":
        schedule = fields["Schedule type"]
    draft = Recipe(
        model=_model(fields),
        prompt=prompt,
        negative=negative,
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


def _model(fields: Mapping[str, str]) -> Ref | None:
    name, short_hash = fields.get("Model"), fields.get("Model hash")
    if name and short_hash:
        return Ref(name=f"{name} [{short_hash}]")
    return Ref(name=name or f"[{short_hash}]") if name or short_hash else None


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
            knobs[setting.knob] = number
    if fields.get("Variation seed strength") and (strength := read.number("Variation seed strength", float)):
        knobs |= {"variation_seed": read.number("Variation seed", int) or 0, "variation_strength": strength}
    if resize := read.size("Seed resize from"):
        knobs |= {"seed_resize_width": resize.width, "seed_resize_height": resize.height}
    if fields.get("Noise Schedule") == "Zero Terminal SNR":
        knobs["zero_snr"] = True
    return knobs


class _Reader:
    """Reads numbers out of fields and collects what is wrong with them."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        self.fields = fields
        self.problems: list[FieldProblem] = []

    def number(self, name: str, kind: type) -> Any:
        if name not in self.fields:
            return None
        try:
            return kind(self.fields[name])
        except ValueError:
            self.problems.append(FieldProblem(name, f"{self.fields[name]!r} is no number"))
            return None

    def size(self, name: str) -> Size | None:
        width, height = self.number(f"{name}-1", int), self.number(f"{name}-2", int)
        return Size(width=width, height=height) if width and height else None
