"""Headers of what is left of models: the names that decide, alone or with a few others, in places where they are found.

The rules are those that workbenches go by, from which a model's kind can be told though most of its tensors are gone.
Nothing here is shared with the code that it tests.
"""

from __future__ import annotations

from collections.abc import Mapping

from headers import stable_diffusion as sd
from headers.layout import Layout

Shapes = dict[str, tuple[int, ...]]

_LDM = "model.diffusion_model."
_VAE: Shapes = {
    "first_stage_model.decoder.conv_in.weight": (512, 4, 3, 3),
    "first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3),
}
_CLIP: Shapes = {
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight": (768, 768),
}
_OPEN: Shapes = {"cond_stage_model.model.transformer.resblocks.0.attn.in_proj_weight": (3072, 1024)}
_BOTH: Shapes = {
    "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
    "conditioner.embedders.1.model.ln_final.weight": (1280,),
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (1280,),
}
_SIGHT: Shapes = {"conditioner.embedders.0.open_clip.model.visual.conv1.weight": (1280, 3, 14, 14)}
_EDM: Shapes = {"edm_mean": (1, 4, 1, 1), "edm_std": (1, 4, 1, 1)}
_ROBERTA: Shapes = {"cond_stage_model.roberta.embeddings.word_embeddings.weight": (250002, 1024)}


def _hears(block: str, context: int, width: int = 320, *, projection: bool = True) -> Shapes:
    """A cross-attention's keys, and the projection around it: a convolution in Stable Diffusion 1."""
    shapes: Shapes = {f"{block}.transformer_blocks.0.attn2.to_k.weight": (width, context)}
    if projection:
        shapes[f"{block}.proj_in.weight"] = (width, width, 1, 1) if context == 768 else (width, width)
    return shapes


def _ends(into: int = 4, width: int = 320) -> Shapes:
    return {
        "input_blocks.0.0.weight": (width, into, 3, 3),
        "time_embed.0.weight": (4 * width, width),
        "out.2.weight": (4, width, 3, 3),
    }


def _added(width: int) -> Shapes:
    return {"label_emb.0.0.weight": (1280, width)}


def _without(shapes: Mapping[str, tuple[int, ...]], *parts: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not any(part in name for part in parts)}


_TWO, _FOUR = "input_blocks.2.1", "input_blocks.4.1"
_XL = _ends() | _hears(_FOUR, 2048, 640) | _added(2816)
_REFINER = _ends(4, 384) | _hears(_FOUR, 1280, 768) | _added(2560)
_REFINER_TEXT: Shapes = {"conditioner.embedders.0.model.ln_final.weight": (1280,)}


def _checkpoint(family: str, variant: str, unet: Shapes, *others: Shapes) -> Layout:
    shapes = sd.under(_LDM, unet)
    for each in others:
        shapes |= each
    return Layout(shapes, "checkpoint", family, variant, guess=True)


def _unet(family: str, variant: str, unet: Shapes, prefix: str = _LDM) -> Layout:
    return Layout(sd.under(prefix, unet), "diffusion_model", family, variant, guess=True)


UNETS: dict[str, Layout] = {
    "sd1 one key": _unet("sd1", "base", _hears(_TWO, 768, projection=False)),
    "sd2 one key": _unet("sd2", "base", _hears(_TWO, 1024, projection=False)),
    "sdxl one key": _unet("sdxl", "base", _hears(_FOUR, 2048, 640, projection=False)),
    "sd1 bare": _unet("sd1", "base", _ends() | _hears("middle_block.1", 768, 1280), ""),
    "sd1 in the output": _unet("sd1", "base", _hears("output_blocks.11.1", 768)),
    "sd1 in diffusers' names": _unet("sd1", "base", _hears("down_blocks.0.attentions.0", 768), ""),
    "sdxl in diffusers' names": _unet("sdxl", "base", _hears("down_blocks.1.attentions.0", 2048, 640), "unet."),
    "sd1": _checkpoint("sd1", "base", _ends() | _hears(_TWO, 768), _VAE, _CLIP),
    "sd1 inpainting": _checkpoint("sd1", "inpainting", _ends(9) | _hears(_TWO, 768), _VAE, _CLIP),
    "sd1 instruct-pix2pix": _checkpoint("sd1", "instruct-pix2pix", _ends(8) | _hears(_TWO, 768), _VAE, _CLIP),
    "sd1 by its encoder": _checkpoint("sd1", "base", {}, _VAE, _CLIP),
    "sd2": _checkpoint("sd2", "base", _ends() | _hears(_TWO, 1024), _VAE, _OPEN),
    "sd2 inpainting": _checkpoint("sd2", "inpainting", _ends(9) | _hears(_TWO, 1024), _VAE, _OPEN),
    "sd2 by its encoder": _checkpoint("sd2", "base", {}, _OPEN),
    "sdxl": _checkpoint("sdxl", "base", _XL, _VAE, _BOTH),
    "a checkpoint of whatever family": _checkpoint("", "base", _ends(), _VAE),
    "sdxl by its encoder": _checkpoint("sdxl", "base", {}, _BOTH),
    "sdxl by one name": _checkpoint("sdxl", "base", {}, {"conditioner.embedders.1.model.ln_final.weight": (1280,)}),
    "sdxl inpainting": _checkpoint("sdxl", "inpainting", _ends(9) | _hears(_FOUR, 2048, 640), _VAE, _BOTH),
    "sdxl v-prediction": _checkpoint("sdxl", "v-prediction", _XL, _VAE, _BOTH, {"v_pred": ()}),
    "sdxl refiner": _checkpoint("sdxl", "refiner", _REFINER, _VAE, _REFINER_TEXT),
    "sdxl refiner by its encoder": _checkpoint("sdxl", "refiner", {}, _REFINER_TEXT),
    "sd2 turbo": _checkpoint("sd2", "base", _ends(), {"conditioner.embedders.0.model.ln_final.weight": (1024,)}),
    "depth2img": _checkpoint("sd2", "depth2img", _ends(5) | _hears(_TWO, 1024), _VAE, _OPEN),
    "unclip-l": _checkpoint("sd2", "unclip-l", _ends() | _hears(_TWO, 1024) | _added(1536), _VAE, _OPEN),
    "unclip-h": _checkpoint("sd2", "unclip-h", _ends() | _hears(_TWO, 1024) | _added(2048), _VAE, _OPEN),
    "x4-upscaler": _checkpoint(
        "sd-x4-upscaler", "base", _ends(7, 256) | {"input_blocks.10.0.skip_connection.bias": (1024,)}, _VAE
    ),
    "x4-upscaler by one name": _unet("sd-x4-upscaler", "base", {"input_blocks.10.0.skip_connection.bias": (1024,)}),
    "unclip by its eye": _checkpoint("sd2", "unclip-l", {}, {"embedder.model.ln_final.weight": (768,)}),
    "inpainting of whatever family": _unet("", "inpainting", {"input_blocks.0.0.weight": (320, 9, 3, 3)}),
    "svd": _checkpoint(
        "svd", "base", _ends(8) | {f"{_TWO}.time_stack.0.attn1.to_q.weight": (320, 320)} | _added(768), _VAE, _SIGHT
    ),
    "sv3d-u": _unet("svd", "sv3d-u", _ends(8) | {f"{_TWO}.time_stack.0.attn1.to_q.weight": (320, 320)} | _added(256)),
    "cosxl": _checkpoint("sdxl", "cosxl", _ends() | _hears(_FOUR, 2048, 640), _VAE, {"edm_vpred.sigma_max": ()}),
    "playground-2.5": _checkpoint("sdxl", "playground-2.5", _ends() | _hears(_FOUR, 2048, 640), _VAE, _BOTH, _EDM),
    "ic-light": _unet("sd1", "ic-light", sd.sd1_unet(12), ""),
    "sd1 of 8 channels": _unet("sd1", "instruct-pix2pix", sd.sd1_unet(8), ""),
    "sd1 without one block": _unet("sd1", "base", _without(sd.sd1_unet(), "output_blocks.11.0.")),
    "sd1 without its norms": _unet("sd1", "base", _without(sd.sd1_unet(), ".norm1.")),
    "sd1 without its time": _unet("sd1", "base", _without(sd.sd1_unet(), "time_embed")),
    "sdxl without its output": _unet("sdxl", "base", _without(sd.sdxl_unet(), "output_blocks")),
}

# Told for sure, by the whole recognisers.
WHOLE: dict[str, Layout] = {
    "zero123": Layout(
        sd.under(_LDM, _ends(8) | _hears(_TWO, 768)) | {"cc_projection.weight": (768, 772)} | _VAE,
        "checkpoint",
        "zero123",
        "base",
    ),
    "zero123 that sees": Layout(
        sd.whole(sd.sd1_unet(8), {})
        | {"cc_projection.weight": (768, 772), "cond_stage_model.model.visual.conv1.weight": (1024, 3, 14, 14)},
        "checkpoint",
        "zero123",
        "base",
    ),
    "altdiffusion": Layout(
        sd.under(_LDM, _ends() | _hears(_TWO, 768)) | _ROBERTA | _VAE, "checkpoint", "altdiffusion", "base"
    ),
    **{
        f"sd1 under {prefix}": Layout(sd.under(prefix, sd.sd1_unet()), "diffusion_model", "sd1", "base")
        for prefix in ("model.model.", "net.", "model.", "module.", "_orig_mod.")
    },
    **{
        f"clip-l under {prefix}": Layout(sd.under(prefix, sd.clip()), "text_encoder", "clip", "L")
        for prefix in ("cond_stage_model.transformer.", "clip_l.transformer.")
    },
    "umt5 of Wan's": Layout(
        {
            "token_embedding.weight": (256384, 4096),
            "blocks.0.attn.q.weight": (4096, 4096),
            "blocks.0.pos_embedding.embedding.weight": (32, 64),
            "blocks.0.ffn.gate.0.weight": (10240, 4096),
            "norm.weight": (4096,),
        },
        "text_encoder",
        "t5",
        "umt5",
    ),
    "clip of Wan's": Layout(
        {
            "visual.cls_embedding": (1, 1, 1280),
            "visual.patch_embedding.weight": (1280, 3, 14, 14),
            "visual.transformer.0.attn.to_qkv.weight": (3840, 1280),
            "textual.token_embedding.weight": (250002, 1024),
        },
        "clip",
        "clip",
        "H",
    ),
    "a folder of T5 with its decoder": Layout(
        {"shared.weight": (32128, 768)},
        "language_model",
        "t5",
        "base",
        format="transformers",
        configs={"": {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}},
    ),
}


# --- transformers that make pictures, films, sounds and shapes -------------------------------------------------------

_KEY_NORM = "double_blocks.0.img_attn.norm.key_norm.scale"
_REFINED = "txt_in.individual_token_refiner.blocks.0.norm1.weight"
_ADALN = "adaln_single.emb.timestep_embedder.linear_1"
_QUERY = "blocks.0.self_attn.q_proj.weight"


def _network(family: str, variant: str, shapes: Shapes) -> Layout:
    return Layout(shapes, "diffusion_model", family, variant, guess=True)


TRANSFORMERS: dict[str, Layout] = {
    "sd3": _network("sd3", "3-medium", {"joint_blocks.0.context_block.attn.qkv.weight": (4608, 1536)}),
    "flux": _network("flux", "schnell", {_KEY_NORM: (128,)}),
    "flux dev": _network("flux", "dev", {_KEY_NORM: (128,), "guidance_in.in_layer.weight": (3072, 256)}),
    "flux dev by a bias": _network("flux", "dev", {_KEY_NORM: (128,), "guidance_in.out_layer.bias": (3072,)}),
    "flux fill": _network("flux", "fill", {_KEY_NORM: (128,), "img_in.weight": (3072, 384)}),
    "flux control": _network("flux", "control", {_KEY_NORM: (128,), "img_in.weight": (3072, 128)}),
    "chroma": _network("chroma", "base", {"distilled_guidance_layer.in_proj.weight": (5120, 64), _KEY_NORM: (128,)}),
    "chroma by a norm": _network("chroma", "base", {"distilled_guidance_layer.norms.0.scale": (5120,)}),
    "pixart": _network("pixart", "sigma", {"t_block.1.weight": (6912, 1152)}),
    "lumina2": _network("lumina2", "base", {"cap_embedder.1.weight": (2304, 2304)}),
    "z-image": _network("z-image", "base", {"layers.0.adaLN_modulation.0.weight": (15360, 256)}),
    "z-image that hears": _network(
        "z-image", "base", {"layers.0.adaLN_modulation.0.weight": (15360, 256), "cap_embedder.1.weight": (3840, 2560)}
    ),
    "wan": _network("wan", "t2v", {"head.modulation": (1, 2, 5120)}),
    "wan i2v": _network(
        "wan",
        "i2v",
        {
            "head.modulation": (1, 2, 5120),
            "patch_embedding.weight": (5120, 36, 1, 2, 2),
            "img_emb.proj.1.weight": (1280, 1280),
        },
    ),
    "qwen-image": _network("qwen-image", "base", {"txt_norm.weight": (3584,)}),
    "hunyuan-video": _network("hunyuan-video", "t2v", {_REFINED: (3072,)}),
    "hunyuan-image": _network("hunyuan-image", "base", {_REFINED: (3584,), "img_in.proj.weight": (3584, 64, 1, 1)}),
    "ltx": _network("ltx", "0.9", {f"{_ADALN}.bias": (2048,)}),
    "hidream": _network("hidream", "base", {"caption_projection.0.linear.weight": (2560, 4096)}),
    "cascade c": _network(
        "stable-cascade", "stage-c", {"clf.1.weight": (64, 2048, 1, 1), "clip_txt_mapper.weight": (2048, 1280)}
    ),
    "cascade b": _network(
        "stable-cascade", "stage-b", {"clf.1.weight": (64, 320, 1, 1), "clip_mapper.weight": (1280, 1280)}
    ),
    "auraflow": _network("auraflow", "base", {"double_layers.0.attn.w1q.weight": (3072, 3072)}),
    "mochi": _network("mochi", "base", {"t5_yproj.weight": (1536, 4096)}),
    "cosmos 1": _network(
        "cosmos", "1-text-to-world", {"blocks.block0.blocks.0.block.attn.to_q.0.weight": (4096, 4096)}
    ),
    "cosmos 2": _network("cosmos", "2-text-to-image", {"x_embedder.proj.1.weight": (2048, 68), _QUERY: (2048, 2048)}),
    "ace-step": _network("ace-step", "1.0", {"genre_embedder.weight": (2560, 768)}),
    "stable-audio": _network("stable-audio", "open", {"transformer.rotary_pos_emb.inv_freq": (16,)}),
    "hunyuan3d": _network("hunyuan3d", "base", {"latent_in.weight": (1024, 64), _KEY_NORM: (64,)}),
}


# --- text encoders, language models and upscalers --------------------------------------------------------------------

_FIRST = "model.layers.0."
_DECODER: Shapes = {f"{_FIRST}self_attn.q_proj.weight": (4096, 4096), f"{_FIRST}self_attn.k_proj.weight": (1024, 4096)}


def _encoder(family: str, variant: str, shapes: Shapes) -> Layout:
    return Layout(shapes, "text_encoder", family, variant, guess=True)


def _language(family: str, more: Shapes, kind: str = "language_model") -> Layout:
    return Layout(_DECODER | more, kind, family, "base", guess=True)


def _wide(width: int, *layers: int) -> Shapes:
    return {f"text_model.encoder.layers.{index}.mlp.fc1.weight": (4 * width, width) for index in layers}


def _gated(block: int, width: int) -> Shapes:
    return {f"encoder.block.{block}.layer.1.DenseReluDense.wi_1.weight": (10240, width)}


def _upscaler(family: str, variant: str, shapes: Shapes) -> Layout:
    return Layout(shapes, "upscaler", family, variant, guess=True)


_DENSE = (32, 64, 3, 3)
_FIRST_CONV: Shapes = {"conv_first.weight": (64, 3, 3, 3)}

OTHERS: dict[str, Layout] = {
    "clip-l": _encoder("clip", "L", _wide(768, 0)),
    "clip-h": _encoder("clip", "H", _wide(1024, 0, 22)),
    "clip-g": _encoder("clip", "G", _wide(1280, 0, 30)),
    "clip-g by a layer": _encoder("clip", "G", _wide(1280, 30)),
    "t5-xxl": _encoder("t5", "v1.1", _gated(23, 4096)),
    "t5-xl": _encoder("t5", "v1.1", _gated(23, 2048)),
    "t5-base": _encoder("t5", "base", {"encoder.block.0.layer.0.SelfAttention.k.weight": (768, 768)}),
    "llama": _language("llama", {}),
    "qwen2": _language("qwen2", {f"{_FIRST}self_attn.k_proj.bias": (1024,)}),
    "qwen3": _language("qwen3", {f"{_FIRST}self_attn.k_norm.weight": (128,)}),
    "gemma2": _language("gemma2", {f"{_FIRST}post_feedforward_layernorm.weight": (4096,)}),
    "gemma3": _language(
        "gemma3",
        {f"{_FIRST}post_feedforward_layernorm.weight": (4096,), f"{_FIRST}self_attn.q_norm.weight": (128,)},
    ),
    "llava": _language("llava", {"multi_modal_projector.linear_1.weight": (4096, 1024)}, kind="vision_language_model"),
    "esrgan old": _upscaler(
        "esrgan",
        "old",
        {"model.0.weight": (64, 3, 3, 3), "model.3.weight": (64, 64, 3, 3), "model.10.weight": (3, 64, 3, 3)},
    ),
    "srvgg": _upscaler("srvgg", "base", {"body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,)}),
    "esrgan new": _upscaler("esrgan", "new", _FIRST_CONV | {"RRDB_trunk.0.RDB1.conv1.weight": _DENSE}),
    "esrgan real": _upscaler("esrgan", "real", _FIRST_CONV | {"body.0.rdb1.conv1.weight": _DENSE}),
    "swinir": _upscaler("swinir", "base", _FIRST_CONV | {"layers.0.residual_group.blocks.0.norm1.weight": (180,)}),
}

GGUF: dict[str, Layout] = {
    f"gguf {name}": Layout(
        {"some.weight": (32, 32)},
        "diffusion_model",
        family,
        "base",
        format="gguf",
        metadata={"general.architecture": name},
        guess=True,
    )
    for name, family in {"flux": "flux", "ltxv": "ltx", "hyvid": "hunyuan-video", "sd1": "sd1"}.items()
}

MINIMAL: dict[str, Layout] = {**GGUF, **UNETS, **WHOLE, **TRANSFORMERS, **OTHERS}

# What has a deciding name of the above, and is something else.
OTHERWISE: dict[str, Shapes] = {
    "a ControlNet for FLUX": {_KEY_NORM: (128,), "controlnet_blocks.0.weight": (3072, 3072)},
    "a ControlNet for Qwen-Image": {"txt_norm.weight": (3584,), "controlnet_blocks.0.weight": (3072, 3072)},
    "a ControlNet for Z-Image": {
        "layers.0.adaLN_modulation.0.weight": (15360, 256),
        "control_layers.0.adaLN_modulation.0.weight": (15360, 256),
    },
    "a UNet for films": {
        f"{_LDM}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024),
        f"{_LDM}input_blocks.1.0.temopral_conv.conv1.0.weight": (320,),
    },
    "a motion module": {"down_blocks.0.motion_modules.0.transformer_blocks.0.attn2.to_k.weight": (320, 1280)},
    "a convolution with statistics": {
        "body.0.weight": (64, 3, 3, 3), "body.1.weight": (64,), "body.1.running_mean": (64,),
        "body.2.weight": (48, 64, 3, 3),
    },
    "an encoder of faces": {
        "vision_model.embeddings.class_embedding": (1024,),
        "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "vision_model.encoder.layers.0.self_attn.q_proj.weight": (1024, 1024),
        "visual_projection_2.weight": (1280, 1024),
    },
}  # fmt: skip
