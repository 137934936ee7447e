"""The relatives of Stable Diffusion: UNets that take, predict or hear something else than the families that run.

Names are those of the published files, under LDM's names (https://github.com/CompVis/latent-diffusion and
https://github.com/Stability-AI/generative-models) and under diffusers'.
"""

from __future__ import annotations

from bottega.families._known._signature import PART, PREFIXES, Is, Naming, Signature, Variant, known

_LDM, _DIFFUSERS = "LDM's", "diffusers"
_PREFIXES = ("model.diffusion_model.", "", "diffusion_model.", "unet.")
_IN, _IN_DIFFUSERS = "input_blocks.0.0.weight", "conv_in.weight"
_HEARD = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_HEARD_XL = "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"  # whose first level has no attention
_HEARD_DIFFUSERS = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"
_MOTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"

_SIZES = {"width": (_IN, 0), "in_channels": (_IN, 1), "context": (_HEARD, 1)}
_SIZES_DIFFUSERS = {"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1), "context": (_HEARD_DIFFUSERS, 1)}
_SD_VAE, _SDXL_VAE = "Stable Diffusion's autoencoder", "Stable Diffusion XL's autoencoder"
_CLIP_H = "the text encoder CLIP-H"
_BOTH_IN_ONE = "a whole checkpoint and a ControlNet in one file"


def _by_context(variant: str, words: str, heard: str = _HEARD) -> tuple[Variant, ...]:
    """The same addition to either of two families, which the width of what the UNet hears tells apart."""
    return (
        Variant(variant, (Is(heard, 1, (768,)),), f"{words}; context 768: Stable Diffusion 1", family="sd1"),
        Variant(variant, (Is(heard, 1, (1024,)),), f"{words}; context 1024: Stable Diffusion 2", family="sd2"),
        Variant(variant, (), f"{words}; of no published context", guess=True, family="sd1"),
    )


SIGNATURES = (
    Signature(
        "svd",
        "Stable Video Diffusion",
        "video",
        (
            Naming(
                ("input_blocks.1.1.time_stack.0.attn1.to_q.weight", _IN),
                where=(Is(_IN, 1, (8,)),),
                sizes=_SIZES,
                variants=(
                    Variant("sv3d-u", (Is("label_emb.0.0.weight", 1, (256,)),), "added conditions of 256: SV3D u"),
                    Variant("sv3d-p", (Is("label_emb.0.0.weight", 1, (1280,)),), "added conditions of 1280: SV3D p"),
                    Variant("base", (), "8 input channels and attention over time (14 and 25 frames look alike)"),
                ),
                label=_LDM,
            ),
            Naming(
                ("down_blocks.0.resnets.0.spatial_res_block.conv1.weight", _IN_DIFFUSERS),
                where=(Is(_IN_DIFFUSERS, 1, (8,)),),
                sizes=_SIZES_DIFFUSERS,
                variants=(Variant("base", (), "8 input channels and residual blocks over time"),),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the image encoder CLIP-H", "vae": "its autoencoder, which knows time"},
    ),
    Signature(
        "zero123",
        "Zero123",
        "3d",
        (
            Naming(
                (_IN,),
                beside=("cc_projection.weight",),
                where=(Is(_IN, 1, (8,)),),
                sizes=_SIZES,
                variants=(Variant("base", (), "8 input channels and a projection of the camera"),),
                label=_LDM,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the image encoder CLIP-L", "vae": _SD_VAE},
    ),
    Signature(
        "altdiffusion",
        "AltDiffusion",
        "image",
        (
            Naming(
                (_IN,),
                beside=("cond_stage_model.roberta.embeddings.word_embeddings.weight",),
                sizes=_SIZES,
                variants=(Variant("base", (), "a UNet of Stable Diffusion that hears XLM-RoBERTa"),),
                label=_LDM,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"vae": _SD_VAE},
    ),
    Signature(
        "sd2-unclip",
        "Stable Diffusion 2 unCLIP",
        "image",
        (
            Naming(
                ("label_emb.0.0.weight", _IN, _HEARD),
                where=(Is("label_emb.0.0.weight", 1, (1536, 2048)), Is(_HEARD, 1, (1024,)), Is(_IN, 1, (4,))),
                sizes=_SIZES,
                variants=(
                    Variant("unclip-l", (Is("label_emb.0.0.weight", 1, (1536,)),), "added conditions of 1536: CLIP-L"),
                    Variant("unclip-h", (), "added conditions of 2048: CLIP-H"),
                ),
                label=_LDM,
            ),
            Naming(
                ("class_embedding.linear_1.weight", _IN_DIFFUSERS, _HEARD_DIFFUSERS),
                where=(
                    Is("class_embedding.linear_1.weight", 1, (1536, 2048)),
                    Is(_HEARD_DIFFUSERS, 1, (1024,)),
                    Is(_IN_DIFFUSERS, 1, (4,)),
                ),
                sizes=_SIZES_DIFFUSERS,
                variants=(
                    Variant(
                        "unclip-l",
                        (Is("class_embedding.linear_1.weight", 1, (1536,)),),
                        "added conditions of 1536: CLIP-L",
                    ),
                    Variant("unclip-h", (), "added conditions of 2048: CLIP-H"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        family="sd2",
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": f"{_CLIP_H} and an image encoder", "vae": _SD_VAE},
    ),
    Signature(
        "sd2-depth2img",
        "Stable Diffusion 2 depth",
        "image",
        tuple(
            Naming(
                (incoming, heard),
                where=(Is(incoming, 1, (5,)), Is(heard, 1, (1024,))),
                sizes=sizes,
                variants=(Variant("depth2img", (), "5 input channels: latents and the depth of a picture"),),
                label=label,
            )
            for incoming, heard, sizes, label in (
                (_IN, _HEARD, _SIZES, _LDM),
                (_IN_DIFFUSERS, _HEARD_DIFFUSERS, _SIZES_DIFFUSERS, _DIFFUSERS),
            )
        ),
        family="sd2",
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": _CLIP_H, "vae": _SD_VAE},
        words="it takes a depth estimator (MiDaS) to see depth",
    ),
    Signature(
        "sd-x4-upscaler",
        "Stable Diffusion x4 upscaler",
        "image",
        (
            Naming(
                ("label_emb.weight", _IN),
                where=(Is(_IN, 1, (7,)),),
                sizes=_SIZES,
                variants=(Variant("base", (), "7 input channels, latents and a small picture, and levels of noise"),),
                label=_LDM,
            ),
            Naming(
                ("class_embedding.weight", _IN_DIFFUSERS),
                where=(Is(_IN_DIFFUSERS, 1, (7,)),),
                sizes=_SIZES_DIFFUSERS,
                variants=(Variant("base", (), "7 input channels, latents and a small picture, and levels of noise"),),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": _CLIP_H, "vae": "its autoencoder"},
    ),
    Signature(
        "sd1-image-variations",
        "Stable Diffusion image variations",
        "image",
        (
            Naming(
                (_IN,),
                beside=("cond_stage_model.model.visual.conv1.weight",),
                not_beside=("cc_projection.weight",),  # Zero123 hears a picture through CLIP too
                sizes=_SIZES,
                variants=(Variant("image-variations", (), "a UNet that hears a picture through CLIP"),),
                label=_LDM,
            ),
        ),
        family="sd1",
        part="unet",
        prefixes=_PREFIXES,
        requires={"vae": _SD_VAE},
    ),
    Signature(
        "playground-2.5",
        "Playground 2.5",
        "image",
        (
            Naming(
                (_IN, "label_emb.0.0.weight"),
                beside=("edm_mean", "edm_std"),
                sizes=_SIZES,
                variants=(Variant("playground-2.5", (), "latents normalised by edm_mean and edm_std"),),
                label=_LDM,
            ),
        ),
        family="sdxl",
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the text encoders CLIP-L and CLIP-G", "vae": _SDXL_VAE},
    ),
    Signature(
        "cosxl",
        "CosXL",
        "image",
        (
            Naming(
                (_IN, "label_emb.0.0.weight"),
                beside=("edm_vpred.sigma_max",),
                sizes=_SIZES,
                variants=(
                    Variant("cosxl-edit", (Is(_IN, 1, (8,)),), "EDM's v-prediction and 8 input channels: it edits"),
                    Variant("cosxl", (), "EDM's v-prediction"),
                ),
                label=_LDM,
            ),
        ),
        family="sdxl",
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the text encoders CLIP-L and CLIP-G", "vae": _SDXL_VAE},
    ),
    Signature(
        "with-controlnet",
        "a checkpoint with its ControlNet",
        "image",
        (
            Naming(
                (_IN, "out.2.weight"),
                beside=("control_model.input_blocks.0.0.weight",),
                sizes=_SIZES,
                variants=(
                    Variant(
                        "with-controlnet",
                        (Is(_HEARD_XL, 1, (2048,)),),
                        f"{_BOTH_IN_ONE}; context 2048: Stable Diffusion XL",
                        family="sdxl",
                    ),
                    *_by_context("with-controlnet", _BOTH_IN_ONE),
                ),
                label=_LDM,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
    ),
    Signature(
        "animatediff",
        "AnimateDiff, merged",
        "video",
        (
            Naming(
                (f"{_MOTION}.attention_blocks.0.pos_encoder.pe", _IN),
                sizes=_SIZES,
                variants=_by_context("with-motion", "a whole checkpoint and a motion module in one file"),
                label=_LDM,
            ),
            Naming(
                (
                    "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight",
                    _IN_DIFFUSERS,
                    "conv_out.weight",
                ),
                sizes=_SIZES_DIFFUSERS,
                variants=_by_context("with-motion", "a UNet and its motion modules", _HEARD_DIFFUSERS),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the text encoder of its family", "vae": _SD_VAE},
    ),
    Signature(
        "kolors",
        "Kolors",
        "image",
        (
            Naming(
                ("encoder_hid_proj.weight", _IN_DIFFUSERS, "add_embedding.linear_1.weight"),
                where=(Is("add_embedding.linear_1.weight", 1, (5632,)),),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                variants=(
                    Variant("inpainting", (Is(_IN_DIFFUSERS, 1, (9,)),), "9 input channels: it inpaints"),
                    Variant("base", (), "a UNet like SD XL's that hears ChatGLM3"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the text encoder ChatGLM3 6B", "vae": _SDXL_VAE},
    ),
    Signature(
        "deepfloyd-if",
        "DeepFloyd IF",
        "image",
        (
            Naming(
                ("add_embedding.pool.positional_embedding", "encoder_hid_proj.weight", _IN_DIFFUSERS),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                variants=(
                    Variant("super-resolution", (Is(_IN_DIFFUSERS, 1, (6,)),), "6 input channels: it enlarges"),
                    Variant("base", (), "3 input channels: it paints pixels, no latents"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the text encoder T5-XXL"},
    ),
    Signature(
        "kandinsky2",
        "Kandinsky 2",
        "image",
        (
            Naming(
                ("add_embedding.image_norm.weight", "encoder_hid_proj.image_embeds.weight", _IN_DIFFUSERS),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                variants=(
                    Variant("2.2-inpainting", (Is(_IN_DIFFUSERS, 1, (9,)),), "9 input channels: it inpaints"),
                    Variant("2.2-controlnet", (Is(_IN_DIFFUSERS, 1, (8,)),), "8 input channels: it follows depth"),
                    Variant("2.2", (), "hears image embeddings alone: 2.2"),
                ),
                label=_DIFFUSERS,
            ),
            Naming(
                ("add_embedding.text_norm.weight", "encoder_hid_proj.image_embeds.weight", _IN_DIFFUSERS),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                variants=(
                    Variant("2.1-inpainting", (Is(_IN_DIFFUSERS, 1, (9,)),), "9 input channels: it inpaints"),
                    Variant("2.1", (), "hears image and text embeddings: 2.1"),
                ),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"prior": "Kandinsky's prior", "vae": "its autoencoder MoVQ"},
    ),
    Signature(
        "clip-prior",
        "a prior from text to image embeddings",
        "image",
        (
            Naming(
                ("prd_embedding", "clip_mean", "proj_to_clip_embeddings.weight"),
                sizes={
                    "width": ("proj_to_clip_embeddings.weight", 1),
                    "embedding": ("proj_to_clip_embeddings.weight", 0),
                },
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                variants=(
                    Variant("2.2", (Is("clip_mean", 1, (1280,)),), "embeddings of 1280: Kandinsky 2.2's"),
                    Variant(
                        "2.1", (Is("clip_mean", 1, (768,)),), "embeddings of 768: Kandinsky 2.1's or Karlo's", True
                    ),
                ),
                label=_DIFFUSERS,
            ),
        ),
        kind="prior",
        category=PART,
        family="kandinsky2",
        part="prior",
        prefixes=PREFIXES,
    ),
    Signature(
        "kandinsky3",
        "Kandinsky 3",
        "image",
        (
            Naming(
                (
                    "add_time_condition.attention.to_q.weight",
                    "encoder_hid_proj.projection_linear.weight",
                    _IN_DIFFUSERS,
                ),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "the text encoder FLAN-UL2", "vae": "its autoencoder MoVQ"},
    ),
    Signature(
        "wuerstchen",
        "Wuerstchen",
        "image",
        (
            Naming(
                (
                    "cond_mapper.0.weight",
                    "projection.weight",
                    "blocks.0.depthwise.weight",
                    "blocks.0.channelwise.0.weight",
                ),
                sizes={"width": ("projection.weight", 0), "in_channels": ("projection.weight", 1)},
                variants=(Variant("prior", (), "it makes the small latents that the decoder enlarges"),),
                label=_DIFFUSERS,
            ),
            Naming(
                ("effnet_mappers.1.weight", "clip_mapper.weight", "down_blocks.0.0.channelwise.0.weight"),
                variants=(Variant("decoder", (), "it makes latents from the prior's"),),
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        requires={"text_encoder": "the text encoder CLIP-G", "vae": "its VQ autoencoder"},
    ),
    Signature(
        "stable-cascade",
        "Stable Cascade",
        "image",
        (
            Naming(
                ("clip_txt_mapper.weight", "clf.1.weight", "down_blocks.0.0.channelwise.0.weight"),
                sizes={"width": ("clip_txt_mapper.weight", 0)},
                variants=(
                    Variant(
                        "stage-c-lite", (Is("clip_txt_mapper.weight", 0, (1536,)),), "text mapped to 1536: C, lite"
                    ),
                    Variant("stage-c", (), "it maps text: stage C, which makes the smallest latents"),
                ),
            ),
            *(
                Naming(
                    (mapper, "effnet_mapper.0.weight", "clf.1.weight", "down_blocks.1.0.channelwise.0.weight"),
                    absent=("clip_txt_mapper.weight",),
                    sizes={"width": ("down_blocks.0.0.channelwise.4.weight", 0)},
                    variants=(
                        Variant(
                            "stage-b-lite",
                            (Is("down_blocks.1.0.channelwise.0.weight", -1, (576,)),),
                            "width 576 at its second level: B, lite",
                        ),
                        Variant("stage-b", (), "it takes stage C's latents: stage B"),
                    ),
                    label=label,
                )
                for mapper, label in (("clip_mapper.weight", "original"), ("clip_txt_pooled_mapper.weight", _DIFFUSERS))
            ),
        ),
        part="unet",
        requires={
            "text_encoder": "the text encoder CLIP-G",
            "other": "the other stages: C makes latents, B enlarges them, A paints the picture",
        },
    ),
    Signature(
        "modelscope-t2v",
        "ModelScope text-to-video",
        "video",
        (
            Naming(
                ("transformer_in.proj_in.weight", _IN_DIFFUSERS, "down_blocks.0.temp_convs.0.conv1.0.weight"),
                absent=("image_latents_context_embedding.0.weight",),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": _CLIP_H, "vae": _SD_VAE},
    ),
    Signature(
        "i2vgen-xl",
        "I2VGen-XL",
        "video",
        (
            Naming(
                ("image_latents_context_embedding.0.weight", "transformer_in.proj_in.weight", _IN_DIFFUSERS),
                sizes={"width": (_IN_DIFFUSERS, 0), "in_channels": (_IN_DIFFUSERS, 1)},
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        prefixes=_PREFIXES,
        requires={"text_encoder": "CLIP-H for text and image", "vae": _SD_VAE},
    ),
    # Pipelines whose networks have the shapes of another family: only model_index.json tells them.
    *(
        Signature(id, title, medium, (), part="unet", family=family)
        for id, title, medium, family in (
            ("marigold", "Marigold", "image", "sd2"),
            ("gligen-pipeline", "GLIGEN", "image", "sd1"),
            ("ldm3d", "LDM3D", "image", "sd1"),
            ("sd-x2-latent-upscaler", "Stable Diffusion x2 latent upscaler", "image", None),
            ("paint-by-example", "Paint by Example", "image", "sd1"),
            ("karlo", "Karlo unCLIP", "image", None),
            ("unidiffuser", "UniDiffuser", "image", None),
            ("vq-diffusion", "VQ-Diffusion", "image", None),
        )
    ),
)

KNOWN = known(SIGNATURES)
