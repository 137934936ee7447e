"""Models that make shapes and scenes, under the names of their own repositories."""

from __future__ import annotations

from bottega.families._known._signature import BARE, Is, Naming, Signature, Variant, known

SIGNATURES = (
    Signature(
        "hunyuan3d",
        "Hunyuan3D 2",
        "3d",
        (
            Naming(
                ("latent_in.weight", "cond_in.weight", "double_blocks.0.img_attn.qkv.weight"),
                sizes={
                    "width": ("latent_in.weight", 0),
                    "channels": ("latent_in.weight", 1),
                    "context": ("cond_in.weight", 1),
                },
                counts={
                    "double_layers": "double_blocks.{}.img_attn.qkv.weight",
                    "single_layers": "single_blocks.{}.linear1.weight",
                },
                variants=(
                    Variant("turbo", (Is("guidance_in.in_layer.weight"),), "a guidance embedding: turbo"),
                    Variant("multiview", (Is("cond_in.weight", 1, (1024,)),), "hears 1024 features: mini or multiview"),
                    Variant("base"),
                ),
                label="its own",
            ),
            Naming(
                ("blocks.0.attn1.k_norm.weight", "t_embedder.mlp.2.weight", "x_embedder.weight"),
                sizes={"width": ("x_embedder.weight", 0), "channels": ("x_embedder.weight", 1)},
                counts={"layers": "blocks.{}.attn1.to_q.weight"},
                variants=(Variant("2.1", (), "normalised keys in its first attention: 2.1"),),
                label="its own",
            ),
        ),
        requires={"text_encoder": "the image encoder DINOv2", "vae": "Hunyuan3D's autoencoder of shapes"},
    ),
    Signature(
        "trellis",
        "TRELLIS",
        "3d",
        (
            Naming(
                (
                    "blocks.0.cross_attn.to_kv.weight",
                    "blocks.0.self_attn.to_qkv.weight",
                    "input_layer.weight",
                    "out_layer.weight",
                    "t_embedder.mlp.0.weight",
                ),
                sizes={"width": ("input_layer.weight", 0), "channels": ("input_layer.weight", 1)},
                counts={"layers": "blocks.{}.self_attn.to_qkv.weight"},
                label="its own",
            ),
        ),
        requires={"text_encoder": "the image encoder DINOv2 or CLIP-L", "vae": "TRELLIS's decoders"},
    ),
    Signature(
        "trellis2",
        "TRELLIS 2",
        "3d",
        (
            Naming(("img2shape.t_embedder.mlp.0.weight",), label="ComfyUI's"),
            Naming(("shape2txt.t_embedder.mlp.0.weight",), label="ComfyUI's"),
        ),
        requires={"text_encoder": "its image encoder", "vae": "TRELLIS 2's decoders"},
    ),
    Signature(
        "triposr",
        "TripoSR",
        "3d",
        (
            Naming(
                (
                    "image_tokenizer.model.embeddings.cls_token",
                    "tokenizer.embeddings",
                    "backbone.transformer_blocks.0.attn1.to_q.weight",
                    "decoder.layers.0.weight",
                ),
                counts={"layers": "backbone.transformer_blocks.{}.attn1.to_q.weight"},
                label="its own",
            ),
        ),
        kind="image_to_3d",
        prefixes=BARE,
    ),
    Signature("shap-e", "Shap-E", "3d", (), part="prior"),
)

KNOWN = known(SIGNATURES)
