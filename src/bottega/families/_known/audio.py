"""Models that make sound, speech and music, under the names of their own repositories and under diffusers'.

What lies in a transformers folder (Bark, MusicGen, VITS, Whisper, ...) is told by its config, in `language`.
"""

from __future__ import annotations

from bottega.families._known._signature import BARE, Is, Naming, Signature, Variant, known

_DIFFUSERS = "diffusers"
_TORN = ("", "_orig_mod.")  # torch.compile's wrapper, which Bark's own files keep

SIGNATURES = (
    Signature(
        "ace-step",
        "ACE-Step",
        "audio",
        (
            Naming(
                ("genre_embedder.weight", "lyric_embs.weight", "speaker_embedder.weight"),
                sizes={"width": ("genre_embedder.weight", 0)},
                counts={"layers": "transformer_blocks.{}.attn.to_q.weight"},
                variants=(Variant("1.0"),),
                label="its own",
            ),
            Naming(
                (
                    "encoder.lyric_encoder.layers.0.input_layernorm.weight",
                    "decoder.layers.0.self_attn.q_proj.weight",
                ),
                sizes={"width": ("decoder.layers.0.self_attn_norm.weight", 0)},
                counts={"layers": "decoder.layers.{}.self_attn.q_proj.weight"},
                variants=(Variant("1.5", (), "an encoder of lyrics in the same file: 1.5"),),
                label="its own",
            ),
            Naming(
                ("proj_in_conv.weight", "time_embed_r.time_proj.weight", "layers.0.self_attn.to_q.weight"),
                sizes={"width": ("norm_out.weight", 0)},
                counts={"layers": "layers.{}.self_attn.to_q.weight"},
                variants=(Variant("1.5", (), "two embeddings of time: 1.5"),),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text and lyrics encoders", "vae": "ACE-Step's audio autoencoder"},
    ),
    Signature(
        "stable-audio",
        "Stable Audio",
        "audio",
        (
            Naming(
                ("transformer.rotary_pos_emb.inv_freq", "to_timestep_embed.0.weight", "postprocess_conv.weight"),
                sizes={"width": ("to_timestep_embed.0.weight", 0), "channels": ("postprocess_conv.weight", 0)},
                counts={"layers": "transformer.layers.{}.self_attn.to_qkv.weight"},
                variants=(
                    Variant("3", (Is("transformer.memory_tokens"),), "memory tokens: 3"),
                    Variant("open", (), "Open 1.0 or Small"),
                ),
            ),
            Naming(
                ("timestep_proj.0.weight", "cross_attention_proj.0.weight", "global_proj.0.weight", "proj_in.weight"),
                sizes={"width": ("proj_in.weight", 0), "channels": ("proj_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.attn1.to_q.weight"},
                variants=(Variant("open"),),
                label=_DIFFUSERS,
            ),
            Naming(
                ("prompt_padding_embedding", "to_timestep_embed.0.weight", "memory_tokens", "proj_in.weight"),
                sizes={"width": ("proj_in.weight", 0), "channels": ("proj_in.weight", 1)},
                counts={"layers": "transformer_blocks.{}.self_attn.to_qkv.weight"},
                variants=(Variant("3"),),
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "the text encoder T5-base", "vae": "Stable Audio's autoencoder"},
    ),
    Signature(
        "audioldm",
        "AudioLDM",
        "audio",
        (
            Naming(
                ("class_embedding.weight", "conv_in.weight", "conv_out.weight"),
                where=(Is("class_embedding.weight", 1, (512,)), Is("conv_in.weight", 1, (8,))),
                sizes={"width": ("conv_in.weight", 0), "channels": ("conv_in.weight", 1)},
                label=_DIFFUSERS,
            ),
        ),
        part="unet",
        requires={"text_encoder": "the text encoder CLAP", "vae": "its autoencoder and vocoder"},
    ),
    Signature("audioldm2", "AudioLDM 2", "audio", (), part="unet"),
    Signature("dance-diffusion", "Dance Diffusion", "audio", (), part="unet"),
    Signature(
        "longcat-audio",
        "LongCat-AudioDiT",
        "audio",
        (
            Naming(
                ("adaln_global_mlp.mlp.1.weight", "latent_cond_embedder.proj.0.weight", "input_embed.proj.0.weight"),
                sizes={"width": ("input_embed.proj.0.weight", 0)},
                counts={"layers": "blocks.{}.self_attn.to_q.weight"},
                label=_DIFFUSERS,
            ),
        ),
        requires={"text_encoder": "its text encoder", "vae": "its audio autoencoder"},
    ),
    Signature(
        "musicgen",
        "MusicGen",
        "audio",
        (
            Naming(
                (
                    "condition_provider.conditioners.description.output_proj.weight",
                    "emb.0.weight",
                    "transformer.layers.0.self_attn.in_proj_weight",
                    "linears.0.weight",
                ),
                sizes={"width": ("emb.0.weight", 1)},
                counts={"layers": "transformer.layers.{}.self_attn.in_proj_weight", "codebooks": "emb.{}.weight"},
                variants=(
                    Variant("stereo", (Is("emb.7.weight"),), "8 codebooks: stereo"),
                    Variant("base", (), "MusicGen or AudioGen"),
                ),
                label="AudioCraft's",
            ),
        ),
        types=("musicgen", "musicgen_melody"),
        kind="text_to_music",
        prefixes=("", "best_state.", "best_state.model.", "lm."),
        requires={"text_encoder": "the text encoder T5-base", "vae": "the codec EnCodec"},
        named={1024: "small", 1536: "medium", 2048: "large"},
    ),
    Signature(
        "bark",
        "Bark",
        "audio",
        (
            Naming(
                ("transformer.wtes.0.weight", "transformer.h.0.attn.c_attn.weight", "lm_heads.0.weight"),
                sizes={"width": ("transformer.wtes.0.weight", 1)},
                counts={"layers": "transformer.h.{}.attn.c_attn.weight"},
                variants=(Variant("fine", (), "an embedding for each codebook: the fine stage"),),
                label="its own",
            ),
            Naming(
                (
                    "_orig_mod.transformer.wte.weight",
                    "_orig_mod.transformer.h.0.attn.c_attn.weight",
                    "_orig_mod.lm_head.weight",
                ),
                sizes={"width": ("_orig_mod.transformer.wte.weight", 1)},
                counts={"layers": "_orig_mod.transformer.h.{}.attn.c_attn.weight"},
                variants=(
                    Variant("text", (Is("_orig_mod.transformer.wte.weight", 0, (129600,)),), "129,600 words in: text"),
                    Variant(
                        "coarse", (Is("_orig_mod.transformer.wte.weight", 0, (12096,)),), "12,096 words in: coarse"
                    ),
                    Variant("base", (), "of no published vocabulary", guess=True),
                ),
                label="its own",
            ),
        ),
        types=("bark",),
        kind="text_to_speech",
        prefixes=_TORN,
        requires={"other": "Bark's other stages: text, coarse and fine, and the codec EnCodec"},
    ),
    Signature(
        "whisper",
        "Whisper",
        "audio",
        (
            Naming(
                (
                    "encoder.blocks.0.attn.query.weight",
                    "decoder.token_embedding.weight",
                    "decoder.blocks.0.cross_attn.query.weight",
                    "encoder.conv1.weight",
                ),
                sizes={"width": ("decoder.token_embedding.weight", 1), "mels": ("encoder.conv1.weight", 1)},
                counts={
                    "layers": "encoder.blocks.{}.attn.query.weight",
                    "decoder_layers": "decoder.blocks.{}.attn.query.weight",
                },
                label="OpenAI's",
            ),
            Naming(
                (
                    "model.encoder.layers.0.self_attn.q_proj.weight",
                    "model.encoder.conv1.weight",
                    "model.decoder.embed_tokens.weight",
                ),
                sizes={"width": ("model.decoder.embed_tokens.weight", 1), "mels": ("model.encoder.conv1.weight", 1)},
                counts={
                    "layers": "model.encoder.layers.{}.self_attn.q_proj.weight",
                    "decoder_layers": "model.decoder.layers.{}.self_attn.q_proj.weight",
                },
                label="transformers",
            ),
        ),
        types=("whisper",),
        kind="speech_recognition",
        prefixes=("", "model_state_dict."),
        named={384: "tiny", 512: "base", 768: "small", 1024: "medium", 1280: "large"},
    ),
    Signature(
        "rvc",
        "RVC",
        "audio",
        (
            Naming(
                ("enc_p.emb_phone.weight", "dec.conv_pre.weight", "flow.flows.0.pre.weight"),
                variants=(
                    Variant("2", (Is("enc_p.emb_phone.weight", 1, (768,)),), "hears 768 features: version 2"),
                    Variant("1", (Is("enc_p.emb_phone.weight", 1, (256,)),), "hears 256 features: version 1"),
                    Variant("base", (), "of no published width of features", guess=True),
                ),
                sizes={"features": ("enc_p.emb_phone.weight", 1), "speakers": ("emb_g.weight", 0)},
                label="its own",
            ),
        ),
        kind="voice_conversion",
        prefixes=("", "weight.", "model."),
        requires={"other": "a HuBERT or ContentVec model that hears the speech"},
    ),
    Signature(
        "f5-tts",
        "F5-TTS",
        "audio",
        (
            Naming(
                (
                    "transformer.text_embed.text_embed.weight",
                    "transformer.input_embed.proj.weight",
                    "transformer.transformer_blocks.0.attn.to_q.weight",
                ),
                sizes={"width": ("transformer.input_embed.proj.weight", 0)},
                counts={"layers": "transformer.transformer_blocks.{}.attn.to_q.weight"},
                label="its own",
            ),
        ),
        kind="text_to_speech",
        prefixes=("", "ema_model.", "ema_model_state_dict.ema_model."),
        requires={"other": "the vocoder Vocos"},
    ),
    Signature(
        "kokoro",
        "Kokoro",
        "audio",
        (
            Naming(
                ("bert_encoder.module.weight", "bert.module.embeddings.word_embeddings.weight"),
                sizes={"width": ("bert_encoder.module.weight", 0)},
                label="its own",
            ),
        ),
        kind="text_to_speech",
        prefixes=BARE,
        requires={"other": "one of its voices"},
    ),
)

KNOWN = known(SIGNATURES)
