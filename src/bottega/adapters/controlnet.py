"""ControlNets and what else guides a model by a picture's edges, depth or pose, for UNets and for transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from bottega.adapters._fits import (
    FAMILY_OF_CONTEXT,
    PART,
    WRAPPED_CONTROL,
    Fit,
    context_of,
    has_base_model,
    lone_part,
    settle,
)
from bottega.formats.header import Header, View
from bottega.spec import Adapter, Match

_POOLED = 2816  # what SD XL is told beside the text: the second encoder's answer, and six sizes


@dataclass(frozen=True)
class _Found:
    variant: str
    why: str
    fit: Fit
    hint: int | None = None  # channels of the picture that guides
    more: tuple[tuple[str, Any], ...] = ()


def recognise(header: Header) -> Match | None:
    """The match of a network that guides another and holds none that it guides."""
    first = next(iter(header.tensors), "")
    if first.startswith("lllite_"):
        return _answer(_lllite(header))
    for prefix in (lone_part(header), "control_model.", "module.", WRAPPED_CONTROL):
        if header.tensors.keys().isdisjoint(_signs(prefix)):
            continue
        view = header.under(prefix)
        for signs, read in _LAYOUTS:
            if any(sign in view for sign in signs):
                found = None if has_base_model(header) else read(view)
                return _answer(found) if found is not None else None
    return None


def _answer(found: _Found | None) -> Match | None:
    if found is None:
        return None
    dimensions = dict(found.more)
    if found.hint is not None:
        dimensions["hint_channels"] = found.hint
    return Match(
        variant=found.variant,
        dimensions=dimensions,
        because=(found.why, *found.fit.because),
        guess=found.fit.guess,
        kind="controlnet",
        category=PART,
        family=found.fit.family,
        requires=found.fit.requires,
    )


# --- for UNets -------------------------------------------------------------------------------------------------------


def _by_context(view: View, width: int | None, pooled: int | None) -> Fit:
    """The family of the UNet that is guided. Not from the middle's width: SD 1 and SD XL have the same."""
    metadata = view.header.metadata
    if width is not None:
        family = FAMILY_OF_CONTEXT.get(width)
        return settle([family] if family else [], f"its cross-attention hears text of width {width}", metadata)
    if pooled == _POOLED:
        return settle(["sdxl"], "it has no attention, and is told sizes as SD XL is", metadata)
    return settle([], "neither attention nor sizes tell what it guides", metadata)


def _original(view: View) -> _Found:
    """ControlNet's own names; some are published as differences from the UNet that they were trained on."""
    difference = "difference" in view or "difference" in view.header.tensors
    fit = _by_context(view, context_of(view), view.size("label_emb.0.0.weight", -1))
    why = "a copy of half a UNet with a convolution after each block"
    if difference:
        why += ", kept as the difference from the UNet it was made of"
    hint = view.size("input_hint_block.0.weight", 1)
    return _Found("difference" if difference else "plain", why, fit, hint, (("naming", "original"),))


def _control_lora(view: View) -> _Found:
    fit = _by_context(view, context_of(view, "down") or context_of(view), view.size("label_emb.0.0.down", -1))
    hint = view.size("input_hint_block.0.weight", 1)
    return _Found("control-lora", "low-rank changes to half a UNet: Control-LoRA", fit, hint)


def _diffusers(view: View) -> _Found:
    """diffusers' names: plain, union (one network for many sorts of hints), SparseCtrl and ControlNet-XS."""
    fit = _by_context(view, context_of(view), view.size("add_embedding.linear_1.weight", -1))
    hint = view.size("controlnet_cond_embedding.conv_in.weight", 1)
    if any(sign in view for sign in _SPARSE):
        return _sparse(view)
    if "control_to_base_for_conv_in.weight" in view:
        return _Found("xs", "a small network beside a UNet: ControlNet-XS", fit, hint)
    if "task_embedding" in view:
        kinds = view.size("task_embedding", 0)
        if not fit.family:
            fit = Fit("sdxl", (*fit.because, "all that are published are for SD XL"), guess=True)
        return _Found("union", f"one network for {kinds} sorts of hints: union", fit, hint, (("hints", kinds),))
    return _Found("plain", "half a UNet that hears a picture", fit, hint, (("naming", "diffusers"),))


_MOTION = "down_blocks.0.motion_modules.0."
_SPARSE = (
    f"{_MOTION}temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q.weight",
    f"{_MOTION}temporal_transformer.transformer_blocks.0.attention_blocks.0.pos_encoder.pe",
    f"{_MOTION}transformer_blocks.0.attn1.to_q.weight",
    "controlnet_cond_embedding.weight",  # one convolution over a frame's latents, where others encode a picture
)


def _sparse(view: View) -> _Found:
    """SparseCtrl guides single frames of AnimateDiff; it is a ControlNet with motion modules."""
    scribble = "controlnet_cond_embedding.conv_in.weight" in view
    first = "controlnet_cond_embedding.conv_in.weight" if scribble else "controlnet_cond_embedding.weight"
    variant = "sparsectrl-scribble" if scribble else "sparsectrl-rgb"
    fit = _by_context(view, context_of(view), None)
    if not fit.family:
        fit = settle(["sd1"], "SparseCtrl was made for AnimateDiff, which is of SD 1", view.header.metadata)
    return _Found(variant, "half a UNet with motion modules: SparseCtrl", fit, view.size(first, 1))


def _lllite(header: Header) -> _Found | None:
    """ControlNet-LLLite: small networks at the queries and keys of SD XL's attention, in kohya's naming."""
    if not all(name.startswith("lllite_") for name in header.tensors):
        return None
    if any(name.startswith("lllite_dit_") for name in header.tensors):
        fit = settle([], "small networks at a transformer's attention", header.metadata)
    else:
        fit = settle(["sdxl"], "LLLite is for SD XL", header.metadata)
    return _Found("lllite", "small networks at a UNet's attention, called lllite", fit)


# --- for transformers ------------------------------------------------------------------------------------------------


_QWEN = ("transformer_blocks.0.img_mlp.", "transformer_blocks.0.img_mod.")


def _blocks(view: View) -> _Found | None:
    """Some blocks of a transformer, each with a layer after it; which one is told by how a block is made."""
    metadata = view.header.metadata
    count = view.count("controlnet_blocks.{}.")
    blocks = (("control_blocks", count),)
    mistoline = "controlnet_blocks.0.linear.weight" in view
    if mistoline or any(name.startswith("double_blocks.") for name in view.names):
        variant = "mistoline" if mistoline else "xlabs"
        fit = settle(["flux"], "FLUX's double blocks", metadata)
        hint = view.size("input_hint_block.0.weight", 1)
        return _Found(variant, f"{count} layers after double blocks", fit, hint, blocks)
    if "controlnet_blocks.0.y_rms.weight" in view:
        fit = settle(["qwen-image"], "layers that take the picture and the hint: made for Qwen-Image", metadata)
        return _Found("patch", f"{count} layers and no blocks", fit, None, blocks)
    if (first := view.shape("pos_embed_input.proj.weight")) is not None:
        fit = settle(["sd3"], "an embedding of patches for the hint, as for Stable Diffusion 3", metadata)
        stability = "transformer_blocks.0.adaLN_modulation.1.bias" in view
        channels = first[1] if len(first) > 1 else None
        variant = "sd35" if stability else "inpainting" if channels == 17 else "instantx"
        return _Found(variant, f"{count} layers after joint blocks", fit, channels, blocks)
    qwen = "txt_norm.weight" in view or any(name.startswith(_QWEN) for name in view.names)
    if qwen or "controlnet_x_embedder.weight" in view:
        packed = view.size("controlnet_x_embedder.weight", 1)
        fit = settle(["qwen-image" if qwen else "flux"], f"blocks of {'Qwen-Image' if qwen else 'FLUX'}", metadata)
        modes = view.size("controlnet_mode_embedder.weight", 0)
        more = (*blocks, ("hints", modes)) if modes else blocks
        return _Found("union" if modes else "instantx", f"{count} layers after double blocks", fit, packed, more)
    if "caption_norm.weight" in view and "input_block.weight" in view:
        fit = settle(["sana"], "Sana's blocks", metadata)
        return _Found("sana", f"{count} layers after Sana's blocks", fit, None, blocks)
    if "blocks.0.attn1.to_q.weight" in view:
        fit = settle(["hunyuan-dit"], "HunyuanDiT's blocks in diffusers' names", metadata)
        return _Found("diffusers", f"{count} layers after blocks", fit, None, blocks)
    return None


def _hunyuan(view: View) -> _Found:
    fit = settle(["hunyuan-dit"], "HunyuanDiT's blocks", view.header.metadata)
    return _Found("original", "a layer after each of 19 blocks: HunyuanDiT's ControlNet", fit)


def _cosmos(view: View) -> _Found | None:
    if not any(name.startswith("control_blocks.0.") for name in view.names):
        return None
    fit = settle(["cosmos"], "Cosmos' blocks in diffusers' names", view.header.metadata)
    blocks = view.count("control_blocks.{}.")
    hint = view.size("patch_embed.proj.weight", -1)
    return _Found("cosmos", f"{blocks} blocks beside Cosmos' own", fit, hint, (("control_blocks", blocks),))


def _z_image(view: View) -> _Found:
    fit = settle(["z-image"], "Z-Image's layers", view.header.metadata)
    layers = view.count("control_layers.{}.")
    return _Found("union", f"{layers} control layers", fit, None, (("control_blocks", layers),))


def _cascade(view: View) -> _Found | None:
    if "projections" not in view.header.roots:
        return None
    fit = settle(["stable-cascade"], "an EfficientNet with projections, as for Stable Cascade", view.header.metadata)
    first = view.size("backbone.0.0.weight", 1) or view.size("backbone.0.weight", 1)
    return _Found("cascade", "a backbone for pictures whose features are projected", fit, first)


# The names that tell a layout, the first that is there; SparseCtrl is told from ControlNet by its reader.
_LAYOUTS: tuple[tuple[tuple[str, ...], Callable[[View], _Found | None]], ...] = (
    (("lora_controlnet",), _control_lora),
    (("zero_convs.0.0.weight",), _original),
    (
        (
            "controlnet_cond_embedding.conv_in.weight",
            "controlnet_cond_embedding.weight",
            "control_to_base_for_conv_in.weight",
            "control_add_embedding.linear_1.weight",
            "control_add_embedding.linear_1.bias",
            "controlnet_down_blocks.0.weight",
            "controlnet_mid_block.weight",
            "controlnet_mid_block.bias",
        ),
        _diffusers,
    ),
    (("controlnet_blocks.0.weight", "controlnet_blocks.0.linear.weight", "controlnet_blocks.0.y_rms.weight"), _blocks),
    (("after_proj_list.18.bias", "after_proj_list.0.weight"), _hunyuan),
    (("patch_embed_base.proj.weight",), _cosmos),
    (("control_all_x_embedder.2-1.weight", "control_layers.14.adaLN_modulation.0.weight"), _z_image),
    (("backbone.0.0.weight", "backbone.10.blocks.0.weight"), _cascade),
    (("input_hint_block.0.weight",), _original),  # some for transformers have it too, and their own names above
)


@lru_cache(maxsize=64)
def _signs(prefix: str) -> frozenset[str]:
    """All names that tell a layout, in full: most files have none, and are asked once for all."""
    return frozenset(prefix + sign for signs, _ in _LAYOUTS for sign in signs)


adapter = Adapter("controlnet", "ControlNets", recognise)
