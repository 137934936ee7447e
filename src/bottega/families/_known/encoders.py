"""What hears text and sees pictures for other models: CLIP, SigLIP, T5, BERT, in single files.

Names are transformers' and OpenCLIP's (https://github.com/mlfoundations/open_clip).
"""

from __future__ import annotations

from bottega.families._known._signature import PART, Is, Naming, Signature, Variant, known

_PREFIXES = ("", "model.", "transformer.", "text_encoder.")
# What models that hold such an encoder beside others put before it, which stays when it is taken out of them.
_ALONE = (
    "cond_stage_model.transformer.", "cond_stage_model.model.", "conditioner.embedders.0.transformer.",
    "conditioner.embedders.1.model.",
    *(f"{outer}{name}.{inner}" for outer in ("text_encoders.", "")
      for name in ("clip_l", "clip_g", "clip_h", "t5xxl", "umt5xxl") for inner in ("transformer.", "")),
)  # fmt: skip
_WIDTHS_OF_CLIP = {768: "L", 1024: "H", 1280: "G"}


def _clips(tokens: str) -> tuple[Variant, ...]:
    """CLIP's text encoders by their width."""
    return (
        Variant("L", (Is(tokens, 1, (768,)),), "width 768: CLIP-L, which Stable Diffusion 1, XL, 3 and FLUX hear"),
        Variant("H", (Is(tokens, 1, (1024,)),), "width 1024: CLIP-H, which Stable Diffusion 2 hears"),
        Variant("G", (Is(tokens, 1, (1280,)),), "width 1280: CLIP-G, which Stable Diffusion XL and 3 hear"),
        Variant("base", (), "CLIP at another width"),
    )


def _eyes(patches: str) -> tuple[Variant, ...]:
    """CLIP's image encoders by their width."""
    return (
        Variant("L", (Is(patches, 0, (1024,)),), "width 1024: ViT-L"),
        Variant("H", (Is(patches, 0, (1280,)),), "width 1280: ViT-H"),
        Variant("G", (Is(patches, 0, (1664,)),), "width 1664: ViT-bigG"),
        Variant("B", (Is(patches, 0, (768,)),), "width 768: ViT-B"),
        Variant("base", (), "at another width"),
    )


_TOKENS, _TOKENS_OPEN = "embeddings.token_embedding.weight", "token_embedding.weight"
_PATCHES_WAN = "visual.patch_embedding.weight"
_PATCHES, _CLASS = "vision_model.embeddings.patch_embedding.weight", "vision_model.embeddings.class_embedding"

SIGNATURES = (
    Signature(
        "clip-text",
        "CLIP's text encoder",
        "text",
        (
            *(
                Naming(
                    (
                        f"{inner}{_TOKENS}",
                        f"{inner}encoder.layers.0.self_attn.q_proj.weight",
                        f"{inner}final_layer_norm.weight",
                    ),
                    absent=(_CLASS, "vision_model.embeddings.patch_embedding.bias"),
                    sizes={
                        "width": (f"{inner}{_TOKENS}", 1),
                        "vocabulary": (f"{inner}{_TOKENS}", 0),
                        "positions": (f"{inner}embeddings.position_embedding.weight", 0),
                        "projection": ("text_projection.weight", 0),
                    },
                    counts={"layers": f"{inner}encoder.layers.{{}}.self_attn.q_proj.weight"},
                    variants=_clips(f"{inner}{_TOKENS}"),
                    label="transformers",
                )
                for inner in ("text_model.", "")
            ),
            Naming(
                (
                    _TOKENS_OPEN,
                    "transformer.resblocks.0.attn.in_proj_weight",
                    "positional_embedding",
                    "ln_final.weight",
                ),
                absent=("visual.conv1.weight", "visual.class_embedding"),
                sizes={
                    "width": (_TOKENS_OPEN, 1),
                    "vocabulary": (_TOKENS_OPEN, 0),
                    "positions": ("positional_embedding", 0),
                    "projection": ("text_projection", 1),
                },
                counts={"layers": "transformer.resblocks.{}.attn.in_proj_weight"},
                variants=_clips(_TOKENS_OPEN),
                label="OpenCLIP's",
            ),
        ),
        types=("clip_text_model",),
        kind="text_encoder",
        category=PART,
        family="clip",
        part="text_encoder",
        prefixes=_PREFIXES,
        alone=_ALONE,
    ),
    Signature(
        "clip-vision",
        "CLIP's image encoder",
        "image",
        (
            Naming(
                (_CLASS, _PATCHES, "vision_model.encoder.layers.0.self_attn.q_proj.weight"),
                absent=(
                    f"text_model.{_TOKENS}",
                    "qformer.encoder.layer.0.attention.attention.query.weight",
                    "visual_projection_2.weight",  # PhotoMaker's encoder of faces is CLIP's and more
                ),
                sizes={"width": (_PATCHES, 0), "patch": (_PATCHES, 2), "projection": ("visual_projection.weight", 0)},
                counts={"layers": "vision_model.encoder.layers.{}.self_attn.q_proj.weight"},
                variants=_eyes(_PATCHES),
                label="transformers",
            ),
            Naming(
                ("visual.class_embedding", "visual.conv1.weight", "visual.transformer.resblocks.0.attn.in_proj_weight"),
                absent=(_TOKENS_OPEN,),
                sizes={"width": ("visual.conv1.weight", 0), "patch": ("visual.conv1.weight", 2)},
                counts={"layers": "visual.transformer.resblocks.{}.attn.in_proj_weight"},
                variants=_eyes("visual.conv1.weight"),
                label="OpenCLIP's",
            ),
        ),
        types=("clip_vision_model",),
        kind="clip_vision",
        category=PART,
        family="clip",
        part="image_encoder",
        prefixes=("", "model."),
    ),
    Signature(
        "clip",
        "CLIP",
        "image",
        (
            Naming(
                (f"text_model.{_TOKENS}", _CLASS, "text_projection.weight", "visual_projection.weight"),
                sizes={"width": (f"text_model.{_TOKENS}", 1), "patch": (_PATCHES, 2), "vision_width": (_PATCHES, 0)},
                counts={
                    "layers": "text_model.encoder.layers.{}.self_attn.q_proj.weight",
                    "vision_layers": "vision_model.encoder.layers.{}.self_attn.q_proj.weight",
                },
                variants=_eyes(_PATCHES),
                label="transformers",
            ),
            Naming(
                (_TOKENS_OPEN, "visual.conv1.weight", "transformer.resblocks.0.attn.in_proj_weight", "ln_final.weight"),
                sizes={"width": (_TOKENS_OPEN, 1), "vision_width": ("visual.conv1.weight", 0)},
                counts={
                    "layers": "transformer.resblocks.{}.attn.in_proj_weight",
                    "vision_layers": "visual.transformer.resblocks.{}.attn.in_proj_weight",
                },
                variants=_eyes("visual.conv1.weight"),
                label="OpenCLIP's",
            ),
            Naming(
                ("visual.cls_embedding", "visual.patch_embedding.weight", "textual.token_embedding.weight"),
                sizes={"width": ("textual.token_embedding.weight", 1), "vision_width": (_PATCHES_WAN, 0)},
                counts={"vision_layers": "visual.transformer.{}.attn.to_qkv.weight"},
                variants=_eyes(_PATCHES_WAN),
                label="Wan's",
            ),
        ),
        types=("clip", "chinese_clip", "altclip", "metaclip_2"),
        kind="clip",
        part="clip",
        prefixes=("", "model.", "transformer."),
    ),
    Signature(
        "siglip",
        "SigLIP",
        "image",
        (
            Naming(
                (
                    "vision_model.head.probe",
                    _PATCHES,
                    "vision_model.encoder.layers.0.self_attn.q_proj.weight",
                ),
                sizes={"width": (_PATCHES, 0), "patch": (_PATCHES, 2)},
                counts={"layers": "vision_model.encoder.layers.{}.self_attn.q_proj.weight"},
                variants=(
                    Variant("whole", (Is(f"text_model.{_TOKENS}"),), "it hears text too"),
                    Variant("vision", (), "its image encoder alone"),
                ),
                label="transformers",
            ),
        ),
        types=("siglip", "siglip2", "siglip_vision_model"),
        kind="clip_vision",
        category=PART,
        part="image_encoder",
        prefixes=("", "model."),
    ),
    Signature(
        "t5",
        "T5",
        "text",
        (
            Naming(
                ("encoder.block.0.layer.0.SelfAttention.q.weight", "encoder.final_layer_norm.weight"),
                absent=("decoder.block.0.layer.0.SelfAttention.q.weight",),
                sizes={
                    "width": ("encoder.final_layer_norm.weight", 0),
                    "vocabulary": ("shared.weight", 0),
                },
                counts={"layers": "encoder.block.{}.layer.0.SelfAttention.q.weight"},
                variants=(
                    Variant(
                        "umt5",
                        (Is("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"),),
                        "relative positions in every block: UMT5",
                    ),
                    Variant("byt5", (Is("shared.weight", 0, (384, 1510)),), "a vocabulary of bytes: ByT5"),
                    Variant("mt5", (Is("shared.weight", 0, (250112,)),), "250,112 words: mT5"),
                    Variant(
                        "v1.1",
                        (Is("encoder.block.0.layer.1.DenseReluDense.wi_1.weight"),),
                        "gated layers: v1.1 or FLAN",
                    ),
                    Variant("v1.0", (Is("encoder.block.0.layer.1.DenseReluDense.wi.weight"),), "ungated layers: v1.0"),
                    Variant("base"),
                ),
                label="transformers",
            ),
            Naming(
                ("enc.blk.0.attn_q.weight", "enc.output_norm.weight", "token_embd.weight"),
                absent=("dec.blk.0.attn_q.weight",),
                sizes={"width": ("enc.output_norm.weight", 0), "vocabulary": ("token_embd.weight", 0)},
                counts={"layers": "enc.blk.{}.attn_q.weight"},
                variants=(
                    Variant("umt5", (Is("enc.blk.1.attn_rel_b.weight"),), "relative positions in every block: UMT5"),
                    Variant("v1.1", (Is("enc.blk.0.ffn_gate.weight"),), "gated layers: v1.1 or FLAN"),
                    Variant("base"),
                ),
                label="llama.cpp's",
            ),
            Naming(
                (
                    "blocks.0.pos_embedding.embedding.weight",
                    "token_embedding.weight",
                    "blocks.0.attn.q.weight",
                    "blocks.0.ffn.gate.0.weight",
                ),
                sizes={"width": ("token_embedding.weight", 1), "vocabulary": ("token_embedding.weight", 0)},
                counts={"layers": "blocks.{}.attn.q.weight"},
                variants=(Variant("umt5", (), "relative positions in every block: UMT5"),),
                label="Wan's",
            ),
        ),
        types=("t5", "mt5", "umt5", "byt5"),
        kind="text_encoder",
        category=PART,
        part="text_encoder",
        prefixes=_PREFIXES,
        alone=_ALONE,
        named={512: "small", 768: "base", 1024: "large", 2048: "XL", 4096: "XXL"},
    ),
    Signature(
        "t5-whole",
        "T5 with its decoder",
        "text",
        (
            Naming(
                ("decoder.block.0.layer.0.SelfAttention.q.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"),
                sizes={"width": ("encoder.final_layer_norm.weight", 0), "vocabulary": ("shared.weight", 0)},
                counts={"layers": "encoder.block.{}.layer.0.SelfAttention.q.weight"},
                label="transformers",
            ),
            Naming(
                ("dec.blk.0.attn_q.weight", "enc.blk.0.attn_q.weight", "token_embd.weight"),
                sizes={"width": ("enc.output_norm.weight", 0), "vocabulary": ("token_embd.weight", 0)},
                counts={"layers": "enc.blk.{}.attn_q.weight"},
                label="llama.cpp's",
            ),
        ),
        kind="language_model",
        family="t5",
        part="model",
        prefixes=("", "model."),
        named={512: "small", 768: "base", 1024: "large", 2048: "XL", 4096: "XXL"},
        words="it answers text with text, and its encoder serves other models",
    ),
    Signature(
        "bert",
        "BERT",
        "text",
        (
            Naming(
                ("embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight"),
                absent=("visual_encoder.blocks.0.attn.qkv.weight", "encoder.layer.0.crossattention.self.query.weight"),
                sizes={
                    "width": ("embeddings.word_embeddings.weight", 1),
                    "vocabulary": ("embeddings.word_embeddings.weight", 0),
                    "positions": ("embeddings.position_embeddings.weight", 0),
                },
                counts={"layers": "encoder.layer.{}.attention.self.query.weight"},
                label="transformers",
            ),
        ),
        types=(
            "bert",
            "roberta",
            "xlm-roberta",
            "distilbert",
            "albert",
            "electra",
            "deberta",
            "deberta-v2",
            "mpnet",
            "modernbert",
            "nomic_bert",
            "camembert",
            "eurobert",
        ),
        gguf=(
            "bert",
            "modern-bert",
            "nomic-bert",
            "nomic-bert-moe",
            "neo-bert",
            "jina-bert-v2",
            "jina-bert-v3",
            "eurobert",
        ),
        kind="text_encoder",
        category=PART,
        part="text_encoder",
        prefixes=("", "bert.", "roberta.", "model.", "0.auto_model."),
        named={384: "small", 768: "base", 1024: "large"},
        words="BERT, or one of the many with its names (RoBERTa, XLM-RoBERTa, sentence encoders)",
    ),
    Signature(
        "clap",
        "CLAP",
        "audio",
        (
            Naming(
                (
                    "audio_branch.spectrogram_extractor.stft.conv_real.weight",
                    "audio_branch.patch_embed.proj.weight",
                    "text_projection.0.weight",
                ),
                label="LAION's",
            ),
        ),
        types=("clap",),
        kind="clap",
        category=PART,
        part="text_encoder",
        prefixes=("", "model.", "module."),
    ),
    Signature(
        "dinov2",
        "DINOv2",
        "image",
        (
            Naming(
                (
                    "embeddings.patch_embeddings.projection.weight",
                    "encoder.layer.0.layer_scale1.lambda1",
                    "embeddings.cls_token",
                ),
                sizes={"width": ("embeddings.patch_embeddings.projection.weight", 0)},
                counts={"layers": "encoder.layer.{}.layer_scale1.lambda1"},
                label="transformers",
            ),
            Naming(
                ("blocks.0.ls1.gamma", "patch_embed.proj.weight", "mask_token", "blocks.0.attn.qkv.weight"),
                sizes={"width": ("patch_embed.proj.weight", 0)},
                counts={"layers": "blocks.{}.ls1.gamma"},
                label="Meta's",
            ),
        ),
        types=("dinov2", "dinov2_with_registers", "dinov3_vit", "vit_mae"),
        kind="image_encoder",
        category=PART,
        part="image_encoder",
        prefixes=("", "dinov2.", "model."),
        named={384: "S", 768: "B", 1024: "L", 1536: "g"},
    ),
)

KNOWN = known(SIGNATURES)
