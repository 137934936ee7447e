"""Transformers that make video: which file is of which, under its own names and under diffusers'.

Names are those of the published files; the sources are the models' repositories and diffusers' converters
(https://github.com/huggingface/diffusers/tree/main/scripts).
"""

from __future__ import annotations

from bottega.families._known._signature import Is, Naming, Signature, Variant, known

_DIFFUSERS = "diffusers"
_T5_XXL = "the text encoder T5-XXL"
_IN_WAN = "patch_embedding.weight"


def _wan_variants(image: str, face: str) -> tuple[Variant, ...]:
    """Wan by what comes in; 2.1 and both halves of 2.2 look alike wherever they take the same."""
    return (
        Variant("vace", (Is("vace_patch_embedding.weight"),), "blocks for video to follow: VACE"),
        Variant("animate", (Is(face),), "blocks for a face: Animate"),
        Variant("s2v", (Is("casual_audio_encoder.encoder.final_linear.weight"),), "an audio encoder: speech to video"),
        Variant("humo", (Is("audio_proj.audio_proj_glob_1.layer.weight"),), "hears what people say: HuMo"),
        Variant("camera", (Is("control_adapter.conv.weight"),), "a camera adapter: Fun Camera"),
        Variant("skyreels-v2", (Is("fps_embedding.weight"),), "embeds frames per second: SkyReels V2"),
        Variant("ti2v", (Is(_IN_WAN, 1, (48,)), Is(_IN_WAN, 0, (3072,))), "48 channels, width 3072: 2.2 TI2V"),
        Variant("i2v", (Is(image),), "an embedding of a picture: image to video"),
        Variant("i2v", (Is(_IN_WAN, 1, (36,)),), "36 channels, latents, mask and picture: 2.2 image to video"),
        Variant("control", (Is(_IN_WAN, 1, (48, 52)),), "latents and video to follow: Fun Control"),
        Variant("t2v", (Is(_IN_WAN, 1, (16,)),), "16 channels: text to video"),
        Variant("t2v", (), "of no published input: taken for text to video", guess=True),
    )


_HUNYUAN_VIDEO_VARIANTS = (
    Variant("1.5", (Is("cond_type_embedding.weight"),), "embeds the kind of its condition: 1.5"),
    Variant("i2v", (Is("img_in.proj.weight", 1, (32, 33)),), "latents and a picture: image to video"),
    Variant("t2v", (), "latents alone: text to video"),
)

SIGNATURES = (
    Signature(
        "wan",
        "Wan",
        "video",
        (
            Naming(
                ("head.modulation", _IN_WAN, "blocks.0.self_attn.q.weight", "text_embedding.0.weight"),
                sizes={"width": (_IN_WAN, 0), "in_channels": (_IN_WAN, 1)},
                counts={"layers": "blocks.{}.self_attn.q.weight"},
                variants=_wan_variants("img_emb.proj.1.weight", "face_adapter.fuser_blocks.0.k_norm.weight"),
            ),
            Naming(
                (
                    "condition_embedder.time_proj.weight",
                    _IN_WAN,
                    "blocks.0.attn1.to_q.weight",
                    "condition_embedder.text_embedder.linear_1.weight",
                    "scale_shift_table",
                ),
                absent=("patch_short.weight", "condition_embedder.delta_embedder.linear_1.weight"),
                sizes={"width": (_IN_WAN, 0), "in_channels": (_IN_WAN, 1)},
                counts={"layers": "blocks.{}.attn1.to_q.weight"},
                variants=_wan_variants(
                    "condition_embedder.image_embedder.ff.net.0.proj.weight", "face_adapter.0.to_q.weight"
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder UMT5-XXL", "vae": "Wan's autoencoder (2.2's for 48 channels)"},
        named={1536: "1.3B", 3072: "5B", 5120: "14B"},
        words="2.1 and 2.2 look alike where they take the same",
    ),
    Signature(
        "hunyuan-video",
        "HunyuanVideo",
        "video",
        (
            Naming(
                (
                    "txt_in.individual_token_refiner.blocks.0.norm1.weight",
                    "double_blocks.0.img_attn_qkv.weight",
                    "img_in.proj.weight",
                ),
                where=(Is("img_in.proj.weight", rank=5),),
                sizes={"width": ("img_in.proj.weight", 0), "in_channels": ("img_in.proj.weight", 1)},
                counts={
                    "double_layers": "double_blocks.{}.img_attn_qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=_HUNYUAN_VIDEO_VARIANTS,
            ),
            Naming(
                (
                    "txt_in.individual_token_refiner.blocks.0.norm1.weight",
                    "double_blocks.0.img_attn.qkv.weight",
                    "img_in.proj.weight",
                ),
                where=(Is("img_in.proj.weight", rank=5),),
                sizes={"width": ("img_in.proj.weight", 0), "in_channels": ("img_in.proj.weight", 1)},
                counts={
                    "double_layers": "double_blocks.{}.img_attn.qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=_HUNYUAN_VIDEO_VARIANTS,
                label="ComfyUI's",
            ),
            Naming(
                (
                    "context_embedder.time_text_embed.timestep_embedder.linear_1.weight",
                    "transformer_blocks.0.norm1_context.linear.weight",
                    "x_embedder.proj.weight",
                    "proj_out.weight",
                ),
                where=(Is("x_embedder.proj.weight", rank=5),),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={
                    "double_layers": "transformer_blocks.{}.norm1.linear.weight",
                    "single_layers": "single_transformer_blocks.{}.attn.to_q.weight",
                },
                variants=(
                    Variant("1.5", (Is("cond_type_embed.weight"),), "embeds the kind of its condition: 1.5"),
                    Variant("framepack", (Is("clean_x_embedder.proj.weight"),), "embeds past frames: FramePack"),
                    Variant(
                        "i2v", (Is("x_embedder.proj.weight", 1, (32, 33)),), "latents and a picture: image to video"
                    ),
                    Variant("t2v", (), "latents alone: text to video"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={
            "text_encoder": "the text encoders LLaVA-Llama 3 8B and CLIP-L (1.5: Qwen2.5-VL 7B and ByT5)",
            "vae": "HunyuanVideo's autoencoder",
        },
    ),
    Signature(
        "ltx",
        "LTX-Video",
        "video",
        (
            Naming(
                (
                    "patchify_proj.weight",
                    "adaln_single.emb.timestep_embedder.linear_1.weight",
                    "transformer_blocks.0.scale_shift_table",
                    "transformer_blocks.0.attn2.to_k.weight",
                ),
                sizes={"width": ("patchify_proj.weight", 0), "in_channels": ("patchify_proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.scale_shift_table"},
                variants=(
                    Variant("2", (Is("audio_adaln_single.linear.weight"),), "it makes sound too: LTX-2"),
                    Variant(
                        "0.9-13B", (Is("transformer_blocks.47.scale_shift_table"),), "48 layers: 0.9.7 or 0.9.8, 13B"
                    ),
                    Variant("0.9", (), "0.9 to 0.9.6, or 0.9.8 2B"),
                ),
            ),
            Naming(
                (
                    "time_embed.emb.timestep_embedder.linear_1.weight",
                    "proj_in.weight",
                    "transformer_blocks.0.attn1.norm_q.weight",
                    "transformer_blocks.0.scale_shift_table",
                    "caption_projection.linear_1.weight",
                ),
                absent=("caption_norm.weight",),
                sizes={"width": ("proj_in.weight", 0), "in_channels": ("proj_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.scale_shift_table"},
                variants=(
                    Variant("2", (Is("audio_proj_in.weight"),), "it makes sound too: LTX-2"),
                    Variant(
                        "0.9-13B", (Is("transformer_blocks.47.scale_shift_table"),), "48 layers: 0.9.7 or 0.9.8, 13B"
                    ),
                    Variant("0.9", (), "0.9 to 0.9.6, or 0.9.8 2B"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder T5-XXL (LTX-2: Gemma 3 12B)", "vae": "LTX-Video's autoencoder"},
    ),
    Signature(
        "mochi",
        "Mochi 1",
        "video",
        (
            Naming(
                ("t5_yproj.weight", "blocks.0.attn.qkv_x.weight", "x_embedder.proj.weight"),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"layers": "blocks.{}.attn.qkv_x.weight"},
            ),
            Naming(
                ("pos_frequencies", "time_embed.pooler.to_kv.weight", "patch_embed.proj.weight"),
                sizes={"width": ("patch_embed.proj.weight", 0), "in_channels": ("patch_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "Mochi's autoencoder"},
    ),
    Signature(
        "cogvideox",
        "CogVideoX",
        "video",
        (
            Naming(
                (
                    "mixins.patch_embed.proj.weight",
                    "transformer.layers.0.attention.query_key_value.weight",
                    "mixins.adaln_layer.adaLN_modulations.0.1.weight",
                ),
                sizes={
                    "width": ("mixins.patch_embed.proj.weight", 0),
                    "in_channels": ("mixins.patch_embed.proj.weight", 1),
                },
                counts={"layers": "transformer.layers.{}.attention.query_key_value.weight"},
                variants=(
                    Variant("1.5", (Is("mixins.patch_embed.proj.weight", rank=2),), "patches through time: 1.5"),
                    Variant("i2v", (Is("mixins.patch_embed.proj.weight", 1, (32,)),), "latents and a picture"),
                    Variant("t2v"),
                ),
            ),
            Naming(
                (
                    "patch_embed.text_proj.weight",
                    "time_embedding.linear_1.weight",
                    "transformer_blocks.0.norm1.linear.weight",
                    "norm_final.weight",
                ),
                sizes={"width": ("patch_embed.proj.weight", 0), "in_channels": ("patch_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.norm1.linear.weight"},
                variants=(
                    Variant("consisid", (Is("local_facial_extractor.latents"),), "an encoder of faces: ConsisID"),
                    Variant("1.5-i2v", (Is("ofs_embedding.linear_1.weight"),), "embeds an offset: 1.5 image to video"),
                    Variant("1.5", (Is("patch_embed.proj.weight", rank=2),), "patches through time: 1.5"),
                    Variant("i2v", (Is("patch_embed.proj.weight", 1, (32,)),), "latents and a picture: image to video"),
                    Variant("t2v", (), "latents alone: text to video"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "CogVideoX's autoencoder"},
        named={1920: "2B", 3072: "5B"},
    ),
    Signature(
        "cosmos",
        "Cosmos",
        "video",
        (
            Naming(
                ("blocks.block0.blocks.0.block.attn.to_q.0.weight", "x_embedder.proj.1.weight"),
                sizes={"width": ("x_embedder.proj.1.weight", 0)},
                counts={"layers": "blocks.block{}.blocks.0.block.attn.to_q.0.weight"},
                variants=(
                    Variant("1-video-to-world", (Is("x_embedder.proj.1.weight", 1, (72,)),), "17 latent channels"),
                    Variant("1-text-to-world", (), "16 latent channels"),
                ),
            ),
            Naming(
                ("blocks.0.self_attn.q_proj.weight", "x_embedder.proj.1.weight", "blocks.0.mlp.layer1.weight"),
                absent=("llm_adapter.blocks.0.cross_attn.q_proj.weight",),
                sizes={"width": ("x_embedder.proj.1.weight", 0)},
                counts={"layers": "blocks.{}.self_attn.q_proj.weight"},
                variants=(
                    Variant("2-video-to-world", (Is("x_embedder.proj.1.weight", 1, (72,)),), "17 latent channels"),
                    Variant("2-text-to-image", (), "16 latent channels"),
                ),
            ),
            Naming(
                (
                    "time_embed.t_embedder.linear_1.weight",
                    "transformer_blocks.0.norm1.linear_1.weight",
                    "patch_embed.proj.weight",
                ),
                absent=("controlnet_blocks.0.weight",),
                sizes={"width": ("patch_embed.proj.weight", 0)},
                counts={"layers": "transformer_blocks.{}.norm1.linear_1.weight"},
                variants=(
                    Variant(
                        "1-video-to-world",
                        (Is("learnable_pos_embed.pos_emb_t"), Is("patch_embed.proj.weight", 1, (72,))),
                        "learned positions and 17 latent channels",
                    ),
                    Variant("1-text-to-world", (Is("learnable_pos_embed.pos_emb_t"),), "learned positions"),
                    Variant("2-video-to-world", (Is("patch_embed.proj.weight", 1, (72,)),), "17 latent channels"),
                    Variant("2-text-to-image", (), "16 latent channels"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder T5-11B", "vae": "Cosmos's tokenizer (1) or Wan's autoencoder (2)"},
        named={2048: "2B", 4096: "7B", 5120: "14B"},
    ),
    Signature(
        "anima",
        "Anima",
        "image",
        (
            Naming(
                (
                    "llm_adapter.blocks.0.cross_attn.q_proj.weight",
                    "x_embedder.proj.1.weight",
                    "blocks.0.self_attn.q_proj.weight",
                ),
                sizes={"width": ("x_embedder.proj.1.weight", 0)},
                counts={"layers": "blocks.{}.self_attn.q_proj.weight"},
                variants=(Variant("base", (), "Cosmos Predict 2's design with an adapter to a language model"),),
            ),
        ),
        requires={"text_encoder": "the text encoder Qwen3 0.6B", "vae": "Qwen-Image's autoencoder"},
    ),
    Signature(
        "allegro",
        "Allegro",
        "video",
        (
            Naming(
                (
                    "adaln_single.emb.timestep_embedder.linear_1.weight",
                    "pos_embed.proj.weight",
                    "caption_projection.linear_1.weight",
                    "transformer_blocks.0.attn2.to_k.weight",
                ),
                absent=("temporal_transformer_blocks.0.attn1.to_q.weight",),
                where=(Is("proj_out.weight", 0, (16,)),),
                sizes={"width": ("pos_embed.proj.weight", 0), "in_channels": ("pos_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "Allegro's autoencoder"},
    ),
    Signature(
        "latte",
        "Latte",
        "video",
        (
            Naming(
                (
                    "temporal_transformer_blocks.0.attn1.to_q.weight",
                    "adaln_single.emb.timestep_embedder.linear_1.weight",
                    "pos_embed.proj.weight",
                ),
                sizes={"width": ("pos_embed.proj.weight", 0), "in_channels": ("pos_embed.proj.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": _T5_XXL, "vae": "Stable Diffusion's autoencoder"},
    ),
    Signature(
        "kandinsky5",
        "Kandinsky 5",
        "video",
        (
            Naming(
                (
                    "visual_transformer_blocks.0.visual_modulation.out_layer.weight",
                    "visual_embeddings.in_layer.weight",
                    "text_transformer_blocks.0.self_attention.to_query.weight",
                ),
                sizes={
                    "width": ("visual_embeddings.in_layer.weight", 0),
                    "inputs": ("visual_embeddings.in_layer.weight", 1),
                },
                counts={"layers": "visual_transformer_blocks.{}.visual_modulation.out_layer.weight"},
                variants=(
                    Variant("image-lite", (Is("visual_embeddings.in_layer.weight", 0, (2560,)),), "width 2560: images"),
                    Variant(
                        "video-lite", (Is("visual_embeddings.in_layer.weight", 0, (1792,)),), "width 1792: video, lite"
                    ),
                    Variant(
                        "video-pro", (Is("visual_embeddings.in_layer.weight", 0, (4096,)),), "width 4096: video, pro"
                    ),
                    Variant("video", (), "of no published width: taken for video", guess=True),
                ),
                label="its own",
            ),
        ),
        requires={"text_encoder": "the text encoders Qwen2.5-VL 7B and CLIP-L", "vae": "HunyuanVideo's autoencoder"},
    ),
    Signature(
        "helios",
        "Helios",
        "video",
        (
            Naming(
                ("patch_short.weight", "patch_long.weight", _IN_WAN, "condition_embedder.time_proj.weight"),
                sizes={"width": (_IN_WAN, 0), "in_channels": (_IN_WAN, 1)},
                counts={"layers": "blocks.{}.attn1.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder UMT5-XXL", "vae": "Wan's autoencoder"},
    ),
    Signature(
        "seedvr2",
        "SeedVR2",
        "video",
        (
            Naming(
                ("blocks.35.mlp.vid.proj_out.weight", "vid_in.proj.weight"),
                variants=(Variant("7B", (), "36 layers: 7B"),),
                label="its own",
            ),
            Naming(
                ("blocks.35.mlp.all.proj_in_gate.weight", "vid_in.proj.weight"),
                variants=(Variant("7B", (), "36 layers: 7B"),),
                label="its own",
            ),
            Naming(
                ("blocks.31.mlp.all.proj_in_gate.weight", "vid_in.proj.weight"),
                variants=(Variant("3B", (), "32 layers: 3B"),),
                label="its own",
            ),
        ),
        requires={"vae": "SeedVR2's autoencoder"},
        words="it restores and enlarges video and pictures",
    ),
    Signature(
        "minimax-h3",
        "MiniMax H3",
        "video",
        (
            Naming(
                ("video_patch_proj.weight", "audio_patch_proj.weight", "blocks.0.attn.qkv_proj.weight"),
                sizes={"width": ("video_patch_proj.weight", 0)},
                counts={"layers": "blocks.{}.attn.qkv_proj.weight"},
            ),
            Naming(
                ("token_refiner.refiner_blocks.0.norm1.weight", "audio_proj_in.weight", "proj_in.weight"),
                sizes={"width": ("proj_in.weight", 0)},
                counts={"layers": "transformer_blocks.{}.attn.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoders of video and sound"},
    ),
    Signature(
        "kandinsky6",
        "Kandinsky 6",
        "video",
        (
            Naming(
                (
                    "video_text_transformer_blocks.0.attn.to_query.weight",
                    "audio_embeddings.in_layer.weight",
                    "visual_embeddings.in_layer.weight",
                ),
                sizes={"width": ("visual_embeddings.in_layer.weight", 0)},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoders", "vae": "its autoencoders of video and sound"},
    ),
    Signature(
        "motif-video",
        "Motif-Video",
        "video",
        (
            Naming(
                (
                    "context_embedder.linear_1.weight",
                    "time_text_embed.timestep_embedder.linear_1.weight",
                    "transformer_blocks.0.norm1_context.linear.weight",
                    "x_embedder.proj.weight",
                ),
                where=(Is("x_embedder.proj.weight", rank=5),),
                sizes={"width": ("x_embedder.proj.weight", 0), "in_channels": ("x_embedder.proj.weight", 1)},
                counts={"double_layers": "transformer_blocks.{}.norm1.linear.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its autoencoder"},
    ),
)

KNOWN = known(SIGNATURES)
