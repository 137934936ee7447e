"""Tells Stable Diffusion 1, 2 and XL apart by the structure that a header shows, at any width."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from statistics import pstdev
from typing import Any

from bottega.errors import FormatError
from bottega.families._stable_diffusion.layout import (
    TextShape,
    UnetShape,
    VaeShape,
    configured_text,
    configured_unet,
    configured_vae,
    contradictions,
    read_text,
    read_unet,
    read_vae,
)
from bottega.formats import ldm_config
from bottega.formats.header import Header, TensorInfo
from bottega.formats.layout import Layout, once_a_layout
from bottega.formats.tensor_bytes import read_bytes
from bottega.spec import Match

BASE, INPAINTING, PIX2PIX, REFINER, V_PREDICTION = "base", "inpainting", "instruct-pix2pix", "refiner", "v-prediction"
LCM = "lcm"
VARIANT_OF_CHANNELS = {4: BASE, 9: INPAINTING, 8: PIX2PIX}
SIZES_OF_VARIANT = {REFINER: 5}  # numbers that SD XL takes beside the text; the base takes six
EPSILON, V = "epsilon", "v"


Depths = tuple[tuple[int, ...], ...]  # of the transformers, by level and residual block


@dataclass(frozen=True)
class Design:
    """What sets one of the three families apart."""

    id: str
    published: Mapping[str, tuple[int, int]]  # model channels and context of the published sizes
    scale: float  # of the latents, where no config says
    encoders: tuple[str, ...]
    activations: tuple[str, ...]
    size: int
    size_of_v: int
    fits: Callable[[UnetShape], bool]
    signs: Callable[[UnetShape], str]
    distilled: Mapping[tuple[Depths, int], tuple[str, str]] = field(default_factory=dict)
    """Variants with fewer transformers, and what they are, by the depths of the levels and of the middle."""


# Other architectures that contain, or look like, such a UNet.
_STRANGERS = frozenset({
    "cc_projection", "control_model", "depth_model", "embedder", "image_encoder", "image_normalizer",
    "low_scale_model", "noise_augmentor", "edm_mean", "edm_std", "edm_vpred", "ip_adapter",
})  # fmt: skip
_STRANGE_WORDS = (
    "motion_modules", "temporal", "temp_convs", "time_stack", "time_mix", "time_conv", "roberta", "lora_",
    "encoder_hid_proj", "position_net", "zero_convs", "class_embedding",
)  # fmt: skip
_LEFT_BY_TRAINERS = ("lora_unet_", "lora_te")  # a LoRA beside the networks changes none of them
_STRANGE_PIPELINES = re.compile(r"Depth2Img|Upscale|UnCLIP|ImageVariation|Marigold|GLIGEN|Video|Alt|Kandinsky|IF|LDM3D")

_UNET_PREFIXES = (
    "model.diffusion_model.", "unet/", "", "diffusion_model.", "unet.", "model.model.", "net.", "model.", "module.",
    "_orig_mod.",
)  # fmt: skip
_VAE_PREFIXES = ("first_stage_model.", "vae/", "vae.")
_TEXT_PREFIXES = {
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoder/"),
    "text_encoder_2": ("conditioner.embedders.1.", "text_encoder_2/"),
}
_REFINER_PREFIXES = ("conditioner.embedders.0.", "text_encoder_2/")


def recognise(header: Header, design: Design) -> Match | None:
    """The match of a header with one design, its evidence in words, or None."""
    found = _find_unet(header.layout)
    if found is None:
        return None
    prefix, unet, last_attention = found
    variant = REFINER if is_refiner(unet) else VARIANT_OF_CHANNELS.get(unet.in_channels)
    if variant is None or unet.out_channels != 4 or not design.fits(unet) or _is_strange(header):
        return None
    encoders = _find_encoders(header, design, variant)
    if encoders is None or not _is_heard(encoders, unet, design, variant):
        return None
    vae = find_vae(header)

    because = [f"a UNet of this design under {prefix or 'no prefix'!r}: {design.signs(unet)}"]
    because += _words_of_variant(variant, unet)
    because.append(_words_of_size(design, unet))
    distilled, words = design.distilled.get((unet.down, max(unet.middle, 0)), (BASE, ""))
    if unet.guidance_width is not None:
        distilled, words = LCM, "it is told how strong the guidance is: a latent consistency model"
    if variant == BASE and words:
        because.append(words)
    unet, notes = _with_config(unet, header, encoders, variant)
    because += notes
    for part, (where, text) in encoders.items():
        because.append(f"{part}: CLIP, {text.layers} layers of width {text.width}, {text.naming} names under {where!r}")
    prediction, why, guess = _prediction(header, design, variant, prefix + last_attention)
    if why:
        because.append(why)
    because += _words_of_missing(design, variant, encoders, vae)
    if variant == BASE:
        variant = V_PREDICTION if prediction == V else distilled

    dimensions: dict[str, Any] = {
        "unet": asdict(unet),
        "prediction": prediction,
        "zero_snr": _zero_snr(header),
        "scale_factor": _scale(header, design),
        "schedule": _schedule(header),
    }
    parts = {"unet": prefix}
    if vae:
        parts["vae"], dimensions["vae"] = vae[0], asdict(vae[1])
    for part, (where, text) in encoders.items():
        parts[part], dimensions[part] = where, asdict(text)
    kind = "checkpoint" if encoders or vae else "diffusion_model"
    if variant == PIX2PIX and kind == "diffusion_model":
        guess = True
        because.append("IC-Light's UNet, which takes a picture to light anew, has 8 input channels too")
    return Match(variant, dimensions, parts, tuple(because), guess, kind)


def defaults(header: Header, match: Match, design: Design) -> dict[str, Any]:
    """What a recipe for this model uses where the user says nothing."""
    prediction = match.dimensions["prediction"]
    side = design.size_of_v if prediction == V else design.size
    return {
        "sampler": "DPM++ 2M",
        "schedule": "Karras",
        "steps": 20,
        "guidance": 7.0,
        "size": _told_size(header.metadata.get("modelspec.resolution", "")) or (side, side),
        "prediction": prediction,
        "zero_snr": match.dimensions["zero_snr"],
        "clip_skip": 1,
    }


def varied(match: Match, variant: str) -> Match:
    """The match with the variant that the user says: what a model predicts can be told otherwise, no more.

    Those that paint in, follow instructions or refine are built for it.
    """
    told = {BASE: EPSILON, V_PREDICTION: V}
    if match.variant in (INPAINTING, PIX2PIX, REFINER) or variant not in told:
        return match
    return replace(match, variant=variant, dimensions={**match.dimensions, "prediction": told[variant]}, guess=False)


def needs(design: Design, match: Match) -> tuple[str, ...]:
    """The text encoders without which no picture can be made."""
    return _encoders_of(design, match.variant)


def is_refiner(unet: UnetShape) -> bool:
    """The refiner's deepest level has no attention, though its middle has: SD XL's base has both."""
    return unet.adm is not None and not any(unet.down[-1]) and unet.middle > 0


# --- parts -----------------------------------------------------------------------------------------------------------


@once_a_layout
def _find_unet(layout: Layout) -> tuple[str, UnetShape, str] | None:
    for prefix in _UNET_PREFIXES:
        read = read_unet(layout.under(prefix))
        if read is not None:
            return prefix, *read
    return None


def _is_strange(header: Header) -> bool:
    pipeline = header.configs.get("", {}).get("_class_name")
    if isinstance(pipeline, str) and _STRANGE_PIPELINES.search(pipeline):
        return True
    return not _STRANGERS.isdisjoint(header.roots) or _has_strange_words(header.layout)


@once_a_layout
def _has_strange_words(layout: Layout) -> bool:
    # One text: to look for a dozen words in it is faster than in each name.
    names = "\n".join(name for name in layout.rows if not name.startswith(_LEFT_BY_TRAINERS))
    return any(word in names for word in _STRANGE_WORDS)


def find_vae(header: Header) -> tuple[str, VaeShape] | None:
    """The autoencoder of a file, with the prefix that it is under."""
    if (found := _find_vae(header.layout)) is None:
        return None
    prefix, vae = found
    return prefix, configured_vae(vae, header.configs.get("vae", {}))


@once_a_layout
def _find_vae(layout: Layout) -> tuple[str, VaeShape] | None:
    for prefix in _VAE_PREFIXES:
        vae = read_vae(layout.under(prefix))
        if vae is not None:
            return prefix, vae
    return None


def _encoders_of(design: Design, variant: str) -> tuple[str, ...]:
    return design.encoders[-1:] if variant == REFINER else design.encoders


def _find_encoders(header: Header, design: Design, variant: str) -> dict[str, tuple[str, TextShape]] | None:
    """The text encoders by part, each with its prefix; None if there is one that is no CLIP."""
    found: dict[str, tuple[str, TextShape]] = {}
    activations = dict(zip(design.encoders, design.activations, strict=True))
    for part in _encoders_of(design, variant):
        roots = _REFINER_PREFIXES if variant == REFINER else _TEXT_PREFIXES[part]
        for root in roots:
            if not _is_there(header.layout, root):
                continue
            text = _read_encoder(header.layout, root, activations[part], penultimate=design.id == "sd2")
            if text is None:
                return None
            found[part] = text[0], configured_text(text[1], header.configs.get(part, {}))
            break
    return found


@once_a_layout
def _is_there(layout: Layout, root: str) -> bool:
    return bool(layout.under(root))


@once_a_layout
def _read_encoder(layout: Layout, root: str, activation: str, *, penultimate: bool) -> tuple[str, TextShape] | None:
    for prefix in (root + "transformer.", root + "model.", root):
        text = read_text(layout.under(prefix), activation, penultimate=penultimate)
        if text is not None:
            return prefix, text
    return None


def _is_heard(encoders: Mapping[str, tuple[str, TextShape]], unet: UnetShape, design: Design, variant: str) -> bool:
    """Whether the UNet's cross-attention is as wide as the text encoders' output, where all of them are there."""
    return (
        len(encoders) < len(_encoders_of(design, variant))
        or sum(text.width for _, text in encoders.values()) == unet.context
    )


def _with_config(
    unet: UnetShape, header: Header, encoders: Mapping[str, tuple[str, TextShape]], variant: str
) -> tuple[UnetShape, list[str]]:
    """The UNet's shape with what no shape of its own says: a folder's config, or the text encoder's width."""
    if unet.adm is not None:
        sizes = SIZES_OF_VARIANT.get(variant, 6)
        text = encoders.get("text_encoder_2")
        pooled = (text[1].projection or text[1].width) if text else None
        if pooled is not None and unet.adm > pooled and (unet.adm - pooled) % sizes == 0:
            unet = replace(unet, size_width=(unet.adm - pooled) // sizes)
        else:
            unet = replace(unet, size_width=256)
    config = header.configs.get("unet")
    if not config:
        return unet, []
    wrong = contradictions(unet, config)
    note = f"unet/config.json contradicts the tensors in {', '.join(wrong)}: the tensors count" if wrong else ""
    return configured_unet(unet, config), [note or "unet/config.json agrees with the tensors"]


# --- what shapes don't say -------------------------------------------------------------------------------------------


def _prediction(header: Header, design: Design, variant: str, last_attention: str) -> tuple[str, str, bool]:
    """What the UNet predicts, the evidence, and whether it is a guess."""
    told = header.metadata.get("modelspec.prediction_type", "").lower()
    if told:
        return (V if told.startswith("v") else EPSILON), f"metadata says that it predicts {told}", False
    if header.metadata.get("modelspec.architecture", "").endswith("-v"):
        return V, f"metadata names the architecture {header.metadata['modelspec.architecture']}", False
    scheduler = header.configs.get("scheduler", {}).get("prediction_type")
    if isinstance(scheduler, str):
        return (V if scheduler.startswith("v") else EPSILON), f"the scheduler's config says {scheduler}", False
    for key in ("v_pred", "ztsnr"):
        if key in header.tensors:
            return V, f"a tensor named {key}", False
    if design.id != "sd2" or variant != BASE:
        return EPSILON, "", False
    if (told := _told_beside(header)) in _PARAMETERIZATIONS:
        return _PARAMETERIZATIONS[told], f"the .yaml beside it says that it predicts {told}", False
    # Nothing in such a file says it; what v-prediction does to this one bias is all there is to tell the two apart.
    bias = header.tensors.get(f"{last_attention}transformer_blocks.0.norm1.bias")
    values = read_small(bias) if bias else ()
    if not values:
        return EPSILON, "nothing says what it predicts: taken for epsilon", True
    spread = pstdev(values)
    predicted = V if spread > 0.09 else EPSILON
    return predicted, f"the last block's norm1.bias spreads by {spread:.3f}, as {predicted} models do", True


_PARAMETERIZATIONS = {"eps": EPSILON, "v": V}


def _told_beside(header: Header) -> str:
    """What the config beside a single file says that it predicts, as stable-diffusion-webui's users keep it there."""
    return "" if header.format == "diffusers" else ldm_config.parameterization(ldm_config.beside(header.path))


def read_small(info: TensorInfo) -> tuple[float, ...]:
    """The numbers of one small tensor, read by its place in the file; none if they are not there or of a rare dtype."""
    if info.dtype not in ("F64", "F32", "F16", "BF16") or info.elements > 65_536:
        return ()
    try:
        data = read_bytes(info)
    except FormatError:
        return ()
    count = info.elements
    if info.dtype == "BF16":  # the upper half of a float32
        data = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, 2 * count, 2))
    code = {"F64": "d", "F16": "e"}.get(info.dtype, "f")
    return struct.unpack(f"<{count}{code}", data)


def _zero_snr(header: Header) -> bool:
    return "ztsnr" in header.tensors or header.configs.get("scheduler", {}).get("rescale_betas_zero_snr") is True


def _scale(header: Header, design: Design) -> float:
    """A folder's config, LDM's own `scale_factor` buffer, or the family's."""
    told = header.configs.get("vae", {}).get("scaling_factor")
    if isinstance(told, (int, float)):
        return float(told)
    buffer = header.tensors.get("scale_factor")
    values = read_small(buffer) if buffer and buffer.elements == 1 else ()
    return values[0] if values else design.scale


def _schedule(header: Header) -> dict[str, Any]:
    """The noise that the UNet was trained on: Stable Diffusion's own, unless a folder's config says otherwise."""
    config = header.configs.get("scheduler", {})
    own = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
    return {name: config.get(name, value) for name, value in own.items()}


def _told_size(resolution: str) -> tuple[int, int] | None:
    parts = re.fullmatch(r"(\d{2,4})(?:\s*x\s*(\d{2,4}))?", resolution.strip().lower())
    if not parts:
        return None
    width, height = int(parts[1]), int(parts[2] or parts[1])
    return (width, height) if all(64 <= side <= 2048 and side % 8 == 0 for side in (width, height)) else None


# --- words -----------------------------------------------------------------------------------------------------------


def _words_of_variant(variant: str, unet: UnetShape) -> Iterable[str]:
    if variant == INPAINTING:
        yield "9 input channels: the picture, a mask and the masked picture, so it inpaints"
    elif variant == PIX2PIX:
        yield "8 input channels: the picture and the one to edit, so it follows instructions"
    elif variant == REFINER:
        yield f"attention in the middle but not at the deepest of {len(unet.channels)} levels: the refiner"


def _words_of_size(design: Design, unet: UnetShape) -> str:
    size = unet.channels[0], unet.context
    name = next((name for name, published in design.published.items() if published == size), None)
    words = f"{size[0]} channels, context {size[1]}"
    return f"{words}: {name} at its published size" if name else f"{words}: this design at another size"


def _words_of_missing(design: Design, variant: str, encoders: Mapping[str, object], vae: object) -> Iterable[str]:
    missing = [part for part in _encoders_of(design, variant) if part not in encoders]
    missing += [] if vae else ["vae"]
    if missing:
        yield f"without {' and '.join(missing)}: bring {'it' if len(missing) == 1 else 'them'} along to make pictures"
