"""Models of which only some tensors are there, told by the few names that decide: asked last, and never sure.

Networks are cut up, merged by hand and saved in part. What nobody recognises as a whole is still told by the names
that its architecture shares with hardly any other; that it can't be run like this is said too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain

from bottega.families._known import audio, encoders, image, language, threed, unets, upscalers, video
from bottega.families._known._incomplete_unets import MISSING, recognise_unet
from bottega.families._known._signature import BASE, PREFIXES, Is, Signature, Variant
from bottega.families._known._told import has_only_words, quantisation
from bottega.formats.header import Header
from bottega.spec import Match

_MODULES = (audio, encoders, image, language, threed, unets, upscalers, video)
_WHOLE = {each.id: each for module in _MODULES for each in module.SIGNATURES}

_WRAPPED = ("module.", "_orig_mod.", "model.net.")
_TEXT_PREFIXES = (
    "", "text_encoder.", "transformer.", "model.", "module.", "cond_stage_model.transformer.",
    "cond_stage_model.model.", "clip_l.transformer.", "clip_g.transformer.", "clip_l.", "clip_g.", "t5xxl.transformer.",
    "t5xxl.", "conditioner.embedders.0.transformer.", "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.", "text_encoders.t5xxl.transformer.",
)  # fmt: skip
_LANGUAGE_PREFIXES = (
    "model.", "", "language_model.model.", "model.language_model.", "transformer.model.", "text_encoder.model.",
    "text_encoder.",
)  # fmt: skip

# ControlNets begin as the networks do that they steer.
_CONTROL = (
    "controlnet_blocks.0.weight", "controlnet_blocks.0.linear.weight", "controlnet_x_embedder.weight",
    "pos_embed_input.proj.weight", "after_proj_list.0.weight", "after_proj_list.18.bias", "input_hint_block.0.weight",
    "control_layers.0.adaLN_modulation.0.weight", "controlnet_mode_embedder.weight",
)  # fmt: skip


def _part_of(
    id: str,
    *signs: str | tuple[str, ...],
    naming: int = 0,
    absent: tuple[str, ...] = (),
    where: tuple[Is, ...] = (),
    variants: tuple[Variant, ...] = (),
    prefixes: tuple[str, ...] = (),
) -> Signature:
    """A known architecture, told by any of these signs: a name, or names that are all there.

    Whatever else there is to say of it is what its whole `naming` says.
    """
    whole = _WHOLE[id]
    full = whole.namings[naming]
    namings = tuple(
        replace(
            full,
            keys=(sign,) if isinstance(sign, str) else sign,
            absent=(*full.absent, *absent, *_CONTROL),
            beside=(),
            where=where,
            variants=variants or full.variants,
        )
        for sign in signs
    )
    return replace(
        whole,
        namings=namings,
        types=(),
        gguf=(),
        prefixes=prefixes or tuple(dict.fromkeys((*whole.prefixes, *PREFIXES, *_WRAPPED))),
        family=whole.family or whole.id,
    )


# --- transformers that paint -----------------------------------------------------------------------------------------

_FLUX_KEY = "double_blocks.0.img_attn.norm.key_norm"
_GUIDED = tuple(f"guidance_in.{layer}_layer.{leaf}" for layer in ("in", "out") for leaf in ("weight", "bias"))
_REFINER = "txt_in.individual_token_refiner.blocks.0"
_ADALN = "adaln_single.emb.timestep_embedder.linear_1"
_COSMOS_2 = "blocks.0.self_attn.q_proj.weight"

_TRANSFORMERS = (
    _part_of(
        "sd3",
        "joint_blocks.0.context_block.attn.qkv.weight",
        "joint_blocks.0.x_block.attn.qkv.weight",
    ),
    _part_of(
        "chroma",
        *(
            f"distilled_guidance_layer.{name}"
            for name in (
                "in_proj.weight", "in_proj.bias", "out_proj.weight", "norms.0.scale", "0.norms.0.scale",
                "layers.0.in_layer.weight", "norms.0.weight", "layers.0.linear_1.weight",
            )
        ),
    ),
    _part_of("hunyuan3d", "latent_in.weight"),
    _part_of("flux2", "double_stream_modulation_img.lin.weight", "single_stream_modulation.lin.weight"),
    _part_of(
        "hunyuan-image",
        f"{_REFINER}.norm1.weight",
        f"{_REFINER}.self_attn_qkv.weight",
        "double_blocks.0.img_attn_qkv.weight",
        where=(Is("img_in.proj.weight", rank=4),),
    ),
    _part_of(
        "hunyuan-video",
        f"{_REFINER}.norm1.weight",
        f"{_REFINER}.self_attn_qkv.weight",
        f"{_REFINER}.self_attn.qkv.weight",
        "double_blocks.0.img_attn_qkv.weight",
        "double_blocks.0.img_attn_q_norm.weight",
    ),
    _part_of(
        "flux",
        f"{_FLUX_KEY}.scale",
        f"{_FLUX_KEY}.weight",
        "double_blocks.0.img_attn.norm.query_norm.scale",
        "double_blocks.0.img_attn.qkv.weight",
        absent=("distilled_guidance_layer.in_proj.weight", "latent_in.weight"),
        variants=(
            *image.SIGNATURES[1].namings[0].variants[:2],
            *(Variant("dev", (Is(name),), "a guidance embedding: dev, or one like it") for name in _GUIDED),
            image.SIGNATURES[1].namings[0].variants[-1],
        ),
    ),
    _part_of(
        "pixart",
        "t_block.1.weight",
        (f"{_ADALN}.weight", "pos_embed.proj.weight"),
        (f"{_ADALN}.bias", "pos_embed.proj.weight"),
        absent=(
            "attention_y_norm.weight",
            "blocks.0.mlp.depth_conv.conv.weight",
            "blocks.0.mlp.inverted_conv.conv.weight",
            "spatial_blocks.0.attn.qkv.weight",
        ),
    ),
    _part_of("z-image", "layers.0.adaLN_modulation.0.weight"),
    _part_of(
        "lumina2",
        "cap_embedder.1.weight",
        absent=("layers.0.adaLN_modulation.0.weight", "layers.0.attention.wq.weight"),
    ),
    _part_of("wan", "head.modulation"),
    _part_of("qwen-image", "txt_norm.weight", "transformer_blocks.0.img_mod.1.weight"),
    _part_of(
        "ltx",
        f"{_ADALN}.bias",
        f"{_ADALN}.weight",
        absent=("pos_embed.proj.weight", "proj_in.weight", "blocks.0.attn1.to_q.weight"),
    ),
    _part_of("hidream", "caption_projection.0.linear.weight"),
    _part_of("stable-cascade", "clip_txt_mapper.weight"),
    _part_of("stable-cascade", ("clf.1.weight", "clip_mapper.weight"), ("clf.1.weight", "effnet_mapper.0.weight"),
             naming=1),
    _part_of("auraflow", "double_layers.0.attn.w1q.weight"),
    _part_of("mochi", "t5_yproj.weight"),
    _part_of("cosmos", "blocks.block0.blocks.0.block.attn.to_q.0.weight"),
    _part_of("cosmos", "x_embedder.proj.1.weight", (_COSMOS_2, "blocks.0.mlp.layer1.weight"), naming=1),
    _part_of("ace-step", "genre_embedder.weight"),
    _part_of(
        "stable-audio",
        "transformer.rotary_pos_emb.inv_freq",
        absent=("transformer.encoder.layers.0.self_attention.query_key_value.weight",),
    ),
)  # fmt: skip


# --- text encoders ---------------------------------------------------------------------------------------------------

_EYES = (
    "vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.class_embedding", "visual.conv1.weight",
    "visual_projection.weight", "visual_projection_2.weight",
)  # fmt: skip
_WIDTHS = {768: "L", 1024: "H", 1280: "G"}


def _clips(layers: str, layer: str) -> tuple[Variant, ...]:
    """CLIP's text encoders by their depth (32 layers, 24, 12), or by their width where one layer is all there is."""
    weight = f"{layers}.0.{layer}"
    by_width = (Variant(name, (Is(weight, -1, (width,)),), f"width {width}: CLIP-{name}") for width, name in
                _WIDTHS.items())  # fmt: skip
    return (
        Variant("G", (Is(f"{layers}.30.{layer}"),), "a 31st layer: CLIP-G"),
        Variant("H", (Is(f"{layers}.22.{layer}"),), "a 23rd layer: CLIP-H"),
        *by_width,
        Variant("base", (), "CLIP at another width"),
    )


def _clip(naming: int, layers: str, *weights: str, also: tuple[str, ...] = ()) -> Iterator[Signature]:
    for weight in weights:
        signs = (*(f"{layers}.{index}.{weight}" for index in (0, 22, 30)), *also)
        yield _part_of(
            "clip-text",
            *signs,
            naming=naming,
            absent=_EYES,
            variants=_clips(layers, weight),
            prefixes=_TEXT_PREFIXES,
        )


_T5_QUERY, _T5_GATE = "layer.0.SelfAttention.{}.weight", "layer.1.DenseReluDense.{}.weight"
_T5_SIGNS = tuple(
    f"encoder.block.{block}.{name}"
    for block in (0, 23)
    for name in (*map(_T5_QUERY.format, "qkv"), *map(_T5_GATE.format, ("wi_1", "wi_0", "wi")))
)
_T5_GATED = tuple(f"encoder.block.{block}.{_T5_GATE.format('wi_1')}" for block in (0, 23))


def _t5(sign: str) -> Signature:
    """T5 by one of its names, the last axis of which is as wide as the model."""
    found = _part_of(
        "t5",
        sign,
        absent=tuple(f"decoder.block.0.{_T5_QUERY.format(letter)}" for letter in "qkv"),
        variants=(
            *_WHOLE["t5"].namings[0].variants[:3],
            *(Variant("v1.1", (Is(name),), "gated layers: v1.1 or FLAN") for name in _T5_GATED),
            *_WHOLE["t5"].namings[0].variants[4:],
        ),
        prefixes=_TEXT_PREFIXES,
    )
    (naming,) = found.namings
    sizes = {**naming.sizes, "width": (sign, -1)}
    return replace(found, namings=(replace(naming, sizes=sizes),))


_ENCODERS = (
    *_clip(0, "text_model.encoder.layers", "mlp.fc1.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight"),
    *_clip(1, "encoder.layers", "mlp.fc1.weight", also=("embeddings.token_embedding.weight",)),
    *_clip(2, "transformer.resblocks", "attn.in_proj_weight", "mlp.c_fc.weight"),
    *map(_t5, _T5_SIGNS),
)


# --- language models by their first layer ----------------------------------------------------------------------------

_LAYER = "layers.0."
_KEY_NORM, _QUERY_NORM = f"{_LAYER}self_attn.k_norm.weight", f"{_LAYER}self_attn.q_norm.weight"
_AFTER_MLP, _BEFORE_MLP = f"{_LAYER}post_feedforward_layernorm.weight", f"{_LAYER}pre_feedforward_layernorm.weight"
_ROUTERS = (
    f"{_LAYER}mlp.gate.weight", f"{_LAYER}block_sparse_moe.gate.weight", f"{_LAYER}mlp.experts.0.gate_proj.weight",
    f"{_LAYER}input_layernorm.bias",
)  # fmt: skip


def _decoder(id: str, *signs: str | tuple[str, ...]) -> Signature:
    """A decoder whose naming is told from the end of `model.`, wherever that lies."""
    found = _part_of(id, *signs, absent=_ROUTERS, prefixes=_LANGUAGE_PREFIXES, variants=(Variant("base"),))
    sizes = {
        "width": (f"{_LAYER}input_layernorm.weight", 0),
        "vocabulary": ("embed_tokens.weight", 0),
        "inner": (f"{_LAYER}mlp.gate_proj.weight", 0),
    }
    counts = {"layers": "layers.{}.input_layernorm.weight"}
    full = tuple(replace(each, absent=_ROUTERS, sizes=sizes, counts=counts) for each in found.namings)
    return replace(found, namings=full)


def _seeing(id: str, *signs: str | tuple[str, ...], naming: int = 0) -> Signature:
    return _part_of(id, *signs, naming=naming, prefixes=("",))


_LANGUAGE = (
    _seeing(
        "gemma3-vl",
        "multi_modal_projector.mm_input_projection_weight",
        *(
            f"{inner}{name}"
            for inner in ("language_model.model.", "model.language_model.")
            for name in (_AFTER_MLP, _BEFORE_MLP)
        ),
    ),
    _seeing("llava", "multi_modal_projector.linear_1.weight"),
    _seeing(
        "qwen2-vl",
        *(
            (f"visual.blocks.0.attn.{seen}.weight", f"model.{_LAYER}self_attn.{heard}")
            for seen in ("qkv", "proj")
            for heard in ("k_proj.bias", "q_proj.bias")
        ),
    ),
    _decoder("gemma3", (_AFTER_MLP, _QUERY_NORM), (_AFTER_MLP, _KEY_NORM), (_BEFORE_MLP, _QUERY_NORM)),
    _decoder("gemma2", _AFTER_MLP, _BEFORE_MLP),
    _decoder("qwen3", _KEY_NORM, _QUERY_NORM),
    _decoder("qwen2", f"{_LAYER}self_attn.k_proj.bias", f"{_LAYER}self_attn.q_proj.bias"),
    _decoder("llama", f"{_LAYER}self_attn.q_proj.weight", f"{_LAYER}self_attn.k_proj.weight"),
)


# --- networks that enlarge -------------------------------------------------------------------------------------------

_SWIN = "layers.0.residual_group.blocks.0.norm1.weight"

_UPSCALERS = (
    _part_of("esrgan", "model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.0.RDB1.conv1.0.bias"),
    _part_of(
        "esrgan",
        ("model.0.weight", "model.3.weight"),
        ("model.0.weight", "model.10.weight"),
        absent=("model.1.weight", "model.1.running_mean"),
        where=(Is("model.0.weight", 1, (1, 3, 4), rank=4),),
        variants=(Variant("old", (), "the old names"),),
    ),
    _part_of("esrgan", "RRDB_trunk.0.RDB1.conv1.weight", naming=1),
    _part_of("esrgan", "body.0.rdb1.conv1.weight", naming=2),
    _part_of(
        "srvgg",
        ("body.0.weight", "body.1.weight"),
        where=(Is("body.0.weight", 1, (1, 3, 4), rank=4), Is("body.1.weight", rank=1)),
    ),
    _part_of(
        "swinir",
        _SWIN,
        absent=(
            "layers.0.residual_group.blocks.0.conv_block.cab.0.weight",
            "layers.0.residual_group.blocks.0.attn.logit_scale",
        ),
    ),
)  # fmt: skip

SIGNATURES = (*_TRANSFORMERS, *_ENCODERS, *_LANGUAGE, *_UPSCALERS)
_DECIDING = frozenset(chain.from_iterable(each.deciding for each in SIGNATURES))


# What the converters of ComfyUI and stable-diffusion.cpp name in GGUF's metadata.
_ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "flux": ("diffusion_model", "flux"), "sd1": ("diffusion_model", "sd1"), "sdxl": ("diffusion_model", "sdxl"),
    "sd3": ("diffusion_model", "sd3"), "aura": ("diffusion_model", "auraflow"),
    "hidream": ("diffusion_model", "hidream"), "cosmos": ("diffusion_model", "cosmos"),
    "ltxv": ("diffusion_model", "ltx"), "hyvid": ("diffusion_model", "hunyuan-video"),
    "wan": ("diffusion_model", "wan"), "lumina2": ("diffusion_model", "lumina2"),
    "qwen_image": ("diffusion_model", "qwen-image"), "chroma": ("diffusion_model", "chroma"),
    "t5": ("language_model", "t5"), "t5encoder": ("text_encoder", "t5"),
}  # fmt: skip


def recognise(header: Header) -> Match | None:
    """The match of a header with the first architecture a part of which it is, or None."""
    if header.format in ("diffusers", "transformers"):  # their configs say what they are
        return None
    if (found := recognise_unet(header)) is not None:
        return found
    match = _by_names(header) or _missing(_by_architecture(header))
    return match and replace(match, guess=True)


_ELSEWHERE = "it is whole, but lies under an unusual prefix, or beside what it never comes with"


def _missing(match: Match | None) -> Match | None:
    return match and replace(match, because=(*match.because, MISSING))


def _by_names(header: Header) -> Match | None:
    if header.layout.rows.keys().isdisjoint(_DECIDING):
        return None
    for each in SIGNATURES:
        if (match := each.recognise(header)) is not None:
            return _whole(header, each, match) or _missing(match)
    return None


def _whole(header: Header, part: Signature, match: Match) -> Match | None:
    """The match of an architecture that is all there, though under a prefix or beside tensors that it never has."""
    prefixes = (match.parts[part.part],)
    found = replace(_WHOLE[part.id], gguf=(), prefixes=prefixes, alone=()).recognise(header)
    return found and replace(found, because=(*found.because, _ELSEWHERE))


def _by_architecture(header: Header) -> Match | None:
    architecture = header.metadata.get("general.architecture", "")
    if header.format != "gguf" or architecture not in _ARCHITECTURES:
        return None
    if header.metadata.get("general.type", "model") != "model":  # an adapter or a projector for it
        return None
    if has_only_words(header):
        return None
    kind, family = _ARCHITECTURES[architecture]
    because = (f"its metadata names the architecture {architecture}",)
    return Match(BASE, quantisation(header), {}, because, True, kind, BASE, family)
