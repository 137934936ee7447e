"""Transformers that paint pictures: which file is of which, under its own names and under diffusers'.

Names are those of the published files; the sources are the models' repositories and diffusers' converters
(https://github.com/huggingface/diffusers/tree/main/scripts).
"""

from __future__ import annotations

from bottega.families._known._signature import Is, Naming, Signature, Variant, known

_DIFFUSERS = "diffusers"
_T5_XXL = "the text encoder T5-XXL"
_CLIP_L_T5 = {"text_encoder": "the text encoders CLIP-L and T5-XXL", "vae": "FLUX's autoencoder (16 channels)"}


def _flux_variants(incoming: str, guided: str) -> tuple[Variant, ...]:
    """FLUX.1 by what comes in: latents alone, with a picture of edges or depth, or with a picture and a mask."""
    return (
        Variant(
            "fill", (Is(incoming, 1, (384,)),), "384 input channels: latents, a picture and a mask, so it inpaints"
        ),
        Variant(
            "control",
            (Is(incoming, 1, (128,)),),
            "128 input channels: latents and a picture to follow (Canny and Depth look alike)",
        ),
        Variant("dev", (Is(guided),), "a guidance embedding: dev, or Kontext and Krea, which look alike"),
        Variant("schnell", (), "no guidance embedding: schnell"),
    )


SIGNATURES = (
    Signature(
        "sd3",
        "Stable Diffusion 3",
        "image",
        (
            Naming(
                ("joint_blocks.0.context_block.attn.qkv.weight", "x_embedder.proj.weight", "final_layer.linear.weight"),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "joint_blocks.{}.x_block.attn.qkv.weight"},
                variants=(
                    Variant(
                        "3.5-medium",
                        (Is("joint_blocks.0.x_block.attn2.qkv.weight"),),
                        "a second attention in its first blocks: 3.5 medium",
                    ),
                    Variant(
                        "3.5-large",
                        (Is("joint_blocks.0.x_block.attn.ln_q.weight"),),
                        "normalised queries and keys, one attention a block: 3.5 large (turbo looks alike)",
                    ),
                    Variant("3-medium", (), "no normalised queries and keys: 3 medium"),
                ),
            ),
            Naming(
                (
                    "transformer_blocks.0.norm1_context.linear.weight",
                    "pos_embed.proj.weight",
                    "time_text_embed.text_embedder.linear_1.weight",
                    "context_embedder.weight",
                    "proj_out.weight",
                ),
                absent=("single_transformer_blocks.0.norm.linear.weight",),
                sizes={"width": ("pos_embed.proj.weight", 0), "in_channels": ("pos_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.norm1.linear.weight"},
                variants=(
                    Variant(
                        "3.5-medium",
                        (Is("transformer_blocks.0.attn2.to_q.weight"),),
                        "a second attention in its first blocks: 3.5 medium",
                    ),
                    Variant(
                        "3.5-large",
                        (Is("transformer_blocks.0.attn.norm_q.weight"),),
                        "normalised queries and keys, one attention a block: 3.5 large (turbo looks alike)",
                    ),
                    Variant("3-medium", (), "no normalised queries and keys: 3 medium"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={
            "text_encoder": "the text encoders CLIP-L, CLIP-G and, if it is to be heard, T5-XXL",
            "vae": "Stable Diffusion 3's autoencoder (16 channels)",
        },
        named={2432: "8B", 1536: "2B"},
    ),
    Signature(
        "flux",
        "FLUX.1",
        "image",
        (
            Naming(
                (
                    "double_blocks.0.img_attn.qkv.weight",
                    "single_blocks.0.modulation.lin.weight",
                    "vector_in.in_layer.weight",
                    "img_in.weight",
                    "final_layer.linear.weight",
                ),
                absent=("controlnet_blocks.0.weight", "double_blocks.0.img_mlp.gate_proj.weight"),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={
                    "double_layers": "double_blocks.{}.img_attn.qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=_flux_variants("img_in.weight", "guidance_in.in_layer.weight"),
            ),
            Naming(
                (
                    "single_transformer_blocks.0.proj_mlp.weight",
                    "time_text_embed.text_embedder.linear_1.weight",
                    "transformer_blocks.0.norm1_context.linear.weight",
                    "x_embedder.weight",
                    "context_embedder.weight",
                    "proj_out.weight",
                ),
                absent=("controlnet_blocks.0.weight", "controlnet_x_embedder.weight"),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={
                    "double_layers": "transformer_blocks.{}.norm1.linear.weight",
                    "single_layers": "single_transformer_blocks.{}.proj_mlp.weight",
                },
                variants=_flux_variants("x_embedder.weight", "time_text_embed.guidance_embedder.linear_1.weight"),
                label=_DIFFUSERS,
            ),
        ),
        requires=_CLIP_L_T5,
    ),
    Signature(
        "flux2",
        "FLUX.2",
        "image",
        (
            Naming(
                ("double_stream_modulation_img.lin.weight", "single_stream_modulation.lin.weight", "img_in.weight"),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={
                    "double_layers": "double_blocks.{}.img_attn.qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=(
                    Variant("dev", (Is("guidance_in.in_layer.weight"),), "a guidance embedding: dev"),
                    Variant("klein", (), "no guidance embedding: klein"),
                ),
            ),
            Naming(
                (
                    "double_stream_modulation_img.linear.weight",
                    "single_stream_modulation.linear.weight",
                    "x_embedder.weight",
                ),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={
                    "double_layers": "transformer_blocks.{}.attn.to_q.weight",
                    "single_layers": "single_transformer_blocks.{}.attn.to_out.weight",
                },
                variants=(
                    Variant(
                        "dev",
                        (Is("time_guidance_embed.guidance_embedder.linear_1.weight"),),
                        "a guidance embedding: dev",
                    ),
                    Variant("klein", (), "no guidance embedding: klein"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={
            "text_encoder": "the text encoder Mistral Small 3 (dev) or Qwen3 (klein)",
            "vae": "FLUX.2's autoencoder (32 channels)",
        },
        named={6144: "32B", 4096: "9B", 3072: "4B"},
    ),
    Signature(
        "chroma",
        "Chroma",
        "image",
        (
            Naming(
                ("distilled_guidance_layer.in_proj.weight", "double_blocks.0.img_attn.qkv.weight"),
                sizes={"width": ("txt_in.weight", 0)},
                counts={
                    "double_layers": "double_blocks.{}.img_attn.qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=(
                    Variant("radiance", (Is("img_in_patch.weight"),), "it paints pixels: Radiance"),
                    Variant("base"),
                ),
            ),
            Naming(
                ("distilled_guidance_layer.in_proj.weight", "transformer_blocks.0.attn.to_q.weight"),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={
                    "double_layers": "transformer_blocks.{}.attn.to_q.weight",
                    "single_layers": "single_transformer_blocks.{}.proj_mlp.weight",
                },
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "FLUX's autoencoder (16 channels)"},
    ),
    Signature(
        "auraflow",
        "AuraFlow",
        "image",
        (
            Naming(
                ("double_layers.0.attn.w1q.weight", "cond_seq_linear.weight", "init_x_linear.weight"),
                sizes={"width": ("cond_seq_linear.weight", 0)},
                counts={
                    "double_layers": "double_layers.{}.attn.w1q.weight",
                    "single_layers": "single_layers.{}.attn.w1q.weight",
                },
            ),
            Naming(
                (
                    "joint_transformer_blocks.0.attn.to_q.weight",
                    "single_transformer_blocks.0.attn.to_q.weight",
                    "register_tokens",
                ),
                sizes={"width": ("context_embedder.weight", 0)},
                counts={
                    "double_layers": "joint_transformer_blocks.{}.attn.to_q.weight",
                    "single_layers": "single_transformer_blocks.{}.attn.to_q.weight",
                },
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Pile-T5-XL", "vae": "Stable Diffusion XL's autoencoder"},
    ),
    Signature(
        "lumina2",
        "Lumina Image 2.0",
        "image",
        (
            Naming(
                (
                    "layers.0.adaLN_modulation.1.weight",
                    "noise_refiner.0.attention.qkv.weight",
                    "cap_embedder.1.weight",
                    "x_embedder.weight",
                ),
                sizes={"width": ("x_embedder.weight", 0), "text_width": ("cap_embedder.1.weight", 1)},
                counts={"layers": "layers.{}.attention.qkv.weight"},
            ),
            Naming(
                (
                    "time_caption_embed.caption_embedder.1.weight",
                    "noise_refiner.0.attn.to_q.weight",
                    "layers.0.attn.to_q.weight",
                ),
                absent=("ref_image_refiner.0.attn.to_q.weight", "double_stream_layers.0.img_self_attn.to_q.weight"),
                sizes={"width": ("x_embedder.weight", 0)},
                counts={"layers": "layers.{}.attn.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Gemma 2 2B", "vae": "FLUX's autoencoder (16 channels)"},
    ),
    Signature(
        "z-image",
        "Z-Image",
        "image",
        (
            Naming(
                (
                    "layers.0.adaLN_modulation.0.weight",
                    "noise_refiner.0.attention.qkv.weight",
                    "cap_embedder.1.weight",
                    "x_embedder.weight",
                ),
                sizes={"width": ("x_embedder.weight", 0), "text_width": ("cap_embedder.1.weight", 1)},
                counts={"layers": "layers.{}.attention.qkv.weight"},
            ),
            Naming(
                ("layers.0.adaLN_modulation.0.weight", "layers.0.attention.to_q.weight", "cap_embedder.1.weight"),
                absent=("control_layers.0.adaLN_modulation.0.weight",),
                sizes={"width": ("cap_embedder.1.weight", 0), "text_width": ("cap_embedder.1.weight", 1)},
                counts={"layers": "layers.{}.attention.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Qwen3 4B", "vae": "FLUX's autoencoder (16 channels)"},
    ),
    Signature(
        "hunyuan-dit",
        "Hunyuan-DiT",
        "image",
        (
            Naming(
                ("mlp_t5.0.weight", "blocks.0.default_modulation.1.weight", "x_embedder.proj.weight"),
                absent=("after_proj_list.0.weight",),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "blocks.{}.default_modulation.1.weight"},
                variants=(
                    Variant("1.0", (Is("style_embedder.weight"),), "a style embedding: 1.0 or 1.1"),
                    Variant("1.2", (), "no style embedding: 1.2"),
                ),
            ),
            Naming(
                (
                    "text_embedder.linear_1.weight",
                    "text_embedding_padding",
                    "blocks.0.attn2.to_q.weight",
                    "proj_out.weight",
                ),
                absent=("controlnet_blocks.0.weight",),
                sizes={"width": ("pos_embed.proj.weight", 0), "in_channels": ("pos_embed.proj.weight", 1)},
                counts={"layers": "blocks.{}.attn2.to_q.weight"},
                variants=(
                    Variant("1.0", (Is("time_extra_emb.style_embedder.weight"),), "a style embedding: 1.0 or 1.1"),
                    Variant("1.2", (), "no style embedding: 1.2"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its bilingual CLIP and mT5", "vae": "Stable Diffusion XL's autoencoder"},
    ),
    Signature(
        "hunyuan-image",
        "HunyuanImage 2.1",
        "image",
        (
            Naming(
                (
                    "txt_in.individual_token_refiner.blocks.0.norm1.weight",
                    "double_blocks.0.img_attn_qkv.weight",
                    "img_in.proj.weight",
                ),
                where=(Is("img_in.proj.weight", rank=4),),
                sizes={"width": ("img_in.proj.weight", 0), "in_channels": ("img_in.proj.weight", 1)},
                counts={
                    "double_layers": "double_blocks.{}.img_attn_qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=(
                    Variant("distilled", (Is("time_r_in.mlp.0.weight"),), "a second time embedding: distilled"),
                    Variant("base"),
                ),
            ),
            Naming(
                (
                    "context_embedder.time_text_embed.timestep_embedder.linear_1.weight",
                    "single_transformer_blocks.0.attn.to_q.weight",
                    "x_embedder.proj.weight",
                    "proj_out.weight",
                ),
                where=(Is("x_embedder.proj.weight", rank=4),),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={
                    "double_layers": "transformer_blocks.{}.attn.to_q.weight",
                    "single_layers": "single_transformer_blocks.{}.attn.to_q.weight",
                },
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoders Qwen2.5-VL 7B and ByT5", "vae": "HunyuanImage's autoencoder"},
    ),
    Signature(
        "pixart",
        "PixArt",
        "image",
        (
            Naming(
                ("t_block.1.weight", "blocks.0.cross_attn.kv_linear.weight", "y_embedder.y_proj.fc1.weight"),
                absent=("attention_y_norm.weight",),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "blocks.{}.attn.qkv.weight"},
                variants=(
                    Variant("alpha", (Is("ar_embedder.mlp.0.weight"),), "embeds size and aspect: alpha at 1024 pixels"),
                    Variant("alpha", (Is("y_embedder.y_embedding", 0, (120,)),), "hears 120 tokens: alpha"),
                    Variant("sigma", (Is("y_embedder.y_embedding", 0, (300,)),), "hears 300 tokens: sigma"),
                    Variant("sigma", (), "no size embedding: taken for sigma", guess=True),
                ),
            ),
            Naming(
                (
                    "adaln_single.emb.timestep_embedder.linear_1.weight",
                    "pos_embed.proj.weight",
                    "caption_projection.linear_1.weight",
                    "transformer_blocks.0.attn2.to_k.weight",
                ),
                absent=("temporal_transformer_blocks.0.attn1.to_q.weight",),
                where=(Is("pos_embed.proj.weight", rank=4), Is("proj_out.weight", 0, (32,))),
                sizes={"width": ("pos_embed.proj.weight", 0), "in_channels": ("pos_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                variants=(
                    Variant(
                        "alpha",
                        (Is("adaln_single.emb.resolution_embedder.linear_1.weight"),),
                        "embeds size and aspect: alpha at 1024 pixels",
                    ),
                    Variant("sigma", (), "no size embedding: taken for sigma, alpha at 512 looks alike", guess=True),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "Stable Diffusion's (alpha) or XL's (sigma) autoencoder"},
    ),
    Signature(
        "sana",
        "Sana",
        "image",
        (
            Naming(
                (
                    "attention_y_norm.weight",
                    "blocks.0.cross_attn.q_linear.weight",
                    "blocks.0.mlp.inverted_conv.conv.weight",
                    "x_embedder.proj.weight",
                ),
                where=(Is("x_embedder.proj.weight", rank=4),),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "blocks.{}.attn.qkv.weight"},
            ),
            Naming(
                (
                    "caption_norm.weight",
                    "transformer_blocks.0.ff.conv_inverted.weight",
                    "caption_projection.linear_1.weight",
                ),
                absent=("controlnet_blocks.0.weight",),
                sizes={"width": ("caption_norm.weight", 0)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                variants=(
                    Variant("video", (Is("patch_embedding.weight", rank=5),), "patches of five axes: it makes video"),
                    Variant("base"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Gemma 2 2B", "vae": "the autoencoder DC-AE (32 channels)"},
        named={2240: "1.6B", 1152: "0.6B"},
    ),
    Signature(
        "qwen-image",
        "Qwen-Image",
        "image",
        (
            Naming(
                (
                    "transformer_blocks.0.img_mod.1.weight",
                    "transformer_blocks.0.attn.add_q_proj.weight",
                    "txt_norm.weight",
                    "img_in.weight",
                    "proj_out.weight",
                ),
                absent=("controlnet_blocks.0.weight",),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.img_mod.1.weight"},
                variants=(
                    Variant(
                        "layered",
                        (Is("time_text_embed.addition_t_embedding.weight"),),
                        "embeds whether there is a picture: Layered",
                    ),
                    Variant("base", (), "Qwen-Image-Edit has the same tensors: nothing tells them apart", guess=True),
                ),
                label="its own",
            ),
        ),
        requires={"text_encoder": "the text encoder Qwen2.5-VL 7B", "vae": "Qwen-Image's autoencoder"},
    ),
    Signature(
        "qwen-image-2.1",
        "Qwen-Image 2.1",
        "image",
        (
            Naming(
                (
                    "txt_in.text_norm.weight",
                    "transformer_blocks.0.attn.norm_q.weight",
                    "img_in.weight",
                    "proj_out.weight",
                ),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn.norm_q.weight"},
                label="its own",
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
    Signature(
        "hidream",
        "HiDream-I1",
        "image",
        (
            Naming(
                (
                    "double_stream_blocks.0.block.adaLN_modulation.1.weight",
                    "caption_projection.0.linear.weight",
                    "x_embedder.proj.weight",
                ),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={
                    "double_layers": "double_stream_blocks.{}.block.adaLN_modulation.1.weight",
                    "single_layers": "single_stream_blocks.{}.block.adaLN_modulation.1.weight",
                },
                label="its own",
            ),
        ),
        requires={
            "text_encoder": "the text encoders CLIP-L, CLIP-G, T5-XXL and Llama 3.1 8B",
            "vae": "FLUX's autoencoder (16 channels)",
        },
    ),
    Signature(
        "omnigen",
        "OmniGen",
        "image",
        (
            Naming(
                ("llm.layers.0.self_attn.qkv_proj.weight", "input_x_embedder.proj.weight", "time_token.mlp.0.weight"),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "llm.layers.{}.self_attn.qkv_proj.weight"},
            ),
            Naming(
                ("patch_embedding.output_image_proj.weight", "time_token.linear_1.weight", "embed_tokens.weight"),
                sizes={"width": ("patch_embedding.output_image_proj.weight", 0)},
                counts={"layers": "layers.{}.self_attn.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"vae": "Stable Diffusion XL's autoencoder"},
    ),
    Signature(
        "omnigen2",
        "OmniGen2",
        "image",
        (
            Naming(
                (
                    "ref_image_refiner.0.attn.to_q.weight",
                    "time_caption_embed.timestep_embedder.linear_1.weight",
                    "x_embedder.weight",
                ),
                sizes={"width": ("x_embedder.weight", 0)},
                counts={"layers": "layers.{}.attn.to_q.weight"},
                label="its own",
            ),
        ),
        requires={"text_encoder": "the text encoder Qwen2.5-VL 3B", "vae": "FLUX's autoencoder (16 channels)"},
    ),
    Signature(
        "cogview",
        "CogView",
        "image",
        (
            Naming(
                (
                    "time_condition_embed.condition_embedder.linear_1.weight",
                    "patch_embed.text_proj.weight",
                    "transformer_blocks.0.norm1.linear.weight",
                ),
                sizes={"width": ("patch_embed.proj.weight", 0), "text_width": ("patch_embed.text_proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.norm1.linear.weight"},
                variants=(
                    Variant("3-plus", (Is("patch_embed.proj.weight", 0, (2560,)),), "width 2560: CogView3-Plus"),
                    Variant("4", (Is("patch_embed.proj.weight", 0, (4096,)),), "width 4096: CogView4"),
                    Variant("4", (), "of no published width: taken for CogView4", guess=True),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "T5-XXL (3) or GLM-4 9B (4)", "vae": "its autoencoder (16 channels)"},
    ),
    Signature(
        "bria",
        "Bria 3",
        "image",
        (
            Naming(
                (
                    "time_embed.timestep_embedder.linear_1.weight",
                    "single_transformer_blocks.0.proj_mlp.weight",
                    "context_embedder.weight",
                    "x_embedder.weight",
                ),
                absent=("caption_projection.0.linear.weight", "controlnet_blocks.0.weight"),
                where=(Is("context_embedder.weight", 1, (4096,)),),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={"double_layers": "transformer_blocks.{}.norm1.linear.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "its autoencoder"},
    ),
    Signature(
        "bria-fibo",
        "Bria FIBO",
        "image",
        (
            Naming(
                (
                    "time_embed.timestep_embedder.linear_1.weight",
                    "caption_projection.0.linear.weight",
                    "single_transformer_blocks.0.proj_mlp.weight",
                    "x_embedder.weight",
                ),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={"double_layers": "transformer_blocks.{}.norm1.linear.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder SmolLM3 3B", "vae": "Wan 2.2's autoencoder"},
    ),
    Signature(
        "longcat-image",
        "LongCat-Image",
        "image",
        (
            Naming(
                (
                    "time_embed.timestep_embedder.linear_1.weight",
                    "single_transformer_blocks.0.proj_mlp.weight",
                    "context_embedder.weight",
                    "x_embedder.weight",
                ),
                absent=("caption_projection.0.linear.weight",),
                where=(Is("context_embedder.weight", 1, (3584,)),),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={"double_layers": "transformer_blocks.{}.norm1.linear.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Qwen2.5-VL 7B", "vae": "FLUX's autoencoder (16 channels)"},
    ),
    Signature(
        "ovis-image",
        "Ovis-Image",
        "image",
        (
            Naming(
                ("context_embedder_norm.weight", "single_transformer_blocks.0.proj_mlp.weight", "x_embedder.weight"),
                sizes={"width": ("x_embedder.weight", 0), "in_channels": ("x_embedder.weight", 1)},
                counts={"double_layers": "transformer_blocks.{}.norm1.linear.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Ovis2.5 2B", "vae": "FLUX's autoencoder (16 channels)"},
    ),
    Signature(
        "krea2",
        "Krea 2",
        "image",
        (
            Naming(
                ("txtfusion.projector.weight", "first.weight", "blocks.0.attn.wq.weight"),
                sizes={"width": ("first.weight", 0)},
                counts={"layers": "blocks.{}.attn.wq.weight"},
            ),
            Naming(
                ("text_fusion.layerwise_blocks.0.norm1.weight", "time_mod_proj.weight", "img_in.weight"),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
    Signature(
        "ideogram4",
        "Ideogram 4",
        "image",
        (
            Naming(
                ("embed_image_indicator.weight", "llm_cond_proj.weight", "input_proj.weight"),
                sizes={"width": ("input_proj.weight", 0), "in_channels": ("input_proj.weight", 1)},
                counts={"layers": "layers.{}.attention.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
    Signature(
        "glm-image",
        "GLM-Image",
        "image",
        (
            Naming(
                ("prior_token_embedding.weight", "glyph_projector.net.0.proj.weight", "image_projector.proj.weight"),
                sizes={"width": ("image_projector.proj.weight", 0)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its language model and ByT5", "vae": "its autoencoder"},
    ),
    Signature(
        "prx",
        "PRX",
        "image",
        (
            Naming(
                ("blocks.0.attention.img_qkv_proj.weight", "blocks.0.attention.txt_kv_proj.weight", "img_in.weight"),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={"layers": "blocks.{}.attention.img_qkv_proj.weight"},
                label="its own",
            ),
        ),
        requires={"text_encoder": "the text encoder T5Gemma", "vae": "FLUX's autoencoder or DC-AE"},
    ),
    Signature(
        "dit",
        "DiT",
        "image",
        (
            Naming(
                (
                    "y_embedder.embedding_table.weight",
                    "x_embedder.proj.weight",
                    "blocks.0.adaLN_modulation.1.weight",
                    "final_layer.adaLN_modulation.1.weight",
                ),
                sizes={"width": ("x_embedder.proj.weight", 0), "classes": ("y_embedder.embedding_table.weight", 0)},
                counts={"layers": "blocks.{}.attn.qkv.weight"},
            ),
            Naming(
                (
                    "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight",
                    "pos_embed.proj.weight",
                    "proj_out_2.weight",
                ),
                sizes={"width": ("pos_embed.proj.weight", 0), "in_channels": ("pos_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"vae": "Stable Diffusion's autoencoder"},
        words="it paints by class, not by text",
    ),
    Signature(
        "amused",
        "aMUSEd",
        "image",
        (
            Naming(
                ("mlm_layer.conv1.weight", "transformer_layers.0.attn1.to_q.weight", "embed.embeddings.weight"),
                sizes={"width": ("project_to_hidden.weight", 0)},
                counts={"layers": "transformer_layers.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder CLIP-L", "vae": "its VQ autoencoder"},
    ),
    Signature(
        "lumina-next",
        "Lumina-Next",
        "image",
        (
            Naming(
                (
                    "patch_embedder.proj.weight",
                    "time_caption_embed.caption_embedder.1.weight",
                    "layers.0.attn1.to_q.weight",
                ),
                sizes={"width": ("patch_embedder.proj.weight", 0)},
                counts={"layers": "layers.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder Gemma 2B", "vae": "Stable Diffusion XL's autoencoder"},
    ),
    Signature(
        "flux3",
        "FLUX.3",
        "image",
        tuple(
            Naming(
                (f"early_stream_modulations.image.{lin}.weight", f"single_stream_modulations.image.{lin}.weight"),
                sizes={"width": (f"early_stream_modulations.image.{lin}.weight", 1)},
                variants=(
                    Variant("distilled", (Is("ref_time_in.in_layer.weight"),), "a second embedding of time: distilled"),
                    Variant("base"),
                ),
                label=label,
            )
            for lin, label in (("lin", "original"), ("linear", _DIFFUSERS))
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
    Signature(
        "ernie-image",
        "ERNIE-Image",
        "image",
        (
            Naming(
                ("layers.0.adaLN_sa_ln.weight", "text_proj.weight", "x_embedder.proj.weight", "final_linear.weight"),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "layers.{}.adaLN_sa_ln.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
    Signature(
        "joy-image",
        "JoyImage Edit",
        "image",
        (
            Naming(
                (
                    "double_blocks.0.img_mod.modulate_table",
                    "img_in.weight",
                    "condition_embedder.text_embedder.linear_1.weight",
                ),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={"layers": "double_blocks.{}.img_mod.modulate_table"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
    Signature(
        "nucleus-image",
        "Nucleus-Image",
        "image",
        (
            Naming(
                ("transformer_blocks.0.encoder_proj.weight", "txt_norm.weight", "img_in.weight", "proj_out.weight"),
                sizes={"width": ("img_in.weight", 0), "in_channels": ("img_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.encoder_proj.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
)

KNOWN = known(SIGNATURES)
