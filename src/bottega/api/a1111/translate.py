"""From a request of A1111's to a draft recipe, with what it asks for and can't get said in words."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bottega.api.a1111.asked import ImageToImage, Making, TextToImage
from bottega.api.a1111.options import (
    AUTOMATIC_VAE,
    DEFAULTS,
    FIXED,
    FORMATS,
    HASH,
    KNOBS,
    MODEL,
    NOTHING,
    knob_value,
    known_options,
)
from bottega.diffusion.names import split_old_name
from bottega.engine.a1111 import MASKED_CONTENT, SETTINGS, draft_of, text_of
from bottega.engine.automatic import NONE
from bottega.engine.resolve import MIN_SIDE
from bottega.engine.uses import KIND_OF_TAG, TAG_OF_KIND, take_tags, without_unknown
from bottega.errors import FieldProblem, InvalidRecipe, UnknownModel
from bottega.formats import infotext
from bottega.formats.media import Carried
from bottega.recipe import KnobValue, Media, Recipe, Ref, Use, read_recipe, recipe_from

# The fields of a recipe under the names that A1111's clients know.
NAMES: Mapping[str, str] = {
    "negative": "negative_prompt",
    "model.name": MODEL,
    "sampling.sampler": "sampler_name",
    "sampling.schedule": "scheduler",
    "sampling.steps": "steps",
    "sampling.guidance": "cfg_scale",
    "sampling.seed": "seed",
    "sampling.strength": "denoising_strength",
    "size.width": "width",
    "size.height": "height",
    "count": "batch_size * n_iter",
    "inputs": "init_images",
    "adapters": "override_settings",
    **{f"knobs.{knob}": option for option, knob in KNOBS.items()},
    "knobs.eta": "eta",
    "knobs.variation_seed": "subseed",
    "knobs.variation_strength": "subseed_strength",
    "knobs.seed_resize_width": "seed_resize_from_w",
    "knobs.seed_resize_height": "seed_resize_from_h",
    "knobs.masked_content": "inpainting_fill",
    "knobs.image_guidance": "image_cfg_scale",
    "knobs.mask_blur": "mask_blur",
}
Find = Callable[[str, str], Ref]  # the model of a kind that a client's name means

_WHOLE_SIDE = 8  # pixels; of a side that is no multiple A1111 drops the rest
_A1111_SIDE = 512  # what A1111 takes for the side that a request leaves out
_OFF = ("false", "0", "off", "no")  # in lower case, by which clients of every language mean false
_UNSET = {setting.knob: setting.default for setting in SETTINGS}


@dataclass(frozen=True)
class Translated:
    """A draft, what the request asked for that the picture is made without, and what it calls a recipe's fields."""

    recipe: Recipe
    warnings: tuple[str, ...]
    names: Mapping[str, str]


@dataclass(frozen=True)
class Inputs:
    """The pictures of an img2img request, taken in; `init_size` in pixels."""

    init: Media
    init_size: tuple[int, int]
    mask: Media | None = None


def from_text(asked: TextToImage, options: Mapping[str, KnobValue], find: Find) -> Translated:
    """The draft that a txt2img request describes to a user with these options; `find` tells which models it names.

    Raises InvalidRecipe, its fields named as the request names them, and what `find` raises.
    """
    problems = [*_refused(asked), *_too_few(asked)]
    if asked.enable_hr:
        problems.append(FieldProblem("enable_hr", "this version makes no hires fix", "send false, and a larger size"))
    return _translated(asked, options, find, problems, [], {"task": "text-to-image"})


def from_picture(asked: ImageToImage, options: Mapping[str, KnobValue], find: Find, inputs: Inputs) -> Translated:
    """The draft that an img2img request describes; see `from_text`."""
    problems, warnings = [*_refused(asked), *_too_few(asked)], list[str]()
    if asked.initial_noise_multiplier not in (None, 1):
        problems.append(FieldProblem("initial_noise_multiplier", "this version knows no other than 1", "leave it out"))
    told: dict[str, Any] = {
        "task": "inpaint" if inputs.mask else "image-to-image",
        "inputs": [media.model_dump() for media in (inputs.init, inputs.mask) if media],
        "sampling": {"strength": asked.denoising_strength},
    }
    knobs: dict[str, Any] = {"image_guidance": asked.image_cfg_scale}
    if inputs.mask:
        knobs["mask_blur"] = _mask_blur(asked, warnings)
        if asked.inpainting_fill is not None:
            if 0 <= asked.inpainting_fill < len(MASKED_CONTENT):
                knobs["masked_content"] = MASKED_CONTENT[asked.inpainting_fill]
            else:
                problems.append(FieldProblem("inpainting_fill", f"{asked.inpainting_fill} is not between 0 and 3"))
        if asked.inpaint_full_res:
            size = _size(asked, [])
            told["size"] = size if _is_too_small(size) else _size_of_whole(inputs.init_size, size)
            warnings.append(
                "inpaint_full_res: this version repaints the masked part within the whole picture, which keeps its size"
            )
    return _translated(asked, options, find, problems, warnings, told, knobs)


def _mask_blur(asked: ImageToImage, warnings: list[str]) -> int | None:
    """The blur of a mask: A1111's clients may give one for both directions, or one for each."""
    if asked.mask_blur is not None or asked.mask_blur_x is asked.mask_blur_y is None:
        return asked.mask_blur
    usual = int(_UNSET["mask_blur"])
    blurs = [usual if blur is None else blur for blur in (asked.mask_blur_x, asked.mask_blur_y)]
    if blurs[0] != blurs[1]:
        warnings.append(f"mask_blur_x, mask_blur_y: this version blurs in both directions alike, here by {max(blurs)}")
    return max(blurs)


def _translated(
    asked: Making,
    options: Mapping[str, KnobValue],
    find: Find,
    problems: list[FieldProblem],
    warnings: list[str],
    told: dict[str, Any],
    knobs: Mapping[str, Any] | None = None,
) -> Translated:
    override = asked.override_settings or {}
    chosen: dict[str, KnobValue] = {}
    try:
        chosen = known_options(override)
    except InvalidRecipe as error:
        problems += error.problems
    if problems:
        raise InvalidRecipe(problems)
    warnings += _ignored(asked, override)
    prompt, unknown = without_unknown(asked.prompt or "")
    warnings += [f"{tag} was left out of the prompt: there are {', '.join(KIND_OF_TAG)}" for tag in unknown]
    asked = asked.model_copy(update={"prompt": prompt})
    settings = {**options, **chosen}
    base = _draft_of(asked.infotext, "inputs" in told) if asked.infotext else Recipe()
    sampling = {
        "sampler": asked.sampler_name or asked.sampler_index or None,
        "schedule": _schedule(asked.scheduler),
        "steps": asked.steps,
        "guidance": asked.cfg_scale,
        "seed": None if asked.seed == -1 else asked.seed,
        **told.get("sampling", {}),
    }
    if model := settings.get(MODEL):
        told["model"] = find("checkpoint", str(model)).model_dump()
    prompt, uses = asked.prompt or base.prompt, list(_adapters(asked, base, settings, chosen, find, warnings))
    if asked.disable_extra_networks:
        prompt, uses = take_tags(prompt)[0], [use for use in uses if use.kind not in TAG_OF_KIND]
    told["adapters"] = [use.model_dump() for use in uses]
    names = {**NAMES, **{f"adapters.{index}": "infotext" for index, use in enumerate(uses) if use in base.adapters}}
    format = FORMATS[str(settings.get("samples_format", "png"))]
    recipe = base.model_dump(mode="json", exclude_none=True)
    told = {
        **recipe,
        **told,
        # No PNG holds a NUL, and what is told of the picture is to be what is in it.
        "prompt": prompt.replace("\0", ""),
        "negative": (asked.negative_prompt or base.negative).replace("\0", ""),
        "sampling": {**recipe["sampling"], **_given(sampling)},
        "size": told.get("size") or _size(asked, warnings) or recipe.get("size"),
        "count": _count(asked),
        "output": {"format": format, "quality": settings.get("jpeg_quality", DEFAULTS["jpeg_quality"])},
        "knobs": {
            **base.knobs,
            **_option_knobs(settings, chosen, asked),
            **_seed_knobs(asked),
            **{name: value for name, value in _given(knobs or {}).items() if value != _UNSET.get(name)},
        },
    }
    return Translated(recipe_from(told), tuple(warnings), names)


def _draft_of(text: str, is_from_picture: bool) -> Recipe:
    """What a text says of a picture; with one to start from here, it does not matter that it had one as well."""
    said = infotext.parse(text)
    if is_from_picture:
        said.fields.pop("Denoising strength", None)
    return draft_of(said)


def _adapters(
    asked: Making,
    base: Recipe,
    settings: Mapping[str, KnobValue],
    chosen: Mapping[str, KnobValue],
    find: Find,
    warnings: list[str],
) -> Iterator[Use]:
    """The adapters that options choose, or that the text of another picture brings along with its prompt."""
    if not asked.prompt:
        yield from (use for use in base.adapters if use.kind != "vae" and not _is_unsaid(use, asked))
    said = {each.use.ref.name.casefold() for each in take_tags(asked.prompt or base.prompt)[1]}
    weight = float(settings.get("extra_networks_default_multiplier", 1.0))
    for option, kind in (("sd_lora", "lora"), ("sd_hypernetwork", "hypernetwork")):
        name = str(settings.get(option, ""))
        if name.casefold() not in (*NOTHING, *said):
            yield Use(kind=kind, ref=find(kind, name), weight=weight)
    vae = str(settings.get("sd_vae", ""))
    if vae.casefold() not in AUTOMATIC_VAE:
        yield Use(kind="vae", ref=Ref(name=NONE) if vae.casefold() == NONE else find("vae", vae))
    elif (module := _module(asked.override_settings or {}, find, warnings)) is not None:
        yield Use(kind="vae", ref=module)
    elif "sd_vae" not in chosen:
        yield from (use for use in base.adapters if use.kind == "vae")


def _is_unsaid(use: Use, asked: Making) -> bool:
    """Whether an embedding may be one of a negative prompt in whose place the request has another."""
    return use.kind == "embedding" and bool(asked.negative_prompt)


def _module(override: Mapping[str, Any], find: Find, warnings: list[str]) -> Ref | None:
    """The VAE among the modules that a client of Forge names: other parts of a model can't be exchanged here."""
    told = override.get("forge_additional_modules")
    found: Ref | None = None
    for name in told if isinstance(told, list) else [told] if told else []:
        try:
            found = found or find("vae", str(name))
        except UnknownModel:
            warnings.append(f"override_settings: forge_additional_modules: no VAE is called {name!r}")
    return found


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _schedule(name: str | None) -> str | None:
    """Automatic is what a request means that names none: then the sampler's name may name one."""
    return None if not name or name.casefold() in ("automatic", "none") else name


def _size(asked: Making, warnings: list[str]) -> dict[str, int] | None:
    if asked.width is None and asked.height is None:
        return None
    sides = {}
    for name, side in (("width", asked.width), ("height", asked.height)):
        side = _A1111_SIDE if side is None else side
        sides[name] = side // _WHOLE_SIDE * _WHOLE_SIDE if side > 0 else side
        if sides[name] != side:
            warnings.append(f"{name}: {side} is no multiple of {_WHOLE_SIDE}; {sides[name]} was made")
    return sides


def _is_too_small(size: dict[str, int] | None) -> bool:
    """Whether a size is one that the engine refuses, in the words that the request has for it."""
    return size is not None and min(size.values()) < MIN_SIDE


def _size_of_whole(picture: tuple[int, int], asked: dict[str, int] | None) -> dict[str, int]:
    """The picture's own size, or where it has more pixels than were asked for, its shape with so many.

    It is larger where its shorter side would be less than a model makes.
    """
    width, height = picture
    most = min(asked["width"] * asked["height"], width * height) if asked else width * height
    scale = max((most / (width * height)) ** 0.5, MIN_SIDE / min(picture))
    sides = (round(side * scale / _WHOLE_SIDE) * _WHOLE_SIDE for side in picture)
    return dict(zip(("width", "height"), sides, strict=True))


def _count(asked: Making) -> int:
    batches = (asked.batch_size, asked.n_iter)
    size, count = (1 if number is None else number for number in batches)
    return size * count


def _too_few(asked: Making) -> Iterator[FieldProblem]:
    for field, number in (("batch_size", asked.batch_size), ("n_iter", asked.n_iter)):
        if number is not None and number < 1:
            yield FieldProblem(field, f"{number} is less than 1")


def _option_knobs(
    settings: Mapping[str, KnobValue], chosen: Mapping[str, KnobValue], asked: Making
) -> dict[str, KnobValue]:
    """The knobs that options and the request's own fields set.

    What is as A1111 has it to begin with is left to the model, which may have no such knob; only what the request
    overrides is said in any case.
    """
    sampler = split_old_name(asked.sampler_name or asked.sampler_index or "")
    eta = "eta_ddim" if sampler and sampler[0].startswith("DDIM") else "eta_ancestral"
    own = {
        eta: asked.eta,
        "s_min_uncond": asked.s_min_uncond,
        "s_churn": asked.s_churn,
        "s_tmin": asked.s_tmin,
        "s_tmax": asked.s_tmax,
        "s_noise": asked.s_noise,
    }
    values = {**{name: value for name, value in settings.items() if name in KNOBS}, **_given(own)}
    return {
        KNOBS[option]: knob_value(option, value)
        for option, value in values.items()
        if option in chosen or value != DEFAULTS[option]
    }


def _seed_knobs(asked: Making) -> dict[str, KnobValue]:
    knobs: dict[str, KnobValue] = {}
    if asked.subseed_strength:
        subseed = secrets.randbelow(2**32) if asked.subseed in (None, -1) else asked.subseed
        knobs |= {"variation_seed": subseed or 0, "variation_strength": asked.subseed_strength}
    width, height = asked.seed_resize_from_w or 0, asked.seed_resize_from_h or 0
    if width > 0 and height > 0:
        knobs |= {"seed_resize_width": width, "seed_resize_height": height}
    return knobs


def _refused(asked: Making) -> Iterator[FieldProblem]:
    """What would make quite another picture, and can't be had."""
    if asked.tiling:
        yield FieldProblem("tiling", "this version makes no tiles", "send false")
    if asked.refiner_checkpoint and asked.refiner_checkpoint != "None":
        yield FieldProblem("refiner_checkpoint", "this version goes through no refiner", "leave it out")
    if asked.script_name and asked.script_name != "None":
        yield FieldProblem("script_name", f"no script is called {asked.script_name!r}", "leave it out")
    units = [unit for name, args in _scripts(asked) if name.casefold() == "controlnet" for unit in args]
    if any(map(_is_used, [*units, *(asked.controlnet_units or ())])):
        yield FieldProblem("alwayson_scripts.ControlNet", "this version has no ControlNet", "send no unit of it")


def _ignored(asked: Making, override: Mapping[str, Any]) -> Iterator[str]:
    """What the picture is made without, though it was asked for."""
    if asked.restore_faces:
        yield "restore_faces: this version restores no faces"
    for style in asked.styles or ():
        yield f"styles: no style is called {style!r}"
    for name, args in _scripts(asked):
        # Where the first argument is a switch, it is that of all.
        if name.casefold() != "controlnet" and args[:1] != [False] and any(map(_is_used, args)):
            yield f"alwayson_scripts: there is no {name} here; the picture was made without it"
    if unknown := sorted(set(override) - {MODEL, HASH, "forge_additional_modules"} - set(DEFAULTS) - set(FIXED)):
        yield f"override_settings: {', '.join(unknown)}: no such option"


def _scripts(asked: Making) -> Iterator[tuple[str, list[Any]]]:
    for name, told in (asked.alwayson_scripts or {}).items():
        args = told.get("args") if isinstance(told, dict) else None
        yield name, args if isinstance(args, list) else [args] if args else []


def _is_used(arg: Any) -> bool:
    """Whether an argument of a script asks for anything: a switch that is on, or a unit that is not off."""
    if isinstance(arg, dict):
        return bool(arg) and not any(str(arg.get(name, True)).lower() in _OFF for name in ("enabled", "enable"))
    return arg is True


def parameters_of(carried: Carried) -> str:
    """The `parameters` text that a picture carries, or what its recipe of ours says in that form; else empty."""
    if carried.parameters is not None or carried.recipe is None:
        return carried.parameters or ""
    return text_of(read_recipe(carried.recipe))
