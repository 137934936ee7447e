"""UNets of Stable Diffusion's design of which blocks are missing: the width of what they hear tells the family."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import pstdev

from bottega.families._stable_diffusion.recognise import read_small
from bottega.formats.header import Header
from bottega.formats.layout import Layout, once_a_layout
from bottega.spec import Match

MISSING = "some of its tensors are missing, so it can't be run"
_BLOCK = r"(?:input_blocks|middle_block|output_blocks|down_blocks|mid_block|up_blocks)\."
_HEARS = re.compile(rf"(?P<prefix>(?:[a-z_]+\.){{0,3}}?){_BLOCK}[\w.]*attn2\.to_k\.weight")
_PREFIXES = (
    "model.diffusion_model.", "", "diffusion_model.", "unet.", "model.model.", "net.", "model.", "module.",
    "_orig_mod.", "module.model.diffusion_model.",
)  # fmt: skip
_IN, _IN_DIFFUSERS = "input_blocks.0.0.weight", "conv_in.weight"

# First words, and words anywhere, of what looks like such a UNet and is none: adapters, and what they are merged into.
_ADAPTERS = frozenset({
    "control_model", "ip_adapter", "image_proj", "adapter", "lora_controlnet", "zero_convs", "input_hint_block",
    "controlnet_cond_embedding",
})  # fmt: skip
_STRANGE_WORDS = (
    "motion_modules", "temporal_transformer", "temp_convs", "lora_", "encoder_hid_proj", "position_net", "zero_convs",
    "to_k_ip", "temopral_conv", "temporal_conv", "init_attn", "fps_embedding", "camera_embed", "hint_model",
)  # fmt: skip
_FAMILY_OF_CONTEXT = {768: "sd1", 1024: "sd2", 2048: "sdxl", 1280: "sdxl"}
_OF_CHANNELS = {4: "base", 9: "inpainting", 8: "instruct-pix2pix", 12: "ic-light"}
_COMPANIONS = {
    "first_stage_model": ("vae", "first_stage_model."),
    "vae": ("vae", "vae."),
    "cond_stage_model": ("text_encoder", "cond_stage_model."),
    "conditioner": ("text_encoder", "conditioner."),
}


@dataclass(frozen=True)
class _Seen:
    """What is left of a UNet: its prefix, and the sizes that can still be read."""

    prefix: str
    context: int | None
    channels: int | None
    width: int | None
    adm: int | None
    rank: int | None  # of the projections around attention: 4 in Stable Diffusion 1, 2 in its successors


@dataclass(frozen=True)
class _Told:
    family: str
    variant: str
    why: str
    guess: bool = True


def recognise_unet(header: Header) -> Match | None:
    """The match of what is left of a checkpoint or a UNet, or None if nothing decides what it was."""
    if not _ADAPTERS.isdisjoint(header.roots) or _has_strange_words(header.layout):
        return None
    seen = _seen(header.layout)
    told = _special(header, seen) or _plain(header, seen)
    if told is None:
        return None
    parts = dict(_COMPANIONS[root] for root in _COMPANIONS if root in header.roots)
    if seen:
        parts = {"unet": seen.prefix} | parts
    kind = "diffusion_model" if seen and len(parts) == 1 else "checkpoint"
    because = [told.why, MISSING]
    if kind == "diffusion_model" and seen and told.variant == "instruct-pix2pix":
        because.append("8 input channels can be IC-Light's too")
    dimensions: dict[str, object] = {}
    if seen:
        sizes = {"width": seen.width, "in_channels": seen.channels, "context": seen.context}
        dimensions = {name: size for name, size in sizes.items() if size is not None}
    return Match(told.variant, dimensions, parts, tuple(because), told.guess, kind, "base", told.family)


@once_a_layout
def _has_strange_words(layout: Layout) -> bool:
    names = "\n".join(layout.rows)
    return any(word in names for word in _STRANGE_WORDS)


@once_a_layout
def _seen(layout: Layout) -> _Seen | None:
    prefix = next((each for each in _PREFIXES if _begins(layout, each)), None)
    context, heard = None, None
    if "to_k.weight" in layout.endings:
        for name in layout.rows:
            match = _HEARS.fullmatch(name) if name.endswith("attn2.to_k.weight") else None
            if match and match["prefix"] in _PREFIXES and prefix in (None, match["prefix"]):
                prefix, heard = match["prefix"], name
                break
    if prefix is None:
        return None
    view = layout.under(prefix)
    if heard:
        context = view.size(heard[len(prefix) :], 1)
    incoming = _IN if _IN in view else _IN_DIFFUSERS
    projected = next(
        (shape for at in ("input_blocks.1.1", "input_blocks.2.1", "input_blocks.4.1", "middle_block.1")
         if (shape := view.shape(f"{at}.proj_in.weight")) is not None),
        None,
    )  # fmt: skip
    adm = view.size("label_emb.0.0.weight", 1) or view.size("add_embedding.linear_1.weight", 1)
    return _Seen(
        prefix,
        context,
        view.size(incoming, 1),
        view.size(incoming, 0),
        adm,
        len(projected) if projected is not None else None,
    )


_BEGINNINGS = (
    _IN, "input_blocks.1.0.in_layers.2.weight", "label_emb.0.0.weight", "out.2.weight",
    "input_blocks.2.1.proj_in.weight", "input_blocks.1.1.proj_in.weight", "input_blocks.4.1.proj_in.weight",
    "input_blocks.10.0.skip_connection.bias", "input_blocks.1.1.time_stack.0.attn1.to_q.weight",
    "input_blocks.2.1.time_stack.0.attn1.to_q.weight", "middle_block.1.proj_in.weight",
)  # fmt: skip


def _begins(layout: Layout, prefix: str) -> bool:
    return any(prefix + name in layout.rows for name in _BEGINNINGS)


def _special(header: Header, seen: _Seen | None) -> _Told | None:
    """The relatives, by what lies beside the UNet or by what comes in."""
    tensors, roots = header.tensors, header.roots
    channels = seen.channels if seen else None
    if "cc_projection" in roots:
        return _Told("zero123", "base", "a projection of the camera: Zero123")
    if "cond_stage_model.roberta.embeddings.word_embeddings.weight" in tensors:
        return _Told("altdiffusion", "base", "it hears XLM-RoBERTa: AltDiffusion")
    if {"edm_mean", "edm_std"} <= roots:
        return _Told("sdxl", "playground-2.5", "latents normalised by edm_mean and edm_std: Playground 2.5")
    if "edm_vpred" in roots:
        return _Told("sdxl", "cosxl-edit" if channels == 8 else "cosxl", "EDM's v-prediction: CosXL")
    if "embedder.model.ln_final.weight" in tensors or "noise_augmentor" in roots or (seen and seen.adm in (1536, 2048)):
        width = header.under("embedder.model.").size("ln_final.weight", 0)
        variant = "unclip-l" if width == 768 or (seen and seen.adm == 1536) else "unclip-h"
        return _Told("sd2", variant, "it hears what CLIP sees too: unCLIP")
    if seen is None:
        return None
    view = header.under(seen.prefix)
    if any(f"input_blocks.{block}.1.time_stack.0.attn1.to_q.weight" in view for block in (1, 2, 4, 5)):
        variant = {256: "sv3d-u", 1280: "sv3d-p"}.get(seen.adm or 0, "base")
        return _Told("svd", variant, "attention over time: Stable Video Diffusion")
    if (channels == 5 and seen.context in (None, 1024)) or "depth_model" in roots:
        return _Told("sd2", "depth2img", "5 input channels or a model of depth: it keeps depth")
    if channels == 7 or (seen.width in (None, 256) and "input_blocks.10.0.skip_connection.bias" in view):
        return _Told("sd-x4-upscaler", "base", "7 input channels, or a fourth level twice as wide: the x4 upscaler")
    if "cond_stage_model.model.visual.conv1.weight" in tensors:
        return _Told("sd1", "image-variations", "it hears a picture through CLIP")
    return None


def _plain(header: Header, seen: _Seen | None) -> _Told | None:
    """Stable Diffusion 1, 2 or XL, by the first thing that says which."""
    found = next(_families(header, seen), None)
    if found is None:
        return None
    family, why, refiner = found
    variant = "refiner" if refiner else _OF_CHANNELS.get((seen.channels if seen else None) or 4, "")
    if not variant:
        return None
    if variant == "base" and _predicts_v(header, family, seen):
        variant = "v-prediction"
    return _Told(family, variant, why)


def _families(header: Header, seen: _Seen | None) -> Iterator[tuple[str, str, bool]]:
    """What is said of the family, the surest first: its id, the words for it, and whether it is the refiner."""
    if seen and seen.context in _FAMILY_OF_CONTEXT:
        family = _FAMILY_OF_CONTEXT[seen.context]
        yield family, f"what is left of a UNet hears {seen.context} numbers a token", seen.context == 1280
    if seen and seen.adm in (2816, 2560):
        yield "sdxl", f"added conditions of {seen.adm}", seen.adm == 2560
    yield from _by_encoders(header)
    if seen and seen.width == 384:
        yield "sdxl", "384 channels: the refiner", True
    if seen and seen.rank == 4:
        yield "sd1", "convolutions around attention", False
    if seen and seen.prefix == "model.diffusion_model.":
        if "v_pred" in header.tensors:
            yield "sdxl", "a tensor named v_pred, which checkpoints of Stable Diffusion XL have", False
        yield "", "a UNet in LDM's names; nothing left of it says of which family", False


def _by_encoders(header: Header) -> Iterator[tuple[str, str, bool]]:
    size: Mapping[str, int | None] = {
        place: header.under(place).size("ln_final.weight", 0)
        for place in ("conditioner.embedders.0.model.", "conditioner.embedders.1.model.")
    }
    if any(f"conditioner.embedders.1.model.{name}" in header.tensors for name in _OPENCLIP_SIGNS):
        yield "sdxl", "a second text encoder of OpenCLIP's", False
    if (width := size["conditioner.embedders.0.model."]) is not None:
        alone = "a text encoder of OpenCLIP's alone"
        yield ("sd2", f"{alone}, of width 1024", False) if width == 1024 else ("sdxl", f"{alone}: the refiner", True)
    if any(f"cond_stage_model.model.{name}" in header.tensors for name in _OPENCLIP_SIGNS):
        yield "sd2", "a text encoder of OpenCLIP's", False
    has_others = not header.roots <= {"cond_stage_model"}
    if has_others and any(f"cond_stage_model.transformer.{name}" in header.tensors for name in _CLIP_SIGNS):
        yield "sd1", "one text encoder under transformers' names", False


_OPENCLIP_SIGNS = (
    "ln_final.weight", "transformer.resblocks.0.attn.in_proj_weight", "transformer.resblocks.9.mlp.c_proj.bias",
    "token_embedding.weight",
)  # fmt: skip
_CLIP_SIGNS = tuple(
    f"{inner}{name}"
    for inner in ("text_model.", "")
    for name in (
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        "final_layer_norm.weight",
        "encoder.layers.0.self_attn.q_proj.weight",
        "encoder.layers.0.mlp.fc1.weight",
        "encoder.layers.0.layer_norm1.weight",
        "embeddings.position_ids",
    )
)  # fmt: skip


def _predicts_v(header: Header, family: str, seen: _Seen | None) -> bool:
    if not {"v_pred", "ztsnr"}.isdisjoint(header.tensors):
        return True
    if family != "sd2" or seen is None:
        return False
    bias = header.tensors.get(f"{seen.prefix}output_blocks.11.1.transformer_blocks.0.norm1.bias")
    values = read_small(bias) if bias else ()
    return bool(values) and pstdev(values) > 0.09
