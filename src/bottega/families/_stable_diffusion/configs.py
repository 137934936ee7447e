"""What a network's `config.json` says, from its dimensions; and the files around the networks in a diffusers folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bottega.families._stable_diffusion.layout import TextShape, UnetShape, VaeShape
from bottega.families._stable_diffusion.recognise import INPAINTING, PIX2PIX, REFINER, V
from bottega.spec import Match


def unet_config(shape: UnetShape) -> dict[str, Any]:
    """The arguments of diffusers' UNet2DConditionModel, in the plain form of the published configs where possible."""
    conditioned = shape.adm is not None
    layers = [len(level) for level in shape.down]
    config = {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "down_block_types": ["CrossAttnDownBlock2D" if any(level) else "DownBlock2D" for level in shape.down],
        "mid_block_type": _MIDDLES.get(shape.middle, "UNetMidBlock2DCrossAttn"),
        "up_block_types": ["CrossAttnUpBlock2D" if any(level) else "UpBlock2D" for level in shape.up],
        "block_out_channels": list(shape.channels),
        "layers_per_block": layers[0] if len(set(layers)) == 1 else layers,
        "norm_num_groups": shape.groups,
        "cross_attention_dim": shape.context,
        # diffusers' name for the number of heads
        "attention_head_dim": shape.heads[0] if len(set(shape.heads)) == 1 else list(shape.heads),
        "use_linear_projection": shape.linear,
        "addition_embed_type": "text_time" if conditioned else None,
        "addition_time_embed_dim": shape.size_width if conditioned else None,
        "projection_class_embeddings_input_dim": shape.adm,
        "time_cond_proj_dim": shape.guidance_width,
    }
    return config | _depths(shape)


# Distilled models leave the attention in the middle out, or the whole middle.
_MIDDLES = {-1: None, 0: "UNetMidBlock2D"}


def _depths(shape: UnetShape) -> dict[str, Any]:
    """Transformer depths by level, one number each if possible; the last of them is the middle's too, and often only
    that."""
    levels = [*shape.down[:-1], shape.down[-1] if any(shape.down[-1]) else (max(shape.middle, 0),)]
    # A level without attention has no use for its number.
    plain = [max(level[0], 1) for level in levels]
    mirrored = [
        (depth,) * (len(level) + 1) if any(level) else (0,) * (len(level) + 1)
        for depth, level in zip(plain, shape.down, strict=True)
    ]
    if (
        all(len(set(level)) == 1 for level in levels)
        and list(shape.up) == mirrored[::-1]
        and shape.middle in (-1, 0, plain[-1])
    ):
        depths: Any = plain[0] if len(set(plain)) == 1 else plain
        return {"transformer_layers_per_block": depths}
    return {
        "transformer_layers_per_block": [list(level) for level in levels],
        "reverse_transformer_layers_per_block": [list(level) for level in shape.up],
    }


def vae_config(shape: VaeShape, scale_factor: float) -> dict[str, Any]:
    """The arguments of diffusers' AutoencoderKL."""
    levels = len(shape.channels)
    return {
        "in_channels": shape.in_channels,
        "out_channels": shape.in_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(shape.channels),
        "layers_per_block": shape.layers,
        "latent_channels": shape.latent_channels,
        "norm_num_groups": shape.groups,
        "scaling_factor": scale_factor,
        "force_upcast": shape.force_upcast,
        "use_quant_conv": shape.quantised,
        "use_post_quant_conv": shape.quantised,
    }


def text_config(shape: TextShape) -> dict[str, Any]:
    """The arguments of transformers' CLIPTextConfig."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.mlp,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.positions,
        "hidden_act": shape.activation,
        "projection_dim": shape.projection or shape.width,
        # CLIP's vocabulary ends with these two.
        "bos_token_id": shape.vocabulary - 2,
        "eos_token_id": shape.vocabulary - 1 if shape.eos is None else shape.eos,
    }


# --- a folder --------------------------------------------------------------------------------------------------------

Shape = UnetShape | VaeShape | TextShape

_PIPELINES = {
    INPAINTING: ("StableDiffusionInpaintPipeline", "StableDiffusionXLInpaintPipeline"),
    PIX2PIX: ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline"),
    REFINER: ("StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLImg2ImgPipeline"),
}
_WRITTEN_FOR = "0.30.0"  # a version of diffusers that has all of this; its loaders ask
_PLAIN_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def class_of(shape: Shape) -> tuple[str, str]:
    """The library and the class of a network."""
    if isinstance(shape, UnetShape):
        return "diffusers", "UNet2DConditionModel"
    if isinstance(shape, VaeShape):
        return "diffusers", "AutoencoderKL"
    return "transformers", "CLIPTextModelWithProjection" if shape.projection else "CLIPTextModel"


def weights_file(shape: Shape) -> str:
    """What the file with a network's weights is called in its part's folder."""
    return "model.safetensors" if isinstance(shape, TextShape) else "diffusion_pytorch_model.safetensors"


def folder_files(family: str, match: Match, shapes: Mapping[str, Shape], size: int) -> dict[str, bytes]:
    """All files of a diffusers folder but the weights; `size` is the side of the pictures that the model makes."""
    files: dict[str, Any] = {"model_index.json": _model_index(family, match, shapes)}
    for part, shape in shapes.items():
        _, name = class_of(shape)
        if isinstance(shape, TextShape):
            config = {"architectures": [name], "model_type": "clip_text_model", **text_config(shape)}
            files |= _tokenizer_files(part.replace("text_encoder", "tokenizer"), shape, family, part)
        elif isinstance(shape, VaeShape):
            config = {"_class_name": name, "sample_size": size, **vae_config(shape, match.dimensions["scale_factor"])}
        else:
            config = {"_class_name": name, "sample_size": size // _size_factor(shapes), **unet_config(shape)}
        files[f"{part}/config.json"] = config
    files["scheduler/scheduler_config.json"] = _scheduler(match)
    return {
        name: content if isinstance(content, bytes) else (json.dumps(content, indent=2) + "\n").encode()
        for name, content in files.items()
    }


def _size_factor(shapes: Mapping[str, Shape]) -> int:
    vae = shapes["vae"]
    assert isinstance(vae, VaeShape)
    return vae.size_factor


def _model_index(family: str, match: Match, shapes: Mapping[str, Shape]) -> dict[str, Any]:
    extra_large = family == "sdxl"
    name = _PIPELINES.get(match.variant, _PLAIN_PIPELINES)[extra_large]
    index: dict[str, Any] = {"_class_name": name, "_diffusers_version": _WRITTEN_FOR}
    for part, shape in shapes.items():
        index[part] = list(class_of(shape))
        if isinstance(shape, TextShape):
            index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    if match.variant == REFINER:
        index |= {"text_encoder": [None, None], "tokenizer": [None, None], "requires_aesthetics_score": True}
        index["force_zeros_for_empty_prompt"] = False
    elif extra_large:
        index["force_zeros_for_empty_prompt"] = match.variant != PIX2PIX
    if not extra_large:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    return dict(sorted(index.items()))


def _scheduler(match: Match) -> dict[str, Any]:
    """Euler's, the one that can do everything which these models ask for; whoever loads the folder may take another."""
    zero_snr = match.dimensions["zero_snr"]
    return {
        "_class_name": "EulerDiscreteScheduler",
        **match.dimensions["schedule"],
        "prediction_type": "v_prediction" if match.dimensions["prediction"] == V else "epsilon",
        "rescale_betas_zero_snr": zero_snr,
        "timestep_spacing": "trailing" if zero_snr else "leading",
        "steps_offset": 1,
    }


def _tokenizer_files(folder: str, shape: TextShape, family: str, part: str) -> dict[str, Any]:
    """CLIP's own vocabulary, and how a text is filled up: with zeros for the encoders of OpenCLIP."""
    from bottega.diffusion.clip_tokenizer import END, START, builtin_tokenizer

    vocabulary, merges = builtin_tokenizer().tables()
    padding = "!" if family == "sd2" or part == "text_encoder_2" else END
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": padding}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": shape.positions, "do_lower_case": True, **special}
    return {
        f"{folder}/vocab.json": json.dumps(vocabulary, ensure_ascii=False).encode(),
        f"{folder}/merges.txt": ("#version: 0.2\n" + "".join(f"{left} {right}\n" for left, right in merges)).encode(),
        f"{folder}/tokenizer_config.json": config,
        f"{folder}/special_tokens_map.json": special,
    }
